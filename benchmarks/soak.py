"""An hour of sound in a row with flat memory: ``python benchmarks/soak.py -o soak.json``.

Makes clips of several lengths, step counts and queries one after another until they add up to
--audio-seconds, and follows resident memory, threads and open files. Fails where, after the first
quarter (in which caches fill), memory grows by more than --most-growth-mb.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

from clipsynth_rt import Synthesizer, __version__
from clipsynth_rt.machine import processor_name

QUERIES = ("drum", "piano", "dog barking", "rain", "siren", "violin", "flute")
STEPS = (2, 8, 4)


def resident_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def sample(audio_s: float) -> dict[str, float]:
    return {
        "audio_s": audio_s,
        "rss_mb": resident_mb(),
        "threads": len(os.listdir("/proc/self/task")),
        "python_threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
    }


def soak(synthesizer: Synthesizer, audio_seconds: float, samples: int = 100) -> list[dict]:
    """Make the sounds, and return what was seen on the way."""
    spec = synthesizer.bundle.manifest
    longest = spec.mel.seconds(spec.diffusion.default_frames)
    lengths = (longest, longest / 2, longest / 4)
    seen, done, number = [], 0.0, 0
    while done < audio_seconds:
        clip = synthesizer.synth(
            QUERIES[number % len(QUERIES)],
            seed=number,
            num_steps=STEPS[number % len(STEPS)],
            duration=lengths[number // 2 % len(lengths)],
        )
        clip.encode("flac" if number % 2 else "wav")
        done += clip.audio_s
        number += 1
        if done >= len(seen) * audio_seconds / samples:
            seen.append(sample(done))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audio-seconds", type=float, default=3600.0)
    parser.add_argument("--most-growth-mb", type=float, default=16.0)
    parser.add_argument("--bundle", help="the shipped one if left out")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("-o", "--out", type=Path, help="JSON file")
    args = parser.parse_args()
    began = time.perf_counter()
    with Synthesizer.from_bundle(args.bundle, args.provider) as synthesizer:
        seen = soak(synthesizer, args.audio_seconds)
    settled = seen[len(seen) // 4 :]
    report = {
        "clipsynth_rt": __version__,
        "machine": processor_name(),
        "provider": args.provider,
        "audio_s": seen[-1]["audio_s"],
        "wall_s": time.perf_counter() - began,
        "growth_mb": max(s["rss_mb"] for s in settled) - settled[0]["rss_mb"],
        "more_threads": settled[-1]["threads"] - settled[0]["threads"],
        "more_files": settled[-1]["files"] - settled[0]["files"],
        "samples": seen,
    }
    text = json.dumps(report, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "samples"}, indent=1))
    if report["growth_mb"] > args.most_growth_mb or report["more_threads"] or report["more_files"]:
        sys.exit("memory, threads or files grew")


if __name__ == "__main__":
    main()
