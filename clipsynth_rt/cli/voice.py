"""The options of commands that open a voice."""

from __future__ import annotations

import click

from clipsynth_rt.cli.completion import values

FILE = click.Path(readable=False)  # for completion alone: what is wrong is said later
BUNDLE_HELP = "Folder, .zip, .tar.gz or hf://owner/name; the shipped one if left out."
PROVIDER_HELP = "auto, cpu, openvino, cuda, tensorrt or tensorrt-rtx."

BUNDLE = click.option("--bundle", type=FILE, metavar="BUNDLE", help=BUNDLE_HELP)
PROVIDER = click.option(
    "--provider",
    default="auto",
    show_default=True,
    help=PROVIDER_HELP,
    shell_complete=values("auto", "cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx"),
)
PRECISION = click.option(
    "--precision", metavar="P", help="One that info lists, such as fp32, or GRAPH=P,GRAPH=P."
)
THREADS = click.option("--threads", type=int, help="CPU threads; one a physical core if left out.")
