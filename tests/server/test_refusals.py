"""Bad input over HTTP: always a 4xx, one clear line, one JSON shape."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsynth_rt import Synthesizer
from clipsynth_rt.server import Limits, Settings, create_app

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[TestClient]:
    """One server for all: whatever is refused must leave it as it was."""
    voice = Synthesizer.from_bundle(tiny_bundle, provider="cpu", threads=1)
    limits = Limits(upload_bytes=200_000, image_pixels=10_000, query_chars=50, clips=3)
    with TestClient(create_app(voice, Settings(limits)), "http://localhost") as client:
        yield client
        assert client.post("/v1/synth", json={"query": "drum"}).status_code == 200


def assert_refused(answer: Any, status: int, code: str, detail: str = "") -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) - {"field"} == {"title", "status", "code", "detail", "request_id"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "\n" not in body["detail"]
    assert detail in body["detail"]
    return body


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ("", 400, "Invalid JSON"),
        ("{", 400, "Invalid JSON"),
        ('{"query": "drum",}', 400, "Invalid JSON"),
        ('{"query": "\\ud800"}', 400, "Invalid JSON"),
        ("[" * 10_000, 400, "Invalid JSON"),
        ("[]", 422, "object"),
        ('"drum"', 422, "object"),
        ("{}", 422, "query, queries or images"),
        ('{"query": "drum", "queries": ["dog"]}', 422, "query, queries or images"),
        ('{"query": ""}', 422, "query: is empty"),
        ('{"query": " \\n "}', 422, "query: is empty"),
        ('{"queries": []}', 422, "from 1 to 3 sounds"),
        ('{"queries": ["a", "b", "c", "d"]}', 422, "from 1 to 3 sounds"),
        ('{"query": 7}', 422, "query: should be a valid string"),
        ('{"queries": "drum"}', 422, "queries: should be a valid array"),
        ('{"query": "drum", "volume": 11}', 422, "volume: there is no such field"),
        ('{"query": "drum", "num_steps": "8"}', 422, "num_steps: should be a valid integer"),
        ('{"query": "drum", "num_steps": true}', 422, "num_steps: should be a valid integer"),
        ('{"query": "drum", "num_steps": 1.5}', 422, "num_steps: should be a valid integer"),
        ('{"query": "drum", "num_steps": 0}', 422, "num_steps: should be greater"),
        ('{"query": "drum", "num_steps": 51}', 422, "num_steps: at most 50, got 51"),
        (
            '{"query": "drum", "guidance_scale": NaN}',
            422,
            "guidance_scale: should be a finite number",
        ),
        (
            '{"query": "drum", "guidance_scale": -Infinity}',
            422,
            "guidance_scale: should be a finite number",
        ),
        (
            '{"query": "drum", "guidance_scale": 1e999}',
            422,
            "guidance_scale: should be a finite number",
        ),
        ('{"query": "drum", "guidance_scale": 31}', 422, "guidance_scale: should be less"),
        ('{"query": "drum", "duration": 0}', 422, "duration: should be greater"),
        ('{"query": "drum", "duration": 100}', 422, "duration must be from"),
        ('{"query": "drum", "eta": 2}', 422, "eta: should be less"),
        ('{"query": "drum", "eta": 0.5, "sampler": "dpmpp_2m"}', 422, "eta is for the ddim"),
        ('{"query": "drum", "sampler": "euler"}', 422, "sampler: should be 'ddim'"),
        ('{"query": "drum", "format": "aiff"}', 422, "format: should be 'wav'"),
        ('{"query": "drum", "seed": -1}', 422, "seed: should be greater"),
        ('{"query": "drum", "seed": 9223372036854775808}', 422, "seed: should be less"),
        ('{"query": "drum", "seed": [1, 2]}', 422, "seed: 2 seeds for 1 sounds"),
        ('{"query": "drum", "negative": " "}', 422, "negative is empty"),
        ('{"query": "drum", "template": "photo"}', 422, "has no {query}"),
        ('{"query": "drum", "template": []}', 422, "no template"),
        ('{"query": "drum", "deadline_s": 0}', 422, "deadline_s: should be greater"),
        (
            '{"queries": ["a", "b"], "response_format": "file"}',
            422,
            "response_format: one sound file cannot",
        ),
        (json.dumps({"query": "x" * 51}), 422, "query: at most 50 characters, got 51"),
        (json.dumps({"query": "x", "negative": "x" * 51}), 422, "negative: at most 50"),
        (json.dumps({"query": "x", "template": ["{query}"] * 9}), 422, "template: at most 8"),
    ],
)
def test_bad_json(client: TestClient, body: str, status: int, detail: str) -> None:
    answer = client.post("/v1/synth", content=body, headers=JSON)
    assert_refused(answer, status, "malformed" if status == 400 else "invalid", detail)


def test_a_wrong_field_is_named(client: TestClient) -> None:
    answer = client.post("/v1/synth", json={"query": "drum", "num_steps": 0})
    assert assert_refused(answer, 422, "invalid")["field"] == "num_steps"


def test_bytes_that_are_not_text(client: TestClient) -> None:
    answer = client.post("/v1/synth", content=b'{"query": "dr\xffum"}', headers=JSON)
    assert_refused(answer, 400, "malformed")


def test_content_types(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/png", "", "application"):
        answer = client.post("/v1/synth", content="query=drum", headers={"Content-Type": kind})
        assert_refused(answer, 415, "content_type", "use application/json")


def test_too_large(client: TestClient) -> None:
    body = json.dumps({"query": "drum" + " " * 100_000})
    assert_refused(client.post("/v1/synth", content=body, headers=JSON), 413, "too_large")

    def unannounced() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    assert_refused(client.post("/v1/synth", content=unannounced(), headers=JSON), 413, "too_large")
    answer = client.post("/v1/synth", files={"image": ("a.png", b"x" * 300_000)})
    assert_refused(answer, 413, "too_large", "over 200,000 bytes")


def test_paths_and_methods(client: TestClient) -> None:
    assert_refused(client.get("/v2/synth"), 404, "not_found", "there is no /v2/synth")
    assert_refused(client.get("/static/../app.py"), 404, "not_found")
    assert_refused(client.get("/static/%2e%2e/app.py"), 404, "not_found")
    assert_refused(client.get("/v1/synth"), 405, "method", "use POST")
    answer = client.post("/healthz")
    assert_refused(answer, 405, "method", "use GET, HEAD")
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_is_answered_wherever_get_is(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    gets = [path for path, methods in paths.items() if "get" in methods]
    assert {"/healthz", "/readyz", "/v1/bundle", "/metrics"} <= set(gets)
    for path in (*gets, "/", "/static/app.js", "/openapi.json"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert answer.headers["content-type"] == client.get(path).headers["content-type"]
    assert client.head("/v1/synth").status_code == 405
    assert client.head("/absent").status_code == 404


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.effect_noise(size, 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "cannot be read as an image"),
        (b"not a picture", "cannot be read as an image; use PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as an image"),
        (picture()[:-200], "cannot be read as an image"),
        (picture("JPEG")[:400], "cannot be read as an image"),
        (bomb(101, 100), "at most 10,000"),
        (bomb(60_000, 60_000), "over 10,000 pixels"),
    ],
)
def test_bad_pictures(client: TestClient, data: bytes, detail: str) -> None:
    answer = client.post("/v1/synth", files={"image": ("a.png", data, "image/png")})
    assert assert_refused(answer, 422, "image", detail)["field"] == "image"


def test_a_large_picture_is_not_decoded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    answer = client.post("/v1/synth", files={"image": ("a.png", bomb(5000, 5000))})
    assert_refused(answer, 422, "image", "image of 5000 x 5000 pixels")


@pytest.mark.parametrize(
    ("data", "files", "status", "detail"),
    [
        ({"query": "drum"}, {"image": ("a.png", picture())}, 422, "query, queries or images"),
        ({"volume": "11"}, {"image": ("a.png", picture())}, 422, "volume: there is no such field"),
        (
            {"num_steps": "many"},
            {"image": ("a.png", picture())},
            422,
            "num_steps: should be a valid",
        ),
        (
            {"guidance_scale": "nan"},
            {"image": ("a.png", picture())},
            422,
            "guidance_scale: should be a finite",
        ),
        ({}, {"photo": ("a.png", picture())}, 422, "photo: there is no such file field"),
        ({}, {"image": (None, "text")}, 422, "image: must be a file"),
        ({}, [("image", ("a.png", picture()))] * 4, 400, "Too many files"),
        ({"seed": ["1"] * 70}, {"image": ("a.png", picture())}, 400, "Too many fields"),
    ],
)
def test_bad_forms(client: TestClient, data: Any, files: Any, status: int, detail: str) -> None:
    code = "malformed" if status == 400 else "invalid"
    assert_refused(client.post("/v1/synth", data=data, files=files), status, code, detail)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("body", [b"", b"--x", b"nonsense", b"--x\r\n\r\nno name\r\n--x--\r\n"])
def test_broken_forms(client: TestClient, kind: str, body: bytes) -> None:
    answer = client.post("/v1/synth", content=body, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500
    assert_refused(answer, answer.status_code, answer.json()["code"])


def test_a_bundle_that_cannot_see(tiny_copy: Path, edit_manifest: Callable[..., None]) -> None:
    def blind(manifest: dict[str, Any]) -> None:
        del manifest["graphs"]["image_encoder"]
        del manifest["default_precision"]["image_encoder"]

    edit_manifest(tiny_copy, blind)
    voice = Synthesizer.from_bundle(tiny_copy, provider="cpu", threads=1)
    with TestClient(create_app(voice), "http://localhost") as client:
        answer = client.post("/v1/synth", files={"image": ("a.png", picture())})
        assert_refused(answer, 422, "invalid", "does not understand pictures")
        assert client.get("/v1/bundle").json()["server"]["images"] == []


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=60)
    | st.sampled_from(["drum", "wav", "json", "{query}"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=5,
)
fields = st.sampled_from(
    "query queries seed num_steps guidance_scale duration eta negative template sampler "
    "format response_format strength denoiser deadline_s other".split()
)
quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quick
@given(st.dictionaries(fields, values, max_size=5), st.booleans())
def test_any_json_is_a_sound_or_one_line(
    client: TestClient, body: dict[str, Any], valid: bool
) -> None:
    if valid:
        body = {"query": "drum", **{k: v for k, v in body.items() if k not in ("query", "queries")}}
    text = json.dumps(body).encode(errors="surrogatepass")
    answer = client.post("/v1/synth", content=text, headers=JSON)
    if answer.status_code not in (200, 503, 504):  # the deadline is one of the fields
        assert 400 <= answer.status_code < 500
        assert_refused(answer, answer.status_code, answer.json()["code"])


@quick
@given(
    st.binary(max_size=200),
    st.sampled_from(["application/json", "multipart/form-data; boundary=x"]),
)
def test_any_bytes_are_refused_in_one_line(client: TestClient, body: bytes, kind: str) -> None:
    answer = client.post("/v1/synth", content=body, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500
    assert_refused(answer, answer.status_code, answer.json()["code"])


@quick
@given(st.integers(0, 1500), st.binary(min_size=1, max_size=8))
def test_any_damage_to_a_picture_is_survived(client: TestClient, at: int, damage: bytes) -> None:
    data = bytearray(SAMPLE)
    at = min(at, len(data) - 1)
    data[at : at + len(damage)] = damage
    answer = client.post("/v1/synth", files={"image": ("a", bytes(data))}, data={"num_steps": "1"})
    if answer.status_code != 200:
        assert_refused(answer, 422, "image")


SAMPLE = picture("JPEG")
