"""Train a vocoder: first on spectral distances alone, then against discriminators as well."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipsynth_rt.errors import CheckpointError, InputError, ManifestError
from clipsynth_rt.spec import MelSpec, decode, encode
from clipsynth_rt.training import losses
from clipsynth_rt.training.checkpoint import load_part, load_weights, save_part
from clipsynth_rt.training.mel import MelSpectrogram
from clipsynth_rt.training.models.discriminators import DiscriminatorConfig, Discriminators
from clipsynth_rt.training.models.istft_vocoder import IstftVocoder, SpectralPrediction
from clipsynth_rt.training.models.vocoder import (
    VocoderConfig,
    build_vocoder,
    decode_vocoder_config,
    load_vocoder,
)
from clipsynth_rt.training.vocoder_data import (
    AudioSource,
    draw_segments,
    held_out_clips,
    open_audio,
)
from clipsynth_rt.training.vocoder_metrics import measure_resynthesis

logger = logging.getLogger(__name__)

Terms = dict[str, tuple[float, Tensor]]
"""Losses by name, each with its weight."""


@dataclass(frozen=True)
class VocoderTraining:
    """How to train. The weights are of the losses in ``training/losses.py``.

    ``compile`` fuses operations with TorchInductor, which needs a C++ compiler and minutes to
    start. A light vocoder's spectrum is compared with the true one from the start, its sound only
    from step ``waveform_from``: without rendering, a step costs a third. ``adversarial_from`` is
    the step at which the discriminators join. ``mel_noise`` (nats, from step ``mel_noise_from``)
    roughens the input as a denoiser does.
    """

    steps: int = 20000
    batch_size: int = 16
    segment_frames: int = 64
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.05
    warmup_steps: int = 100
    betas: tuple[float, ...] = (0.8, 0.99)
    weight_decay: float = 0.01
    gradient_clip: float = 5.0
    ema: float = 0.999
    seed: int = 0
    mixed_precision: bool = True
    compile: bool = False
    stft_weight: float = 1.0
    mel_weight: float = 1.0
    amplitude_weight: float = 1.0
    phase_weight: float = 1.0
    waveform_from: int = 0
    adversarial_from: int = 1_000_000_000
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    discriminator_learning_rate: float = 2e-4
    mel_noise: float = 0.0
    mel_noise_from: int = 0
    log_every: int = 50
    save_every: int = 500
    validation_clips: int = 32


@dataclass(frozen=True)
class VocoderTrainConfig:
    """A whole run: model, analysis, training and discriminators."""

    vocoder: VocoderConfig
    mel: MelSpec = field(default_factory=MelSpec)
    training: VocoderTraining = field(default_factory=VocoderTraining)
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)


def read_vocoder_config(source: str | Path | Mapping[str, Any]) -> VocoderTrainConfig:
    """Read a TOML file, a name of ``training/configs/vocoder_<name>.toml``, or parsed data.

    Raises:
        InputError: If there is no such file, or it cannot be understood; the message names the
            field.
    """
    where = "configuration"
    if not isinstance(source, Mapping):
        path = Path(source)
        if not path.suffix:
            path = Path(__file__).parent / "configs" / f"vocoder_{source}.toml"
        where = str(path)
        try:
            source = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not TOML ({error})") from error
    kinds = {"mel": MelSpec, "training": VocoderTraining, "discriminators": DiscriminatorConfig}
    if unknown := source.keys() - kinds.keys() - {"vocoder"}:
        raise InputError(f"{where}: {min(unknown)}: unknown key")
    try:
        parts = {name: decode(kind, source.get(name, {}), name) for name, kind in kinds.items()}
        vocoder = decode_vocoder_config(source.get("vocoder", {}))
    except ManifestError as error:
        raise InputError(f"{where}: {error}") from error
    return VocoderTrainConfig(vocoder, **parts)


class VocoderTrainer:
    """One run: networks, optimisers, averages and random state, all of it resumable.

    Args:
        config: The run.
        source: Clips to train on.
    """

    def __init__(self, config: VocoderTrainConfig, source: AudioSource) -> None:
        torch.manual_seed(config.training.seed)
        self.config, self.source = config, source
        self.analysis = MelSpectrogram(config.mel)
        self.generator = build_vocoder(config.vocoder, config.mel)
        if isinstance(self.generator, IstftVocoder):
            self.generator.mixed_precision = config.training.mixed_precision
        self.average = build_vocoder(config.vocoder, config.mel).eval()
        self.average.load_state_dict(self.generator.state_dict())
        self.discriminators = Discriminators(config.discriminators)
        t = config.training
        self.optimisers = {
            "generator": _adamw(self.generator, t, t.learning_rate),
            "discriminators": _adamw(self.discriminators, t, t.discriminator_learning_rate),
        }
        self.rng = np.random.default_rng(t.seed)
        self.step = 0
        self._spectra, self._waveforms = self._compare_spectra, self._compare_waveforms
        if t.compile:
            # most of a step is elementwise and bound by memory: fused, it takes a fifth less
            self._spectra = torch.compile(self._spectra, dynamic=False)
            self._waveforms = torch.compile(self._waveforms, dynamic=False)

    def train_step(self) -> dict[str, float]:
        """Do one step of both sides; returns every loss by name."""
        t = self.config.training
        length = t.segment_frames * self.config.mel.hop_length
        real = torch.from_numpy(draw_segments(self.source, t.batch_size, length, self.rng))
        mel = self.analysis(real)
        if self.step >= t.mel_noise_from and t.mel_noise > 0.0:
            mel = mel + t.mel_noise / self.config.mel.std * torch.randn_like(mel)
        self.generator.train()
        self._set_learning_rates()
        report: dict[str, float] = {}
        fake = None
        if self.step < t.waveform_from and isinstance(self.generator, IstftVocoder):
            terms = self._spectra(real, mel)
        else:
            fake, terms = self._waveforms(real, mel)
        if fake is not None and self.step >= t.adversarial_from:
            report["discriminator"] = self._train_discriminators(real, fake.detach())
            terms |= self._adversarial_terms(real, fake)
        loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
        report["gradient"] = self._descend("generator", self.generator, loss)
        self._update_average()
        self.step += 1
        return report | {name: float(term.detach()) for name, (_, term) in terms.items()}

    def _compare_spectra(self, real: Tensor, mel: Tensor) -> Terms:
        """Return the losses of a light vocoder's predictions, which are not rendered."""
        return self._prediction_terms(real, self.generator.predict(mel))

    def _compare_waveforms(self, real: Tensor, mel: Tensor) -> tuple[Tensor, Terms]:
        """Return the vocoder's sound and all the losses that need no discriminator."""
        t = self.config.training
        terms: Terms = {}
        if isinstance(self.generator, IstftVocoder):
            prediction = self.generator.predict(mel)
            fake = self.generator.render(prediction, mel)
            terms = self._prediction_terms(real, prediction)
        else:
            with self._autocast():
                fake = self.generator(mel).float()
        terms["stft"] = (t.stft_weight, losses.multi_resolution_stft_loss(real, fake))
        terms["mel"] = (t.mel_weight, losses.mel_loss(real, fake, self.analysis))
        return fake, terms

    def _prediction_terms(self, real: Tensor, prediction: SpectralPrediction) -> Terms:
        t = self.config.training
        true_real, true_imag = self.generator.stft.analyse(real)
        amplitude = torch.sqrt(true_real.square() + true_imag.square())
        over_time, over_frequency = losses.phase_loss(
            true_real, true_imag, prediction.cosine, prediction.sine
        )
        level = losses.amplitude_loss(amplitude, prediction.log_amplitude)
        terms = {
            "amplitude": (t.amplitude_weight, level),
            "phase_time": (t.phase_weight, over_time),
            "phase_frequency": (t.phase_weight, over_frequency),
        }
        if self.config.vocoder.phase == "recurrent":
            # judged by itself: a phase is not remembered before its speed is right, and without
            # memory the speed would get no gradient
            speed = losses.speed_loss(true_real, true_imag, prediction.speed)
            terms["speed"] = (t.phase_weight, speed)
        return terms

    def _adversarial_terms(self, real: Tensor, fake: Tensor) -> Terms:
        t = self.config.training
        self.discriminators.requires_grad_(False)
        with self._autocast():
            with torch.no_grad():
                _, real_features = self.discriminators(real)
            scores, fake_features = self.discriminators(fake)
        self.discriminators.requires_grad_(True)
        matching = losses.feature_matching_loss(real_features, fake_features).float()
        return {
            "adversarial": (
                t.adversarial_weight,
                losses.adversarial_loss([score.float() for score in scores]),
            ),
            "features": (t.feature_weight, matching),
        }

    def _train_discriminators(self, real: Tensor, fake: Tensor) -> float:
        with self._autocast():
            answers = [self.discriminators(waveform)[0] for waveform in (real, fake)]
        scores = [[score.float() for score in answer] for answer in answers]
        loss = losses.discriminator_loss(*scores)
        self._descend("discriminators", self.discriminators, loss)
        return float(loss.detach())

    def _descend(self, name: str, network: nn.Module, loss: Tensor) -> float:
        """Take one optimiser step and return the gradient's norm before clipping."""
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.config.training.gradient_clip)
        # one overflow in bf16 must not end a run of hours; the log shows it as nan
        if torch.isfinite(norm):
            optimiser.step()
        return float(norm)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.training.mixed_precision)

    def _set_learning_rates(self) -> None:
        t = self.config.training
        warm = min(1.0, (self.step + 1) / max(1, t.warmup_steps))
        done = min(1.0, self.step / max(1, t.steps))
        cosine = 0.5 + 0.5 * math.cos(math.pi * done)
        factor = warm * (t.final_learning_rate + (1.0 - t.final_learning_rate) * cosine)
        rates = {"generator": t.learning_rate, "discriminators": t.discriminator_learning_rate}
        for name, rate in rates.items():
            for group in self.optimisers[name].param_groups:
                group["lr"] = rate * factor

    @torch.no_grad()
    def _update_average(self) -> None:
        # young averages follow faster, or the random start would stay in them
        decay = min(self.config.training.ema, (1.0 + self.step) / (10.0 + self.step))
        mine, theirs = list(self.average.parameters()), list(self.generator.parameters())
        torch._foreach_lerp_(mine, theirs, 1.0 - decay)

    def save(self, folder: Path, metrics: Mapping[str, float]) -> None:
        """Write the averaged vocoder, and everything that ``resume`` needs."""
        config = encode(self.config)
        facts = {"vocoder": config["vocoder"], "mel": config["mel"], "steps": self.step}
        save_part(folder, "vocoder", self.average.state_dict(), facts | {"metrics": dict(metrics)})
        tensors = {f"generator.{k}": v for k, v in self.generator.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"discriminators.{k}": v for k, v in self.discriminators.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{name}.{index}.{k}": v for k, v in state.items()}
        tensors["torch_rng"] = torch.get_rng_state()
        state = {"config": config, "step": self.step, "rng": self.rng.bit_generator.state}
        save_part(folder, "vocoder_state", tensors, state)

    def resume(self, folder: Path) -> None:
        """Continue exactly where ``save`` left off.

        Raises:
            CheckpointError: If the state is missing, damaged or of another configuration.
        """
        tensors, state = load_part(folder, "vocoder_state")
        where = str(folder / "vocoder_state.safetensors")
        networks = {
            "generator": self.generator,
            "average": self.average,
            "discriminators": self.discriminators,
        }
        for name, network in networks.items():
            load_weights(network, _within(tensors, name), where)
        for name, optimiser in self.optimisers.items():
            blank = optimiser.state_dict()
            for key, value in _within(tensors, f"optimiser.{name}").items():
                index, field_name = key.split(".", 1)
                blank["state"].setdefault(int(index), {})[field_name] = value
            optimiser.load_state_dict(blank)
        torch.set_rng_state(tensors["torch_rng"])
        self.rng.bit_generator.state = state["rng"]
        self.step = int(state["step"])


def _adamw(network: nn.Module, t: VocoderTraining, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        network.parameters(), lr=rate, betas=tuple(t.betas), weight_decay=t.weight_decay
    )


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}


