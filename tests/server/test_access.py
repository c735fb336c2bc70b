"""Who may use a server, and what browsers are told."""

from __future__ import annotations

import io
import json
import logging
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
    assert page.count("<script") == page.count('<script type="module" src="/static/')


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
