"""Training of the small dual encoder: pictures against their names, the sentence encoder locked.

The text tower is finished first (``text_projection``) and locked; the image tower then learns to
meet it (LiT, Zhai et al. 2022, arXiv:2111.07991). The loss is CLIP's (Radford et al. 2021,
arXiv:2103.00020) with several true pairs a row (UniCL, Yang et al. 2022, arXiv:2204.03610): two
pictures of drums are not each other's negatives.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from clipsynth_rt.bundles.manifest import decode, encode
from clipsynth_rt.errors import CheckpointError, InputError, ManifestError
from clipsynth_rt.files import read_toml
from clipsynth_training.checkpoint import (
    load_component,
    load_state,
    load_weights,
    save_component,
    save_state,
)
from clipsynth_training.clip.encoder import (
    Projection,
    load_clip,
    load_sentence_encoder,
    small_clip_config,
)
from clipsynth_training.clip.image_tower import ImageTower, ImageTowerConfig
from clipsynth_training.clip.picture_retrieval import retrieval_report
from clipsynth_training.clip.text_projection import embed_phrases, fit_projection
from clipsynth_training.data.pictures.augment import augment
from clipsynth_training.data.pictures.captions import Captions, caption_pictures
from clipsynth_training.data.pictures.catalogue import Picture, assign_splits, find_pictures
from clipsynth_training.data.pictures.raster import rasterise_all
from clipsynth_training.data.sounds import Concept, load_concepts
from clipsynth_training.run.autocast import mixed_precision
from clipsynth_training.run.interruption import StopSignals

logger = logging.getLogger(__name__)
STATE = "clip_state"
DEFAULT_CONFIG = Path(__file__).parents[1] / "configs" / "clip.toml"
"""How the shipped encoder is trained."""


@dataclass(frozen=True)
class ClipTrainConfig:
    """What decides a training of the encoder; ``configs/clip.toml`` explains each value."""

    seed: int = 0
    steps: int = 6000
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    ema: float = 0.998
    structure_weight: float = 30.0
    same_meaning: float = 0.92
    concept_share: float = 0.4
    draw_size: int = 96
    templates: tuple[str, ...] = ("a photo of {query}", "{query}")
    image_tower: ImageTowerConfig = field(default_factory=ImageTowerConfig)


def load_config(path: str | Path) -> ClipTrainConfig:
    """Read a configuration from TOML; a key that is not known is refused.

    Raises:
        InputError: If the file cannot be read, or a key or value is not known.
    """
    try:
        return decode(ClipTrainConfig, read_toml(path), "")
    except ManifestError as error:
        raise InputError(f"{path}: not a configuration of train clip ({error})") from error


class Towers(nn.Module):
    """The image tower and its temperature, which are trained, and the finished projection."""

    def __init__(self, config: ImageTowerConfig, width: int) -> None:
        super().__init__()
        self.image_tower = ImageTower(config)
        self.projection = Projection(width, config.dim).requires_grad_(False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encoder_tensors(self) -> dict[str, Tensor]:
        """Return what the shipped checkpoint holds: no temperature."""
        return {k: v for k, v in self.state_dict().items() if k != "log_scale"}


def train_clip(
    source_dir: str | Path,
    out_dir: str | Path,
    config: ClipTrainConfig | None = None,
    *,
    model_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    save_every: int = 500,
    text_from: str | Path | None = None,
    pictures: Sequence[Picture] | None = None,
    concepts: Sequence[Concept] | None = None,
    signals: StopSignals | None = None,
) -> dict[str, Any]:
    """Train the encoder on the corpus's pictures; a run that was cut off goes on where it was.

    Args:
        source_dir: Where ``find_pictures`` looks.
        out_dir: Checkpoint folder: ``clip.*`` (averaged weights) and ``clip_state.*`` (resume).
        config: How to train.
        model_dir: Folder of the sentence encoder; default: its installed package.
        cache_dir: Keeps drawn pictures and sentence embeddings between runs.
        save_every: Steps between saves.
        text_from: Checkpoint folder whose text projection is kept, so that a denoiser trained on
            its embeddings stays valid; default: fit one.
        pictures: In place of what ``source_dir`` holds.
        concepts: In place of the corpus's own.
        signals: Stop, saved, once one was received.

    Returns:
        The retrieval report on test pictures; nothing of a run that was stopped.

    Raises:
        DataError: If a picture package is missing.
        CheckpointError: If ``out_dir`` holds a run of another configuration.
    """
    config = config or ClipTrainConfig()
    out_dir = Path(out_dir)
    cache_dir = Path(cache_dir) if cache_dir else out_dir / "cache"
    concepts = load_concepts() if concepts is None else concepts
    pictures = find_pictures(source_dir) if pictures is None else pictures
    split = assign_splits(pictures, concepts)
    drawn, pixels = rasterise_all(
        [p for p in pictures if split[p.id] == "train"],
        config.draw_size,
        cache_dir / "train.safetensors",
    )
    captions = caption_pictures(drawn, concepts)
    encoder, tokenizer, digest, _ = load_sentence_encoder(model_dir)
    sentences = embed_phrases(encoder, tokenizer, captions.phrases, config.templates, cache_dir)

    torch.manual_seed(config.seed)
    towers = Towers(config.image_tower, encoder.width)
    if config.image_tower.published is not None:
        towers.image_tower.body.load_published()
    towers.image_tower.to(memory_format=torch.channels_last)
    average = {k: v.clone() for k, v in towers.state_dict().items()}
    optimiser = _optimiser(towers, config)
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    first = _resume(out_dir, config, towers, average, optimiser)
    if first == 0:
        if text_from is not None:
            _copy_projection(text_from, digest, towers.projection)
        else:
            names = [picture.names[0] for picture in drawn]
            template, weight = config.templates[0], config.structure_weight
            fit = fit_projection(
                towers.projection, encoder, tokenizer, concepts, names, template, weight
            )
            logger.info("text projection: %s", fit)
        average |= {f"projection.{k}": v.clone() for k, v in towers.projection.state_dict().items()}
    with torch.no_grad():
        texts = towers.projection(sentences)
    data = _Batches(config, torch.from_numpy(pixels), drawn, captions, texts)

    bar = tqdm(
        range(first, config.steps), initial=first, total=config.steps, desc="clip", disable=None
    )
    for step in bar:
        image, text = data.draw(step)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * _schedule(step, config)
        with mixed_precision("cpu"):
            features = towers.image_tower.features(image)
        image_vector = F.normalize(features.float(), dim=-1)
        loss = contrastive_loss(image_vector, text, towers.log_scale, config.same_meaning)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        with torch.no_grad():
            towers.log_scale.clamp_(max=math.log(100.0))
            _update(average, towers, min(config.ema, (1 + step) / (10 + step)))
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % 100 == 0:
            logger.info("step %d of %d: loss %.3f", step + 1, config.steps, loss.item())
        stopped = signals is not None and signals.received is not None
        if stopped or ((step + 1) % save_every == 0 and step + 1 < config.steps):
            _save(out_dir, config, towers, average, optimiser, step + 1, digest)
        if stopped:
            return {}
    _save(out_dir, config, towers, average, optimiser, config.steps, digest)

    held_out = [p for p in pictures if split[p.id] == "test"]
    clip = load_clip(out_dir, model_dir=model_dir)
    report = retrieval_report(clip, held_out, concepts, cache_dir / "test.safetensors")
    tensors, facts = load_component(out_dir, "clip")
    save_component(out_dir, "clip", tensors, {**facts, "retrieval": report})
    return report


def contrastive_loss(image: Tensor, text: Tensor, log_scale: Tensor, same_meaning: float) -> Tensor:
    """Return the contrastive loss of B pairs, averaged over both directions.

    Args:
        image: Unit embeddings [B, D].
        text: Unit embeddings [B, D]; row i belongs to picture i.
        log_scale: Log of the inverse temperature.
        same_meaning: Cosine of two texts above which each fits both pictures.
    """
    logits = log_scale.exp() * image @ text.T
    target = (text @ text.T > same_meaning).float()
    target.fill_diagonal_(1.0)
    target = target / target.sum(1, keepdim=True)  # symmetric before, so columns are the same
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _copy_projection(folder: str | Path, digest: str, projection: Projection) -> None:
    tensors, facts = load_component(folder, "clip")
    if facts.get("sentence_encoder", {}).get("sha256") != digest:
        raise CheckpointError(f"{folder}: its text projection is for another sentence encoder")
    prefix = "projection."
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    load_weights(projection, own, str(folder))


class _Batches:
    """Batches that depend on the seed and the step alone, so that a resumed run repeats them."""

    def __init__(
        self,
        config: ClipTrainConfig,
        pixels: Tensor,
        pictures: Sequence[Picture],
        captions: Captions,
        texts: Tensor,
    ) -> None:
        self.config, self.pixels, self.texts = config, pixels, texts
        self.tint = torch.tensor([picture.tint for picture in pictures])
        self.captions = captions
        weight = captions.picture_weight
        of_concept = captions.of_concept
        share = config.concept_share if of_concept.any() else 0.0
        self.probability = torch.where(
            of_concept,
            share * weight / weight[of_concept].sum().clamp(min=1e-9),
            (1.0 - share) * weight / weight[~of_concept].sum().clamp(min=1e-9),
        )

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Return pictures [B, 3, S, S] and the text embeddings of one caption each, [B, D]."""
        config = self.config
        random = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rows = torch.multinomial(self.probability, config.batch_size, True, generator=random)
        size = config.image_tower.image_size
        image = augment(self.pixels[rows], self.tint[rows], size, random)
        phrase = self.captions.draw(rows, random)
        template = torch.randint(len(self.texts), (len(rows),), generator=random)
        return image.contiguous(memory_format=torch.channels_last), self.texts[template, phrase]


