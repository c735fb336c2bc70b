"""Curves and mel spectrograms as PNG."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Mapping[str, Mapping[str, Any]]
MEASURES = {"top1": "top-1", "fad_generated_vs_test": "FAD to real test clips"}


def check_matplotlib() -> None:
    """Check that plots can be drawn.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "evaluate") from error


def curves(samplers: Mapping[str, Rows], xlabel: str = "num_steps") -> bytes:
    """Return top-1, FAD and, where measured, the time of a clip against a setting, as PNG.

    Args:
        samplers: Name -> setting -> figures with their 95% intervals, drawn as bands.
        xlabel: What the setting is.
    """
    measures = dict(MEASURES)
    if all("latency_s" in row for rows in samplers.values() for row in rows.values()):
        measures["latency_s"] = "time of one clip, s"
    with _figure(4.6 * len(measures), 3.6) as (figure, png):
        for number, (key, label) in enumerate(measures.items()):
            axes = figure.add_subplot(1, len(measures), number + 1)
            for name, rows in samplers.items():
                _line(axes, name, rows, key)
            if xlabel == "num_steps":
                shown = [step for rows in samplers.values() for step in rows]
                axes.set_xscale("log")
                axes.set_xticks([int(step) for step in shown], shown)
                axes.minorticks_off()
            if key == "latency_s":
                axes.set_yscale("log")
            axes.set(xlabel=xlabel, ylabel=label)
            axes.grid(alpha=0.3)
            if number == 0 and len(samplers) > 1:
                axes.legend(frameon=False)
    return png.getvalue()


def mels(pictures: Mapping[str, Sequence[NDArray[np.floating]]], columns: Sequence[str]) -> bytes:
    """Return mel spectrograms [M, F] as a grid: a row for each system, a column a query, as PNG."""
    with _figure(1.7 * len(columns) + 1.0, 1.5 * len(pictures) + 0.3) as (figure, png):
        for row, (name, shown) in enumerate(pictures.items()):
            for column, mel in enumerate(shown):
                place = row * len(columns) + column + 1
                axes = figure.add_subplot(len(pictures), len(columns), place)
                axes.imshow(mel, origin="lower", aspect="auto", cmap="magma")
                axes.set(xticks=[], yticks=[])
                if row == 0:
                    axes.set_title(columns[column], fontsize=9)
                if column == 0:
                    axes.set_ylabel(name, fontsize=9)
    return png.getvalue()


def _line(axes: Axes, name: str, rows: Rows, key: str) -> None:
    x = [float(setting) for setting in rows]
    axes.plot(x, [row[key] for row in rows.values()], marker="o", markersize=3.5, label=name)
    bounds = [row.get(f"{key}_interval") for row in rows.values()]
    if all(bounds):
        low, high = zip(*bounds, strict=True)
        axes.fill_between(x, low, high, alpha=0.18, linewidth=0)


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """Give a figure, and where its PNG lies once the block is done; no window, no global state."""
    check_matplotlib()
    from matplotlib.figure import Figure

    figure, png = Figure(figsize=(width, height), layout="constrained"), io.BytesIO()
    yield figure, png
    figure.savefig(png, format="png", dpi=110)
