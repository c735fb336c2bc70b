"""The exceptions that clipsynth-rt raises, as a tree.

ClipSynthError
├── InputError (ValueError)          what the caller asked for cannot be done
├── BundleError                      a bundle on disk cannot be used
│   ├── ManifestError                manifest.json is missing, malformed or contradicts itself
│   └── HashMismatchError            a file is not the one that the manifest describes
├── BackendError                     a graph cannot be loaded or run
│   ├── ProviderUnavailableError     the provider asked for does not load here
│   ├── EngineError                  a TensorRT engine cannot be built or loaded
│   └── NumericalError               a graph gave NaN or infinity
├── OutputError (OSError)            a result cannot be written
├── CancelledError                   the caller stopped a synthesis between two steps
├── DataError                        a corpus source, video folder or shard cannot be used
├── CheckpointError                  a training checkpoint cannot be used
├── MissingExtraError (ImportError)  an optional dependency is not installed
└── ExportError                      a graph cannot be exported
    └── ParityError                  an exported graph does not agree with its source

A message says what, where and what next, in one line.
"""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = "clipsynth_checkpoints"
"""The module of the distribution that carries the training checkpoints."""


class ClipSynthError(Exception):
    """Base of everything that clipsynth-rt raises on purpose."""


class InputError(ClipSynthError, ValueError):
    """The caller's request is outside what is possible."""


class BundleError(ClipSynthError):
    """A bundle cannot be used."""


class ManifestError(BundleError):
    """A manifest is missing, malformed, of another schema or contradicts itself."""


class HashMismatchError(BundleError):
    """A file's SHA-256 differs from the manifest."""


class BackendError(ClipSynthError):
    """A graph cannot be loaded or run."""


class ProviderUnavailableError(BackendError):
    """The provider asked for does not load on this machine."""


class EngineError(BackendError):
    """A TensorRT engine cannot be built, loaded or run."""


class NumericalError(BackendError):
    """A graph produced NaN or infinity."""


class OutputError(ClipSynthError, OSError):
    """A result cannot be written."""


class CancelledError(ClipSynthError):
    """The caller stopped a synthesis; the synthesizer can be used as before."""


class DataError(ClipSynthError):
    """A corpus source, video folder or training shard cannot be used."""


class CheckpointError(ClipSynthError):
    """A training checkpoint is missing, damaged or of another configuration."""


class MissingExtraError(ClipSynthError, ImportError):
    """An optional dependency is not installed.

    Args:
        module: The module that could not be imported.
        extra: The extra of clipsynth-rt that installs it; not that of ``CHECKPOINTS``.
    """

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed; run: {install_command(extra, module)}", name=module
        )
        self.extra = extra


class ExportError(ClipSynthError):
    """A graph cannot be exported."""


class ParityError(ExportError):
    """An exported graph does not agree with the model that it came from."""


def install_command(extra: str, module: str = "") -> str:
    """Return the command that installs an extra, or the checkpoints: one that works from here.

    A checkout is installed from its folder: the package may be on no index.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "training" / "checkpoints" / "pyproject.toml").is_file():
        if module == CHECKPOINTS:
            return "pip install clipsynth-rt-checkpoints"
        return f'pip install "clipsynth-rt[{extra}]"'
    where = "." if root == Path.cwd() else str(root)
    if module == CHECKPOINTS:
        return f'pip install "{where}/training/checkpoints"'
    return f'pip install -e "{where}[{extra}]"'
