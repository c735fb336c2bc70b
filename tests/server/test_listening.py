"""A server that really listens: clients who leave, slow ones, stopping, and many at once."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clipsynth_rt import Synthesizer
from clipsynth_rt.errors import BackendError
from clipsynth_rt.server import Limits, Settings, create_app
from clipsynth_rt.server.run import listen, run

ROOT = Path(__file__).parents[2]


def raw_request(
    address: str, body: bytes, length: int | None = None, kind: str = "application/json"
) -> socket.socket:
    """Send a request by hand, so that the connection can be treated badly."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    head = (
        f"POST /v1/synth HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def depth(address: str) -> float:
    lines = httpx2.get(f"{address}/metrics").text.splitlines()
    return float(
        next(line for line in lines if line.startswith("clipsynth_queue_depth ")).split()[1]
    )


def test_a_client_who_leaves_takes_its_clip_out_of_the_queue(
    listening: Any, held: Any, wait_until: Any
) -> None:
    address = listening(speaker=held)
    first = raw_request(address, b'{"query": "drum"}')
    assert held.begun.acquire(timeout=20)
    second = raw_request(address, b'{"query": "dog"}')
    wait_until(lambda: depth(address) == 1.0)
    second.close()
    wait_until(lambda: depth(address) == 0.0)
    held.go.set()
    assert first.recv(100).startswith(b"HTTP/1.1 200 OK")
    first.close()
    assert [batch["queries"] for batch in held.batches] == [["drum"]]
    assert 'clipsynth_rejected_total{reason="disconnected"} 1.0' in (
        httpx2.get(f"{address}/metrics").text
    )


def test_a_body_that_does_not_arrive(listening: Any) -> None:
    address = listening(Limits(read_s=0.3))
    with raw_request(address, b'{"query"', length=100) as connection:
        answer = connection.recv(4000)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_slow_uploads_hold_up_no_other_for_long(listening: Any, wait_until: Any) -> None:
    address = listening(Limits(read_s=20.0, deadline_s=0.4))
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            slow = raw_request(address, b"--x\r\n", 1000, "multipart/form-data; boundary=x")
            stack.enter_context(slow)
        files = {"image": ("a.png", b"no picture")}

        def refused() -> bool:
            answers.append(httpx2.post(f"{address}/v1/synth", files=files, timeout=10))
            return answers[-1].status_code == 503

        answers: list[httpx2.Response] = []
        # until all of the slow ones have come in
        wait_until(refused)
        answer = answers[-1]
        assert answer.json()["code"] == "uploads"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"
        # words need no room
        plain = httpx2.post(f"{address}/v1/synth", json={"query": "drum"}, timeout=10)
        assert plain.status_code in (200, 503, 504)
        assert plain.is_success or plain.json()["code"] == "deadline"
    # those that left make room again
    wait_until(lambda: not refused())
    assert answers[-1].json()["code"] == "image"


def test_reading_a_request_counts_for_its_deadline(listening: Any, held: Any) -> None:
    address = listening(Limits(deadline_s=1.0), speaker=held)
    body = b'{"query": "drum"}'
    with raw_request(address, body[:-1], len(body)) as connection:
        began = time.monotonic()
        time.sleep(0.8)
        connection.sendall(body[-1:])
        answer = connection.recv(4000)
    assert answer.startswith(b"HTTP/1.1 50")
    # not as long again as it waited for the body
    assert time.monotonic() - began < 1.6


def test_the_server_sends_no_body_for_head(listening: Any) -> None:
    address = listening()
    for path in ("/", "/healthz", "/v1/bundle"):
        whole, head = httpx2.get(f"{address}{path}"), httpx2.head(f"{address}{path}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
        assert head.headers.keys() == whole.headers.keys()


def test_stopping_finishes_what_was_taken(listening: Any, held: Any, wait_until: Any) -> None:
    address = listening(speaker=held)
    answers: list[httpx2.Response] = []

    def ask(query: str) -> None:
        answers.append(httpx2.post(f"{address}/v1/synth", json={"query": query}, timeout=60))

    threads = [threading.Thread(target=ask, args=(query,)) for query in ("drum", "dog")]
    threads[0].start()
    assert held.begun.acquire(timeout=20)
    threads[1].start()
    wait_until(lambda: depth(address) == 1.0)
    # from another thread, because stopping waits for what is held
    timer = threading.Timer(0.5, held.go.set)
    timer.start()
    listening.stop(address)
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in answers] == [200, 200]
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{address}/healthz")


def test_the_command_serves_until_it_is_told_to_stop(tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", "from clipsynth_rt.cli.main import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--provider", "cpu", "--bundle", str(tiny_bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CLIPSYNTH_RT_TOKEN": "secret"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("tiny-test on cpu: http://127.0.0.1:")
        address = line.split()[3]
        assert httpx2.post(f"{address}/v1/synth", json={"query": "drum"}).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        answer = httpx2.post(f"{address}/v1/synth", json={"query": "drum"}, headers=headers)
        assert answer.content.startswith(b"RIFF")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["status"] for line in lines if line["message"] == "request"] == [401, 200]
    assert lines[-1]["message"] == "stopped"


def test_a_dead_worker_ends_the_server(voice: Synthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings()
    app = create_app(voice, settings)

    def die(batch: Any) -> bool:
        raise SystemExit("broken")

    monkeypatch.setattr(app.state.service.batcher, "_make", die)
    with listen("127.0.0.1", 0) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        answers: list[httpx2.Response] = []

        def ask() -> None:
            answers.append(httpx2.post(f"{address}/v1/synth", json={"query": "drum"}, timeout=20))

        client = threading.Thread(target=ask)
        client.start()
        # it returns by itself: a supervisor starts it again
        with pytest.raises(BackendError, match="the thread that makes sounds died"):
            run(app, settings, listener)
        client.join(20)
    assert [answer.status_code for answer in answers] == [503]


def test_many_clients_and_a_short_queue(listening: Any, voice: Synthesizer) -> None:
    spec = importlib.util.spec_from_file_location("serve_load", ROOT / "benchmarks/serve_load.py")
    assert spec is not None
    assert spec.loader is not None
    load = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = load  # dataclasses look their module up
    spec.loader.exec_module(load)
    address = listening(Limits(queue=16))
    report = load.run(address, clients=50, seconds=3.0)
    load.check(report, voice)
    assert report.answers[200] > 0
    assert report.answers[429] > 0
