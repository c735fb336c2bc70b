"""The tag that says what a file is: in every format, read back, and off on request."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clipsynth_rt import AudioClip, Bundle, Synthesizer, __version__
from clipsynth_rt.audio.clip import FORMATS
from clipsynth_rt.audio.provenance import NOTICE, read_tag
from clipsynth_rt.errors import InputError


def clip(query: str = "drum") -> AudioClip:
    return AudioClip(
        np.zeros(2205, np.float32), 22050, query, seed=7, bundle="tiny", bundle_sha256="ab" * 32
    )


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_carries_it(tmp_path: Path, format: str) -> None:
    path = clip('барабан «犬» "bell"').save(tmp_path / f"a.{format}")
    assert read_tag(path) == {
        "synthetic": True,
        "software": "clipsynth-rt",
        "version": __version__,
        "bundle": "tiny",
        "bundle_sha256": "ab" * 32,
        "query": 'барабан «犬» "bell"',
        "seed": 7,
    }
    with soundfile.SoundFile(path) as sound:
        assert sound.title == ("" if format == "mp3" else 'барабан «犬» "bell"')
        assert sound.software.startswith(
            "LAME" if format == "mp3" else f"clipsynth-rt {__version__}"
        )
        assert sound.comment.startswith(NOTICE)
        assert sound.frames == 2205


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "query", ["x" * 100_000, "犬" * 5000, "\U0001f941" * 900, "a\nb\x00\x1bc", ""]
)
def test_queries_of_every_kind(tmp_path: Path, format: str, query: str) -> None:
    made = clip(query)
    made.bundle = query
    tag = read_tag(made.save(tmp_path / f"a.{format}"))
    assert tag is not None
    # cut, never lost, and on one line
    assert query.startswith(tag["query"].split(" ")[0])
    assert len(tag["query"].encode()) <= 400
    assert tag["query"].isprintable()
    assert bool(tag["query"]) == bool(query)


@pytest.mark.parametrize("format", FORMATS)
def test_it_is_off_on_request(tmp_path: Path, format: str) -> None:
    path = clip().save(tmp_path / f"a.{format}", tag=False)
    assert read_tag(path) is None
    assert b"clipsynth" not in path.read_bytes()
    assert b"clipsynth" not in clip().encode(format, tag=False)
    assert b"clipsynth" in clip().encode(format)


@pytest.mark.parametrize("format", FORMATS)
def test_the_sound_is_the_same_with_it(format: str) -> None:
    made = clip()
    made.waveform[:] = np.random.default_rng(0).normal(scale=0.1, size=2205)
    sounds = []
    for tag in (True, False):
        sounds.append(soundfile.read(io.BytesIO(made.encode(format, tag=tag)))[0])
    np.testing.assert_array_equal(*sounds)


def test_the_same_request_gives_the_same_bytes(tiny_bundle: Path) -> None:
    synthesizer = Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1)
    for format in ("wav", "flac"):
        assert synthesizer.synth("drum", seed=1).encode(format) == synthesizer.synth(
            "drum", seed=1
        ).encode(format)


def test_a_clip_knows_its_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    with Synthesizer.from_bundle(tiny_bundle, "cpu") as synthesizer:
        tag = read_tag(synthesizer.synth("dog", seed=9, num_steps=1).save(tmp_path / "dog.flac"))
    assert tag is not None
    assert (tag["query"], tag["seed"], tag["bundle"]) == ("dog", 9, "tiny-test")
    digest = subprocess.run(
        ["sha256sum", tiny_bundle / "manifest.json"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert tag["bundle_sha256"] == Bundle.open(tiny_bundle).sha256 == digest


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for comment in ("", "a comment", NOTICE, NOTICE + " {", NOTICE + " [1]"):
        with soundfile.SoundFile(path, "w", 22050, 1) as sound:
            if comment:
                sound.comment = comment
            sound.write(np.zeros(100))
        assert read_tag(path) is None
    with pytest.raises(InputError, match="no such sound file"):
        read_tag(tmp_path / "absent.wav")
    path.write_text("no sound")
    with pytest.raises(InputError, match=r"a\.wav: cannot be read as a sound"):
        read_tag(path)
