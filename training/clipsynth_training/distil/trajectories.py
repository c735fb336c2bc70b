"""Where a guided teacher's long trajectories lead: noise, the states on the way, and the sound."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipsynth_rt.bundles.manifest import DiffusionSpec, encode
from clipsynth_rt.errors import CheckpointError, DataError
from clipsynth_rt.files import replacing, writable_folder
from clipsynth_training.checkpoint import hash_weights
from clipsynth_training.denoiser.unet import UNet
from clipsynth_training.distil.auxiliary_classifier import AuxiliaryClassifier
from clipsynth_training.distil.rollout import Rollout

logger = logging.getLogger(__name__)

RIGHT = 0.5
"""Posterior of its label above which an auxiliary classifier hears a sound right."""
AT_ONCE = {"cpu": 8, "cuda": 128}
"""Trajectories at a time: what caches or memory hold."""
_MORE = "more-"
"""Begins the names of trajectories of some labels alone."""


@dataclass(frozen=True)
class TeacherSpec:
    """How the teacher samples.

    Attributes:
        steps: DDIM steps, a multiple of the student's.
        guidance: Scale w.
        guided: Steps that are guided, from the first on; near the end, where details are filled
            in, guidance changes little and doubles the cost (Kynkaanniemi et al. 2024,
            arXiv:2404.07724).
    """

    steps: int = 8
    guidance: float = 2.5
    guided: int = 5

    @classmethod
    def of(cls, steps: int, guidance: float) -> TeacherSpec:
        """Return a teacher that is guided for the first five eighths of its steps."""
        return cls(steps, guidance, round(steps * 5 / 8))


@dataclass(frozen=True)
class Trajectories:
    """Trajectories: ``noise`` [N, M, F], ``path`` [N, steps, M, F] (float16), ``label`` [N]."""

    noise: Tensor
    path: Tensor
    label: Tensor

    @classmethod
    def open(cls, folder: str | Path, *, every_label: bool = False) -> Trajectories:
        """Read what ``make_pairs`` wrote; with ``every_label``, without those of ``only`` some.

        Raises:
            DataError: If there is none.
            CheckpointError: If a file is damaged.
        """
        files = sorted(Path(folder).glob("*.safetensors"))
        if every_label:
            files = [path for path in files if not path.name.startswith(_MORE)]
        if not files:
            raise DataError(f"{folder}: holds no teacher's trajectories")
        parts = []
        for path in files:
            try:
                parts.append(load_file(path))
            except SafetensorError as error:
                raise CheckpointError(f"{path}: damaged ({error}); delete it") from error
        return cls(*(torch.cat([p[key] for p in parts]) for key in ("noise", "path", "label")))

    def check(self, label: Tensor, steps: int) -> None:
        """Check that every one of ``label`` has a trajectory, of ``steps`` states.

        Raises:
            DataError: If not.
        """
        if self.path.shape[1] != steps:
            raise DataError(
                f"the teacher's trajectories have {self.path.shape[1]} states, for that many "
                f"calls, and {steps} are wanted: choose another --out"
            )
        missing = sorted(set(label.tolist()) - set(self.label.tolist()))
        if missing:
            raise DataError(
                f"{len(missing)} labels have no trajectory of the teacher: choose another --out"
            )

    def best_trajectories(self, auxiliary: AuxiliaryClassifier) -> Trajectories:
        """Return each label's trajectories that a classifier hears best, at its level.

        They are half of them at most, and two at least where there are four; between these, those
        that are heard right. A teacher is wrong at times, and louder than full scale under
        guidance; neither should be learnt from it.
        """
        heard = self._heard(auxiliary)
        rows = []
        for label in self.label.unique():
            own = (self.label == label).nonzero().flatten()
            best = heard[own].argsort(descending=True)
            half, right = len(own) // 2, int((heard[own] > RIGHT).sum())
            rows.append(own[best[: max(1, min(2, half), min(half, right))]])
        kept = torch.cat(rows)
        path = self.path[kept]
        path[:, -1] = auxiliary.levelled(path[:, -1].float()).half().cpu()
        return Trajectories(self.noise[kept], path, self.label[kept])

    def low_accuracy_labels(self, auxiliary: AuxiliaryClassifier) -> Tensor:
        """Return the labels heard right in fewer than half of their trajectories."""
        right = self._heard(auxiliary) > RIGHT
        labels = self.label.unique()
        share = torch.stack([right[self.label == label].float().mean() for label in labels])
        return labels[share < 0.5]

    def _heard(self, auxiliary: AuxiliaryClassifier) -> Tensor:
        return auxiliary.posterior(self.path[:, -1].float(), self.label).cpu()

    def draw(self, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one trajectory of each label: noise [B, M, F] and path [B, steps, M, F], float32."""
        # the largest of random numbers among those of the right label
        random = torch.rand(len(label), len(self.label), generator=generator)
        rows = (random * (self.label[None] == label[:, None])).argmax(dim=1)
        return self.noise[rows].float(), self.path[rows].float()