def train_vocoder(
    config: str | Path | Mapping[str, Any] | VocoderTrainConfig,
    data: str | Path | AudioSource,
    out_dir: str | Path,
    *,
    validation: str | Path | AudioSource | None = None,
    resume: bool = True,
    max_minutes: float | None = None,
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
        max_minutes: Stop early, saved, after this long.

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
    if resume and (out / "vocoder_state.json").is_file():
        trainer.resume(out)
    out.mkdir(parents=True, exist_ok=True)
    deadline = math.inf if max_minutes is None else time.monotonic() + 60.0 * max_minutes
    with (out / "vocoder_log.jsonl").open("a", encoding="utf-8") as log:
        for report in _steps(trainer):
            if report:
                _write_line(log, {"step": trainer.step, **report})
            finished = trainer.step >= t.steps or time.monotonic() > deadline
            if finished or trainer.step % t.save_every == 0:
                metrics = _validate(trainer, held_out)
                trainer.save(out, metrics)
                if metrics:
                    _write_line(log, {"step": trainer.step, "validation": metrics})
            if finished:
                break
    return out


def _steps(trainer: VocoderTrainer) -> Iterator[dict[str, float]]:
    """Take steps; yields mean losses where a line of the log is due, else nothing."""
    t = trainer.config.training
    sums: dict[str, float] = {}
    count, began = 0, time.monotonic()
    while trainer.step < t.steps:
        for name, value in trainer.train_step().items():
            sums[name] = sums.get(name, 0.0) + value
        count += 1
        if trainer.step % t.log_every:
            yield {}
            continue
        seconds = (time.monotonic() - began) / count
        yield {name: round(total / count, 5) for name, total in sums.items()} | {
            "seconds_a_step": round(seconds, 4)
        }
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
    from clipsynth_rt.training.griffin_lim import griffin_lim_from_mel

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
