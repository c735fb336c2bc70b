"""Who may use a server, and what browsers are told."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from clipsynth_rt.errors import InputError
from clipsynth_rt.server import Limits
from clipsynth_rt.server.logs import json_logs
from clipsynth_rt.server.settings import LOOPBACK

Serve = Callable[..., TestClient]
DRUM = {"query": "drum", "duration": 0.1}


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", "Bearer größe", "Basic secret", "secret"]
)
def test_without_the_token(serve: Serve, header: str | None) -> None:
    client = serve(token="secret")
    headers = {} if header is None else {"Authorization": header.encode()}
    for method, path in (("POST", "/v1/synth"), ("GET", "/v1/bundle"), ("GET", "/metrics")):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_with_the_token(serve: Serve) -> None:
    client = serve(token="secret")
    headers = {"Authorization": "Bearer secret", "Host": "any.example"}
    assert client.post("/v1/synth", json=DRUM, headers=headers).status_code == 200
    assert client.get("/metrics", headers=headers).status_code == 200
    for path in ("/healthz", "/readyz", "/"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
def test_hosts_of_this_machine(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::1", "a]"]
)
def test_a_name_that_is_not_ours(client: TestClient, host: str) -> None:
    answer = client.post("/v1/synth", json=DRUM, headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "host")


def test_a_proxys_name(serve: Serve) -> None:
    client = serve(hosts=frozenset((*LOOPBACK, "sounds.example")))
    for headers in (
        {"Host": "sounds.example", "Origin": "https://sounds.example"},
        {"Host": "localhost", "Origin": "https://sounds.example"},
    ):
        assert client.post("/v1/synth", json=DRUM, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        # another program's page on this machine
        ("localhost:8000", "http://localhost:3000", 403),
        ("localhost:8000", "http://127.0.0.1:8000", 403),
        ("localhost:8000", "https://localhost:8000", 403),
        ("localhost:8000", "http://localhost", 403),
        ("localhost", "http://localhost:80", 200),
        ("LOCALHOST:8000", "http://localhost:8000", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
    ],
)
def test_an_origin_is_a_scheme_a_host_and_a_port(
    client: TestClient, host: str, origin: str, status: int
) -> None:
    headers = {"Host": host, "Origin": origin}
    assert client.post("/v1/synth", json=DRUM, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("allowed", "host", "origin", "status"),
    [
        ("sounds.example:8443", "sounds.example:8443", "http://sounds.example:8443", 200),
        ("sounds.example:8443", "sounds.example:9000", None, 421),
        ("sounds.example:8443", "sounds.example", None, 421),
        ("sounds.example:8443", "localhost", "https://sounds.example:8443", 200),
        ("sounds.example:8443", "localhost", "https://sounds.example", 403),
        ("sounds.example", "sounds.example:9000", "http://sounds.example:9000", 200),
        ("sounds.example", "localhost", "http://sounds.example", 403),
    ],
)
def test_a_name_with_a_port(
    serve: Serve, allowed: str, host: str, origin: str | None, status: int
) -> None:
    client = serve(hosts=frozenset((*LOOPBACK, allowed)))
    headers = {"Host": host, **({} if origin is None else {"Origin": origin})}
    assert client.post("/v1/synth", json=DRUM, headers=headers).status_code == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_of_other_sites_without_an_origin(client: TestClient, site: str) -> None:
    headers = {"Sec-Fetch-Site": site}
    for method, path, more in (
        ("POST", "/v1/synth", {}),
        ("GET", "/v1/bundle", {"Sec-Fetch-Mode": "no-cors"}),
        ("GET", "/v1/bundle", {"Sec-Fetch-Mode": "navigate"}),
        ("POST", "/", {"Sec-Fetch-Mode": "navigate"}),
    ):
        answer = client.request(method, path, headers=headers | more)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin")
    # a link to the page
    assert client.get("/", headers=headers | {"Sec-Fetch-Mode": "navigate"}).status_code == 200
    for own in ("same-origin", "none"):
        headers = {"Sec-Fetch-Site": own}
        assert client.post("/v1/synth", json=DRUM, headers=headers).status_code == 200


def test_pages_of_an_allowed_origin(serve: Serve) -> None:
    app = "https://app.example"
    client = serve(origins=frozenset({app}))
    asked = {
        "Origin": app,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    preflight = client.options("/v1/synth", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == app
    headers = {"Origin": app, "Sec-Fetch-Site": "cross-site"}
    answer = client.post("/v1/synth", json=DRUM, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == app
    assert "Clipsynth-Seed" in answer.headers["access-control-expose-headers"]
    refused = client.post("/v1/synth", json={"query": ""}, headers=headers)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (422, app)
    other = client.post("/v1/synth", json=DRUM, headers={"Origin": "https://app.example:8443"})
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (403, False)


def test_no_other_site_is_told_anything(client: TestClient) -> None:
    answer = client.get("/v1/bundle", headers={"Origin": "http://localhost"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("prefix", ["", "/sounds"])
def test_behind_a_path_prefix(serve: Serve, prefix: str) -> None:
    """The proxy passes the prefix on, or takes it away."""
    client = serve(root_path="/sounds")
    for path in ("/", "/static/app.js", "/v1/bundle", "/healthz"):
        answer = client.get(prefix + path)
        assert answer.status_code == 200, path
    assert client.get(prefix + "/static/app.js").headers["cache-control"] == "no-cache"
    assert client.post(f"{prefix}/v1/synth", json=DRUM).content.startswith(b"RIFF")
    assert 'route="/v1/synth",status="200"' in client.get(prefix + "/metrics").text
    assert client.get(prefix + "/openapi.json").json()["servers"] == [{"url": "/sounds"}]
    moved = client.post(f"{prefix}/v1/synth/", json=DRUM, follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, "/sounds/v1/synth")


def test_a_prefix_without_its_slash(serve: Serve) -> None:
    client = serve(root_path="/sounds")
    moved = client.get("/sounds?q=dog", follow_redirects=False)
    # relative, because a proxy's scheme and host are its own
    assert (moved.status_code, moved.headers["location"]) == (307, "/sounds/?q=dog")
    assert client.get("/soundsystem").status_code == 404


def test_the_pages_addresses_are_relative(client: TestClient) -> None:
    for path in ("/", "/static/app.js", "/static/api.js", "/static/style.css"):
        assert not re.search(r"""["'(]/(static|v1|openapi)""", client.get(path).text), path


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://[", "http://localhost.evil:80"]
)
def test_pages_of_other_sites(client: TestClient, origin: str) -> None:
    headers = {"Origin": origin}
    answer = client.post("/v1/synth", files={"query": (None, "drum")}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "origin")


