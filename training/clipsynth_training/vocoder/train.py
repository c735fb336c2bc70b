"""Train a vocoder: first on spectral distances alone, then against discriminators as well."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipsynth_rt.bundles.manifest import MelSpec, decode
from clipsynth_rt.errors import CheckpointError, InputError, ManifestError
from clipsynth_rt.files import writable_folder
from clipsynth_training.mel import MelSpectrogram
from clipsynth_training.run.interruption import StopSignals
from clipsynth_training.run.trainer import RunLimits, progress
from clipsynth_training.vocoder.config import VocoderTrainConfig, read_vocoder_config
from clipsynth_training.vocoder.data import AudioSource, held_out_clips, open_audio
from clipsynth_training.vocoder.griffin_lim import griffin_lim_from_mel
from clipsynth_training.vocoder.metrics import measure_resynthesis
from clipsynth_training.vocoder.network import load_vocoder
from clipsynth_training.vocoder.trainer import VocoderTrainer

logger = logging.getLogger(__name__)


def train_vocoder(
    config: str | Path | Mapping[str, Any] | VocoderTrainConfig,
    data: str | Path | AudioSource,
    out_dir: str | Path,
    *,
    validation: str | Path | AudioSource | None = None,
    resume: bool = True,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    save_every_s: float = 120.0,
    signals: StopSignals | None = None,
) -> Path:
    """Train until the configured steps are done or the time is up.

    Writes ``vocoder`` (averaged weights) and ``vocoder_state`` (to resume) into ``out_dir``, and a
    line of losses or metrics at a time into ``vocoder_log.jsonl``.

    Args:
        config: A preset's name, a TOML file or a configuration.
        data: Shard folder, int16 .npy file, or clips.
        out_dir: Checkpoint folder.
        validation: Clips to measure on at every save; none are measured if None.
        resume: Continue a run found in ``out_dir``.
        max_steps: Stop early, saved, after so many steps in all.
        max_minutes: Stop early, saved, after this long.
        save_every_s: Seconds after which the run is saved whatever its step.
        signals: Stop, saved, once one was received.

    Returns:
        ``out_dir``.

    Raises:
        InputError: If the configuration cannot be understood.
        DataError: If the clips cannot be read.
        CheckpointError: If the run in ``out_dir`` is of another configuration.
    """
    if not isinstance(config, VocoderTrainConfig):
        config = read_vocoder_config(config)
    t, out = config.training, Path(out_dir)
    source = open_audio(data) if isinstance(data, (str, Path)) else data
    held_out = open_audio(validation) if isinstance(validation, (str, Path)) else validation
    try:
        trainer = VocoderTrainer(config, source)
    except ValueError as error:
        raise InputError(str(error)) from error
    if resume:
        trainer.resume(out)
    writable_folder(out)
    last = min(t.steps, max_steps or t.steps)
    limits = RunLimits(max_steps=last, max_minutes=max_minutes)
    deadline = math.inf if max_minutes is None else time.monotonic() + 60.0 * max_minutes
    saved_at = time.monotonic()
    with (
        (out / "vocoder_log.jsonl").open("a", encoding="utf-8") as log,
        progress("vocoder", trainer.step, limits) as tell,
    ):
        for loss, report in _steps(trainer, last):
            tell(trainer.step, loss)
            if report:
                _write_line(log, {"step": trainer.step, **report})
            stopped = signals is not None and signals.received is not None
            finished = trainer.step >= last or time.monotonic() > deadline or stopped
            overdue = time.monotonic() - saved_at >= save_every_s
            if finished or overdue or trainer.step % t.save_every == 0:
                metrics = {} if overdue and not finished else _validate(trainer, held_out)
                trainer.save(out, metrics)
                saved_at = time.monotonic()
                if metrics:
                    _write_line(log, {"step": trainer.step, "validation": metrics})
            if finished:
                break
    return out


def _steps(trainer: VocoderTrainer, last: int) -> Iterator[tuple[float, dict[str, float]]]:
    """Take steps; yields each one's loss, and mean losses where a line of the log is due."""
    t = trainer.config.training
    sums: dict[str, float] = {}
    count, began = 0, time.monotonic()
    while trainer.step < last:
        losses = trainer.train_step()
        total = sum(value for name, value in losses.items() if name != "gradient")
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value
        count += 1
        if trainer.step % t.log_every:
            yield total, {}
            continue
        seconds = (time.monotonic() - began) / count
        yield (
            total,
            {name: round(value / count, 5) for name, value in sums.items()}
            | {"seconds_a_step": round(seconds, 4)},
        )
        sums, count, began = {}, 0, time.monotonic()


def _validate(trainer: VocoderTrainer, source: AudioSource | None) -> dict[str, float]:
    if source is None:
        return {}
    clips = torch.from_numpy(held_out_clips(source, trainer.config.training.validation_clips))
    return measure_resynthesis(clips, trainer.average, trainer.analysis)


def _write_line(log: Any, facts: Mapping[str, Any]) -> None:
    log.write(json.dumps(facts) + "\n")
    log.flush()
    logger.info("%s", facts)


def evaluate_vocoder(
    checkpoint_dir: str | Path,
    audio: str | Path | AudioSource,
    *,
    clips: int = 64,
    griffin_lim_iterations: int = 60,
) -> dict[str, dict[str, float]]:
    """Measure a trained vocoder and Griffin-Lim on the same clips.

    Args:
        checkpoint_dir: Folder with a trained vocoder.
        audio: Shard folder, int16 .npy file, or clips.
        clips: How many, spread evenly over ``audio``.
        griffin_lim_iterations: Of the baseline.

    Returns:
        ``vocoder`` and ``griffin_lim``, each with ``mel_l1``, ``mr_stft`` and ``lsd_db``.

    Raises:
        CheckpointError: If the vocoder cannot be loaded.
        DataError: If the clips cannot be read.
    """
    vocoder, facts = load_vocoder(checkpoint_dir)
    try:
        analysis = MelSpectrogram(decode(MelSpec, facts["mel"], "mel"))
    except (KeyError, ManifestError) as error:
        raise CheckpointError(f"{Path(checkpoint_dir) / 'vocoder.json'}: {error}") from error
    source = open_audio(audio) if isinstance(audio, (str, Path)) else audio
    waveforms = torch.from_numpy(held_out_clips(source, clips))

    def baseline(mel: Tensor) -> Tensor:
        return griffin_lim_from_mel(mel, analysis, iterations=griffin_lim_iterations)

    return {
        "vocoder": measure_resynthesis(waveforms, vocoder, analysis),
        "griffin_lim": measure_resynthesis(waveforms, baseline, analysis),
    }
