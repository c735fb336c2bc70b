"""Open a distillation: read teacher, clips and classifier, and prepare trajectories."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipsynth_rt.errors import CheckpointError
from clipsynth_training.checkpoint import load_component, load_weights
from clipsynth_training.clip.encoder import load_clip
from clipsynth_training.denoiser.conditions import check_all_heard, load_texts
from clipsynth_training.denoiser.config import TrainConfig
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil.auxiliary_classifier import AuxiliaryClassifier
from clipsynth_training.distil.batches import DistilConfig
from clipsynth_training.distil.oversampling import difficulty, repeats
from clipsynth_training.distil.rollout import Rollout
from clipsynth_training.distil.train import COMPONENT, DistilTrainer
from clipsynth_training.distil.trajectories import (
    TeacherSpec,
    Trajectories,
    make_trajectories,
    more_labels,
)
from clipsynth_training.run.distributed import rank_and_count, wait_for_all

logger = logging.getLogger(__name__)


def open_run(
    config: DistilConfig,
    teacher: str | Path,
    shards: str | Path,
    labels_csv: str | Path,
    out_dir: str | Path,
    *,
    kinds: Sequence[str] = (),
    repeat: Mapping[str, int] | None = None,
    rounds: int = 8,
    more: int = 0,
    more_of: Sequence[str] = (),
    own: bool = False,
    how: TeacherSpec | None = None,
    start: str | Path | None = None,
    auxiliary: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> DistilTrainer:
    """Read a teacher and clips, make the teacher's trajectories, and return the trainer.

    Args:
        config: How to train.
        teacher: Checkpoint folder with the parts ``clip`` and ``denoiser``.
        shards: What ``clipsynth-rt data prepare`` wrote.
        labels_csv: Labels of its clips.
        out_dir: Checkpoint folder; trajectories are kept in its folder ``pairs``.
        kinds: Keep clips of these kinds alone; empty for all.
        repeat: Label -> how many times as often as otherwise it is drawn.
        rounds: Trajectories a label.
        more: Further ones of the teacher's, of labels that the auxiliary classifier hears right in
            fewer than half of those, so that there is something right to follow.
        more_of: Labels that ``more`` are of, in place of what an auxiliary classifier hears.
        own: ``rounds`` are of what the student makes already, in place of the teacher: a
            hundredth of the time, and what it knows it keeps while it learns some labels.
        how: How the teacher samples them.
        start: Checkpoint folder with a student to begin with; the teacher if None.
        auxiliary: Checkpoint folder with a classifier of ``AUXILIARY_SHAPE``; it hears sounds
            through the teacher's component ``vocoder``.
        device: Where the networks are, such as ``cpu`` or ``cuda``.

    Raises:
        CheckpointError: If the teacher, a trajectory or an earlier run is missing or damaged.
        DataError: If shards or labels cannot be used, a label has no clip, or the teacher cannot
            sample so.
        InputError: If ``repeat`` or ``more_of`` names a label that no clip has.
    """
    weights, facts = load_component(teacher, "denoiser")
    sections = ("unet", "optimiser", "mel", "diffusion")
    if missing := [key for key in sections if key not in facts]:
        raise CheckpointError(
            f"{teacher}: denoiser.json has no {missing[0]}; choose another teacher"
        )
    settings = TrainConfig.from_dict({key: facts[key] for key in sections}, str(teacher))
    data, names = load_texts(shards, load_clip(str(teacher)), settings.mel, labels_csv, kinds)
    check_all_heard(data.label, names)
    repeat = repeat or {}
    # unknown names are refused before the teacher's hour, and so is what cannot be read
    data.oversample({**repeat, **dict.fromkeys(more_of, 1)}, names)
    ear = (
        None
        if auxiliary is None
        else AuxiliaryClassifier.open(auxiliary, teacher, names).to(device)
    )
    begin, begun = (weights, {}) if start is None else load_component(start, COMPONENT)
    network = UNet(settings.unet).to(device, memory_format=torch.channels_last).eval()
    rank, processes = rank_and_count()
    folder = Path(out_dir) / "pairs"
    text, frames = data.text[:, 0], data.mels.shape[2]

    def sample(
        sampled: Mapping[str, Tensor],
        by: TeacherSpec | None,
        count: int,
        only: Tensor | None = None,
    ) -> None:
        load_weights(network, sampled, str(teacher if sampled is weights else start))
        make_trajectories(
            network,
            settings.diffusion,
            text,
            folder,
            names=names,
            frames=frames,
            rounds=count,
            student_steps=config.states,
            how=by,
            only=only,
            rank=rank,
            processes=processes,
            on_round=lambda n: logger.info("sounds to follow: round %d of %d", n + 1, count),
        )
        wait_for_all()

    # a student's calls are unguided, and all of its states are kept
    alone = TeacherSpec(config.states, 1.0, guided=0)
    sample(*((begin, alone) if own else (weights, how)), rounds)
    if more and (more_of or ear is not None):
        if more_of:
            only = torch.tensor([names.index(name) for name in more_of])
        else:
            # of a run that goes on, the labels that it began with
            only = more_labels(folder)
            if only is None:
                only = Trajectories.open(folder, every_label=True).low_accuracy_labels(ear)
        logger.info("%d more sounds of the teacher, of %d labels each", more, len(only))
        sample(weights, how, more, only)
    pairs = Trajectories.open(folder)
    if ear is not None:
        pairs = pairs.best_trajectories(ear)
    times = [1] * len(names)
    if ear is not None and config.oversampling > 0:
        load_weights(network, begin, "what the student begins with")
        rollout = Rollout(settings.diffusion, config.num_steps[0])
        hard = difficulty(network, rollout, text, ear, frames=frames)
        times = repeats(data.label, 1.0 + config.oversampling * hard)
    wanted = {name: n * repeat.get(name, 1) for name, n in zip(names, times, strict=True)}
    data.oversample(wanted, names)
    noted: dict[str, Any] = {"labels": names}
    if start is not None:
        noted["begun_with_steps"] = begun.get("steps")
    return DistilTrainer(
        config,
        settings,
        begin,
        data,
        pairs,
        out_dir,
        noted,
        auxiliary=ear,
        device=device,
    )
