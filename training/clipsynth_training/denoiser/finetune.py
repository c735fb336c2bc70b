"""Few-shot fine-tuning: teach a finished voice the sounds of a folder, in minutes on a CPU.

Half of every batch is old clips where shards of them are given (rehearsal: Robins 1995,
"Catastrophic forgetting, rehearsal and pseudorehearsal"). Without them the learning rate is low
and the weights are averaged from the voice's own on, which keeps near what it knew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipsynth_rt.bundles.manifest import MelSpec, decode
from clipsynth_rt.errors import CheckpointError, DataError, InputError, ManifestError, OutputError
from clipsynth_training.checkpoint import load_component, load_state
from clipsynth_training.data.clips import CutSpec
from clipsynth_training.data.shards import ShardSet
from clipsynth_training.data.sound_folder import NamedClips, read_sounds
from clipsynth_training.denoiser.conditions import (
    ConditionedMels,
    embed_labels,
    label_indices,
    read_labels,
    rows_of_kinds,
)
from clipsynth_training.denoiser.config import OptimiserConfig, TrainConfig
from clipsynth_training.denoiser.samples import SAMPLES, SampleSpec, spread
from clipsynth_training.denoiser.train import STATE, DenoiserTrainer
from clipsynth_training.run.trainer import RunLimits

logger = logging.getLogger(__name__)

OPTIMISER = OptimiserConfig(
    variant="text",
    batch_size=8,
    learning_rate=1e-4,
    warmup_steps=20,
    ema_decay=0.99,
    condition_noise=0.1,
)
"""Without old clips; with them the rate is ``REHEARSED_RATE``."""
REHEARSED_RATE = 3e-4
WINDOWS = 4
"""Clips that are cut from a long sound, at most."""
CARRIED = ("clip", "vocoder", "classifier")
"""Parts that the new checkpoint takes over."""


@dataclass(frozen=True)
class Report:
    """What a run of fine-tuning did.

    Attributes:
        clips: New clips.
        names: What they are called.
        step: Steps taken.
        stopped_by: The signal that ended it, or None.
    """

    clips: int
    names: tuple[str, ...]
    step: int
    stopped_by: int | None


def finetune(
    folder: str | Path,
    out: str | Path,
    checkpoint: str | Path,
    clip: Any,
    *,
    names_csv: str | Path | None = None,
    replay: str | Path | None = None,
    labels_csv: str | Path | None = None,
    kinds: Sequence[str] = (),
    steps: int = 200,
    learning_rate: float | None = None,
    samples_every: int = 100,
    on_step: Callable[[int, float], None] | None = None,
) -> Report:
    """Teach ``checkpoint`` the sounds of ``folder``, and write ``out``, which can be exported.

    A run that was cut off goes on where it was.

    Args:
        folder: Sounds named by what they are; see ``read_sounds``.
        out: Checkpoint folder to write.
        checkpoint: The voice to begin with; not changed.
        clip: Its encoder, from ``clipsynth_training.clip.encoder.load_clip``.
        names_csv: Names by file; see ``read_sounds``.
        replay: Shards of what the voice learnt from.
        labels_csv: Their labels; needed with ``replay``.
        kinds: Old clips of these kinds alone; all if empty.
        steps: Optimiser steps.
        learning_rate: Peak; by whether there is replay if None.
        samples_every: Steps between pictures of samples; 0 for none.
        on_step: Told of every step and its loss.

    Raises:
        InputError: If ``out`` is ``checkpoint`` or was taught other sounds, or ``replay`` lacks
            labels.
        DataError: If sounds or shards cannot be used.
        CheckpointError: If ``checkpoint`` or an earlier run in ``out`` cannot be used.
        OutputError: If ``out`` cannot be written.
    """
    out, checkpoint = Path(out), Path(checkpoint)
    if out.resolve() == checkpoint.resolve():
        raise InputError(f"{out}: is the voice to begin with; choose another --out")
    if replay is not None and labels_csv is None:
        raise InputError("--replay needs --labels labels.csv")
    weights, config, facts = _read_voice(checkpoint, clip)
    rate = learning_rate or (REHEARSED_RATE if replay is not None else OPTIMISER.learning_rate)
    config = dataclasses.replace(
        config, optimiser=dataclasses.replace(OPTIMISER, learning_rate=rate)
    )
    cut = CutSpec(
        mel=config.mel,
        num_frames=config.diffusion.default_frames,
        hop_frames=config.diffusion.default_frames,
        clips_per_video=WINDOWS,
        min_seconds=0.05,
    )
    sounds = read_sounds(folder, cut, names_csv)
    names = tuple(dict.fromkeys(sounds.names))
    data = new_clips(sounds, names, clip)
    if replay is not None:
        most = steps * config.optimiser.batch_size // 2
        old = read_replay(replay, labels_csv, clip, config.mel, max(1, most), kinds)
        data = with_replay(data, old)
    best_trajectories = {
        "names": sorted(names),
        "sounds": hashlib.sha256(sounds.mels.tobytes()).hexdigest(),
    }
    _check_taught(out, best_trajectories)
    _carry(checkpoint, out)
    # export tells pictures by them
    known = sorted({*facts.get("labels", ()), *names})
    samples = None
    if samples_every:
        shown = names[:SAMPLES]
        samples = SampleSpec(shown, clip.encode_queries(shown), samples_every)
    trainer = DenoiserTrainer(
        config,
        data,
        out,
        facts={**facts, "labels": known, "taught": best_trajectories},
        samples=samples,
        start=weights,
    )
    limits = RunLimits(max_steps=steps, cooldown_steps=steps // 4, save_every=100, log_every=20)
    stopped_by = trainer.run(limits, on_step)
    return Report(len(sounds.names), names, trainer.step, stopped_by)


def new_clips(sounds: NamedClips, names: Sequence[str], clip: Any) -> ConditionedMels:
    """Return sounds with the embeddings of their names' phrasings."""
    count = len(sounds.names)
    return ConditionedMels(
        torch.from_numpy(sounds.mels),
        torch.zeros(count, 0, clip.dim),
        torch.zeros(count, dtype=torch.bool),
        embed_labels(names, clip),
        torch.tensor([names.index(name) for name in sounds.names]),
    )


