"""The model that Triton Inference Server's Python backend runs: from query to sound.

``clipsynth-rt export --triton`` writes a model repository whose graphs are models of their own;
this one holds what lies between them (tokenizer, schedule, sampler, finish) and calls them through
Triton's business logic scripting. It is ``Synthesizer`` over sessions that are such calls,
so a sound from the server is the sound of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipsynth_rt.backends.session import Array, Choice, Session
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import GraphSpec
from clipsynth_rt.errors import BackendError, ClipSynthError, InputError
from clipsynth_rt.synthesis.options import OPTIONS as SYNTH_OPTIONS
from clipsynth_rt.synthesis.options import (
    ResolvedOptions,
    SynthOptions,
    check_query,
    resolve_options,
)
from clipsynth_rt.synthesis.sessions import Sessions
from clipsynth_rt.synthesis.synthesizer import Synthesizer

PROVIDER = "triton"
MODEL = "clipsynth"
"""Name of the model to ask; a graph's is ``clipsynth_`` and the graph's."""

_TYPES = {float: "FP32", int: "INT32", str: "STRING", bool: "BOOL"}
_NOT_HERE = ("strength",)
"""Options of a sound to start from, which a request cannot send."""

OPTIONS = {
    "seed": "UINT64",
    **{name: _TYPES[o.type] for name, o in SYNTH_OPTIONS.items() if name not in _NOT_HERE},
}
"""Optional inputs of a request, one value a query, and Triton's types."""


