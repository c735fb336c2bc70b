"""Measure what a corpus of another size would take, and write it into docs/explanation/scaling.md.

    python benchmarks/scaling.py videos VIDEOS --count 200       (where there are none yet)
    python benchmarks/scaling.py measure VIDEOS      (a few hundred videos of the kind meant)
    python benchmarks/scaling.py write --price-per-hour 2.5

``videos`` makes stand-ins of the length and size of VGG-Sound's, H.264 and AAC. ``measure``
prepares the videos, embeds their pictures and trains on them, streamed, for a while, and stores the
rates in benchmarks/results/scaling.json; ``write`` does the sums.
"""

import argparse
import datetime
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "scaling.json"
NOTE = ROOT / "docs" / "explanation" / "scaling.md"
VIDEOS, CLIPS_A_VIDEO, EPOCHS = 200_000, 2, 50
"""VGG-Sound: 10 s a video is two whole clips of 4.09 s; how many epochs is an assumption."""

SECONDS, WIDTH, HEIGHT, FRAME_RATE, SAMPLE_RATE = 10, 640, 360, 25, 44_100
"""Of a stand-in."""


def make_videos(folder: Path, count: int) -> None:
    """Write stand-ins for a web video: grainy moving pictures and stereo sound."""
    from fractions import Fraction

    import av

    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        picture = (
            f"gradients=size={WIDTH}x{HEIGHT}:rate={FRAME_RATE}:duration={SECONDS}:seed={seed}"
            ":speed=0.05,noise=alls=8:allf=t,format=yuv420p"
        )
        sound = (
            f"anoisesrc=color=pink:sample_rate={SAMPLE_RATE}:duration={SECONDS}:seed={seed},"
            "aformat=sample_fmts=fltp:channel_layouts=stereo"
        )
        with av.open(str(folder / f"{seed:05d}.mp4"), "w") as container:
            options = {"preset": "veryfast"}
            video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
            # what video sites send at this size
            video.bit_rate = 700_000
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
            audio.time_base = Fraction(1, SAMPLE_RATE)
            for stream, graph in ((video, picture), (audio, sound)):
                for frame in _frames(graph, stream.type):
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))


def _frames(description: str, kind: str) -> Iterator[Any]:
    """Yield what a chain of libavfilter's own sources and filters makes."""
    import av
    from av.filter import Graph

    graph = Graph()
    chain = [part.partition("=") for part in description.split(",")]
    nodes = [graph.add(name, settings or None) for name, _, settings in chain]
    nodes.append(graph.add("buffersink" if kind == "video" else "abuffersink"))
    graph.link_nodes(*nodes).configure()
    while True:
        try:
            yield graph.pull()
        except av.EOFError:
            return


def measure(
    videos: Path, clip_name: str | None, configs: Sequence[str], device: str, seconds: float
) -> dict[str, Any]:
    """Return rates measured on ``videos`` on this machine."""
    from clipsynth_rt.machine import describe_machine
    from clipsynth_training.checkpoint import default_checkpoint
    from clipsynth_training.clip.encoder import load_clip
    from clipsynth_training.clip.frame_embeddings import embed_frames
    from clipsynth_training.data.clips import CutSpec
    from clipsynth_training.data.shards import ShardSet
    from clipsynth_training.data.videos import prepare

    clip = load_clip(clip_name or str(default_checkpoint()))
    with tempfile.TemporaryDirectory() as folder:
        shards, began = Path(folder) / "shards", time.monotonic()
        report = prepare(videos, shards, CutSpec(image_size=clip.image_size))
        prepared_s = time.monotonic() - began
        opened, began = ShardSet.open(shards), time.monotonic()
        embed_frames(opened, clip)
        embedded_s = time.monotonic() - began
        stored = sum(path.stat().st_size for path in opened.files)
        training = {
            name: _train(
                shards, clip, name, device, seconds, Path(folder) / f"run-{Path(name).stem}"
            )
            for name in configs
        }
        pictures = len(opened) * opened.sizes["frames"][0]
        return {
            "measured": datetime.date.today().isoformat(),
            "machine": describe_machine(),
            "device": device,
            "encoder": clip.name,
            "videos": report["videos"],
            "clips": len(opened),
            "prepare_videos_per_second": report["videos"] / prepared_s,
            "embed_pictures_per_second": pictures / embedded_s,
            "pictures_a_clip": opened.sizes["frames"][0],
            "bytes_a_clip": stored / len(opened),
            "training": training,
        }


