"""One table of options, and every door that is made from it."""

from __future__ import annotations

import dataclasses
import threading
import time
import typing
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from clipsynth_rt import AudioClip, Bundle, Synthesizer, SynthOptions
from clipsynth_rt.bundles.manifest import Manifest
from clipsynth_rt.cli.synth.command import command
from clipsynth_rt.errors import CancelledError, InputError
from clipsynth_rt.jobs.csv_rows import COLUMNS
from clipsynth_rt.synthesis.options import (
    OPTIONS,
    SEED,
    SynthKwargs,
    describe_options,
    resolve_options,
    why_full,
)

NAMES = [*OPTIONS]


@pytest.fixture
def manifest(distilled_bundle: Path) -> Manifest:
    return Bundle.open(distilled_bundle).manifest


def test_python_has_the_options_of_the_table() -> None:
    fields = dataclasses.fields(SynthOptions)
    assert [field.name for field in fields] == NAMES
    kwargs, own = typing.get_type_hints(SynthKwargs), typing.get_type_hints(SynthOptions)
    assert kwargs == own
    for field in fields:
        option = OPTIONS[field.name]
        assert field.default == option.default
        kinds = set(typing.get_args(own[field.name])) or {own[field.name]}
        assert option.type in kinds
        assert (type(None) in kinds) == (option.default is None)


def test_the_command_line_has_the_options_of_the_table() -> None:
    found = {p.name: p for p in command.params if isinstance(p, click.Option)}
    for option in (SEED, *OPTIONS.values()):
        assert found[option.name].opts == [option.flag]
        assert found[option.name].help == option.help
        kinds: dict[Any, type] = {click.FLOAT: float, click.INT: int, click.STRING: str}
        assert kinds.get(found[option.name].type, bool) is option.type


def test_csv_columns_are_the_options_of_the_table() -> None:
    assert set(NAMES) < set(COLUMNS)
    assert OPTIONS["loop"].parse("Yes") is True
    assert OPTIONS["num_steps"].parse("4") == 4
    with pytest.raises(InputError, match="eta 'x' is not a number"):
        OPTIONS["eta"].parse("x")


def test_http_fields_are_the_options_of_the_table() -> None:
    schema = pytest.importorskip("clipsynth_rt.server.schema")
    fields = schema.SynthRequest.model_fields
    shared = NAMES
    assert [name for name in fields if name in OPTIONS] == shared
    request = schema.SynthRequest(query="drum", denoiser="full", lufs=-20.0)
    assert set(request.options) == set(shared)
    assert (request.options["denoiser"], request.options["lufs"]) == ("full", -20.0)
    properties = schema.SynthRequest.model_json_schema()["properties"]
    for name in shared:
        option = OPTIONS[name]
        assert properties[name]["description"] == option.help
        assert properties[name]["default"] == option.default
        (kind,) = [k for k in properties[name].get("anyOf", [properties[name]])[:1]]
        if option.low is not None:
            lowest = kind["exclusiveMinimum" if option.above_low else "minimum"]
            assert (lowest, kind["maximum"]) == (option.low, option.high)
        if option.choices:
            assert tuple(kind["enum"]) == option.choices


def test_triton_inputs_are_the_options_of_the_table() -> None:
    from clipsynth_rt.server.triton import OPTIONS as TRITON

    assert list(TRITON) == ["seed", *(name for name in NAMES if name != "strength")]
    assert (TRITON["num_steps"], TRITON["loop"]) == ("INT32", "BOOL")


def test_a_voice_describes_its_options(manifest: Manifest) -> None:
    described = describe_options(manifest)
    assert list(described) == NAMES
    assert described["num_steps"]["default"] == 2
    assert described["num_steps"]["maximum"] == manifest.diffusion.num_train_timesteps
    assert described["guidance_scale"]["default"] == 1.0
    assert described["denoiser"]["choices"] == ["auto", "full", "distilled"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"stepz": 3},
            r"unknown option 'stepz' \(did you mean num_steps\?\); there are duration, ",
        ),
        ({"num_steps": "8"}, "num_steps must be a whole number, got '8'"),
        ({"num_steps": 2.5}, "num_steps must be a whole number, got 2.5"),
        ({"num_steps": True}, "num_steps must be a whole number, got True"),
        ({"loop": "no"}, "loop must be True or False, got 'no'"),
        ({"loop": 1}, "loop must be True or False, got 1"),
        ({"duration": "1"}, "duration must be a number, got '1'"),
        ({"eta": None}, "eta must be a number, got None"),
        ({"negative": 3}, "negative must be a text, got 3"),
        ({"template": ["{query}", 3]}, "template must be a text, got 3"),
        ({"sampler": 3}, "sampler must be a text, got 3"),
        ({"denoiser": "slow"}, "unknown denoiser 'slow'; use one of auto, full, distilled"),
        ({"sampler": "x" * 20000}, r"unknown sampler 'x{56}\.\.\.; use one of"),
    ],
)
def test_what_is_no_option(tiny_bundle: Path, options: dict[str, Any], message: str) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", graphs=()) as synthesizer:
        for call in (synthesizer.synth, synthesizer.load_for):
            arguments = ["drum"] if call == synthesizer.synth else []
            with pytest.raises(InputError, match=message):
                call(*arguments, **options)
        with pytest.raises(InputError, match=message):
            synthesizer.stream(["drum"], **options)
        assert synthesizer.loaded == ()