class TritonSession(Session):
    """One graph as a model of the same server.

    Args:
        graph: Its name.
        spec: Its interface.
        pb_utils: Triton's module ``triton_python_backend_utils``.
    """

    provider = PROVIDER

    def __init__(self, graph: str, spec: GraphSpec, pb_utils: Any) -> None:
        self._model = f"{MODEL}_{graph}"
        self._outputs = list(spec.outputs)
        self._triton = pb_utils

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises:
            BackendError: If the model fails, with Triton's reason.
        """
        triton = self._triton
        request = triton.InferenceRequest(
            model_name=self._model,
            requested_output_names=self._outputs,
            inputs=[
                triton.Tensor(name, np.ascontiguousarray(value)) for name, value in inputs.items()
            ],
        )
        response = request.exec()
        if response.has_error():
            raise BackendError(f"{self._model}: {response.error().message()}")
        found = {name: triton.get_output_tensor_by_name(response, name) for name in self._outputs}
        # copies: what Triton returns lies in the response's own memory
        return {name: np.array(tensor.as_numpy()) for name, tensor in found.items()}


class TritonSessions(Sessions):
    """A bundle's graphs as models of the server that this runs in.

    Args:
        bundle: Supplies manifest and tokenizer; its graphs are not read.
        pb_utils: Triton's module ``triton_python_backend_utils``.
    """

    def __init__(self, bundle: Bundle, pb_utils: Any) -> None:
        super().__init__(bundle, Choice(PROVIDER))
        self._triton = pb_utils

    def _open(self, name: str) -> TritonSession:
        spec = self.bundle.manifest.graphs.get(name)
        if spec is None:
            raise InputError(f"bundle {self.bundle.manifest.name} has no {name}")
        return TritonSession(name, spec, self._triton)


@dataclass(frozen=True)
class _Item:
    """One query of one request."""

    request: int
    index: int
    query: str
    seed: int
    options: dict[str, Any]
    resolved: ResolvedOptions


class TritonPythonModel:
    """What Triton's Python backend looks for in model.py.

    Queries of all the requests that Triton hands over at once, and that share their options, are
    denoised together.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read manifest and tokenizer; called when the model is loaded."""
        # exists inside Triton's Python backend alone
        import triton_python_backend_utils as pb_utils

        self._triton = pb_utils
        folder = Path(args["model_repository"]) / args["model_version"] / "bundle"
        bundle = Bundle.open(folder)
        self._synthesizer = Synthesizer(bundle, sessions=TritonSessions(bundle, pb_utils))
        # a tokenizer that cannot be read should keep the model from loading, not fail a request
        self._synthesizer.tokenize(["sound"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response for each request; one that makes no sense fails alone."""
        failures: dict[int, ClipSynthError] = {}
        items: list[_Item] = []
        for number, request in enumerate(requests):
            try:
                items += self._read(number, request)
            except ClipSynthError as error:
                failures[number] = error
        waveforms: dict[int, dict[int, Array]] = {}
        for group in _by_options(items):
            try:
                made = self._synthesizer.synth_batch(
                    [item.query for item in group],
                    seed=[item.seed for item in group],
                    **group[0].options,
                )
            except ClipSynthError as error:
                failures |= {item.request: error for item in group}
                continue
            for item, clip in zip(group, made, strict=True):
                waveforms.setdefault(item.request, {})[item.index] = clip.waveform
        return [
            self._refuse(failures[number])
            if number in failures
            else self._respond([waveforms[number][i] for i in sorted(waveforms[number])])
            for number in range(len(requests))
        ]

    def _read(self, number: int, request: Any) -> list[_Item]:
        """Return the queries of a request, checked."""
        values = self._values(request)
        queries = [_text(value) for value in values.pop("query")]
        if not queries:
            raise InputError("no query given")
        for name, given in values.items():
            if len(given) != len(queries):
                raise InputError(f"{len(given)} values of {name} for {len(queries)} queries")
        seeds = [int(value) for value in values.pop("seed", range(len(queries)))]
        items = []
        for i, (query, seed) in enumerate(zip(queries, seeds, strict=True)):
            options = {name: _option(name, given[i]) for name, given in values.items()}
            resolved = resolve_options(SynthOptions.of(options), self._synthesizer.bundle.manifest)
            items.append(_Item(number, i, query, seed, options, resolved))
        if len({item.resolved.num_samples for item in items}) > 1:
            raise InputError("the clips of one request are of one duration; send several requests")
        # a request fails as a whole, and before any work, where one of its queries cannot be read
        self._synthesizer.tokenize([item.query for item in items])
        return items

    def _values(self, request: Any) -> dict[str, Array]:
        found = {}
        for name in ("query", *OPTIONS):
            tensor = self._triton.get_input_tensor_by_name(request, name)
            if tensor is not None:
                found[name] = tensor.as_numpy().reshape(-1)
        return found

    def _refuse(self, error: ClipSynthError) -> Any:
        kinds = self._triton.TritonError
        kind = kinds.INVALID_ARG if isinstance(error, InputError) else kinds.INTERNAL
        return self._triton.InferenceResponse(error=kinds(str(error), kind))

    def _respond(self, waveforms: Sequence[Array]) -> Any:
        triton = self._triton
        rate = self._synthesizer.bundle.manifest.mel.sample_rate
        return triton.InferenceResponse(
            output_tensors=[
                triton.Tensor("waveform", np.stack(waveforms).astype(np.float32)),
                triton.Tensor("sample_rate", np.full((len(waveforms), 1), rate, np.int32)),
            ]
        )


def _by_options(items: Sequence[_Item]) -> list[list[_Item]]:
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(repr(asdict(item.resolved)), []).append(item)
    return list(groups.values())


def _option(name: str, value: Any) -> Any:
    """Return an option's value as Python's; Triton gives texts as bytes.

    Raises:
        InputError: If a text is not UTF-8.
    """
    if SYNTH_OPTIONS[name].type is not str:
        return value.item()
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not valid UTF-8: {value!r:.80}") from error


def _text(value: Any) -> str:
    """Return a query, which Triton gives as bytes.

    Raises:
        InputError: If it is not UTF-8, or blank.
    """
    try:
        return check_query(value.decode("utf-8") if isinstance(value, bytes) else str(value))
    except UnicodeDecodeError as error:
        raise InputError(f"query is not valid UTF-8: {value!r:.80}") from error
