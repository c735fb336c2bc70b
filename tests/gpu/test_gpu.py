"""On a real GPU. ``CLIPSYNTH_RT_GPU=1`` says that there should be one: skips become failures.

``CLIPSYNTH_RT_BUNDLE`` names a bundle with fp16 and fp32 graphs of a real voice, for parity.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsynth_rt import Bundle, Synthesizer
from clipsynth_rt.backends import choice as backends
from clipsynth_rt.errors import BackendError, ClipSynthError
from clipsynth_rt.synthesis.schedule import gaussian_noise

pytestmark = pytest.mark.gpu

WHOLE_S = 168 * 256 / 22050  # the tiny bundle's one bucket
ONE: dict[str, Any] = {"template": "a photo of {query}", "duration": WHOLE_S}


def skip(reason: str) -> None:
    if os.environ.get("CLIPSYNTH_RT_GPU"):
        pytest.fail(f"this machine should have a GPU: {reason}")
    pytest.skip(reason)


def need(provider: str) -> str:
    try:
        problem = backends.probe(provider)
    except ClipSynthError as error:
        problem = str(error)
    if problem:
        skip(f"{provider}: {problem}")
    return provider


@pytest.fixture(params=["cuda", "tensorrt-rtx", "tensorrt"])
def provider(request: pytest.FixtureRequest) -> str:
    if request.param == "tensorrt":
        try:
            import tensorrt  # noqa: F401
        except ImportError as error:  # one of the two builders is enough for a GPU machine
            pytest.skip(f"tensorrt: {error}")
    return need(request.param)


@pytest.fixture(params=["tensorrt-rtx", "tensorrt"])
def builder(request: pytest.FixtureRequest) -> str:
    if request.param == "tensorrt":
        pytest.importorskip("tensorrt", exc_type=ImportError)
    return need(request.param)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CLIPSYNTH_RT_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_steps": 1},
        {"guidance_scale": 1.0},
        {"eta": 0.5, "num_steps": 4},
        {"negative": "rain"},
    ],
    ids=["default", "one step", "unguided", "eta", "negative"],
)
def test_a_clip_is_the_cpus(provider: str, tiny_bundle: Path, options: dict[str, Any]) -> None:
    want = Synthesizer.from_bundle(tiny_bundle, "cpu").synth("drum", seed=5, **ONE, **options)
    with Synthesizer.from_bundle(tiny_bundle, provider) as synthesizer:
        found = synthesizer.synth("drum", seed=5, **ONE, **options)
    assert found.provider == provider
    # fp32 graphs; TF32 keeps 10 bits of the mantissa, and exp() of the vocoder magnifies
    np.testing.assert_allclose(found.waveform, want.waveform, atol=0.02)


def test_graphs_of_a_real_voice(provider: str) -> None:
    path = os.environ.get("CLIPSYNTH_RT_BUNDLE")
    if not path:
        pytest.skip("CLIPSYNTH_RT_BUNDLE names no bundle with fp16 and fp32 graphs")
    from clipsynth_export.parity import difference, tolerance_db

    cpu = Synthesizer.from_bundle(path, "cpu", "fp32")
    diffusion, bins = cpu.bundle.manifest.diffusion, cpu.bundle.manifest.mel.n_mels
    frames = 352
    noise = gaussian_noise(0, frames, bins)[None]
    with Synthesizer.from_bundle(path, provider, "fp16") as gpu:
        want, found = cpu.encode_text(["drum"]), gpu.encode_text(["drum"])
        bound = tolerance_db("fp16", "text_encoder")
        assert difference(want, found).snr_db >= bound
        for guidance_scale in (1.0, diffusion.guidance_scale):
            mels = [
                s.sample(want, [0], frames, num_steps=1, guidance_scale=guidance_scale, noise=noise)
                for s in (cpu, gpu)
            ]
            assert difference(*mels).snr_db >= tolerance_db("fp16", "denoiser_step")
        mel = cpu.sample(want, [0], frames)
        sounds = [s.vocode(mel) for s in (cpu, gpu)]
        assert difference(*sounds).snr_db >= tolerance_db("fp16", "vocoder")


def test_a_replayed_graph_is_what_was_enqueued(builder: str, tiny_bundle: Path) -> None:
    with Synthesizer.from_bundle(tiny_bundle, builder) as one:
        captured = [one.synth("drum", seed=seed, **ONE).waveform for seed in (1, 2, 1)]
        assert one.engines is not None
        assert one.engines.captures == 1
    with Synthesizer.from_bundle(tiny_bundle, builder) as other:
        assert other.engines is not None
        other.engines.use_graphs = False
        plain = other.synth("drum", seed=1, **ONE).waveform
    np.testing.assert_array_equal(captured[0], captured[2])
    assert not np.array_equal(captured[0], captured[1])
    np.testing.assert_allclose(captured[0], plain, atol=1e-6)


def test_inputs_of_a_captured_clip_change_the_sound(builder: str, tiny_bundle: Path) -> None:
    cpu = Synthesizer.from_bundle(tiny_bundle, "cpu")
    with Synthesizer.from_bundle(tiny_bundle, builder) as gpu:
        for query, guidance_scale, seed in (("drum", 2.0, 0), ("piano", 4.0, 1), ("dog", 1.5, 2)):
            found, want = (
                s.synth(query, guidance_scale=guidance_scale, seed=seed, **ONE).waveform
                for s in (gpu, cpu)
            )
            np.testing.assert_allclose(found, want, atol=0.02)
        assert gpu.engines is not None
        assert gpu.engines.captures == 1


def test_close_gives_device_memory_back(builder: str, tiny_bundle: Path) -> None:
    def once() -> int:
        with Synthesizer.from_bundle(tiny_bundle, builder) as synthesizer:
            synthesizer.synth("drum", **ONE)
            assert synthesizer.engines is not None
            device = synthesizer.engines.device
            assert device.allocated > 0
            assert synthesizer.engines.peak_device_bytes > 0
        assert device.allocated == 0
        return device.memory_in_use()

    once()  # what libraries keep for the process, they keep once
    first = once()
    for _ in range(5):
        last = once()
    assert last - first <= 4 << 20  # bytes; the driver's own bookkeeping comes in pages of 2 MiB


def test_two_synthesizers_in_two_threads(builder: str, tiny_bundle: Path) -> None:
    results: dict[str, list[np.ndarray]] = {"drum": [], "piano": []}

    def work(query: str) -> None:
        with Synthesizer.from_bundle(tiny_bundle, builder) as synthesizer:
            for _ in range(20):
                results[query].append(synthesizer.synth(query, **ONE).waveform)

    threads = [threading.Thread(target=work, args=(query,)) for query in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in results.values():
        assert len(found) == 20
        for again in found[1:]:
            np.testing.assert_array_equal(found[0], again)


def test_device_out_of_memory(builder: str, tiny_bundle: Path) -> None:
    with Synthesizer.from_bundle(tiny_bundle, builder) as synthesizer:
        assert synthesizer.engines is not None
        device = synthesizer.engines.device
        with pytest.raises(BackendError, match="out of memory"):
            device.alloc(1 << 50)
        assert synthesizer.synth("drum", **ONE).provider == builder


def test_a_damaged_plan_is_built_again(
    builder: str, tiny_bundle: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Synthesizer.from_bundle(tiny_bundle, builder) as synthesizer:
        want = synthesizer.synth("drum", **ONE).waveform
    for path in own_cache.glob("*.plan"):
        path.write_bytes(path.read_bytes()[:-64])
    with Synthesizer.from_bundle(tiny_bundle, builder) as synthesizer:
        np.testing.assert_allclose(synthesizer.synth("drum", **ONE).waveform, want, atol=1e-6)
    assert "not a whole engine" in caplog.text


def test_auto_takes_what_was_built(builder: str, tiny_bundle: Path) -> None:
    from clipsynth_rt.backends.tensorrt.prebuild import prebuild

    prebuild(Bundle.open(tiny_bundle), builder).check()
    with Synthesizer.from_bundle(tiny_bundle) as synthesizer:
        assert synthesizer.provider in backends.ENGINE_PROVIDERS
        assert synthesizer.synth("drum", **ONE).provider == synthesizer.provider
