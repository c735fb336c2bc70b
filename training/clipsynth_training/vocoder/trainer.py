"""One vocoder and all that its training step needs, saved and resumed exactly."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipsynth_rt.bundles.manifest import encode
from clipsynth_training.checkpoint import load_state, load_weights, save_component, save_state
from clipsynth_training.mel import MelSpectrogram
from clipsynth_training.run.autocast import mixed_precision
from clipsynth_training.vocoder import losses
from clipsynth_training.vocoder.config import VocoderTrainConfig, VocoderTraining
from clipsynth_training.vocoder.data import AudioSource, draw_segments
from clipsynth_training.vocoder.discriminators import Discriminators
from clipsynth_training.vocoder.istft import IstftVocoder, SpectralPrediction
from clipsynth_training.vocoder.network import build_vocoder

Terms = dict[str, tuple[float, Tensor]]
"""Losses by name, each with its weight."""

STATE = "vocoder_state"


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
        stft = self.generator.stft
        true_real, true_imag = map(stft.in_order, stft.analyse(real))
        prediction = SpectralPrediction(*map(stft.in_order, prediction))
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
        return mixed_precision("cpu", self.config.training.mixed_precision)

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
        tensors = {f"generator.{k}": v for k, v in self.generator.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"discriminators.{k}": v for k, v in self.discriminators.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{name}.{index}.{k}": v for k, v in state.items()}
        tensors["torch_rng"] = torch.get_rng_state()
        state = {"config": config, "step": self.step, "rng": self.rng.bit_generator.state}
        save_state(folder, STATE, self.step, tensors, state)
        save_component(
            folder, "vocoder", self.average.state_dict(), facts | {"metrics": dict(metrics)}
        )

    def resume(self, folder: Path) -> None:
        """Continue exactly where the newest whole state of ``folder`` left off, if it has any.

        Raises:
            CheckpointError: If every state is damaged, or it is of another configuration.
        """
        loaded = load_state(folder, STATE)
        if loaded is None:
            return
        tensors, state = loaded
        where = str(folder)
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
