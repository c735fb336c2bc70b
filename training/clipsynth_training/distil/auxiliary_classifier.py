"""A classifier that hears what a student makes, and says how to be told apart better.

Source:
    Odena et al. 2017, arXiv:1610.09585 (a generator that learns from an auxiliary classifier);
    Bai et al. 2024, arXiv:2309.10740 (a distilled sound model tuned through its vocoder, on what
    a network hears in the waveform).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipsynth_rt.audio.clip import PEAK
from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import CheckpointError
from clipsynth_training.classifier.network import SoundClassifier
from clipsynth_training.classifier.train import HEARD_PEAK, augment, grained, load_classifier
from clipsynth_training.mel import MelSpectrogram
from clipsynth_training.vocoder.network import load_vocoder


class AuxiliaryClassifier:
    """Hears one half of the clips as mels, the other as the vocoder's sound.

    Args:
        classifier: Trained as an auxiliary classifier, so on real clips alone.
        vocoder: Normalised log-mel [B, M, F] -> waveform [B, T].
        spec: The analysis that both know.
        names: The student's labels, in order.

    Raises:
        CheckpointError: If the classifier does not know a label.
    """

    def __init__(
        self,
        classifier: SoundClassifier,
        vocoder: nn.Module,
        spec: MelSpec,
        names: Sequence[str],
    ) -> None:
        known = classifier.config.labels
        if unknown := sorted(set(names) - set(known)):
            raise CheckpointError(
                f"the auxiliary classifier does not know {unknown[0]!r}: train it on all labels"
            )
        self.classifier = classifier.eval().requires_grad_(False)
        self.vocoder = vocoder.eval().requires_grad_(False)
        self.spec, self.analysis = spec, MelSpectrogram(spec)
        self.column = torch.tensor([known.index(name) for name in names])

    @property
    def device(self) -> torch.device:
        """Where it listens."""
        return self.column.device

    def to(self, device: torch.device) -> AuxiliaryClassifier:
        """Move it to where it is to listen, and return it."""
        for module in (self.classifier, self.vocoder, self.analysis):
            module.to(device)
        self.column = self.column.to(device)
        return self

    @classmethod
    def open(
        cls, folder: str | Path, teacher: str | Path, names: Sequence[str]
    ) -> AuxiliaryClassifier:
        """Read the part ``classifier`` of ``folder`` and the part ``vocoder`` of ``teacher``.

        Raises:
            CheckpointError: If one is missing or damaged, or does not know a label.
        """
        classifier, spec = load_classifier(folder)
        return cls(classifier, load_vocoder(teacher)[0], spec, names)

    def loss(self, made: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
        """Return what is wrong with mels [B, M, F] meant as ``label`` [B], in nats.

        That is how unlikely the right label is, heard through random changes, so that there is
        nothing to gain from what only one hearing would notice; and by how much sound exceeds full
        scale.
        """
        waveform = self.vocoder(made[::2].clamp_min(self.spec.floor_normalised))
        peak = waveform.abs().amax(dim=1, keepdim=True).clamp_min(1e-4)
        over = (peak / PEAK).log().clamp_min(0.0)
        # an estimate of x0 at the floor is silence: nothing to bring to a level
        heard = self.analysis(waveform * (HEARD_PEAK / peak.detach()).clamp_max(1.0))
        place = torch.arange(len(made), device=made.device)
        order = torch.cat([place[::2], place[1::2]])
        mel = torch.cat([heard, made[1::2]])
        mel = grained(augment(mel, self.spec, generator), generator)
        logits, _ = self.classifier(mel)
        return F.cross_entropy(logits, self.column[label[order]]) + over.sum() / len(made)

    @torch.no_grad()
    def posterior(self, made: Tensor, label: Tensor) -> Tensor:
        """Return how likely ``label`` [B] seems for mels [B, M, F]: float32 [B]."""
        rows = self.column[label.to(self.device)]
        parts = [
            self.classifier(mel.to(self.device))[0].softmax(dim=1).gather(1, row[:, None])[:, 0]
            for mel, row in zip(made.split(64), rows.split(64), strict=True)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def levelled(self, made: Tensor) -> Tensor:
        """Return mels [B, M, F] as quiet as lets their sound stay within full scale."""
        floor = self.spec.floor_normalised
        made = made.to(self.device)
        peak = torch.cat([self.vocoder(mel).abs().amax(dim=1) for mel in made.split(8)])
        change = (HEARD_PEAK / peak.clamp_min(HEARD_PEAK)).log() / self.spec.std
        quieter = (made + change[:, None, None]).clamp_min(floor)
        return torch.where(made > floor + 1e-3, quieter, made)