def _train(
    shards: Path, clip: Any, name: str, device: str, seconds: float, out: Path
) -> dict[str, float]:
    """Return the rate of training from disk, after a first row that warms up."""
    import dataclasses

    from clipsynth_training.denoiser.conditions import load_conditioned
    from clipsynth_training.denoiser.config import load_config
    from clipsynth_training.denoiser.train import DenoiserTrainer
    from clipsynth_training.run.log import read_metrics
    from clipsynth_training.run.trainer import RunLimits

    config = load_config(name)
    config = dataclasses.replace(
        config,
        unet=dataclasses.replace(config.unet, condition_dim=clip.dim),
        optimiser=dataclasses.replace(config.optimiser, variant="image"),
    )
    data = load_conditioned(shards, clip, config.mel, stream=True)
    trainer = DenoiserTrainer(config, data, out, device=device)
    often = RunLimits(max_minutes=seconds / 60, log_every=5, evaluate_every=10**9, save_every=10**9)
    trainer.run(often)
    rows = read_metrics(out)
    if len(rows) < 2:
        raise SystemExit(f"{name}: took {trainer.step} steps in {seconds:g} s; give more --seconds")
    clips = (rows[-1]["step"] - rows[0]["step"]) * trainer.batches.size
    waits = [row["wait_share"] for row in rows[1:]]
    return {
        "clips_per_second": clips / (rows[-1]["seconds"] - rows[0]["seconds"]),
        "wait_share": sum(waits) / len(waits),
    }


def table(found: dict[str, Any] | None, price_per_hour: float | None) -> str:
    """Return hours and cost as Markdown, or how to measure where nobody has."""
    if found is None:
        return "Not yet measured: `python benchmarks/scaling.py measure VIDEOS`.\n"
    clips = VIDEOS * CLIPS_A_VIDEO
    seconds = {
        "decode, cut and analyse": VIDEOS / found["prepare_videos_per_second"],
        f"embed {found['pictures_a_clip']} pictures a clip (`{found['encoder']}`)": clips
        * found["pictures_a_clip"]
        / found["embed_pictures_per_second"],
    }
    for name, rate in found["training"].items():
        share = f"waits {100 * rate['wait_share']:.1f}% of the time"
        seconds[f"train `{name}`, {EPOCHS} epochs ({share})"] = (
            EPOCHS * clips / rate["clips_per_second"]
        )
    priced = price_per_hour is not None
    lines = [
        f"Measured {found['measured']} on {found['machine']}, training on `{found['device']}`, "
        f"from {found['videos']} videos; {VIDEOS:,} of them are {clips:,} clips and "
        f"{clips * found['bytes_a_clip'] / 1e9:.0f} GB of shards."
        + (f" At an assumed {price_per_hour:g} an hour." if priced else ""),
        "",
        f"| step | hours |{' cost |' if priced else ''}",
        f"| --- | ---: |{' ---: |' if priced else ''}",
    ]
    for step, taken in seconds.items():
        hours = taken / 3600
        cost = f" {hours * price_per_hour:,.0f} |" if price_per_hour is not None else ""
        lines.append(f"| {step} | {hours:,.1f} |{cost}")
    return "\n".join(lines) + "\n"


def fill(text: str, made: str) -> str:
    """Return the note with its block made anew."""
    pattern = r"(<!-- begin scaling -->\n).*?(<!-- end scaling -->)"
    text, count = re.subn(pattern, lambda m: m[1] + made + m[2], text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{NOTE}: expected one block scaling, found {count}")
    return text


def main() -> None:
    """Measure or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("videos")
    making.add_argument("videos", type=Path)
    making.add_argument("--count", type=int, default=200)
    measuring = commands.add_parser("measure")
    measuring.add_argument("videos", type=Path)
    measuring.add_argument("--clip", help="checkpoint folder or open_clip model")
    measuring.add_argument("--config", nargs="+", default=["edge", "paper"])
    measuring.add_argument("--device", default="cpu")
    measuring.add_argument("--seconds", type=float, default=120.0, help="of training, each")
    writing = commands.add_parser("write")
    writing.add_argument("--price-per-hour", type=float, help="of the machine: an assumption")
    arguments = parser.parse_args()
    if arguments.command == "videos":
        make_videos(arguments.videos, arguments.count)
    elif arguments.command == "measure":
        found = measure(
            arguments.videos,
            arguments.clip,
            arguments.config,
            arguments.device,
            arguments.seconds,
        )
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    else:
        found = json.loads(RESULT.read_text()) if RESULT.is_file() else None
        NOTE.write_text(fill(NOTE.read_text(), table(found, arguments.price_per_hour)))


if __name__ == "__main__":
    main()
