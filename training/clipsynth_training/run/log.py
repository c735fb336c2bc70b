"""What a training run writes as it goes: metrics.csv always, TensorBoard's event file by choice."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.errors import MissingExtraError
from clipsynth_rt.files import writable_folder, write_text

logger = logging.getLogger(__name__)

METRICS = "metrics.csv"
COLUMNS = (
    "step", "seconds", "cpu_seconds", "clips_per_second", "wait_share", "learning_rate", "loss",
    "held_out_text", "held_out_image", "generator", "discriminator", "auxiliary",
)  # fmt: skip
_BEFORE_CSV = "denoiser_log.jsonl"


class RunLog:
    """A run's metrics by step. Rows past ``step``, of a run that was cut off there, are dropped.

    Args:
        folder: Checkpoint folder; made if missing.
        step: Where the run begins or goes on.
        tensorboard: Write events for TensorBoard into ``folder`` / ``tensorboard`` too.

    Raises:
        MissingExtraError: If TensorBoard is asked for and not installed.
        OutputError: If the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False) -> None:
        self.path = writable_folder(folder) / METRICS
        self._events = _open_events(folder / "tensorboard", step) if tensorboard else None
        write_text(self.path, _csv_text(_earlier(folder, step), header=True))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; ``values`` are by column name."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_csv_text([{"step": step, **values}]))
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Show a picture [H, W, 3] in TensorBoard."""
        if self._events is not None:
            self._events.add_image(name, pixels, step, dataformats="HWC")

    def sound(self, step: int, name: str, waveform: NDArray[np.float32], sample_rate: int) -> None:
        """Let a waveform [T] be heard in TensorBoard."""
        if self._events is not None:
            self._events.add_audio(name, waveform[None], step, sample_rate)

    def close(self) -> None:
        """Finish the event file."""
        if self._events is not None:
            self._events.close()


class Pace:
    """How a run goes since its start, and since it was last asked.

    Args:
        batch_size: Clips a step, over all processes.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._began, self._cpu_began = time.monotonic(), time.process_time()
        self._last, self._last_wait = self._began, 0.0
        self._sums: dict[str, float] = {}
        self._steps = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    @property
    def cpu_seconds(self) -> float:
        """Of this process since the start."""
        return time.process_time() - self._cpu_began

    @property
    def steps(self) -> int:
        """Steps since it was last asked."""
        return self._steps

    def add(self, values: Mapping[str, float]) -> None:
        """Count a step and its losses, by column of metrics.csv."""
        self._steps += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self, wait_s: float) -> dict[str, float]:
        """Return the figures since the last call, by column of metrics.csv.

        Args:
            wait_s: Seconds since the start that the trainer has waited for clips.
        """
        now, steps = time.monotonic(), self._steps
        elapsed = max(now - self._last, 1e-9)
        row = {"seconds": round(self.seconds, 1), "cpu_seconds": round(self.cpu_seconds, 1)}
        if steps:
            row |= {
                "clips_per_second": steps * self._batch_size / elapsed,
                "wait_share": (wait_s - self._last_wait) / elapsed,
                **{name: total / steps for name, total in self._sums.items()},
            }
        self._last, self._last_wait, self._sums, self._steps = now, wait_s, {}, 0
        return row


def read_metrics(folder: str | Path) -> list[dict[str, float]]:
    """Return the rows of a run's metrics.csv, without the columns that are empty in a row.

    A row that was cut off as it was written is left out, with a warning.
    """
    path, rows = Path(folder) / METRICS, []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                values = {key: float(value) for key, value in row.items() if value}
                rows.append({**values, "step": int(values["step"])})
            # TypeError: more fields than columns
            except (KeyError, TypeError, ValueError):
                logger.warning("%s: line %d is no row; left out", path, reader.line_num)
    return rows


def _earlier(folder: Path, step: int) -> list[dict[str, float]]:
    if (folder / METRICS).is_file():
        rows = read_metrics(folder)
    elif (folder / _BEFORE_CSV).is_file():  # a run that version 0.1 began
        rows = [json.loads(line) for line in (folder / _BEFORE_CSV).read_text().splitlines()]
    else:
        rows = []
    # a run that was killed may have logged further than it saved
    return [row for row in rows if row["step"] <= step]


def _csv_text(rows: list[dict[str, float]], *, header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _open_events(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard") from error
    # events past the step of a run that goes on are hidden, as the rows of metrics.csv are dropped
    return SummaryWriter(folder, purge_step=step + 1 if step else None)
