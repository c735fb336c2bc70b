"""Bodies that ring when they are struck: mode ratios, materials, and the blow.

A body is a list of modes. Its shape gives their ratios, its material their damping, and the blow
how strongly each is excited.

Source:
    van den Doel and Pai 1998, "The sounds of physical shapes"; van den Doel, Kry and Pai 2001,
    "FoleyAutomatic"; Fletcher and Rossing, "The Physics of Musical Instruments", chapters 2, 3, 19.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from clipsynth_training.data.procedural import dsp
from clipsynth_training.data.procedural.model import Waveform

Ratios = NDArray[np.float64]


@dataclass(frozen=True)
class Material:
    """What a body is made of.

    Attributes:
        q: Quality factor of internal friction, 1 / tan(phi): the same for every mode.
        loss_per_s: Decay rate that every mode has besides, to the air and the support, in 1/s.
        contact_s: Seconds that a medium blow stays in contact; short is hard and bright.
        click: Level of the contact's own noise beside the modes.
    """

    q: float
    loss_per_s: float
    contact_s: float
    click: float

    def t60_s(self, frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the seconds in which a mode falls by 60 dB."""
        return np.asarray(np.log(1000.0) / (np.pi * frequency_hz / self.q + self.loss_per_s))

    def damped(self, factor: float) -> Material:
        """Return the material with all its losses times ``factor``, as a hand damps a body."""
        return replace(self, q=self.q / factor, loss_per_s=self.loss_per_s * factor)


WOOD = Material(q=42.0, loss_per_s=15.0, contact_s=0.00065, click=0.30)
HARDWOOD = Material(q=60.0, loss_per_s=14.0, contact_s=0.00025, click=0.20)
STEEL = Material(q=1500.0, loss_per_s=2.0, contact_s=0.00012, click=0.10)
SHEET = Material(q=500.0, loss_per_s=7.0, contact_s=0.00015, click=0.15)
BRASS = Material(q=1100.0, loss_per_s=3.0, contact_s=0.00012, click=0.08)
GLASS = Material(q=900.0, loss_per_s=7.0, contact_s=0.00009, click=0.10)
CERAMIC = Material(q=330.0, loss_per_s=14.0, contact_s=0.00010, click=0.16)
STONE = Material(q=170.0, loss_per_s=38.0, contact_s=0.00014, click=0.45)
PLASTIC = Material(q=22.0, loss_per_s=40.0, contact_s=0.00035, click=0.30)


def _bar() -> Ratios:
    wave = np.array([1.50562, 2.49975, 3.50001, *(np.arange(4, 12) + 0.5)])
    return np.asarray((wave / wave[0]) ** 2)


def _cantilever() -> Ratios:
    wave = np.array([0.59686, 1.49418, 2.50025, *(np.arange(4, 12) - 0.5)])
    return np.asarray((wave / wave[0]) ** 2)


def _cup() -> Ratios:
    n = np.arange(2, 12)
    wave = n * (n**2 - 1) / np.sqrt(n**2 + 1)
    return np.asarray(wave / wave[0])


def _membrane() -> Ratios:
    zeros = np.sort(np.concatenate([special.jn_zeros(m, 5) for m in range(9)]))
    return np.asarray(zeros / zeros[0])


BAR = _bar()
"""Bending of a bar free at both ends."""

CANTILEVER = _cantilever()
"""Bending of a bar held at one end."""

CUP = _cup()
"""Bending of a ring: the rim of a glass, a bowl or a pipe."""

DISC = np.array([1.0, 1.73, 2.328, 3.91, 4.11, 6.30, 6.71, 7.34, 8.89, 10.07, 11.4, 12.5, 14.9])
"""A round plate free at its edge."""

MEMBRANE = _membrane()
"""An ideal round drumhead."""

TUBE = np.sort(np.concatenate([BAR[:8], 9.2 * CUP[:3]]))
"""A pipe: it bends as a bar does, and its wall as a ring."""


