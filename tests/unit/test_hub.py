"""Bundles at an address of a hub, against a stand-in for it on this machine."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click.testing
import pytest

from clipsynth_rt import Bundle
from clipsynth_rt.bundles import hub
from clipsynth_rt.cache import CACHE_VARIABLE
from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import BundleError, HashMismatchError, ManifestError, MissingExtraError

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789" * 4


@dataclass
class Hub:
    """What a stand-in has: files by commit, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    asked: list[str] = field(default_factory=list)
    broken: bool = False
    info: dict[str, Any] = field(default_factory=dict)

    def put(self, folder: Path) -> None:
        self.files = {
            file.relative_to(folder).as_posix(): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }


def handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            if hub.broken:
                self.reply(503, b"", body)
            elif parts[:4] == ["api", "models", "ann", "voice"]:
                revision = parts[5] if len(parts) > 5 else "main"
                commit = hub.revisions.get(revision)
                if commit is None:
                    self.reply(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
                    return
                siblings = [{"rfilename": n, "size": len(d)} for n, d in hub.files.items()]
                info = {"id": "ann/voice", "sha": commit, "siblings": siblings, **hub.info}
                self.reply(200, json.dumps(info).encode(), body)
            elif parts[:3] == ["ann", "voice", "resolve"] and "/".join(parts[4:]) in hub.files:
                data = hub.files["/".join(parts[4:])]
                etag = hashlib.sha256(data).hexdigest()
                self.reply(200, data, body, {"ETag": f'"{etag}"', "X-Repo-Commit": parts[3]})
            elif parts[:2] == ["ann", "voice"]:
                self.reply(404, b"", body, {"X-Error-Code": "EntryNotFound"})
            elif parts[3:4] == ["gated"]:
                self.reply(403, b"{}", body, {"X-Error-Code": "GatedRepo"})
            else:
                self.reply(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

        def reply(
            self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    stand_in = Hub()
    stand_in.put(tiny_bundle)
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(stand_in))
    http.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    yield stand_in
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_bundle_is_downloaded_once(server: Hub, tiny_bundle: Path, tmp_path: Path) -> None:
    server.files["huge.bin"] = b"not a file of the bundle"
    bundle = Bundle.open("hf://ann/voice")
    assert bundle.verify() > 0
    assert bundle.sha256 == Bundle.open(tiny_bundle).sha256
    assert bundle.path == tmp_path / "cache" / "bundles" / "hub" / "ann--voice" / COMMIT
    # only what the manifest lists, and nothing of the library's own
    kept = {file.relative_to(bundle.path).as_posix() for file in bundle.path.rglob("*")}
    assert "huge.bin" not in kept
    assert ".cache" not in kept
    assert not any("huge.bin" in line for line in server.asked)
    server.asked.clear()
    assert Bundle.open("hf://ann/voice").path == bundle.path
    assert len(server.asked) == 1


def test_a_revision(server: Hub, tmp_path: Path) -> None:
    server.revisions["v1.0"] = "f" * 40
    assert Bundle.open("hf://ann/voice@v1.0").path.name == "f" * 40
    with pytest.raises(BundleError, match=r"hf://ann/voice@v2: no revision 'v2' there"):
        Bundle.open("hf://ann/voice@v2")


def test_a_new_commit_is_downloaded_and_the_old_one_kept(server: Hub) -> None:
    first = Bundle.open("hf://ann/voice").path
    server.revisions["main"] = "a" * 40
    second = Bundle.open("hf://ann/voice").path
    assert (first.name, second.name) == (COMMIT, "a" * 40)
    assert first.is_dir()


def test_without_the_hub_the_copy_is_taken_and_that_is_said(
    server: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "clipsynth_rt"):
        server.broken = True
        with pytest.raises(BundleError, match=r"hf://ann/voice: the hub does not answer .* no"):
            Bundle.open("hf://ann/voice")
        server.broken = False
        path = Bundle.open("hf://ann/voice").path
        assert caplog.records == []
        server.broken = True
        assert Bundle.open("hf://ann/voice").path == path
    (record,) = caplog.records
    assert f"taking the copy of commit {COMMIT[:12]} from the cache" in record.getMessage()


def test_a_wrong_hash(server: Hub, tmp_path: Path) -> None:
    server.files["fp32/vocoder.onnx"] += b"\0"
    with pytest.raises(HashMismatchError, match=r"hf://ann/voice: fp32/vocoder\.onnx: sha256 dif"):
        Bundle.open("hf://ann/voice")
    folder = tmp_path / "cache" / "bundles" / "hub" / "ann--voice"
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda f: f.pop("manifest.json"), BundleError, "has no manifest.json; is not a bundle"),
        (lambda f: f.pop("fp32/vocoder.onnx"), BundleError, "has no fp32/vocoder.onnx; the bundle"),
        (lambda f: f.update({"manifest.json": b"{"}), ManifestError, "manifest.json: not JSON"),
        (
            lambda f: f.update(
                {
                    "manifest.json": f["manifest.json"].replace(
                        b"fp32/vocoder.onnx", b"../../../vocoder.onnx"
                    )
                }
            ),
            BundleError,
            "'../../../vocoder.onnx' leaves the bundle's folder",
        ),
    ],
)
def test_bundles_that_cannot_be_used(
    server: Hub, tmp_path: Path, change: Any, kind: type[Exception], message: str
) -> None:
    change(server.files)
    with pytest.raises(kind) as caught:
        Bundle.open("hf://ann/voice")
    assert str(caught.value).startswith("hf://ann/voice: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.onnx"))


def test_bundles_that_are_too_large(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_BYTES", 1000)
    with pytest.raises(BundleError, match=r"over 1e-06 GB; not a bundle"):
        Bundle.open("hf://ann/voice")
    monkeypatch.setattr(hub, "MAX_MANIFEST_BYTES", 100)
    with pytest.raises(BundleError, match=r"manifest\.json of \d+ bytes; no bundle"):
        Bundle.open("hf://ann/voice")


def test_a_hub_that_names_no_commit(server: Hub) -> None:
    server.revisions["main"] = "../../evil"
    with pytest.raises(BundleError, match="the hub names no commit"):
        Bundle.open("hf://ann/voice")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://", "not an address; write hf://owner/name"),
        ("hf://voice", "not an address; write hf://owner/name"),
        ("hf://a/b/c", "not an address"),
        ("hf://a/b@", "not an address"),
        ("hf://../..", "not an address"),
        ("hf://ann/voice?x=1", "not an address"),
        ("hf://bob/absent", "no such repository, or a private one"),
        ("hf://bob/gated", "needs its owner's permission"),
    ],
)
def test_addresses_that_lead_nowhere(server: Hub, address: str, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(address)
    assert str(caught.value).startswith(f"{address}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"huggingface_hub is not installed.*\[hub\]"):
        Bundle.open("hf://ann/voice")


def test_a_sound_from_a_hub(server: Hub, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "a.wav"
    arguments = ["synth", "drum", "-o", str(out), "--bundle", "hf://ann/voice"]
    result = click.testing.CliRunner().invoke(main, [*arguments, "--provider", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert out.is_file()