def _optimiser(towers: Towers, config: ClipTrainConfig) -> torch.optim.AdamW:
    published = config.image_tower.published
    slow = config.learning_rate * published.rate if published is not None else 0.0
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in (*towers.image_tower.named_parameters(), ("log_scale", towers.log_scale)):
        if p.requires_grad:
            rate = slow if name.startswith("body.") else config.learning_rate
            decay = config.weight_decay if p.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(p)
    return torch.optim.AdamW(
        [
            {"params": params, "peak": rate, "weight_decay": decay}
            for (rate, decay), params in groups.items()
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
    )


def _schedule(step: int, config: ClipTrainConfig) -> float:
    """Linear warm-up, then half a cosine to nothing."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _update(average: dict[str, Tensor], towers: Towers, decay: float) -> None:
    for name, value in towers.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1.0 - decay)
        else:
            average[name].copy_(value)


def _save(
    out_dir: Path,
    config: ClipTrainConfig,
    towers: Towers,
    average: dict[str, Tensor],
    optimiser: torch.optim.AdamW,
    step: int,
    digest: str,
) -> None:
    facts = small_clip_config(config.image_tower, digest, step=step, train=encode(config))
    shipped = {name: average[name] for name in towers.encoder_tensors()}
    state = {f"towers.{k}": v for k, v in towers.state_dict().items()}
    state |= {f"average.{k}": v for k, v in average.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        state |= {f"optimiser.{index}.{k}": v for k, v in moments.items()}
    save_state(out_dir, STATE, step, state, {"step": step, "train": encode(config)})
    save_component(out_dir, "clip", shipped, facts)


def _resume(
    out_dir: Path,
    config: ClipTrainConfig,
    towers: Towers,
    average: dict[str, Tensor],
    optimiser: torch.optim.AdamW,
) -> int:
    """Load the last save of the same configuration and return its step; 0 without one."""
    loaded = load_state(out_dir, STATE)
    if loaded is None:
        return 0
    state, facts = loaded
    if facts["train"] != encode(config):
        raise CheckpointError(
            f"{out_dir}: holds a run of another configuration; choose another folder"
        )
    parts: dict[str, dict[str, Tensor]] = {"towers": {}, "average": {}, "optimiser": {}}
    for name, value in state.items():
        part, key = name.split(".", 1)
        parts[part][key] = value
    load_weights(towers, parts["towers"], str(out_dir))
    # Copied into tensors of the same memory layout: another layout is another kernel, and its
    # rounding would make the resumed run differ from an uninterrupted one.
    for name, value in parts["average"].items():
        average[name].copy_(value)
    owners = [p for group in optimiser.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimiser"].items():
        index, key = name.split(".")
        like = torch.empty_like(owners[int(index)]) if value.ndim else torch.empty_like(value)
        moments.setdefault(int(index), {})[key] = like.detach().copy_(value)
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
    logger.info("goes on at step %d of %s", facts["step"], config.steps)
    return facts["step"]
