"""Sounds over HTTP: every kind of request and answer."""

from __future__ import annotations

import base64
import gc
import io
import json
import logging
import re
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
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


def wav(waveform: np.ndarray, rate: int = 22050) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, "PCM_16", format="WAV")
    return buffer.getvalue()


def test_a_sound_to_start_from(client: TestClient, voice: Synthesizer, tmp_path: Path) -> None:
    (tmp_path / "knock.wav").write_bytes(wav(voice.synth("rain", duration=0.4).waveform))
    files = {"init": ("knock.wav", (tmp_path / "knock.wav").read_bytes(), "audio/wav")}
    form = {"query": "drum", "strength": "0.5", "num_steps": "4", "seed": "3"}
    answer = client.post("/v1/synth", data=form, files=files)
    assert answer.status_code == 200, answer.text
    options: dict[str, Any] = {"strength": 0.5, "num_steps": 4, "seed": 3}
    expected = voice.synth("drum", init=tmp_path / "knock.wav", **options)
    assert_same(answer.content, expected.waveform)
    several = {"queries": ["drum", "dog"], "strength": "0.5"}
    answer = client.post("/v1/synth", data=several, files=files)
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    expected = voice.synth("dog", init=tmp_path / "knock.wav", strength=0.5, seed=1)
    assert_same(archive.read("02-dog.wav"), expected.waveform)
    picture = {**files, "image": ("a.png", png())}
    assert client.post("/v1/synth", files=picture).status_code == 200


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"no sound", "init: cannot be read as a sound"),
        (b"", "init: cannot be read as a sound"),
        (wav(np.zeros(22050 * 21, np.float32)), "init: sound of 21.0 s; at most 20 s"),
        (wav(np.zeros(3, np.float32)), "too short"),
        (wav(np.zeros(0, np.float32)), "init: the sound is too short, 0 ms"),
    ],
)
def test_what_cannot_be_started_from(client: TestClient, data: bytes, detail: str) -> None:
    answer = client.post("/v1/synth", data={"query": "drum"}, files={"init": ("a.wav", data)})
    assert answer.status_code == 422, answer.text
    assert detail in answer.json()["detail"]
    assert "standard input" not in answer.text


def test_strength_needs_a_sound(client: TestClient) -> None:
    answer = client.post("/v1/synth", json={"query": "drum", "strength": 0.5})
    assert (answer.status_code, answer.json()["field"]) == (422, "strength")
    files = [("init", ("a.wav", wav(np.zeros(9000, np.float32))))] * 2
    answer = client.post("/v1/synth", data={"query": "drum"}, files=files)
    assert (answer.status_code, answer.json()["field"]) == (422, "init")


def test_json_with_a_byte_order_mark(client: TestClient, voice: Synthesizer) -> None:
    body = b'\xef\xbb\xbf{"query": "drum"}'
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/synth", content=body, headers=headers)
    assert_same(answer.content, voice.synth("drum").waveform)


def test_a_stream_sends_each_sound_as_it_is_made(
    listening: Any, held: Any, voice: Synthesizer
) -> None:
    address = listening(Limits(batch=1), speaker=held)
    body = {"queries": ["drum", "dog"], "response_format": "ndjson", "duration": 0.3}
    with httpx2.stream("POST", f"{address}/v1/synth", json=body, timeout=30) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.iter_lines()
        assert held.begun.acquire(timeout=20)
        held.go.set()
        held.go.clear()
        first = json.loads(next(lines))
        # the second is not made yet
        assert held.begun.acquire(timeout=20)
        held.go.set()
        second = json.loads(next(lines))
    for clip, query, seed in ((first, "drum", 0), (second, "dog", 1)):
        assert (clip["query"], clip["seed"]) == (query, seed)
        expected = voice.synth(query, seed=seed, duration=0.3).waveform
        assert_same(base64.b64decode(clip["sound"]), expected)


