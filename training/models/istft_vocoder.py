"""A light vocoder that works at frame rate and ends in an inverse Fourier transform.

A ConvNeXt network reads the mel spectrogram and predicts, for every bin of the STFT, how its
level differs from a guess (the magnitudes that explain the mel best) and how fast its phase turns
from frame to frame. Summed over time, that speed is the phase. Predicting the phase itself fails
on held notes: their mel is constant in time, so a convolution answers with a constant, and a
constant phase means that every partial is a multiple of the frame rate. A few rounds of
Griffin-Lim, held to the mel spectrogram, then make neighbouring bins agree.

Sources:
    Siuzdak 2023, arXiv:2306.00814 (Vocos: ConvNeXt at frame rate, inverse STFT).
    Kaneko et al. 2022, arXiv:2203.02395 (iSTFTNet).
    Lv et al. 2024, arXiv:2406.08196 (FreeV: amplitude prior from the mel filters).
    Masuyama et al. 2019, arXiv:1903.03971 (deep Griffin-Lim iteration).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clipsynth_rt.mel import mel_filterbank
from clipsynth_rt.spec import MelSpec
from clipsynth_rt.training.autocast import mixed_precision
from clipsynth_rt.training.models.fourier import RealStft

LOG_AMPLITUDE_RANGE = (-12.0, 7.0)
"""Natural-log STFT magnitudes: below 16-bit silence, above a full-scale sine."""


@dataclass(frozen=True)
class IstftVocoderConfig:
    """Size of the light vocoder.

    ``phase`` is ``integrated`` (phase speed summed over time) or ``direct`` (cosine and sine a
    bin, as Vocos). ``refinements`` counts rounds of Griffin-Lim inside the graph, and
    ``prior_iterations`` those of the magnitude guess.
    """

    kind: str = "istft"
    channels: int = 256
    hidden: int = 704
    blocks: int = 7
    kernel: int = 7
    phase: str = "recurrent"
    gate_width: int = 32
    refinements: int = 4
    prior_iterations: int = 6


class SpectralPrediction(NamedTuple):
    """What the network believes of an STFT, float32 [B, F, n_fft // 2 + 1] each.

    Natural-log magnitude, cosine and sine of the phase, and how far a remembered phase turns from
    the frame before to this one, in radians.
    """

    log_amplitude: Tensor
    cosine: Tensor
    sine: Tensor
    speed: Tensor


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time and a two-layer network over channels, [B, F, C].

    Source:
        Liu et al. 2022, arXiv:2201.03545.
    """

    def __init__(self, channels: int, hidden: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.act = nn.GELU(approximate="tanh")
        self.contract = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus what the block adds to it."""
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.contract(self.act(self.expand(self.norm(y))))


class MelConstraint(nn.Module):
    """Moves STFT magnitudes towards those whose mel spectrogram is a given one.

    Multiplicative updates keep magnitudes positive and their fine structure as it is.

    Source:
        Lee and Seung 2001, "Algorithms for non-negative matrix factorization" (divergence).
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        filters = torch.from_numpy(mel_filterbank(spec))
        # the edge bins (0 Hz, Nyquist) lie in no filter and keep their level
        spread = filters / filters.sum(0, keepdim=True).clamp_min(1e-8)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)
        self.register_buffer("spread", spread, persistent=False)
        self.floor = spec.floor
        self.register_buffer("outside", (spread.sum(0) == 0).float(), persistent=False)

    def forward(self, amplitude: Tensor, mel: Tensor) -> Tensor:
        """Update amplitude [B, F, bins] by one step towards mel [B, F, M] (linear, positive)."""
        # below the floor every level looks the same, so nothing is raised to reach it
        ratio = mel / (amplitude @ self.filters).clamp_min(self.floor)
        return amplitude * (ratio @ self.spread + self.outside)

    def guess(self, mel: Tensor, iterations: int) -> Tensor:
        """Return magnitudes [B, F, bins] that explain mel [B, F, M], starting from flat bands."""
        flat = (mel / self.filters.sum(0)) @ self.spread + 1e-5
        for _ in range(iterations):
            flat = self(flat, mel).clamp_min(1e-5)
        return flat


class IstftVocoder(nn.Module):
    """Normalised log-mel [B, M, F] -> waveform [B, F * hop_length] in [-1, 1].

    Args:
        config: Size of the network.
        spec: The mel spectrogram that it reads.

    Raises:
        ValueError: If ``config.phase`` is unknown.
    """

    def __init__(self, config: IstftVocoderConfig, spec: MelSpec) -> None:
        super().__init__()
        if config.phase not in ("recurrent", "direct"):
            raise ValueError(f"phase {config.phase!r} is neither 'recurrent' nor 'direct'")
        self.config, self.spec = config, spec
        self.mixed_precision = False
        bins = spec.n_fft // 2 + 1
        width = config.channels
        groups = bins // config.gate_width
        self.stem = nn.Conv1d(spec.n_mels, width, config.kernel, padding=config.kernel // 2)
        self.stem_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, config.hidden, config.kernel, 1.0 / config.blocks)
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4 * bins + groups)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        # at first a phase lasts for few frames: fresh phases have to be learnt before memory helps
        nn.init.constant_(self.head.bias[4 * bins :], 0.5)
        self.stft = RealStft(spec)
        self.constraint = MelConstraint(spec)
        # shared by all rounds, so that a trained network may be run with more or fewer of them
        self.momentum = nn.Parameter(torch.zeros(1))
        self.trust = nn.Parameter(torch.full((1,), 2.0))
        k = torch.arange(bins, dtype=torch.float64)
        # a steady tone at a bin's centre: turn a hop, and sign beside its neighbours
        turn = torch.remainder(k * spec.hop_length / spec.n_fft + 0.5, 1.0) - 0.5
        self.register_buffer("turn", (2.0 * math.pi * turn).float(), persistent=False)
        self.register_buffer("sign", (1.0 - 2.0 * (k % 2)).float(), persistent=False)

    def features(self, mel: Tensor) -> Tensor:
        """Return the raw predictions [B, F, 3 * bins] for normalised log-mel [B, M, F]."""
        x = self.stem_norm(self.stem(mel).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def linear_mel(self, mel: Tensor) -> Tensor:
        """Return magnitudes [B, F, M] of a normalised log-mel [B, M, F]."""
        return torch.exp(mel.transpose(1, 2) * self.spec.std + self.spec.mean)

    def predict(self, mel: Tensor) -> SpectralPrediction:
        """Return what the network believes of the STFT, before any refinement."""
        if self.mixed_precision:
            with mixed_precision(mel.device.type):
                raw = self.features(mel)
        else:
            raw = self.features(mel)
        bins = self.spec.n_fft // 2 + 1
        residual, speed, real, imag, gate = raw.float().split(
            [bins] * 4 + [raw.shape[2] - 4 * bins], 2
        )
        guess = self.constraint.guess(self.linear_mel(mel), self.config.prior_iterations)
        log_amplitude = (torch.log(guess) + residual).clamp(*LOG_AMPLITUDE_RANGE)
        speed = speed + self.turn
        if self.config.phase == "recurrent":
            real, imag = self._remember(speed, real, imag, gate)
        inverse = self.sign * torch.rsqrt(real.square() + imag.square() + 1e-8)
        return SpectralPrediction(log_amplitude, real * inverse, imag * inverse, speed)

    def _remember(
        self, speed: Tensor, real: Tensor, imag: Tensor, gate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Carry phasors on from frame to frame.

        z[t] = g[t] exp(i speed[t]) z[t - 1] + (1 - g[t]) v[t], from z[0] = v[0], solved for all
        frames at once: in a frame that turns with the summed speed the recurrence is a real one,
        and a product with a lower triangular matrix of decays.
        """
        # a runtime may write logsigmoid as log(sigmoid), which is -inf for a gate that is far shut,
        # and the difference of two of those is not a number
        gate = gate.clamp(-15.0, 15.0)
        angle = torch.cumsum(speed, dim=1)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        still = torch.stack([real * cosine + imag * sine, imag * cosine - real * sine], dim=1)
        kept = torch.cumsum(nn.functional.logsigmoid(gate), dim=1).transpose(1, 2)
        decay = kept[:, :, :, None] - kept[:, :, None, :]
        # what comes later has no part: far below any sum of gates, which are -15 at the least
        index = torch.arange(decay.shape[2], device=decay.device)
        future = (index[:, None] < index[None, :]).to(decay.dtype) * -1e5
        fresh = torch.sigmoid(-gate[:, 1:]).transpose(1, 2)
        fresh = torch.cat([torch.ones_like(kept[:, :, :1]), fresh], dim=2)
        matrix = torch.exp(decay + future) * fresh[:, :, None, :]
        matrix = matrix[:, None]
        # [B, 2, F, bins] -> [B, 2, groups, F, gate_width]; the Nyquist bin joins the last group
        width, bins = self.config.gate_width, still.shape[3]
        body = still[..., : bins - 1].unflatten(3, (-1, width)).transpose(2, 3)
        body = (matrix @ body).transpose(2, 3).flatten(3)
        tail = matrix[:, :, -1] @ still[..., bins - 1 :]
        still = torch.cat([body, tail], dim=3)
        real, imag = still.unbind(1)
        return real * cosine - imag * sine, imag * cosine + real * sine

    def render(self, prediction: SpectralPrediction, mel: Tensor) -> Tensor:
        """Return the waveform [B, F * hop_length] of a prediction, refined towards ``mel``."""
        target = self.linear_mel(mel)
        amplitude = torch.exp(prediction.log_amplitude)
        cosine, sine = prediction.cosine, prediction.sine
        last_real, last_imag = amplitude * cosine, amplitude * sine
        trust = torch.sigmoid(self.trust)
        for _ in range(self.config.refinements):
            real, imag = self.stft.analyse(
                self.stft.synthesise(amplitude * cosine, amplitude * sine)
            )
            found = torch.sqrt(real.square() + imag.square() + 1e-8)
            # a mean of magnitudes, not of their logarithms: as good, and 2 ms a round less
            amplitude = self.constraint(found + trust * (amplitude - found), target)
            ahead_real = real + self.momentum * (real - last_real)
            ahead_imag = imag + self.momentum * (imag - last_imag)
            last_real, last_imag = real, imag
            inverse = torch.rsqrt(ahead_real.square() + ahead_imag.square() + 1e-8)
            cosine, sine = ahead_real * inverse, ahead_imag * inverse
        return self.stft.synthesise(amplitude * cosine, amplitude * sine)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the waveform, clipped to [-1, 1]."""
        return self.render(self.predict(mel), mel).clamp(-1.0, 1.0)

    def fold_(self) -> IstftVocoder:
        """Do nothing: this generator has no weight norm to fold. Returns itself."""
        return self
