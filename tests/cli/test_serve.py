"""``clipsynth-rt serve``: what it refuses before it listens."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import click.testing
import pytest

from clipsynth_rt.cli.main import main
from clipsynth_rt.cli.serve import TOKEN_VARIABLE, read_token
from clipsynth_rt.errors import InputError
from clipsynth_rt.server.settings import LOOPBACK


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def serve(*args: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["serve", *args], prog_name="clipsynth-rt")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_need_a_token(host: str) -> None:
    result = serve("--host", host)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"clipsynth-rt serve: on {host} other machines reach this")
    assert "--allow-anonymous" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--port", "70000"), 2, "70000 is not in the range"),
        (("--queue", "0"), 2, "0 is not in the range"),
        (("--deadline", "0"), 2, "0.0 is not in the range"),
        (("--deadline", "nan"), 2, "nan is not a finite number"),
        (("--deadline", "inf"), 2, "inf is not a finite number"),
        (("--max-upload", "inf"), 2, "inf is not in the range"),
        (("--max-pixels", "nan"), 2, "nan is not a finite number"),
        (("--max-pixels", "1e305"), 2, "1e+305 is not in the range"),
        (("--max-duration", "1e999"), 2, "inf is not a finite number"),
        (("--max-upload", "1e-9"), 1, "limit upload_bytes must be above 0"),
        (("--allowed-host", "https://sounds.example"), 2, "is no name, such as sounds.example"),
        (("--allowed-host", ""), 2, "--allowed-host '' is no name"),
        (("--allow-origin", "app.example"), 2, "is no origin, such as https://app.example"),
        (("--allow-origin", "*"), 2, "'*' is no origin"),
        (("--allow-origin", "null"), 2, "'null' is no origin"),
        (("--root-path", "/a b"), 2, "is no path, such as /sounds"),
        (("--root-path", "/../x?y"), 2, "is no path, such as /sounds"),
        (("--max-connections", "0"), 2, "0 is not in the range"),
        (("--precision", "vocodr=fp32"), 1, "has no graph 'vocodr'; it has"),
        (("--queue", "4", "--max-clips", "5"), 1, "do not fit a queue of 4"),
        (("--host", "no.such.host.invalid", "--allow-anonymous"), 1, "cannot listen on no.such"),
        (("--token-file", "absent"), 1, "absent: the token cannot be read"),
    ],
)
def test_what_cannot_be(
    monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int, message: str
) -> None:
    # what is not refused would listen for ever
    monkeypatch.setattr("clipsynth_rt.server.run.run", lambda *_: None)
    result = serve("--port", "0", *args)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = serve("--port", port)
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in result.stderr


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    result = serve("--port", "0", "--bundle", str(tmp_path / "absent"))
    assert result.exit_code == 1
    assert "no such folder" in result.stderr


def test_limits_and_access_reach_the_application(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "clipsynth_rt.server.run.run", lambda app, settings, listener: seen.update(vars(settings))
    )
    (tmp_path / "token").write_text("secret\n")
    result = serve(
        *("--port", "0", "--bundle", str(tiny_bundle), "--provider", "cpu"),
        *("--token-file", str(tmp_path / "token"), "--queue", "5", "--batch", "2"),
        *("--max-query", "20", "--max-duration", "1.5", "--max-steps", "9", "--max-upload", "0.5"),
        *("--max-pixels", "1", "--deadline", "7", "--allowed-host", "sounds.example"),
        *("--allowed-host", "MyBox.local", "--allowed-host", "proxy:8000"),
        *("--allowed-host", "2001:DB8::1", "--allowed-host", "[2001:db8::2]:80"),
        *("--allow-origin", "https://App.example:443", "--allow-origin", "http://[::1]:3000"),
        *("--max-form-pixels", "2", "--max-connections", "30", "--root-path", "sounds/"),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("tiny-test on cpu: http://127.0.0.1:")
    assert vars(seen["limits"]) == {
        "queue": 5,
        "batch": 2,
        "clips": 5,
        "query_chars": 20,
        "duration": 1.5,
        "num_steps": 9,
        "deadline_s": 7.0,
        "upload_bytes": 500_000,
        "image_pixels": 1_000_000,
        "form_pixels": 2_000_000,
        "read_s": 15.0,
        "header_s": 10.0,
        "idle_s": 10.0,
        "write_s": 30.0,
        "connections": 30,
    }
    assert seen["token"] == "secret"
    # as the Host header is compared: in lower case, with a port where one was given
    assert seen["hosts"] == {
        *("sounds.example", "mybox.local", "proxy:8000", "2001:db8::1", "[2001:db8::2]:80"),
        *LOOPBACK,
    }
    assert seen["origins"] == {"https://app.example", "http://[::1]:3000"}
    assert seen["root_path"] == "/sounds"
    assert seen["log_queries"] is False


def test_anyone_on_any_address_is_warned_of(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "clipsynth_rt.server.run.run", lambda app, settings, listener: seen.update(vars(settings))
    )
    # nothing really listens on other addresses in a test
    real = socket.create_server
    monkeypatch.setattr(
        "socket.create_server", lambda address, **more: real(("127.0.0.1", 0), **more)
    )
    arguments = ("--host", "0.0.0.0", "--allow-anonymous", "--provider", "cpu")
    result = serve(*arguments, "--bundle", str(tiny_bundle))
    assert result.exit_code == 0, result.output
    assert "warning: anyone who reaches this machine can use it" in result.stderr
    assert (seen["token"], seen["hosts"]) == (None, None)


@pytest.mark.parametrize("text", ["", " \n", "two words", "größe", "a\x00b"])
def test_tokens_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="a token is one word of ASCII"):
        read_token(path)


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from-environment")
    assert read_token(None) == "from-environment"
    (tmp_path / "token").write_text("from-file\n")
    assert read_token(tmp_path / "token") == "from-file"
