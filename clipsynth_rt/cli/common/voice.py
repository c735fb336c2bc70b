"""The options of commands that open a voice."""

from __future__ import annotations

import math
from typing import Any

import click

from clipsynth_rt.cli.common.completion import values
from clipsynth_rt.errors import InputError

FILE = click.Path(readable=False)  # for completion alone: what is wrong is said later
BUNDLE_HELP = "Folder, .zip, .tar.gz or hf://owner/name; the shipped one if left out."
PROVIDER_HELP = "auto, cpu, openvino, cuda, tensorrt or tensorrt-rtx."


class FiniteRange(click.FloatRange):
    """A range of numbers without infinity and what is not a number, which compares with nothing."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or say what is wrong with it."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


BUNDLE = click.option("--bundle", type=FILE, metavar="BUNDLE", help=BUNDLE_HELP)
PROVIDER = click.option(
    "--provider",
    default="auto",
    show_default=True,
    help=PROVIDER_HELP,
    shell_complete=values("auto", "cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx"),
)
PRECISION = click.option(
    "--precision",
    metavar="P",
    help="GRAPH=P,GRAPH=P with what info lists for each graph, or one P that every graph has.",
)
THREADS = click.option("--threads", type=int, help="CPU threads; one a physical core if left out.")


def parse_precision(text: str | None) -> str | dict[str, str] | None:
    """Return ``fp16`` as it is, and ``denoiser_step=fp16,vocoder=fp32`` as a mapping.

    Raises:
        InputError: If the two forms are mixed, or a name is missing.
    """
    if text is None or "=" not in text:
        return text
    pairs = [[word.strip() for word in part.split("=")] for part in text.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise InputError(f"--precision {text!r}: write fp16, or denoiser_step=fp16,vocoder=fp32")
    return {graph: precision for graph, precision in pairs}