@torch.no_grad()
def make_trajectories(
    teacher: UNet,
    spec: DiffusionSpec,
    text: Tensor,
    folder: str | Path,
    *,
    names: Sequence[str],
    frames: int,
    rounds: int,
    student_steps: int = 2,
    how: TeacherSpec | None = None,
    only: Tensor | None = None,
    rank: int = 0,
    processes: int = 1,
    on_round: Callable[[int], None] | None = None,
) -> None:
    """Sample ``rounds`` clips of each text [C, D] and write them; files that exist are kept.

    Args:
        teacher: In evaluation mode, on the device that samples.
        spec: Its schedule and bounds.
        text: What it is asked, by label.
        folder: Made if missing; one file a round and process.
        names: Labels, in the order of ``text``'s rows.
        frames: Length F.
        rounds: Clips a label.
        student_steps: How many states of the trajectory are kept, the sound one of them.
        how: Its steps and guidance.
        only: Labels int64 [K] to sample, by themselves; all of them if None.
        rank: This process's number; every ``processes``-th label is its.
        processes: How many there are.
        on_round: Called with each round's number.

    Raises:
        DataError: If the teacher's steps are no multiple of ``student_steps``, or a file that
            exists is of another teacher, of one that sampled otherwise, or of other labels.
        OutputError: If a file cannot be written.
    """
    how = how or TeacherSpec()
    if how.steps % student_steps:
        raise DataError(
            f"{how.steps} steps of the teacher are no multiple of the student's {student_steps}"
        )
    folder = writable_folder(Path(folder))
    device = next(teacher.parameters()).device
    label = (torch.arange(len(text)) if only is None else only)[rank::processes]
    at_once = AT_ONCE[device.type]
    kind, seed = ("", 17) if only is None else (_MORE, 500_017)
    origin = {"teacher": json.dumps(encode(how)), "source": _source(teacher, spec, names, frames)}
    if only is not None:
        origin["only"] = json.dumps(only.tolist())
    silent = 0
    for number in range(rounds if len(label) else 0):
        path = folder / f"{kind}{number:03d}-{rank}.safetensors"
        if path.is_file():
            silent += not _check_origin(path, origin)
            continue
        generator = torch.Generator().manual_seed(number * 1000 + rank + seed)
        noise = torch.randn(len(label), teacher.config.n_mels, frames, generator=generator)
        states = torch.cat(
            [
                _trajectory(
                    teacher, spec, how, n.to(device), text[part].to(device), student_steps
                ).cpu()
                for n, part in zip(noise.split(at_once), label.split(at_once), strict=True)
            ]
        )
        tensors = {"noise": noise.half(), "path": states.half(), "label": label.contiguous()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, origin)
        if on_round is not None:
            on_round(number)
    if silent:
        logger.warning(
            "%s: %d files do not say which teacher made them; they are taken for this one's",
            folder,
            silent,
        )


def _source(teacher: UNet, spec: DiffusionSpec, names: Sequence[str], frames: int) -> str:
    """Return a hash of what trajectories depend on besides how the teacher samples.

    Texts are in it by name: their embeddings differ from machine to machine in the last digits.
    """
    facts = [list(names), frames, encode(spec)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    hash_weights(teacher, digest)
    return digest.hexdigest()


def more_labels(folder: str | Path) -> Tensor | None:
    """Return the labels that there are further trajectories of, int64 [K]; None if of none.

    Raises:
        CheckpointError: If a file is damaged.
    """
    for path in sorted(Path(folder).glob(f"{_MORE}*.safetensors")):
        if "only" in (written := _written(path)):
            return torch.tensor(json.loads(written["only"]), dtype=torch.int64)
    return None


def _written(path: Path) -> dict[str, str]:
    """Return what a file of trajectories says of itself."""
    try:
        with safe_open(path, "pt") as file:
            written: dict[str, str] = file.metadata() or {}
        for key in written.keys() & {"teacher", "only"}:
            json.loads(written[key])
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete it") from error
    return written


def _check_origin(path: Path, origin: Mapping[str, str]) -> bool:
    """Refuse a file of another origin, and return whether it says whose it is."""
    written = _written(path)
    teacher = json.loads(written.get("teacher", "null"))
    # files of before say nothing, and are of the defaults
    teacher = encode(TeacherSpec()) if teacher is None else teacher
    if teacher != json.loads(origin["teacher"]):
        raise DataError(f"{path}: of a teacher with other steps or guidance: choose another --out")
    if written.get("source", origin["source"]) != origin["source"]:
        raise DataError(
            f"{path}: of another teacher, other labels or another length: choose another --out"
        )
    if written.get("only", origin.get("only")) != origin.get("only"):
        raise DataError(f"{path}: of other labels than are wanted more of: choose another --out")
    return "source" in written


def _trajectory(
    teacher: UNet,
    spec: DiffusionSpec,
    how: TeacherSpec,
    noise: Tensor,
    condition: Tensor,
    student_steps: int,
) -> Tensor:
    """Return the states after every ``how.steps / student_steps`` steps, [B, student_steps, M, F].

    Source:
        Song et al. 2021, arXiv:2010.02502; Ho & Salimans 2022, arXiv:2207.12598.
    """
    made: list[tuple[Tensor, Tensor]] = []

    def ask(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        if len(made) >= how.guided:
            return teacher(x, t, condition)
        both = torch.cat([condition, torch.zeros_like(condition)])
        wanted, free = teacher(x.repeat(2, 1, 1), t.repeat(2), both).chunk(2)
        return free + how.guidance * (wanted - free)

    for call in Rollout(spec, how.steps)(ask, noise, condition, end_to_end=False):
        made.append(call)
    after = [*(x for x, _ in made[1:]), made[-1][1]]
    stride = how.steps // student_steps
    return torch.stack(after[stride - 1 :: stride], dim=1)
