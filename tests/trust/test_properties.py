"""Whatever comes in at a boundary, one of the package's own errors comes out, or what was asked."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsynth_rt.audio.clip import FORMATS, AudioClip, finish, to_int16
from clipsynth_rt.bundles.bundle import Bundle
from clipsynth_rt.bundles.manifest import DiffusionSpec, Manifest
from clipsynth_rt.errors import BundleError, ClipSynthError, InputError, ManifestError
from clipsynth_rt.files import file_stem
from clipsynth_rt.synthesis.images import load_image
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options
from clipsynth_rt.synthesis.schedule import gaussian_noise, sampling_times

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.fixture(scope="session")
def manifest_data(tiny_bundle: Path) -> dict[str, Any]:
    return dict(json.loads((tiny_bundle / "manifest.json").read_text()))


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where every value of a document is."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += places(value, (*path, key))
    return found


@given(data=st.data())
def test_a_manifest_with_any_value_anywhere(data: st.DataObject, manifest_data: Any) -> None:
    changed = json.loads(json.dumps(manifest_data))
    for place in data.draw(
        st.lists(st.sampled_from(places(manifest_data)), min_size=1, max_size=2)
    ):
        where = changed
        try:
            for key in place[:-1]:
                where = where[key]
            where[place[-1]] = data.draw(JSON)
        except (KeyError, IndexError, TypeError):
            continue  # the first change took the second one's place away
    try:
        manifest = Manifest.from_dict(changed)
    except ManifestError as error:
        assert "\n" not in str(error)
        return
    assert Manifest.from_dict(manifest.to_dict()) == manifest
    plan = resolve_options(SynthOptions(), manifest)
    assert plan.num_frames % manifest.diffusion.frames_multiple == 0


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_manifest_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(ManifestError):
        Bundle.open(folder)


@given(
    st.text(max_size=30)
    | st.lists(st.sampled_from(["..", ".", "fp32", "/", "a", "~"])).map("/".join)
)
def test_no_path_leaves_the_bundle(tiny_bundle: Path, path: str) -> None:
    bundle = Bundle.open(tiny_bundle)
    try:
        inside = bundle.inside(path)
    except BundleError:
        return
    assert inside.is_relative_to(tiny_bundle.resolve())


@given(data=st.data())
def test_a_damaged_graph_whose_maker_vouches_for_it(
    data: st.DataObject, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut and overwritten files; the hash is right, so the parser sees them."""
    ort = pytest.importorskip("onnxruntime")
    from clipsynth_rt.backends.choice import open_session
    from clipsynth_rt.bundles.bundle import GraphFile

    assert ort
    graph = Bundle.open(tiny_bundle).graph("text_encoder")
    model = bytearray(graph.read())
    del model[data.draw(st.integers(0, len(model))) :]
    for at in data.draw(st.lists(st.integers(0, max(0, len(model) - 1)), max_size=3)):
        if model:
            model[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("graph") / "text_encoder.onnx"
    path.write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    damaged = GraphFile(graph.name, graph.precision, path, graph.spec, digest)
    try:
        session = open_session(damaged, "cpu", 1)
        ids = np.zeros((1, 3), np.int64)
        session.run({"input_ids": ids, "attention_mask": ids + 1})
    except ClipSynthError as error:
        assert "\n" not in str(error)


def picture(format: str) -> bytes:
    rng = np.random.Generator(np.random.Philox(3))
    pixels = rng.integers(0, 256, (24, 17, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


PICTURES = {name: picture(name) for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}


@given(data=st.data())
def test_a_damaged_picture(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(PICTURES[data.draw(st.sampled_from(sorted(PICTURES)))])
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[at] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path_factory.mktemp("picture") / "picture"
    path.write_bytes(content)
    try:
        pixels = load_image(path, 16)
    except InputError as error:
        assert str(path) in str(error)
        return
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.float32
    assert pixels.min() >= 0.0
    assert pixels.max() <= 1.0


ANY_FLOAT = st.none() | st.floats()


@given(ANY_FLOAT, ANY_FLOAT, st.none() | st.integers(), st.floats(), st.text(max_size=5))
def test_wishes(
    tiny_bundle: Path,
    duration: float | None,
    guidance_scale: float | None,
    num_steps: int | None,
    eta: float,
    template: str,
) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    try:
        config = SynthOptions(
            duration, num_steps, guidance_scale, eta, template=f"{template}{{query}}"
        )
        plan = resolve_options(config, manifest)
    except InputError:
        return
    assert 1 <= plan.num_frames <= manifest.diffusion.max_frames
    assert 1 <= plan.num_samples <= plan.num_frames * manifest.mel.hop_length
    assert 1 <= plan.num_steps <= manifest.diffusion.num_train_timesteps
    assert math.isfinite(plan.guidance_scale)
    assert 0.0 <= plan.eta <= 1.0


@given(st.integers(1, 1000), st.floats(1e-3, 1e3))
def test_sampling_times(num_steps: int, shift: float) -> None:
    times = sampling_times(num_steps, DiffusionSpec(time_shift=shift))
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert len(times) == num_steps + 1
    assert (np.diff(times) < 0.0).all()


@given(st.integers(0, 2**64 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_noise_is_a_function_of_its_arguments(
    seed: int, frames: int, more: int, stream: int
) -> None:
    noise = gaussian_noise(seed, frames, 8, stream)
    assert np.isfinite(noise).all()
    longer = gaussian_noise(seed, frames + more, 8, stream)
    np.testing.assert_array_equal(longer[:, :frames], noise)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=300), st.sampled_from(FORMATS))
def test_every_finite_sound_can_be_written(samples: list[float], format: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    waveform = finish(np.array(samples, np.float32), len(samples), 22050)
    assert np.abs(waveform).max() <= 1.0
    assert np.abs(to_int16(waveform).astype(int)).max() <= 32767
    heard, rate = soundfile.read(io.BytesIO(AudioClip(waveform, 22050).encode(format)))
    assert (len(heard), rate) == (len(samples), 22050)


@given(st.text())
def test_a_file_name_of_any_query(query: str) -> None:
    stem = file_stem(query)
    assert stem
    assert stem not in (".", "..")
    assert not set(stem) & set('/\\\0:"<>|*?')
    assert len(stem.encode(errors="surrogatepass")) <= 250
