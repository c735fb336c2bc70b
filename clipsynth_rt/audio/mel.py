"""Waveform to normalised log-mel spectrogram in NumPy, as ``MelSpec`` says.

The analysis that the denoiser was trained on, without torch: for a sound to start from, and for
pictures of what was made.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import InputError

_FRAMES_AT_ONCE = 2048
"""Frames transformed together: a minute of sound then takes 20 MB of memory, not 200."""


def _hz_to_slaney(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = hz / (200.0 / 3.0)
    log = 15.0 + np.log(np.maximum(hz, 1e-9) / 1000.0) / (math.log(6.4) / 27.0)
    return np.where(hz >= 1000.0, log, linear)


def _slaney_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * (200.0 / 3.0)
    log = 1000.0 * np.exp((mel - 15.0) * (math.log(6.4) / 27.0))
    return np.where(mel >= 15.0, log, linear)


def band_edges_hz(spec: MelSpec) -> NDArray[np.float64]:
    """Return the corners of the mel filters in Hz, float64 [n_mels + 2]; filter m peaks at m + 1.

    Source:
        Slaney 1998, Auditory Toolbox, Interval Technical Report 1998-010.
    """
    low, high = _hz_to_slaney(np.array([spec.f_min_hz, spec.f_max_hz]))
    return _slaney_to_hz(np.linspace(low, high, spec.n_mels + 2))


def mel_filterbank(spec: MelSpec) -> NDArray[np.float32]:
    """Return triangular mel filters of unit area, float32 [n_mels, n_fft // 2 + 1].

    Source:
        Slaney 1998, Auditory Toolbox, Interval Technical Report 1998-010.
    """
    edges = band_edges_hz(spec)
    bins = np.fft.rfftfreq(spec.n_fft, 1.0 / spec.sample_rate)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (upper - lower))
    return weights.astype(np.float32)


def min_samples(spec: MelSpec) -> int:
    """Return the fewest samples that ``mel_spectrogram`` takes."""
    # padding mirrors the sound around its first sample and its last
    return max((spec.n_fft - spec.hop_length) // 2, spec.hop_length) + 1


def mel_spectrogram(waveform: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """Return the normalised log-mel of a waveform, float32 [M, T // hop_length].

    It agrees with the training's analysis within 1e-3 (normalised units) above the floor.

    Args:
        waveform: float32 [T] in [-1, 1], mono, at ``spec.sample_rate``.
        spec: The analysis; only the variants named in its defaults are built.

    Raises:
        InputError: If the waveform is shorter than the analysis needs, or ``spec`` asks for a
            padding, log, norm or mel scale not built here.

    >>> silence = np.zeros(1024, np.float32)
    >>> mel = mel_spectrogram(silence, MelSpec())
    >>> mel.shape, bool(np.allclose(mel, MelSpec().floor_normalised))
    ((80, 4), True)
    """
    known = ("reflect_same", "natural", "slaney", "slaney")
    if (spec.padding, spec.log, spec.norm, spec.mel_scale) != known:
        raise InputError(f"no such mel analysis here: {spec}")
    if len(waveform) < min_samples(spec):
        raise InputError(
            f"sound of {len(waveform)} samples; the mel analysis needs more than "
            f"{min_samples(spec) - 1}"
        )
    pad = (spec.n_fft - spec.hop_length) // 2
    padded = np.pad(waveform.astype(np.float32), pad, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.n_fft)[:: spec.hop_length]
    window, filters = _window(spec), mel_filterbank(spec)
    parts = []
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        spectrum = np.fft.rfft(frames[start : start + _FRAMES_AT_ONCE] * window)
        # 1e-9 as in training, where the square root needs a gradient; 80 dB below the floor
        magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
        parts.append(filters @ (magnitude.T**spec.power))
    mel = np.concatenate(parts, axis=1)
    normalised = (np.log(np.maximum(mel, spec.floor)) - spec.mean) / spec.std
    return np.ascontiguousarray(normalised, np.float32)


def _window(spec: MelSpec) -> NDArray[np.float64]:
    """Return a periodic Hann window in the middle of ``n_fft`` samples."""
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(spec.win_length) / spec.win_length)
    left = (spec.n_fft - spec.win_length) // 2
    return np.pad(window, (left, spec.n_fft - spec.win_length - left))
