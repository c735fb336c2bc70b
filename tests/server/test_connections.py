"""Clients who only hold a connection: the server stays there for others, and its log readable."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import PIL.Image
import pytest

from clipsynth_rt.server import Limits
from clipsynth_rt.server.connections import ACCEPT_ROUNDS, descriptor_budget

ROOT = Path(__file__).parents[2]
SERVE = "from clipsynth_rt.cli.main import main; main()"


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def is_closed(connection: socket.socket, seconds: float = 10.0) -> bool:
    """Return whether the server closes a connection in time, whatever it says first."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4000):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


@contextlib.contextmanager
def few_descriptors(bundle: Path, limit: int) -> Iterator[tuple[str, Any]]:
    """Serve in a process that may open ``limit`` descriptors."""
    arguments = f"serve --port 0 --provider cpu --threads 1 --bundle {bundle}"
    with subprocess.Popen(
        ["bash", "-c", f'ulimit -n {limit}; exec "$0" -c "$1" {arguments}', sys.executable, SERVE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[3], process
        finally:
            process.kill()


def test_idle_connections_lock_nobody_out(tiny_bundle: Path) -> None:
    with few_descriptors(tiny_bundle, 64) as (address, process), contextlib.ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(connect(address))
        began = time.monotonic()
        for _ in range(3):
            answer = httpx2.post(f"{address}/v1/synth", json={"query": "drum"}, timeout=20)
            assert answer.status_code == 200
        assert time.monotonic() - began < 8.0
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    # 47,051 tracebacks a minute once
    assert len(lines) < 20
    assert sum("too many connections" in line["message"] for line in lines) == 1
    assert not any("exc_info" in line for line in lines)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_arrive(listening: Any, sent: bytes) -> None:
    address = listening(Limits(header_s=0.4))
    with connect(address) as connection:
        connection.sendall(sent)
        connection.settimeout(10)
        answer = connection.recv(4000)
    assert answer == b"" if not sent else answer.startswith(b"HTTP/1.1 408 ")


def test_a_head_that_trickles(listening: Any) -> None:
    address = listening(Limits(header_s=0.5))
    began = time.monotonic()
    with connect(address) as connection:
        connection.settimeout(0.1)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 10:
                connection.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    if connection.recv(100):
                        break
    assert time.monotonic() - began < 3.0


def test_a_second_head_that_does_not_arrive(listening: Any) -> None:
    address = listening(Limits(header_s=0.4, idle_s=60.0))
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /hea")
        assert is_closed(connection)


def test_a_pause_between_requests_is_allowed(listening: Any) -> None:
    address = listening(Limits(header_s=0.3, idle_s=10.0))
    with httpx2.Client() as client:
        for _ in range(2):
            assert client.get(f"{address}/healthz").status_code == 200
            time.sleep(0.8)


def test_a_sound_may_take_longer_than_a_head(listening: Any, held: Any) -> None:
    address = listening(Limits(header_s=0.2), speaker=held)
    with connect(address) as connection:
        body = b'{"query": "drum"}'
        connection.sendall(
            b"POST /v1/synth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        assert held.begun.acquire(timeout=20)
        time.sleep(0.6)
        held.go.set()
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_the_one_idle_longest_makes_room(listening: Any) -> None:
    address = listening(Limits(connections=2))
    with connect(address) as first, connect(address) as second:
        time.sleep(0.2)
        with connect(address) as third:
            third.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert third.recv(100).startswith(b"HTTP/1.1 200 ")
            assert is_closed(first)
            assert not is_closed(second, 0.3)


def test_nothing_that_is_made_gives_way(listening: Any, held: Any) -> None:
    address = listening(Limits(connections=1), speaker=held)
    body = b'{"query": "drum"}'
    with connect(address) as first:
        first.sendall(
            b"POST /v1/synth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        assert held.begun.acquire(timeout=20)
        with connect(address) as second:
            assert second.recv(4000).startswith(b"HTTP/1.1 503 ")
            assert is_closed(second)
        held.go.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_response_that_nobody_reads(listening: Any) -> None:
    address = listening(Limits(write_s=0.3))
    body = json.dumps({"queries": ["drum"] * 8, "duration": 20, "response_format": "json"}).encode()
    with socket.socket() as connection:
        # little room, so that it stops at once
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = address.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        connection.sendall(
            b"POST /v1/synth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        time.sleep(6)
        connection.settimeout(10)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                received += len(part)
    assert 0 < received < 9_000_000


def test_two_lengths_close_the_connection(listening: Any) -> None:
    """What a proxy may take for a second request is not answered (RFC 9112, 6.3)."""
    address = listening()
    with connect(address) as connection:
        connection.sendall(
            b"POST /v1/synth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        connection.settimeout(10)
        received = b""
        while part := connection.recv(4000):
            received += part
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1


def test_the_cap_lies_below_the_limit_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for allowed in (40, 64, 256, 1024, 10**6):
        monkeypatch.setattr(resource, "getrlimit", lambda _, n=allowed: (n, n))
        most, at_once = descriptor_budget(Limits())
        opened = len(os.listdir("/proc/self/fd"))
        assert 1 <= most <= 1000
        if allowed > opened + 12:
            assert most + ACCEPT_ROUNDS * at_once + opened < allowed


def test_large_pictures_give_their_memory_back(listening: Any, tiny_bundle: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (5000, 5000), "red").save(buffer, "PNG", compress_level=1)

    def resident(pid: int) -> float:
        text = Path(f"/proc/{pid}/status").read_text()
        return float(text.split("VmRSS:")[1].split()[0]) / 1000

    with few_descriptors(tiny_bundle, 256) as (address, process):

        def ask(count: int, data: bytes) -> int:
            files = [("image", (f"{i}.png", data)) for i in range(count)]
            answer = httpx2.post(f"{address}/v1/synth", files=files, timeout=60)
            return int(answer.status_code)

        small = io.BytesIO()
        PIL.Image.new("RGB", (50, 50), "red").save(small, "PNG")
        assert ask(1, small.getvalue()) == 200
        before = resident(process.pid)
        assert ask(8, buffer.getvalue()) == 422
        for _ in range(2):
            assert ask(2, buffer.getvalue()) == 200
        assert resident(process.pid) < before + 60