@pytest.mark.parametrize("query", [123, b"drum", ["drum"], None.__class__])
def test_what_is_no_query(tiny_bundle: Path, query: Any) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", graphs=()) as synthesizer:
        with pytest.raises(InputError, match="query must be a text, got"):
            synthesizer.synth(query)
        with pytest.raises(InputError, match="query must be a text, got"):
            synthesizer.synth_batch([query])


def test_numbers_of_numpy_are_numbers(manifest: Manifest) -> None:
    given = SynthOptions(
        duration=np.float32(0.5),  # type: ignore[arg-type]
        num_steps=np.int64(3),  # type: ignore[arg-type]
        guidance_scale=2,
        loop=np.bool_(True),  # type: ignore[arg-type]
    )
    found = resolve_options(given, manifest)
    assert found == resolve_options(SynthOptions(0.5, 3, 2.0, loop=True), manifest)
    assert (type(found.num_steps), type(found.guidance_scale)) == (int, float)


@pytest.mark.parametrize(
    ("options", "init_s", "reason"),
    [
        ({"guidance_scale": 1.0}, None, "it has no guidance_scale; its guidance is in its weights"),
        ({"num_steps": 3}, None, "it takes num_steps 2 or 4, not 3"),
        ({"negative": "dog"}, None, "it takes no negative"),
        ({"sampler": "dpmpp_2m"}, None, "it has no sampler dpmpp_2m"),
        ({"eta": 0.5}, None, "it has no eta above 0"),
        ({}, 1.0, "it does not start from a given sound"),
        ({"duration": 60.0}, None, "it makes up to"),
    ],
)
def test_what_the_distilled_denoiser_cannot_do_is_said(
    manifest: Manifest, options: Any, init_s: float | None, reason: str
) -> None:
    auto = SynthOptions(**options)
    assert not resolve_options(auto, manifest, init_s).distilled
    assert why_full(auto, manifest, init_s).startswith(reason)
    with pytest.raises(InputError, match=f"denoiser distilled: {reason}"):
        resolve_options(dataclasses.replace(auto, denoiser="distilled"), manifest, init_s)
    full = dataclasses.replace(auto, denoiser="full")
    assert resolve_options(full, manifest, init_s) == resolve_options(auto, manifest, init_s)
    assert why_full(full, manifest, init_s) == ""


def test_a_denoiser_by_name(manifest: Manifest, tiny_bundle: Path) -> None:
    auto, distilled, full = (
        resolve_options(SynthOptions(denoiser=name), manifest)
        for name in ("auto", "distilled", "full")
    )
    assert auto == distilled
    assert (distilled.distilled, distilled.num_steps, distilled.calls_a_step) == (True, 2, 1)
    assert (full.distilled, full.num_steps, full.calls_a_step) == (False, 8, 2)
    assert why_full(SynthOptions(), manifest) == ""
    with pytest.raises(InputError, match="the voice tiny-test has no distilled denoiser"):
        resolve_options(SynthOptions(denoiser="distilled"), Bundle.open(tiny_bundle).manifest)


class SlowSession:
    """A session that takes its time, as a large network on a small machine does."""

    def __init__(self, session: Any, seconds: float) -> None:
        self._session, self._seconds = session, seconds
        self.provider, self.calls = session.provider, 0

    def run(self, inputs: Any) -> Any:
        self.calls += 1
        time.sleep(self._seconds)
        return self._session.run(inputs)

    def prepare(self, shapes: Any) -> None:
        self._session.prepare(shapes)

    def step_loop(self, x: Any, fixed: Any) -> None:
        return None


@pytest.mark.parametrize("graph", ["denoiser_step", "vocoder"])
def test_a_minute_of_sound_is_cancelled_between_network_calls(
    tiny_bundle: Path, graph: str
) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1) as synthesizer:
        slow = SlowSession(synthesizer.session(graph), 0.2)
        synthesizer.sessions._sessions[graph] = slow  # type: ignore[assignment]
        cancel = threading.Event()

        def set_at_the_second_call() -> None:
            while slow.calls < 2:
                time.sleep(0.01)
            cancel.set()
            cancelled_at.append(time.monotonic())

        cancelled_at: list[float] = []
        thread = threading.Thread(target=set_at_the_second_call)
        thread.start()
        with pytest.raises(CancelledError):
            synthesizer.synth("drum", duration=60.0, num_steps=1, cancel=cancel)
        thread.join()
        # a step is over fifty windows, and a vocoding as many parts
        assert slow.calls <= 3
        assert time.monotonic() - cancelled_at[0] < 1.0


def test_ogg_bytes_are_the_same_from_run_to_run(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    noise = np.random.default_rng(0).normal(scale=0.1, size=50_000).astype(np.float32)
    clips = [AudioClip(noise, 22050, query="rain", seed=seed) for seed in (3, 3, 4)]
    first, again, other = (clip.encode("ogg") for clip in clips)
    time.sleep(1.1)  # libsndfile draws from the clock
    assert first == again == clips[0].encode("ogg")
    assert first != other
    # every page's checksum holds, or no page would be read
    for number, data in enumerate((first, other)):
        path = tmp_path / f"{number}.ogg"
        path.write_bytes(data)
        samples, rate = soundfile.read(path)
        assert (len(samples), rate) == (50_000, 22050)
        assert np.corrcoef(samples, noise)[0, 1] > 0.9
