"""Sounds over HTTP: every kind of request and answer."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
import threading
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
from fastapi.testclient import TestClient

from clipsynth_rt import Synthesizer
from clipsynth_rt.errors import BackendError, install_command
from clipsynth_rt.server import Limits

Serve = Callable[..., TestClient]


def decode(data: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]


def assert_same(data: bytes, expected: np.ndarray) -> None:
    # 16 bit: half a step each way, and the rounding of a batch
    np.testing.assert_allclose(decode(data), expected, atol=1e-4)


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 30), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_sound_and_its_facts(client: TestClient, voice: Synthesizer) -> None:
    options = {"duration": 0.5, "num_steps": 4, "guidance_scale": 3.0, "seed": 7}
    answer = client.post("/v1/synth", json={"query": "drum", **options})
    assert answer.status_code == 200
    assert_same(answer.content, voice.synth("drum", **options).waveform)
    headers = answer.headers
    assert headers["content-type"] == "audio/wav"
    assert 'filename="drum.wav"' in headers["content-disposition"]
    assert (headers["clipsynth-seed"], headers["clipsynth-num-steps"]) == ("7", "4")
    assert headers["clipsynth-network-calls"] == "8"
    assert 0.0 < float(headers["clipsynth-rtf"]) < 60.0
    stages = dict(part.split(";dur=") for part in headers["server-timing"].split(", "))
    assert set(stages) == {"queue", "text", "denoise", "vocode", "write"}
    assert all(float(ms) >= 0.0 for ms in stages.values())


def test_every_wish_reaches_the_voice(client: TestClient, voice: Synthesizer) -> None:
    options: dict[str, Any] = {
        "duration": 0.3,
        "num_steps": 3,
        "guidance_scale": 4.0,
        "seed": 2**53,
        "negative": "rain",
        "template": ["a {query}", "the sound of {query}"],
        "sampler": "dpmpp_2m",
        "loop": True,
        "lufs": -30.0,
    }
    answer = client.post("/v1/synth", json={"query": "dog", **options})
    assert_same(answer.content, voice.synth("dog", **options).waveform)
    noisy = client.post("/v1/synth", json={"query": "dog", "eta": 1.0})
    assert_same(noisy.content, voice.synth("dog", eta=1.0).waveform)


@pytest.mark.parametrize(
    ("format", "media", "kind"),
    [
        ("wav", "audio/wav", "WAV"),
        ("flac", "audio/flac", "FLAC"),
        ("ogg", "audio/ogg", "OGG"),
        ("mp3", "audio/mpeg", "MP3"),
    ],
)
def test_formats(client: TestClient, format: str, media: str, kind: str) -> None:
    answer = client.post("/v1/synth", json={"query": "drum", "duration": 0.5, "format": format})
    assert answer.headers["content-type"] == media
    info = soundfile.info(io.BytesIO(answer.content))
    assert (info.format, info.samplerate, info.frames) == (kind, 22050, 11025)


def test_several_sounds_are_an_archive(client: TestClient, voice: Synthesizer) -> None:
    answer = client.post("/v1/synth", json={"queries": ["drum", "größer/../"], "seed": 5})
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.namelist() == ["01-drum.wav", "02-größer.wav", "manifest.json"]
    clips = json.loads(archive.read("manifest.json"))["clips"]
    assert [clip["seed"] for clip in clips] == [5, 6]
    assert [clip["query"] for clip in clips] == ["drum", "größer/../"]
    assert_same(archive.read("01-drum.wav"), voice.synth("drum", seed=5).waveform)


def test_json(client: TestClient, voice: Synthesizer) -> None:
    body = {
        "queries": ["drum", "rain"],
        "seed": [3, 1],
        "response_format": "json",
        "format": "flac",
    }
    clips = client.post("/v1/synth", json=body).json()["clips"]
    for clip, query, seed in zip(clips, body["queries"], body["seed"], strict=True):
        assert (clip["query"], clip["seed"], clip["media_type"]) == (query, seed, "audio/flac")
        sound = base64.b64decode(clip["sound"])
        assert_same(sound, voice.synth(query, seed=seed).waveform)
        assert clip["batch"] == 2


def test_a_picture(client: TestClient, voice: Synthesizer) -> None:
    form = {"num_steps": "4", "seed": "2", "format": "flac"}
    answer = client.post("/v1/synth", data=form, files={"image": ("a.png", png(), "image/png")})
    assert answer.headers["content-type"] == "audio/flac"
    expected = voice.synth(image=PIL.Image.open(io.BytesIO(png())), num_steps=4, seed=2)
    assert_same(answer.content, expected.waveform)


def test_several_pictures(client: TestClient, voice: Synthesizer) -> None:
    files = [("image", ("a.png", png(c), "image/png")) for c in ("red", "blue")]
    form = {"seed": ["4", "9"], "template": "a {query}"}
    answer = client.post("/v1/synth", data=form, files=files)
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    blue = PIL.Image.open(io.BytesIO(png("blue")))
    assert_same(archive.read("02-image.wav"), voice.synth(image=blue, seed=9).waveform)


def test_a_form_of_words(client: TestClient, voice: Synthesizer) -> None:
    files = {"query": (None, "rain")}
    assert_same(client.post("/v1/synth", files=files).content, voice.synth("rain").waveform)


def test_requests_that_wish_the_same_are_made_together(
    serve: Serve, held: Any, wait_until: Any
) -> None:
    client = serve(speaker=held)
    answers: dict[str, Any] = {}

    def ask(query: str, **options: Any) -> threading.Thread:
        def run() -> None:
            answers[query] = client.post("/v1/synth", json={"query": query, **options})

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [ask("drum")]
    assert held.begun.acquire(timeout=10)
    batcher = client.app.state.service.batcher
    for query, options in (
        ("dog", {}),
        ("piano", {"num_steps": 3}),
        ("rain", {"seed": 4, "format": "ogg"}),
    ):
        threads.append(ask(query, **options))
        wait_until(lambda: batcher.depth == len(threads) - 1)
    held.go.set()
    for thread in threads:
        thread.join(30)
    assert [batch["queries"] for batch in held.batches] == [["drum"], ["dog", "rain"], ["piano"]]
    assert held.batches[1]["seed"] == [0, 4]
    assert answers["rain"].headers["clipsynth-batch"] == "2"
    assert_same(answers["dog"].content, held.synth_batch(["dog"])[0].waveform)


def test_the_queue_is_bounded(serve: Serve, held: Any, wait_until: Any) -> None:
    client = serve(Limits(queue=2, clips=2), speaker=held)
    threads = []
    for query in ("drum", "dog", "piano"):
        thread = threading.Thread(
            target=client.post, args=("/v1/synth",), kwargs={"json": {"query": query}}
        )
        thread.start()
        threads.append(thread)
        if query == "drum":
            assert held.begun.acquire(timeout=10)
    wait_until(lambda: client.app.state.service.batcher.depth == 2)
    answer = client.post("/v1/synth", json={"query": "rain"})
    assert answer.status_code == 429
    assert answer.json()["code"] == "queue_full"
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    text = client.get("/metrics").text
    assert "clipsynth_queue_depth 2.0" in text
    assert 'clipsynth_rejected_total{reason="queue_full"} 1.0' in text
    held.go.set()
    for thread in threads:
        thread.join(30)
    assert client.post("/v1/synth", json={"query": "rain"}).status_code == 200


def test_deadlines(serve: Serve, held: Any) -> None:
    client = serve(speaker=held)
    begun = client.post("/v1/synth", json={"query": "drum", "deadline_s": 0.3})
    assert (begun.status_code, begun.json()["code"]) == (504, "deadline")
    waited = client.post("/v1/synth", json={"query": "drum", "deadline_s": 0.1})
    assert (waited.status_code, waited.json()["code"]) == (503, "deadline")
    assert int(waited.headers["retry-after"]) >= 1
    assert client.app.state.service.batcher.depth == 0
    held.go.set()
    assert client.post("/v1/synth", json={"query": "dog"}).status_code == 200
    assert [batch["queries"] for batch in held.batches] == [["drum"], ["dog"]]


def test_the_servers_deadline_is_the_longest(serve: Serve, held: Any) -> None:
    client = serve(Limits(deadline_s=0.2), speaker=held)
    assert client.post("/v1/synth", json={"query": "drum", "deadline_s": 60}).status_code == 504


def test_a_fault_of_the_voice(serve: Serve, held: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = serve(speaker=held)
    held.go.set()
    held.failure = BackendError("vocoder: /secret/path broke")
    answer = client.post("/v1/synth", json={"query": "drum"})
    assert (answer.status_code, answer.json()["code"]) == (500, "failed")
    assert "/secret" not in answer.text
    assert "/secret/path broke" in caplog.text
    held.failure = ZeroDivisionError()
    answer = client.post("/v1/synth", json={"query": "drum"})
    assert (answer.status_code, answer.json()["code"]) == (500, "fault")
    assert any(record.exc_info for record in caplog.records)
    held.failure = None
    assert client.post("/v1/synth", json={"query": "drum"}).status_code == 200


def test_a_wish_that_needs_what_is_not_installed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    answer = client.post("/v1/synth", json={"query": "drum", "lufs": -16})
    assert (answer.status_code, answer.json()["code"]) == (501, "not_installed")
    assert install_command("sound") in answer.json()["detail"]


def test_one_clip_that_fails_leaves_its_neighbours(
    serve: Serve, voice: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = voice.synth_batch

    def synth_batch(queries: Any, **options: Any) -> Any:
        if "dog" in queries:
            raise BackendError("no dogs")
        return real(queries, **options)

    monkeypatch.setattr(voice, "synth_batch", synth_batch)
    client = serve()
    service = client.app.state.service
    body = {"queries": ["drum", "dog"], "response_format": "json"}
    assert client.post("/v1/synth", json=body).status_code == 500
    assert service.batcher.ready
    assert client.post("/v1/synth", json={"query": "drum"}).status_code == 200


def test_the_voice(client: TestClient) -> None:
    facts = client.get("/v1/bundle").json()
    assert (facts["name"], facts["mel"]["n_mels"]) == ("tiny-test", 8)
    assert facts["server"]["limits"]["num_steps"] == 50
    assert facts["server"]["formats"] == ["wav", "flac", "ogg", "mp3"]
    assert "path" not in facts


def test_health_and_metrics(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post("/v1/synth", json={"query": "drum"})
    text = client.get("/metrics").text
    for line in (
        'clipsynth_requests_total{route="/v1/synth",status="200"} 1.0',
        'clipsynth_stage_seconds_count{stage="denoise"} 1.0',
        'clipsynth_stage_seconds_count{stage="queue"} 1.0',
        "clipsynth_rtf_count 1.0",
        "clipsynth_queue_capacity 16.0",
        'bundle="tiny-test"',
    ):
        assert line in text
    client.app.state.service.batcher.close()
    assert client.get("/readyz").status_code == 503
    stopping = client.post("/v1/synth", json={"query": "drum"})
    assert (stopping.status_code, stopping.json()["code"]) == (503, "stopping")


def test_openapi_has_examples(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    post = described["paths"]["/v1/synth"]["post"]
    examples = post["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) >= 3
    for example in examples.values():
        # an example that does not work is worse than none
        assert client.post("/v1/synth", json=example["value"]).status_code == 200
    assert {"200", "401", "413", "422", "429", "503", "504"} <= set(post["responses"])
    assert "multipart/form-data" in post["requestBody"]["content"]


def test_a_request_is_a_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "clipsynth_rt.server")
    client = serve()
    answer = client.post("/v1/synth", json={"query": "piano"}, headers={"X-Request-Id": "my-1"})
    assert answer.headers["x-request-id"] == "my-1"
    record = next(r for r in caplog.records if getattr(r, "path", "") == "/v1/synth")
    assert (record.request_id, record.status, record.clips) == ("my-1", 200, 1)
    assert not hasattr(record, "queries")
    assert (
        len(client.get("/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"]) == 32
    )
