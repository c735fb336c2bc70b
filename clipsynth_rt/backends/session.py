"""The session protocol of every backend, and the names of the providers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

PROVIDERS = ("cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx")
"""Names a caller may ask for; ``auto`` is the best of them that works."""

ENGINE_PROVIDERS = ("tensorrt", "tensorrt-rtx")
"""Providers that run prebuilt engines instead of ONNX graphs."""

Array = NDArray[Any]


Shapes = Mapping[str, tuple[int, ...]]
"""Input -> shape."""


class StepLoop(Protocol):
    """Denoiser steps that leave x on the device between one and the next."""

    def __call__(self, x: Any, t: float, s: float, eta: float, noise: Array) -> tuple[Any, Any]:
        """Return x at time s and the estimate of x0, both on the device.

        Args:
            x: An array before the first step, the last step's result after it.
            t: Time of x.
            s: Time to step to.
            eta: Share of fresh noise, 0 to 1.
            noise: float32 [B, M, F].

        Raises:
            BackendError: If the graph fails.
        """

    def fetch(self, x: Any) -> Array:
        """Return a copy of a step's result on the host."""


class Session(ABC):
    """One loaded graph. ``prepare`` and ``step_loop`` are optional: the defaults do nothing."""

    @property
    @abstractmethod
    def provider(self) -> str:
        """The provider that really runs the graph: one of ``PROVIDERS``."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises:
            BackendError: If the graph fails.
        """

    def prepare(self, shapes: Shapes) -> None:  # noqa: B027  (optional, not forgotten)
        """Compile for inputs of these shapes, where the backend compiles for fixed shapes.

        Raises:
            BackendError: If the graph does not take them.
        """

    def step_loop(
        self, x: Array, fixed: Mapping[str, Array]
    ) -> AbstractContextManager[StepLoop] | None:
        """Return denoiser steps on the device, or None where steps go through the host.

        Args:
            x: float32 [B, M, F]; gives the shape.
            fixed: Inputs that stay the same from step to step: condition and weights.

        Raises:
            BackendError: On entry, if the device has no memory for the buffers.
        """
        return None


@dataclass(frozen=True)
class Choice:
    """A provider, and the reasons why ``auto`` skipped better ones.

    Attributes:
        provider: One of ``PROVIDERS``.
        not_taken: Better provider -> reason; empty where the provider was asked for by name.
    """

    provider: str
    not_taken: dict[str, str] = field(default_factory=dict)