def plate(num_modes: int, aspect: float) -> Ratios:
    """Return the lowest ratios of a rectangular plate held at its edges."""
    m, n = np.meshgrid(np.arange(1, 13), np.arange(1, 13))
    wave = np.sort((m**2 + (n * aspect) ** 2).ravel())[:num_modes]
    return np.asarray(wave / wave[0])


def box(num_modes: int, rng: np.random.Generator) -> Ratios:
    """Return ratios of a hollow box: panels and cavity, denser with frequency."""
    return np.concatenate([[1.0], np.sort(1.0 + rng.uniform(0.25, 9.0, num_modes - 1) ** 1.25)])


@dataclass(frozen=True)
class Body:
    """Modes of one object.

    Attributes:
        frequencies_hz: [M].
        t60s_s: [M].
        gains: [M] of an ideally hard blow.
        material: What it is made of.
    """

    frequencies_hz: NDArray[np.float64]
    t60s_s: NDArray[np.float64]
    gains: NDArray[np.float64]
    material: Material

    def strike(
        self, rng: np.random.Generator, strength: float = 0.5, *, contact: float = 1.0
    ) -> Waveform:
        """Return the sound of a blow, louder and brighter with ``strength`` in [0, 1].

        Args:
            rng: Where the blow lands, and the noise of the contact.
            strength: 0 is a touch, 1 as hard as the thing is ever struck.
            contact: Contact time relative to the material's own; 10 is a soft mallet.
        """
        length = self.material.contact_s * contact * 3.0 ** (0.5 - strength) / 0.9
        spot = rng.uniform(0.55, 1.0, len(self.gains))
        spot[0] = 0.9
        gains = self.gains * spot / (1.0 + (self.frequencies_hz * length) ** 2) ** 1.25
        sound = dsp.ring(self.frequencies_hz, self.t60s_s, gains)
        n = min(len(sound), dsp.num_samples(0.006 + 6.0 * length))
        noise = dsp.lowpass(rng.standard_normal(n), 0.55 / length, 1)
        noise = noise * dsp.attack_decay(n, 0.3 * length, 0.005 + 5.0 * length)
        sound[:n] += self.material.click * noise * max(float(np.max(np.abs(sound))), 1e-9)
        return np.asarray(sound * (0.1 + 0.9 * strength) ** 1.3)

    def response(self) -> Waveform:
        """Return the impulse response at unit energy, for a force to be convolved with."""
        sound = dsp.ring(self.frequencies_hz, self.t60s_s, self.gains)
        return sound / max(float(np.sqrt(np.sum(sound**2))), 1e-12)


def make_body(
    f0_hz: float,
    ratios: Ratios,
    material: Material,
    rng: np.random.Generator,
    *,
    roughness: float = 0.01,
    slope: float = 0.0,
    pairs: float = 0.0,
    longest_s: float = 4.0,
) -> Body:
    """Return the body whose lowest mode is ``f0_hz``.

    Args:
        f0_hz: Frequency of the lowest mode, kept exactly.
        ratios: Of the modes to the lowest.
        material: Gives the damping.
        rng: Irregularity of the object, and how strongly each mode radiates.
        roughness: Standard deviation of each ratio, relative.
        slope: Exponent of frequency in the gains; negative is duller.
        pairs: Relative split of a second copy of every mode, heard as beating; 0 for none.
        longest_s: No mode rings longer.
    """
    spread = 1.0 + roughness * rng.standard_normal(len(ratios))
    spread[0] = 1.0
    frequency = f0_hz * ratios * spread
    gain = rng.uniform(0.35, 1.0, len(ratios)) * ratios**slope
    gain[0] = 0.9
    if pairs:
        split = pairs * rng.uniform(0.4, 1.0, len(ratios))
        frequency = np.concatenate([frequency, frequency * (1.0 + split)])
        gain = np.concatenate([gain, gain * rng.uniform(0.3, 0.8, len(ratios))])
    kept = frequency < 20_000.0
    frequency, gain = frequency[kept], gain[kept]
    t60 = np.minimum(material.t60_s(frequency), longest_s)
    return Body(frequency, t60, gain, material)
