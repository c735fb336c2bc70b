"""What a fleet takes, from the measured cost of a clip: arithmetic, not a measurement.

python examples/ray_batch.py queries.txt sounds/ --compare --report throughput.json
python examples/fleet.py throughput.json --devices 1000 --clips 10000000 --price 0.04
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any


def plan(
    report: dict[str, Any], devices: int, clips: int, hours: float, busy: float, price: float
) -> dict[str, float]:
    """Return what ``devices`` machines like the measured one do.

    Args:
        report: What ``ray_batch.py --report`` wrote.
        devices: Machines.
        clips: Of the whole list.
        hours: Within which the list should be done.
        busy: Share of the time that a machine makes sounds; the rest is for starts and failures.
        price: Of a machine, an hour.
    """
    measured = report["on_ray"]
    # a measured machine's cores at work; its own wall clock holds the start of the pool
    cores = report["workers"] * report["threads_per_worker"]
    clips_per_s = busy * cores / measured["cpu_s_per_clip"]
    machine_hours = clips / clips_per_s / 3600.0
    return {
        "cpu_s_per_clip": measured["cpu_s_per_clip"],
        "clips_per_s_and_device": clips_per_s,
        "clips_per_s": devices * clips_per_s,
        "hours": machine_hours / devices,
        "devices_for_the_deadline": math.ceil(machine_hours / hours),
        "price": machine_hours * price,
        "output_mb_per_s": devices
        * clips_per_s
        * measured["audio_s"]
        / measured["clips"]
        * 22050
        * 2
        / 1e6,
    }


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="from ray_batch.py --report")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=10_000_000)
    parser.add_argument("--hours", type=float, default=24.0, help="the deadline")
    parser.add_argument("--busy", type=float, default=0.7)
    parser.add_argument("--price", type=float, default=0.0, help="of a machine, an hour")
    args = parser.parse_args()
    report = json.loads(args.report.read_text())
    result = plan(report, args.devices, args.clips, args.hours, args.busy, args.price)
    print(json.dumps({"machine": report["machine"], **result}, indent=1))


if __name__ == "__main__":
    main()