def test_a_stream_ends_with_what_went_wrong(serve: Serve, held: Any) -> None:
    client = serve(speaker=held)
    held.failure = BackendError("vocoder: broke")
    held.go.set()
    body = {"query": "drum", "response_format": "ndjson"}
    (line,) = client.post("/v1/synth", json=body).text.splitlines()
    assert json.loads(line)["code"] == "failed"
    held.go.clear()
    held.failure = None
    (line,) = client.post("/v1/synth", json={**body, "deadline_s": 0.2}).text.splitlines()
    assert json.loads(line)["code"] == "deadline"
    assert client.app.state.service.batcher.depth == 0


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


def test_a_panic_of_a_library(serve: Serve, held: Any) -> None:
    client = serve(speaker=held)
    held.go.set()
    held.failure = Panic("unwrap of None")
    answer = client.post("/v1/synth", json={"query": "drum"})
    assert (answer.status_code, answer.json()["code"]) == (500, "fault")
    held.failure = None
    assert client.post("/v1/synth", json={"query": "drum"}).status_code == 200
    assert client.get("/healthz").json() == {"status": "ok"}


def test_a_dead_worker_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve()
    batcher = client.app.state.service.batcher

    def die(batch: Any) -> bool:
        raise Panic("broken")

    monkeypatch.setattr(batcher, "_make", die)
    answer = client.post("/v1/synth", json={"query": "drum"})
    assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
    for path in ("/healthz", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (503, {"status": "failed"})


@pytest.mark.parametrize("leave", [True, False])
def test_no_error_is_left_unseen(
    serve: Serve, held: Any, caplog: pytest.LogCaptureFixture, leave: bool
) -> None:
    """A voice that fails after its client's deadline, and two clips that fail at once."""
    client = serve(speaker=held)
    held.failure = ZeroDivisionError("odd")
    body: dict[str, Any] = {"queries": ["drum", "dog"]}
    if leave:
        body["deadline_s"] = 0.2
    else:
        held.go.set()
    assert client.post("/v1/synth", json=body).status_code == (504 if leave else 500)
    held.go.set()
    held.failure = None
    assert client.post("/v1/synth", json={"query": "drum"}).status_code == 200
    gc.collect()
    assert "never retrieved" not in caplog.text


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
    assert {"200", "413", "422", "429", "503", "504"} <= set(post["responses"])
    assert "multipart/form-data" in post["requestBody"]["content"]


def test_openapi_names_its_schemas(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    names = described["components"]["schemas"]
    assert {"SynthRequest", "SynthForm", "Problem", "Clip", "Clips"} <= set(names)
    text = json.dumps(described)
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in names
    body = described["paths"]["/v1/synth"]["post"]["requestBody"]["content"]
    reference = {"$ref": "#/components/schemas/SynthRequest"}
    assert body["application/json"]["schema"] == reference
    assert {"image", "init"} <= set(names["SynthForm"]["properties"])


def test_openapi_asks_for_a_token_only_where_one_is_set(serve: Serve) -> None:
    open_to_all = serve().get("/openapi.json").json()
    assert "securitySchemes" not in open_to_all["components"]
    post = open_to_all["paths"]["/v1/synth"]["post"]
    assert "security" not in post
    assert "401" not in post["responses"]
    guarded = serve(token="secret").get("/openapi.json").json()
    assert guarded["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, method in (("/v1/synth", "post"), ("/v1/bundle", "get"), ("/metrics", "get")):
        operation = guarded["paths"][path][method]
        assert operation["security"]
        assert "401" in operation["responses"]
    assert "security" not in guarded["paths"]["/healthz"]["get"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": " "},
        {"query": None},
        {"queries": []},
        {"queries": None},
        {"query": "a", "queries": ["b"]},
        {"query": "drum", "queries": None},
        {"queries": ["drum"], "query": None},
        {"query": "drum", "strength": 0},
        {"query": "drum", "guidance_scale": 31},
        {"query": "drum", "loop": True},
        {"seed": 1},
    ],
)
def test_the_schema_refuses_what_the_server_does(client: TestClient, body: dict[str, Any]) -> None:
    schema = client.get("/openapi.json").json()["components"]["schemas"]["SynthRequest"]
    valid = jsonschema.Draft202012Validator(schema).is_valid(body)
    assert (client.post("/v1/synth", json=body).status_code == 200) == valid


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
