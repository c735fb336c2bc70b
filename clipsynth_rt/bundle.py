"""A bundle: the folder that ships, holding manifest.json, a tokenizer and ONNX graphs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from clipsynth_rt.errors import BundleError, HashMismatchError, InputError, ManifestError
from clipsynth_rt.spec import FileSpec, GraphSpec, Manifest

MANIFEST_NAME = "manifest.json"
DEFAULT_PATH = Path(__file__).parent / "bundles" / "default"
"""The bundle that ships with the package."""


@dataclass(frozen=True)
class GraphFile:
    """One graph of a bundle at one precision: a verified file and the interface it promises."""

    name: str
    precision: str
    path: Path
    spec: GraphSpec


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    >>> bundle = Bundle.open()
    >>> bundle.manifest.mel.sample_rate, sorted(bundle.manifest.graphs)
    (22050, ['denoiser_step', 'image_encoder', 'text_encoder', 'vocoder'])

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
        """Read a bundle's manifest; files are checked when they are asked for.

        Args:
            path: A folder, an archive (.zip, .tar.gz, .tgz, .tar) or ``hf://owner/name[@revision]``,
                which are unpacked or downloaded into the cache; None is the bundle that ships
                with the package.

        Raises:
            BundleError: If there is no such folder, or what is no folder cannot be had or trusted.
            MissingExtraError: If an address on a hub needs huggingface_hub, and it is missing.
            ManifestError: If manifest.json is missing, malformed or of a newer schema.
        """
        if path is None:
            folder = DEFAULT_PATH
        else:
            # what opens a bundle to check it cannot be what opening needs from the start
            from clipsynth_rt.fetch import local_folder

            folder = local_folder(path)
        # os.path swallows what an absurd path raises: it is simply no folder
        if not os.path.isdir(folder):
            hint = "this installation has no default bundle; " if path is None else ""
            raise BundleError(f"{folder}: no such folder; {hint}name one with --bundle")
        where = folder / MANIFEST_NAME
        try:
            data = where.read_bytes()
            manifest = Manifest.from_dict(json.loads(data.decode("utf-8")))
        except FileNotFoundError as error:
            raise ManifestError(f"{where}: no such file; {folder} is not a bundle") from error
        except OSError as error:
            raise ManifestError(f"{where}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{where}: not JSON ({error}); re-run clipsynth-rt export"
            ) from error
        except ManifestError as error:
            raise ManifestError(f"{where}: {error}") from error
        return cls(folder.resolve(), manifest, hashlib.sha256(data).hexdigest())

    def file(self, spec: FileSpec) -> Path:
        """Return the path of a file that the manifest lists, after checking its hash.

        Raises:
            BundleError: If the path leaves the bundle, or the file is missing or unreadable.
            HashMismatchError: If its SHA-256 is not the manifest's.
        """
        path = self.inside(spec.path)
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise BundleError(
                f"{self.path / spec.path}: listed in {MANIFEST_NAME} and missing; the bundle is "
                "incomplete, copy it again or re-run clipsynth-rt export"
            ) from error
        except OSError as error:
            raise BundleError(
                f"{self.path / spec.path}: cannot be read ({error.strerror})"
            ) from error
        if digest != spec.sha256.lower():
            raise HashMismatchError(
                f"{self.path / spec.path}: sha256 differs from {MANIFEST_NAME}; copy the bundle "
                "again or re-run clipsynth-rt export"
            )
        return path

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
        """Return one graph's verified file.

        Args:
            name: ``text_encoder``, ``image_encoder``, ``denoiser_step`` or ``vocoder``.
            precision: One for every graph, or graph -> precision; None, or a graph that the
                mapping leaves out, is the manifest's default.

        Raises:
            InputError: If the bundle has no such graph at that precision.
            BundleError: If the file cannot be used (see ``file``).
        """
        spec = self.manifest.graphs.get(name)
        if spec is None:
            raise InputError(f"bundle {self.manifest.name} has no {name}; it cannot do this")
        wanted = precision if isinstance(precision, str) else (precision or {}).get(name)
        chosen = wanted or self.manifest.default_precision[name]
        if chosen not in spec.files:
            raise InputError(
                f"bundle {self.manifest.name} has no {chosen} {name}; it has "
                f"{', '.join(sorted(spec.files))}"
            )
        return GraphFile(name, chosen, self.file(spec.files[chosen]), spec)

    def tokenizer_file(self) -> Path:
        """Return the verified path of tokenizer.json.

        Raises:
            ManifestError: If the manifest names none.
            BundleError: If the file cannot be used (see ``file``).
        """
        spec = self.manifest.condition.tokenizer
        if spec is None:
            raise ManifestError(
                f"{self.path / MANIFEST_NAME}: condition.tokenizer: missing; this bundle cannot "
                "read text"
            )
        return self.file(spec)

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
            BundleError: If one of them cannot be used (see ``file``).
        """
        paths = {self.file(spec) for spec in self.files().values()}
        return sum(path.stat().st_size for path in paths)

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
            "parity": manifest["parity"],
            "metrics": manifest["metrics"],
            "provenance": manifest["provenance"],
        }