def read_replay(
    shards_dir: str | Path,
    labels_csv: str | Path,
    clip: Any,
    mel: MelSpec,
    most: int,
    kinds: Sequence[str] = (),
) -> ConditionedMels:
    """Return at most ``most`` labelled clips of a shard folder, evenly spread over it.

    Args:
        shards_dir: What ``clipsynth-rt data prepare`` wrote.
        labels_csv: Labels of its clips.
        clip: From ``clipsynth_training.clip.encoder.load_clip``.
        mel: The analysis that the shards must have.
        most: Clips, at most.
        kinds: Clips of these kinds alone; all if empty.

    Raises:
        DataError: If shards or labels cannot be used, or no clip has a label.
    """
    shards, labels = ShardSet.open(shards_dir, mel), read_labels(labels_csv)
    names = sorted(set(labels.values()))
    label = label_indices(shards.ids, labels, names)
    rows = rows_of_kinds(shards, labels_csv, kinds)
    rows = range(len(label)) if rows is None else rows
    rows = spread([row for row in rows if label[row] >= 0], most)
    if not rows:
        raise DataError(f"{labels_csv}: labels no clip of {shards_dir}")
    mels = torch.from_numpy(shards.mels(rows))
    return ConditionedMels(
        mels,
        torch.zeros(len(mels), 0, clip.dim),
        torch.zeros(len(mels), dtype=torch.bool),
        embed_labels(names, clip),
        torch.tensor(label)[rows],
    )


def with_replay(new: ConditionedMels, old: ConditionedMels) -> ConditionedMels:
    """Return new and old clips, of which an epoch holds as many of the one as of the other.

    Raises:
        DataError: If no old clip has a label.
    """
    num_old, count = len(old.usable("text")), len(new)
    # lists of phrasings are as long as the longest of their kind: repeat the shorter
    longest = max(new.text.shape[1], old.text.shape[1])
    text = torch.cat([t[:, torch.arange(longest) % t.shape[1]] for t in (new.text, old.text)])
    label = torch.where(old.label < 0, old.label, old.label + len(new.text))
    passes = torch.ones(count + len(old), dtype=torch.long)
    passes[:count] = max(1, round(num_old / count))
    return ConditionedMels(
        torch.cat([new.mels, old.mels[:]]),
        torch.zeros(len(passes), 0, new.text.shape[2]),
        torch.zeros(len(passes), dtype=torch.bool),
        text,
        torch.cat([new.label, label]),
        passes,
    )


def _read_voice(
    checkpoint: Path, clip: Any
) -> tuple[dict[str, Tensor], TrainConfig, dict[str, Any]]:
    weights, facts = load_component(checkpoint, "denoiser")
    where = checkpoint / "denoiser.json"
    try:
        sections = {key: facts.pop(key) for key in ("unet", "mel", "diffusion")}
        config = TrainConfig.from_dict(sections, str(where))
        vocoder = decode(MelSpec, load_component(checkpoint, "vocoder")[1].get("mel", {}), "mel")
    except (KeyError, InputError, ManifestError) as error:
        raise CheckpointError(f"{where}: {error} is missing or wrong") from error
    if vocoder != config.mel:
        raise CheckpointError(f"{checkpoint}: its vocoder reads other mels than its denoiser makes")
    if clip.dim != config.unet.condition_dim:
        raise CheckpointError(
            f"{where}: unet.condition_dim is {config.unet.condition_dim}, and the encoder's "
            f"embeddings have {clip.dim}; name the encoder that it was trained with (--clip)"
        )
    own = ("optimiser", "steps", "parameters", "flops")
    return weights, config, {key: value for key, value in facts.items() if key not in own}


def _check_taught(out: Path, best_trajectories: dict[str, Any]) -> None:
    """Refuse to go on with other sounds: a run that is finished would not learn them."""
    loaded = load_state(out, STATE)
    if loaded is None:
        return
    earlier = loaded[1]["config"].get("taught")
    # a run of before does not say
    if earlier is not None and earlier != best_trajectories:
        told = ", ".join(earlier["names"][:5])
        raise InputError(f"{out}: was taught other sounds ({told}); choose another --out")


def _carry(checkpoint: Path, out: Path) -> None:
    """Copy the parts that fine-tuning leaves as they are."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for part in CARRIED:
            for suffix in (".safetensors", ".json"):
                if (checkpoint / f"{part}{suffix}").is_file():
                    shutil.copyfile(checkpoint / f"{part}{suffix}", out / f"{part}{suffix}")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror})") from error