def test_our_own_page(client: TestClient) -> None:
    headers = {"Host": "localhost:8000", "Origin": "http://localhost:8000"}
    assert client.post("/v1/synth", json=DRUM, headers=headers).status_code == 200


def test_a_policy_without_inline_script(client: TestClient) -> None:
    for path in ("/", "/static/app.js", "/healthz", "/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text
    assert "<style" not in page
    assert " style=" not in page
    assert " onclick=" not in page
    assert page.count("<script") == page.count('<script type="module" src="static/')


def test_pages_are_asked_for_again_and_sounds_are_not_kept(client: TestClient) -> None:
    assert client.get("/static/app.js").headers["cache-control"] == "no-cache"
    assert client.post("/v1/synth", json=DRUM).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("queries", [False, True])
def test_logs_hold_queries_only_where_that_is_wished(serve: Serve, queries: bool) -> None:
    secret = " ".join(["whisper"] * 30)
    stream = io.StringIO()
    with json_logs(stream, queries=queries):
        client = serve(log_queries=queries)
        client.post("/v1/synth", json={"query": secret})
        client.post("/v1/synth", json={"query": secret, "num_steps": 0})
        client.post("/v1/synth", json={"query": "drum", "template": "whisper"})
        client.post("/v1/synth", json={"query": "x", "format": "whisper"})
        client.get("/healthz?q=whisper")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sum(line["message"] == "request" for line in lines) == 5
    assert any("query cut" in line["message"] for line in lines)
    assert ("whisper" in stream.getvalue()) is queries


def test_every_library_logs_in_json() -> None:
    stream = io.StringIO()
    names = ("asyncio", "python_multipart.multipart", "some.library")
    with json_logs(stream, queries=False):
        for name in names:
            logging.getLogger(name).warning("odd: %s", name)
            logging.getLogger(name).debug("not shown")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("old function", stacklevel=1)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == [*names, "py.warnings"]
    assert "old function" in lines[-1]["message"]


def test_a_flood_of_warnings_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("clipsynth_rt.server.logs.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with json_logs(stream, queries=False):
        for turn in range(500):
            now[0] = 100.0 if turn < 499 else 111.0
            logging.getLogger("asyncio").error("out of descriptors")
        for _ in range(3):
            logging.getLogger("clipsynth_rt.server").error("each of these counts")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("dropped") for line in lines[:2]] == [None, 498]
    assert len(lines) == 5


def test_json_logs_leave_nothing_behind() -> None:
    logger = logging.getLogger("clipsynth_rt")
    before = (list(logger.handlers), logger.level, logger.propagate)
    with json_logs(io.StringIO(), queries=False):
        assert logger.handlers != before[0]
    assert (list(logger.handlers), logger.level, logger.propagate) == before


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"queue": 0}, "limit queue must be above 0"),
        ({"deadline_s": float("nan")}, "limit deadline_s must be above 0"),
        ({"deadline_s": float("inf")}, "limit deadline_s must be above 0 and finite, got inf"),
        ({"queue": 4, "clips": 5}, "do not fit a queue of 4"),
    ],
)
def test_limits_that_cannot_be(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Limits(**limits)


def test_a_duration_limit_holds_for_the_voices_own_length(serve: Serve) -> None:
    client = serve(Limits(duration=0.4))
    answer = client.post("/v1/synth", json={"query": "drum"})
    assert answer.status_code == 422
    assert "duration: at most 0.4" in answer.json()["detail"]
    assert client.post("/v1/synth", json={"query": "drum", "duration": 0.4}).status_code == 200
