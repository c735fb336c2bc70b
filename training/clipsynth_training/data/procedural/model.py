"""What a procedural sound is: a concept, its sampled parameters, and a function that renders it.

Each family of sounds is one module beside this one and lists its ``SoundModel`` objects in
``MODELS``; ``catalogue`` gathers them. A model renders dry, close and at natural balance; distance,
room and level are the same for every model and are added by ``space``.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 44_100
"""Samples a second of every procedural sound."""

MAX_SECONDS = 4.1
"""A render longer than this is cut with a fade."""

TEST_SHARE = 0.2
"""Share of a model's parameter cells that training never meets."""

_CELLS = 5  # cells along each parameter that decides the side of the split

Waveform = NDArray[np.float64]
Value = float | str
Render = Callable[[Mapping[str, Value], np.random.Generator], Waveform]


@dataclass(frozen=True)
class Range:
    """A number drawn uniformly, or uniformly in its logarithm.

    Attributes:
        name: Key in the parameters, with its unit (``f0_hz``, ``duration_s``, ``rate_hz``).
        low: Least value.
        high: Greatest value.
        log: Whether the logarithm is uniform; for frequencies, rates and durations.
        attribute: What a listener calls it: ``pitch``, ``length``, ``rate``, ``brightness``,
            ``intensity``, ``size``, ``count`` or ``distance``; empty where no word fits.
        rising: Whether more of the number is more of the attribute (a larger bell is lower).
    """

    name: str
    low: float
    high: float
    log: bool = False
    attribute: str = ""
    rising: bool = True

    def value(self, position: float) -> float:
        """Return the value at ``position`` in [0, 1] of the range."""
        if self.log:
            return float(self.low * (self.high / self.low) ** position)
        return float(self.low + (self.high - self.low) * position)

    def position(self, value: float) -> float:
        """Return where ``value`` lies, in [0, 1]."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Choice:
    """One of several words, such as a material or a surface.

    Attributes:
        name: Key in the parameters.
        options: Words as a listener says them (``wood``, ``gravel``, ``tin roof``).
        attribute: ``material``, ``surface``, ``kind`` or ``pattern``: where captions put the word.
    """

    name: str
    options: tuple[str, ...]
    attribute: str


@dataclass(frozen=True)
class SoundModel:
    """One concept and how to render it.

    Attributes:
        concept: Its plain name, as a user would type it (``glass shattering``).
        group: Where a list of concepts shows it (``impacts``, ``water``, ``alarms``, ``games``).
        parameters: What varies; one with an ``attribute`` is also said in captions.
        render: ``render(parameters, rng)`` -> mono [T] at ``SAMPLE_RATE``, dry, any peak; as long
            as the sound is, silence neither before nor after it.
        names: Other words for the concept, for captions.
        source: The paper, book chapter or public document that the model is written from.
        steady: Whether the sound may go on (rain) or ends by itself (a drop).
    """

    concept: str
    group: str
    parameters: tuple[Range | Choice, ...]
    render: Render
    names: tuple[str, ...] = ()
    source: str = ""
    steady: bool = False


@dataclass(frozen=True)
class Rendering:
    """A rendered sound and what it was rendered from.

    Attributes:
        samples: Mono [T] at ``SAMPLE_RATE``, peak 1.
        parameters: By name.
        positions: Position in [0, 1] of every ``Range``, by name.
    """

    samples: Waveform
    parameters: dict[str, Value]
    positions: dict[str, float] = field(default_factory=dict)


def draw(model: SoundModel, rng: np.random.Generator, *, test: bool) -> Rendering:
    """Draw parameters on one side of the split and render them.

    The parameter space is cut into cells along its first two parameters, and a hash of the
    concept and the cell decides the side, so a held-out region never meets training.

    Args:
        model: What to render.
        rng: Source of parameters and noise.
        test: Whether to draw from the held-out cells.

    Raises:
        ValueError: If the model renders silence or what is not finite.
    """
    for _ in range(1000):
        parameters, positions = _draw_parameters(model, rng)
        if _is_test_cell(model, parameters, positions) == test:
            break
    else:
        raise ValueError(f"{model.concept}: no cell for test={test}; give it another parameter")
    samples = np.asarray(model.render(parameters, rng), np.float64)
    peak = float(np.max(np.abs(samples), initial=0.0))
    if not math.isfinite(peak) or peak == 0.0:
        raise ValueError(f"{model.concept}: rendered silence or NaN from {parameters}")
    return Rendering(_limit_length(samples / peak), parameters, positions)


def _draw_parameters(
    model: SoundModel, rng: np.random.Generator
) -> tuple[dict[str, Value], dict[str, float]]:
    parameters: dict[str, Value] = {}
    positions: dict[str, float] = {}
    for parameter in model.parameters:
        if isinstance(parameter, Range):
            positions[parameter.name] = float(rng.random())
            parameters[parameter.name] = parameter.value(positions[parameter.name])
        else:
            parameters[parameter.name] = str(rng.choice(parameter.options))
    return parameters, positions


def _is_test_cell(
    model: SoundModel, parameters: Mapping[str, Value], positions: Mapping[str, float]
) -> bool:
    cell = []
    for parameter in model.parameters[:2]:
        if isinstance(parameter, Range):
            cell.append(str(min(int(positions[parameter.name] * _CELLS), _CELLS - 1)))
        else:
            cell.append(str(parameters[parameter.name]))
    return "|".join(cell) in _test_cells(model.concept, *map(_cell_names, model.parameters[:2]))


def _cell_names(parameter: Range | Choice) -> tuple[str, ...]:
    """Return the names of a parameter's cells."""
    if isinstance(parameter, Range):
        return tuple(str(number) for number in range(_CELLS))
    return parameter.options


@functools.cache
def _test_cells(concept: str, *names: tuple[str, ...]) -> frozenset[str]:
    """Return the held-out cells: the fifth with the lowest hashes, and one at least."""
    cells = ["|".join(cell) for cell in itertools.product(*names)]
    cells.sort(key=lambda cell: hashlib.sha256(f"{concept}|{cell}".encode()).digest())
    return frozenset(cells[: max(1, round(TEST_SHARE * len(cells)))])


def _limit_length(samples: Waveform, fade_s: float = 0.05) -> Waveform:
    longest = round(MAX_SECONDS * SAMPLE_RATE)
    if len(samples) <= longest:
        return samples
    samples = samples[:longest].copy()
    fade = round(fade_s * SAMPLE_RATE)
    samples[-fade:] *= np.linspace(1.0, 0.0, fade)
    return samples
