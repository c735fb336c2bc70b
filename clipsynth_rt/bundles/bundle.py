"""A bundle: the folder that ships, holding manifest.json, a tokenizer and ONNX graphs."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from clipsynth_rt.bundles.fetch import local_folder
from clipsynth_rt.bundles.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    FileSpec,
    GraphSpec,
    Manifest,
)
from clipsynth_rt.bundles.onnx_file import refusal
from clipsynth_rt.errors import BundleError, HashMismatchError, InputError, ManifestError
from clipsynth_rt.text import printable

DEFAULT_PATH = Path(__file__).parent / "default"
"""The bundle that ships with the package."""
MAX_FILE_BYTES = 2**31 - 1
"""Protobuf's own limit, so that of an ONNX file without external data."""


@dataclass(frozen=True)
class GraphFile:
    """One graph of a bundle at one precision: a file and the interface it promises.

    Attributes:
        name: The graph's.
        precision: The file's.
        path: The file.
        spec: What the manifest says of the graph.
        sha256: What the file must hash to; None where its maker vouches for it.
    """

    name: str
    precision: str
    path: Path
    spec: GraphSpec
    sha256: str | None = None

    def read(self) -> bytes:
        """Return the file's bytes, which are the ones that were checked.

        Sessions load these and never the path: what changes on disk after the check is not loaded,
        and a model without a path has no folder to look for other files in.

        Raises:
            BundleError: If the file is unreadable, or holds what ``onnx_file`` refuses.
            HashMismatchError: If its SHA-256 is not the manifest's.
        """
        data = _read_verified(self.path, self.sha256)
        if reason := refusal(data):
            raise BundleError(f"{self.path}: {reason}")
        return data

    @property
    def digest(self) -> str:
        """SHA-256 in hex of what ``read`` gives: stands for the graph in the keys of caches."""
        # never the manifest's for a file that was not checked against it: what is made of another
        # file would be kept under its name
        return (self.sha256 or hashlib.sha256(self.read()).hexdigest()).lower()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    >>> bundle = Bundle.open()
    >>> bundle.manifest.mel.sample_rate, bundle.manifest.diffusion.distilled_steps
    (22050, (2,))

    Attributes:
        path: Its folder, symbolic links resolved.
        manifest: What it says about itself.
        sha256: Of manifest.json, in hex. As that holds every file's hash, it stands for them all.
    """

    path: Path
    manifest: Manifest
    sha256: str

    @classmethod
    def open(cls, path: str | Path | None = None) -> Bundle:
        """Read a bundle's manifest; files are checked when they are read.

        Args:
            path: A folder, an archive (.zip, .tar.gz, .tgz, .tar) or ``hf://owner/name[@revision]``,
                which are unpacked or downloaded into the cache; None is the bundle that ships
                with the package.

        Raises:
            BundleError: If there is no such folder or archive, or it cannot be had or trusted.
            MissingExtraError: If an address on a hub needs huggingface_hub, and it is missing.
            ManifestError: If manifest.json is missing, malformed or of a newer schema.
        """
        folder = DEFAULT_PATH if path is None else local_folder(path, cls.open)
        # os.path swallows what an absurd path raises: it is simply no folder
        if not os.path.isdir(folder):
            if os.path.exists(folder):
                raise BundleError(
                    f"{folder}: neither a folder nor an archive (.zip, .tar.gz, .tgz, .tar); name "
                    "one with --bundle"
                )
            hint = "this installation has no default bundle; " if path is None else ""
            raise BundleError(f"{folder}: no such folder; {hint}name one with --bundle")
        where = folder / MANIFEST_NAME
        try:
            if where.is_symlink():
                # a link could show any JSON file of the machine in error messages
                raise OSError("a symbolic link; a bundle holds its own manifest")
            data = _read(where, MAX_MANIFEST_BYTES)
            manifest = Manifest.from_dict(json.loads(data.decode("utf-8")))
        except FileNotFoundError as error:
            raise ManifestError(f"{where}: no such file; {folder} is not a bundle") from error
        except OSError as error:
            raise ManifestError(f"{where}: cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{where}: not JSON ({error}); re-run clipsynth-rt export"
            ) from error
        except ManifestError as error:
            raise ManifestError(f"{where}: {printable(str(error))}") from error
        return cls(folder.resolve(), manifest, hashlib.sha256(data).hexdigest())

    def read(self, spec: FileSpec) -> bytes:
        """Return the bytes of a file that the manifest lists, after checking their hash.

        Raises:
            BundleError: If the path leaves the bundle, or the file is missing, unreadable or of
                more than ``MAX_FILE_BYTES``.
            HashMismatchError: If its SHA-256 is not the manifest's.
        """
        return _read_verified(self.inside(spec.path), spec.sha256)

    def inside(self, relative: str) -> Path:
        """Resolve a path of the manifest, refusing whatever points outside the folder.

        Raises:
            BundleError: If it does.
        """
        pure = PurePosixPath(relative)
        # one spelling everywhere: a backslash or a drive would mean another file on Windows
        plain = bool(relative) and not set(relative) & {"\\", ":", "\0"}
        if plain and not pure.is_absolute() and ".." not in pure.parts:
            path = (self.path / pure).resolve()
            if path.is_relative_to(self.path):
                return path
        raise BundleError(f"{self.path / MANIFEST_NAME}: {relative!r} leaves the bundle's folder")

    def graph(self, name: str, precision: str | Mapping[str, str] | None = None) -> GraphFile:
        """Return one graph's file; it is checked when it is read.

        Args:
            name: ``text_encoder``, ``image_encoder``, ``denoiser_step`` or ``vocoder``.
            precision: One for every graph, or graph -> precision; None, or a graph that the
                mapping leaves out, is the manifest's default.

        Raises:
            InputError: If the bundle has no such graph at that precision; see ``check_precision``.
            BundleError: If its path leaves the bundle.
        """
        spec = self.manifest.graphs.get(name)
        if spec is None:
            raise InputError(f"bundle {self.manifest.name} has no {name}; it cannot do this")
        self.check_precision(precision)
        wanted = precision if isinstance(precision, str) else (precision or {}).get(name)
        chosen = wanted or self.manifest.default_precision[name]
        self._check_file(name, chosen)
        file = spec.files[chosen]
        return GraphFile(name, chosen, self.inside(file.path), spec, file.sha256)

    def check_precision(self, precision: str | Mapping[str, str] | None) -> None:
        """Check what a mapping asks for, of graphs that are not loaded too.

        Args:
            precision: As for ``graph``. One for every graph is checked where a graph is opened:
                not every graph needs to have it.

        Raises:
            InputError: If it names a graph that the bundle does not have, or a precision that the
                graph does not have.
        """
        if precision is None or isinstance(precision, str):
            return
        for name, wanted in precision.items():
            if name not in self.manifest.graphs:
                raise InputError(
                    f"bundle {self.manifest.name} has no graph {name!r}; it has "
                    f"{', '.join(self.manifest.graphs)}"
                )
            self._check_file(name, wanted)

    def _check_file(self, name: str, precision: str) -> None:
        files = self.manifest.graphs[name].files
        if precision not in files:
            raise InputError(
                f"bundle {self.manifest.name} has no {precision} {name}; it has "
                f"{', '.join(sorted(files))}"
            )

    def tokenizer_spec(self) -> FileSpec:
        """Return where tokenizer.json is; ``read`` gives its bytes.

        Raises:
            ManifestError: If the manifest names none.
        """
        spec = self.manifest.condition.tokenizer
        if spec is None:
            raise ManifestError(
                f"{self.path / MANIFEST_NAME}: condition.tokenizer: missing; this bundle cannot "
                "read text"
            )
        return spec

    def files(self) -> dict[str, FileSpec]:
        """Return every file that the manifest lists, by a name such as ``vocoder/fp32``."""
        listed = {
            f"{graph}/{precision}": spec
            for graph, graph_spec in self.manifest.graphs.items()
            for precision, spec in graph_spec.files.items()
        }
        if self.manifest.condition.tokenizer is not None:
            listed["tokenizer"] = self.manifest.condition.tokenizer
        return listed

    def verify(self) -> int:
        """Check every file that the manifest lists, and return their size in bytes.

        Raises:
            BundleError: If one of them cannot be used (see ``read`` and ``GraphFile.read``).
        """
        sizes = {}
        for name, graph in self.manifest.graphs.items():
            for precision, file in graph.files.items():
                sizes[file.path] = len(self.graph(name, precision).read())
        if self.manifest.condition.tokenizer is not None:
            spec = self.tokenizer_spec()
            sizes[spec.path] = len(self.read(spec))
        return sum(sizes.values())

    def describe(self) -> dict[str, Any]:
        """Return the bundle's facts as JSON data, after checking every file's hash.

        Raises:
            BundleError: If one of its files cannot be used.
        """
        size = self.verify()
        manifest = self.manifest.to_dict()
        graphs = {
            name: {
                "precisions": sorted(graph.files),
                "default": self.manifest.default_precision[name],
                "bytes": {
                    precision: (self.path / file.path).stat().st_size
                    for precision, file in sorted(graph.files.items())
                },
            }
            for name, graph in self.manifest.graphs.items()
        }
        kept = ("name", "license", "schema_version", "mel", "diffusion", "condition")
        return {
            "path": str(self.path),
            "bytes": size,
            **{key: manifest[key] for key in kept},
            "graphs": graphs,
            "concepts": manifest["concepts"],
            "sha256": self.sha256,
            "parity": manifest["parity"],
            "metrics": manifest["metrics"],
            "provenance": manifest["provenance"],
        }


def _read_verified(path: Path, sha256: str | None) -> bytes:
    try:
        data = _read(path, MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: listed in {MANIFEST_NAME} and missing; the bundle is incomplete, copy it "
            "again or re-run clipsynth-rt export"
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256.lower():
        raise HashMismatchError(
            f"{path}: sha256 differs from {MANIFEST_NAME}; copy the bundle again or re-run "
            "clipsynth-rt export"
        )
    return data


def _read(path: Path, limit: int) -> bytes:
    """Return a regular file's bytes.

    Raises:
        OSError: If it is none, is larger than ``limit``, or cannot be read.
    """
    # opening a pipe would wait for its other end
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        # not read to its end: a file that grows meanwhile would grow in memory too
        if size <= limit:
            return stream.read(size)
    raise OSError(f"{size:,} bytes; at most {limit:,}")
