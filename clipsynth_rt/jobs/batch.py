"""Makes the rows of a batch, one file each, and keeps a manifest of what came of them."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.errors import ClipSynthError, InputError, OutputError
from clipsynth_rt.files import sha256_of, write_atomically
from clipsynth_rt.jobs.csv_rows import Row
from clipsynth_rt.synthesis.synthesizer import Cancel, Synthesizer, check_cancel

RESULTS_NAME = "results.json"
SCHEMA_VERSION = 1
_SAVE_EVERY_S = 2.0
"""Rows finished since the manifest was last written are made again after a crash; few enough."""

logger = logging.getLogger(__name__)
Result = dict[str, Any]


class BatchRun:
    """The rows of one batch, on their way into one folder.

    A row whose file is there as an earlier run left it, made from the same request by the same
    voice, is kept. A row that fails is noted, and the rest go on.

    Args:
        synthesizer: The voice.
        rows: From ``batch.read_rows``.
        out_dir: Existing folder; ``results.json`` in it is the manifest.
        tag: Whether files say where they came from.
        overwrite: Whether a file that no earlier run of this batch left is replaced; else its row
            fails.

    Attributes:
        results: One a row: ``row``, ``query``, ``file``, ``status`` (``waiting``, ``made``,
            ``kept`` or ``failed``), ``error``; of a sound also ``key``, ``sha256`` and its facts.

    Raises:
        InputError: If there is a ``results.json`` that no batch wrote.
        OutputError: If there is no such folder.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        rows: Sequence[Row],
        out_dir: str | Path,
        *,
        tag: bool = True,
        overwrite: bool = True,
    ) -> None:
        self.synthesizer, self.rows, self.tag = synthesizer, rows, tag
        self.overwrite = overwrite
        self.folder = Path(out_dir)
        if not self.folder.is_dir():
            raise OutputError(f"{out_dir}: no such folder; make it first")
        known = _read_results(self.folder / RESULTS_NAME)
        self.results = [self._start(row, known) for row in rows]
        self._saved_at = 0.0

    def run(
        self, report: Callable[[Result], None] | None = None, cancel: Cancel | None = None
    ) -> list[Result]:
        """Make what is not there, and return ``results``.

        Args:
            report: Called with each row's result as soon as there is one.
            cancel: Looked at between network calls.

        Raises:
            CancelledError: If ``cancel`` is set; the manifest says how far it came.
            OutputError: If the manifest cannot be written.
        """
        try:
            for row, result in zip(self.rows, self.results, strict=True):
                check_cancel(cancel)
                if result["status"] == "waiting":
                    self._make(row, result, cancel)
                if report is not None:
                    report(result)
                if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
                    self.save()
        finally:
            self.save()
        return self.results

    def save(self) -> None:
        """Write the manifest, whole or not at all.

        Raises:
            OutputError: If it cannot be written.
        """
        bundle = self.synthesizer.bundle
        data = {
            "schema_version": SCHEMA_VERSION,
            "bundle": bundle.manifest.name,
            "bundle_sha256": bundle.sha256,
            "rows": self.results,
        }
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.folder / RESULTS_NAME, text.encode("utf-8", "backslashreplace"))
        self._saved_at = time.monotonic()

    def _start(self, row: Row, known: dict[str, Result]) -> Result:
        result: Result = {"row": row.number, "query": row.name, "file": row.file}
        if row.error:
            return {**result, "status": "failed", "error": row.error}
        try:
            key = self._key(row)
        except ClipSynthError as error:
            return {**result, "status": "failed", "error": str(error)}
        before = known.get(row.file, {})
        if before.get("key") == key and _sha256(self.folder / row.file) == before.get("sha256"):
            return {**before, **result, "status": "kept"}
        if not self.overwrite and (self.folder / row.file).exists():
            problem = f"{row.file} exists already; name another, or give --overwrite"
            return {**result, "status": "failed", "error": problem}
        return {**result, "status": "waiting", "key": key}

    def _make(self, row: Row, result: Result, cancel: Cancel | None) -> None:
        path = self.folder / row.file
        try:
            clip = self.synthesizer.synth(
                row.query or None,
                image=row.image,
                init=row.init,
                seed=row.seed,
                cancel=cancel,
                **row.options,
            )
            _make_folder(path.parent)
            clip.save(path, tag=self.tag)
        except ClipSynthError as error:
            # a cancelled row has not failed, it waits for the next run
            check_cancel(cancel)
            result |= {"status": "failed", "error": str(error)}
            return
        result |= {"status": "made", "sha256": _sha256(path), **facts(clip)}

    def _key(self, row: Row) -> str:
        """Return what a row's sound depends on as one SHA-256 in hex.

        Raises:
            InputError: If a file that it starts from cannot be read.
        """
        request = {
            "query": row.query,
            "image": row.image and _digest(row.image),
            "init": row.init and _digest(row.init),
            "seed": row.seed,
            "options": row.options,
            "tag": self.tag,
            "bundle": self.synthesizer.bundle.sha256,
            "precision": self.synthesizer.file_precision,
        }
        text = json.dumps(request, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()


def facts(clip: AudioClip) -> Result:
    """Return the facts of a finished clip as JSON data."""
    return {
        "rtf": clip.rtf,
        "audio_s": clip.audio_s,
        "stages_s": clip.stages_s,
        "provider": clip.provider,
        "num_steps": clip.num_steps,
        "network_calls": clip.network_calls,
        "guidance_scale": clip.guidance_scale,
        "distilled": clip.distilled,
        "seed": clip.seed,
        "bundle": clip.bundle,
    }


def _read_results(path: Path) -> dict[str, Result]:
    """Return an earlier run's results by file; nothing if there was none."""
    try:
        data = json.loads(path.read_bytes())
        version, rows = data["schema_version"], data["rows"]
        if version == SCHEMA_VERSION:
            return {str(row["file"]): dict(row) for row in rows}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path}: not the manifest of a batch; move it away, or choose another folder"
        ) from error
    raise InputError(f"{path}: of schema_version {version}, which this version does not read")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror})") from error


def _sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex; nothing if it cannot be read."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _digest(path: str) -> str:
    digest = _sha256(Path(path))
    if not digest:
        raise InputError(f"{path}: no such file, or it cannot be read")
    return digest
