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

from clipsynth_rt.audio.mel import mel_filterbank
from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_training.run.autocast import mixed_precision
from clipsynth_training.vocoder.fourier import RealStft

LOG_AMPLITUDE_RANGE = (-12.0, 7.0)
"""Natural-log STFT magnitudes: below 16-bit silence, above a full-scale sine."""

SMALLEST_POWER = 1e-8
"""Of a bin, so that it has a phase."""

CHUNK = 8
"""Frames that a remembered phase is carried over in one matrix product."""


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
    """What the network believes of an STFT, float32, bins laid out as by ``RealStft.analyse``.

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

    Multiplicative updates keep magnitudes positive and their fine structure as it is. Bins are in
    order in training, [..., F, bins], and laid out as by ``RealStft`` in evaluation.

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
        outside = (spread.sum(0) == 0).float()
        self.register_buffer("outside", outside, persistent=False)
        folded = {"filters": filters, "spread": spread, "outside": outside[None]}
        for name, value in folded.items():
            value = RealStft.fold(value).transpose(0, 1)  # [2, M, bins // 2 + 1]
            value = value.transpose(1, 2) if name == "filters" else value
            self.register_buffer(f"folded_{name}", value.contiguous(), persistent=False)

    def explain(self, amplitude: Tensor) -> Tensor:
        """Return the mel magnitudes [B, 1, F, M] of STFT magnitudes."""
        if self.training:
            return amplitude @ self.filters
        even, odd = (amplitude @ self.folded_filters).split(1, dim=1)
        return even + odd

    def _spread(self, mel: Tensor) -> Tensor:
        return mel @ (self.spread if self.training else self.folded_spread)

    def forward(self, amplitude: Tensor, mel: Tensor) -> Tensor:
        """Update magnitudes by one step towards mel [B, 1, F, M] (linear, positive)."""
        # below the floor every level looks the same, so nothing is raised to reach it
        ratio = mel / self.explain(amplitude).clamp_min(self.floor)
        outside = self.outside if self.training else self.folded_outside
        return amplitude * (self._spread(ratio) + outside)

    def guess(self, mel: Tensor, iterations: int) -> Tensor:
        """Return magnitudes that explain mel [B, 1, F, M], starting from flat bands."""
        flat = self._spread(mel / self.filters.sum(0)) + 1e-5
        for _ in range(iterations):
            flat = self(flat, mel).clamp_min(1e-5)
        return flat


class IstftVocoder(nn.Module):
    """Normalised log-mel [B, M, F] -> waveform [B, F * hop_length], of peak about 1.

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
        """Return what the head reads, [B, F, channels], for normalised log-mel [B, M, F]."""
        x = self.stem_norm(self.stem(mel).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def heads(self, x: Tensor) -> list[Tensor]:
        """Return level, speed, real and imaginary part of every bin, and gates [B, F, groups]."""
        bins = self.stft.bins
        if self.training:
            *spectral, gate = (
                self.head(x).float().split([bins] * 4 + [self.head.out_features - 4 * bins], dim=2)
            )
            return [*(part[:, None] for part in spectral), gate]
        # the bins come out laid out as they are needed, for no more than another order of weights
        weight = self.stft.fold(self.head.weight[: 4 * bins].unflatten(0, (4, bins)).mT)
        bias = self.stft.fold(self.head.bias[: 4 * bins].unflatten(0, (4, bins)))
        weight = weight.transpose(1, 2).flatten(0, 1)  # [8, channels, bins // 2 + 1]
        spectral = x[:, None] @ weight + bias.flatten(0, 1)[:, None]
        gate = nn.functional.linear(x, self.head.weight[4 * bins :], self.head.bias[4 * bins :])
        return [*spectral.split(2, dim=1), gate]

    def linear_mel(self, mel: Tensor) -> Tensor:
        """Return magnitudes [B, 1, F, M] of a normalised log-mel [B, M, F]."""
        return torch.exp(mel.transpose(1, 2)[:, None] * self.spec.std + self.spec.mean)

    def predict(self, mel: Tensor) -> SpectralPrediction:
        """Return what the network believes of the STFT, before any refinement."""
        if self.mixed_precision:
            with mixed_precision(mel.device.type):
                residual, speed, real, imag, gate = self.heads(self.features(mel))
        else:
            residual, speed, real, imag, gate = self.heads(self.features(mel))
        guess = self.constraint.guess(self.linear_mel(mel), self.config.prior_iterations)
        log_amplitude = (torch.log(guess) + residual).clamp(*LOG_AMPLITUDE_RANGE)
        speed = speed + self.stft.arrange(self.turn)
        if self.config.phase == "recurrent":
            real, imag = self._remember(speed, real, imag, gate)
        inverse = self.stft.arrange(self.sign) * _inverse_length(real, imag)
        return SpectralPrediction(log_amplitude, real * inverse, imag * inverse, speed)

    def _remember(
        self, speed: Tensor, real: Tensor, imag: Tensor, gate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Carry phasors on from frame to frame.

        z[t] = g[t] exp(i speed[t]) z[t - 1] + (1 - g[t]) v[t], from z[0] = v[0], solved for all
        frames at once: in a frame that turns with the summed speed the recurrence is a real one.

        Args:
            speed: Radians a frame, [B, P, F, W]; as ``real`` and ``imag`` of v, laid out as by
                ``RealStft.analyse``.
            real: See there.
            imag: See there.
            gate: [B, F, groups]; g is its sigmoid, the same for ``gate_width`` bins.
        """
        angle = torch.cumsum(speed, dim=2)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        still = torch.cat([real * cosine + imag * sine, imag * cosine - real * sine], dim=1)
        # a runtime may write logsigmoid as log(sigmoid), which is -inf for a gate that is far shut,
        # and the difference of two of those is not a number
        still = self._decay(still, gate.clamp(-15.0, 15.0))
        real, imag = still.chunk(2, dim=1)
        return real * cosine - imag * sine, imag * cosine + real * sine

    def _decay(self, fresh: Tensor, gate: Tensor) -> Tensor:
        """Return z[t] = g[t] z[t - 1] + (1 - g[t]) fresh[t] from z[0] = fresh[0].

        Within chunks of frames it is a product with a lower triangular matrix of decays, and from
        the end of one chunk to that of the next the same again.
        """
        rows, frames, bins = fresh.shape[1:]
        groups = gate.shape[2] + 1  # the bins above the last whole group share its gate
        width = self.config.gate_width // (1 if self.training else 2)
        chunks = (frames + CHUNK - 1) // CHUNK
        late = chunks * CHUNK - frames
        fresh = nn.functional.pad(fresh, (0, groups * width - bins, 0, late))
        # [B, groups, chunks, CHUNK, rows * width]
        fresh = fresh.unflatten(3, (groups, width)).unflatten(2, (chunks, CHUNK))
        fresh = fresh.permute(0, 4, 2, 3, 1, 5).flatten(4)
        gate = torch.cat([gate, gate[:, :, -1:]], dim=2)
        # the first frame has nothing to remember
        share = torch.cat([torch.ones_like(gate[:, :1]), torch.sigmoid(-gate[:, 1:])], dim=1)
        share = self._in_chunks(share, chunks, late)
        kept = torch.cumsum(
            self._in_chunks(nn.functional.logsigmoid(gate), chunks, late), dim=3
        )  # [B, groups, chunks, CHUNK]
        matrix = torch.exp(_differences(kept, kept)) * share[:, :, :, None, :]
        within = matrix @ fresh
        whole = kept[:, :, :, -1]
        ends = torch.cumsum(whole, dim=2)
        before = torch.exp(_differences(ends - whole, ends, strictly=True))
        carried = before @ within[:, :, :, -1]
        held = within + torch.exp(kept)[..., None] * carried[:, :, :, None]
        held = held.unflatten(4, (rows, width)).permute(0, 4, 2, 3, 1, 5)
        return held.flatten(4).flatten(2, 3)[:, :, :frames, :bins]

    @staticmethod
    def _in_chunks(x: Tensor, chunks: int, late: int) -> Tensor:
        """Return [B, groups, chunks, CHUNK] of [B, F, groups], zeros for ``late`` frames more."""
        padded = nn.functional.pad(x.transpose(1, 2), (0, late))
        return padded.unflatten(2, (chunks, CHUNK))

    def render(self, prediction: SpectralPrediction, mel: Tensor) -> Tensor:
        """Return the waveform [B, F * hop_length] of a prediction, refined towards ``mel``."""
        target = self.linear_mel(mel)
        amplitude = torch.exp(prediction.log_amplitude)
        real, imag = amplitude * prediction.cosine, amplitude * prediction.sine
        last_real, last_imag = real, imag
        trust = torch.sigmoid(self.trust)
        for _ in range(self.config.refinements):
            real, imag = self.stft.analyse(self.stft.synthesise(real, imag))
            found = torch.sqrt((real * real + imag * imag).clamp_min(SMALLEST_POWER))
            # a mean of magnitudes, not of their logarithms: as good, and 2 ms a round less
            amplitude = self.constraint(found + trust * (amplitude - found), target)
            ahead_real = real + self.momentum * (real - last_real)
            ahead_imag = imag + self.momentum * (imag - last_imag)
            last_real, last_imag = real, imag
            scale = amplitude * _inverse_length(ahead_real, ahead_imag)
            real, imag = ahead_real * scale, ahead_imag * scale
        return self.stft.synthesise(real, imag)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the waveform, which may exceed [-1, 1]: the runtime limits its peaks."""
        return self.render(self.predict(mel), mel)

    def fold_(self) -> IstftVocoder:
        """Do nothing: this generator has no weight norm to fold. Returns itself."""
        return self


def _differences(a: Tensor, b: Tensor, *, strictly: bool = False) -> Tensor:
    """Return a[..., t] - b[..., s] [..., T, T], and something below any logarithm for s > t.

    With ``strictly`` for s = t too.
    """
    index = torch.arange(a.shape[-1], device=a.device)
    allowed = index[:, None] > index if strictly else index[:, None] >= index
    # what comes later has no part: far below any sum of gates, which are -15 at the least
    return a[..., :, None] - b[..., None, :] - 1e5 * (~allowed).to(a.dtype)


def _inverse_length(real: Tensor, imag: Tensor) -> Tensor:
    """Return 1 / |z|, bounded."""
    # a bound, not a term: the exporter leaves out what is added if it is no more than 1e-8, and a
    # bin of exactly zero is then no number
    return torch.rsqrt((real * real + imag * imag).clamp_min(SMALLEST_POWER))
