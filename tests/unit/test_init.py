"""Variations of a given sound (SDEdit), and the sound files that they start from."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clipsynth_rt import AudioClip, Synthesizer
from clipsynth_rt.audio.load import load_sound
from clipsynth_rt.audio.mel import mel_spectrogram
from clipsynth_rt.backends.session import Session
from clipsynth_rt.errors import InputError, MissingExtraError, install_command
from clipsynth_rt.synthesis.options import SynthOptions, resolve_options
from clipsynth_rt.synthesis.schedule import alpha_sigma, gaussian_noise, sampling_times

RATE = 22050


def tone(seconds: float = 0.5, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


@pytest.fixture
def synthesizer(tiny_bundle: Path) -> Synthesizer:
    return Synthesizer.from_bundle(tiny_bundle, "cpu", threads=1)


def test_only_the_last_steps_run_on_the_noised_sound(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    session = synthesizer.session("denoiser_step")

    class Recorder(Session):
        provider = "cpu"

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            calls.append(dict(inputs))
            return session.run(inputs)

    monkeypatch.setitem(synthesizer.sessions._sessions, "denoiser_step", Recorder())
    clip = synthesizer.synth(
        "drum", init=AudioClip(tone(), RATE), strength=0.4, num_steps=10, seed=7
    )
    assert (len(calls), clip.num_steps, clip.network_calls) == (4, 4, 8)
    assert clip.audio_s == 0.5
    times = sampling_times(10, synthesizer.bundle.manifest.diffusion)[6:]
    assert [float(call["t"][0]) for call in calls] == pytest.approx(times[:-1].tolist())
    mel = mel_spectrogram(tone(), synthesizer.bundle.manifest.mel)
    alpha, sigma = alpha_sigma(times[0])
    noise = gaussian_noise(7, 48, 8)
    np.testing.assert_allclose(
        calls[0]["x"][0][:, :43], (alpha * mel + sigma * noise[:, :43]), atol=1e-5
    )


def test_strength_goes_from_the_sound_itself_to_a_new_one(synthesizer: Synthesizer) -> None:
    given = AudioClip(tone(), RATE)
    fresh = synthesizer.synth("drum", num_steps=20, duration=0.5)
    target = mel_spectrogram(tone(), synthesizer.bundle.manifest.mel)
    condition = synthesizer.encode_text(["drum"])

    def distance(strength: float) -> float:
        init = np.pad(target, ((0, 0), (0, 5)))
        mel = synthesizer.sample(condition, [0], 48, num_steps=20, init=init, strength=strength)
        return float(np.abs(mel[0] - init).mean())

    assert distance(0.05) < distance(0.5) < distance(1.0)
    whole = synthesizer.synth("drum", init=given, strength=1.0, num_steps=20)
    np.testing.assert_allclose(whole.waveform, fresh.waveform, atol=1e-5)


def test_a_sound_shorter_or_longer_than_the_result(synthesizer: Synthesizer) -> None:
    for seconds in (0.1, 3.0):
        clip = synthesizer.synth("drum", init=AudioClip(tone(seconds), RATE), duration=1.0)
        assert clip.audio_s == 1.0


def test_a_loop_of_a_sound_goes_on_with_its_beginning(synthesizer: Synthesizer) -> None:
    sweep = tone(40 * 256 / RATE) * np.linspace(0.1, 1.0, 40 * 256, dtype=np.float32)
    options = {"init": AudioClip(sweep, RATE), "loop": True, "strength": 0.05, "num_steps": 20}
    clip = synthesizer.synth("drum", **options)
    assert len(clip.waveform) == 40 * 256
    plan = resolve_options(SynthOptions(loop=True), synthesizer.bundle.manifest, 40 * 256 / RATE)
    mel = mel_spectrogram(sweep, synthesizer.bundle.manifest.mel)
    fitted = synthesizer._host._fit(mel, plan.num_frames, plan)
    assert fitted.shape[1] == plan.num_frames > 40
    np.testing.assert_array_equal(fitted[:, 40:], mel[:, : plan.num_frames - 40])


def test_a_batch_of_variations(synthesizer: Synthesizer) -> None:
    options = {"init": AudioClip(tone(), RATE), "num_steps": 4}
    clips = synthesizer.synth_batch(["drum", "drum"], seed=3, **options)
    assert not np.allclose(clips[0].waveform, clips[1].waveform, atol=1e-3)
    alone = synthesizer.synth("drum", seed=4, **options)
    np.testing.assert_allclose(clips[1].waveform, alone.waveform, atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.1, float("nan")])
def test_strengths_that_make_no_sense(synthesizer: Synthesizer, strength: float) -> None:
    with pytest.raises(InputError, match="strength must be above 0 and at most 1"):
        synthesizer.synth("drum", strength=strength)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_formats_channels_and_rates(tmp_path: Path, name: str) -> None:
    pytest.importorskip("soxr")
    stereo = np.stack([tone(0.5, 48000), np.zeros(24000, np.float32)], axis=1)
    soundfile.write(tmp_path / name, stereo, 48000)
    sound = load_sound(tmp_path / name, RATE, 60.0)
    # MP3 adds some silence around
    assert len(sound) == pytest.approx(11025, abs=1200 if name == "a.mp3" else 2)
    assert sound.dtype == np.float32
    middle = sound[3000:8000]
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() * RATE / len(middle) == pytest.approx(440, abs=5)
    # the mean of the two channels
    assert np.abs(middle).max() == pytest.approx(0.25, abs=0.02)


def test_another_rate_needs_soxr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    soundfile.write(tmp_path / "same.wav", tone(), RATE)
    assert len(load_sound(tmp_path / "same.wav", RATE, 60.0)) == 11025
    soundfile.write(tmp_path / "other.wav", tone(), 8000)
    with pytest.raises(
        MissingExtraError, match=f"soxr is not installed.*{re.escape(install_command('sound'))}"
    ):
        load_sound(tmp_path / "other.wav", RATE, 60.0)


def test_sounds_that_cannot_be_used(tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0, np.float32), RATE)
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(RATE * 3, np.float32), RATE)
    broken = tmp_path / "broken.wav"
    soundfile.write(broken, np.array([0.0, np.nan] * 500), RATE, "FLOAT")
    slow = tmp_path / "slow.wav"
    soundfile.write(slow, np.zeros(100), 10)
    for path, message in (
        (tmp_path / "absent.wav", r"absent\.wav: no such sound file"),
        (tmp_path, "no such sound file"),
        (bad, r"bad\.wav: cannot be read as a sound"),
        (empty, r"empty\.wav: there is no sound in it"),
        (long, r"long\.wav: sound of 3\.0 s; at most 2 s, cut it first"),
        (broken, r"broken\.wav: holds samples that are not finite"),
        (slow, "1 channels at 10 Hz; not a sound to use"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load_sound(path, RATE, 2.0)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"init: sound of 3\.0 s"):
        load_sound(AudioClip(np.zeros(RATE * 3, np.float32), RATE), RATE, 2.0)


def test_a_header_that_lies_about_its_length(tmp_path: Path) -> None:
    path = tmp_path / "lies.wav"
    soundfile.write(path, tone(), RATE)
    data = bytearray(path.read_bytes())
    data[40:44] = (2**31 - 2).to_bytes(4, "little")
    path.write_bytes(data)
    # libsndfile goes by what is there
    assert len(load_sound(path, RATE, 2.0)) == 11025


def test_a_sound_too_short_to_analyse(synthesizer: Synthesizer) -> None:
    with pytest.raises(InputError, match="init: the sound is too short, 13"):
        synthesizer.synth("drum", init=AudioClip(tone()[:300], RATE))


def test_channels_of_opposite_phase_do_not_become_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([0.5 * tone(), -tone()], axis=1), RATE, "FLOAT")
    np.testing.assert_allclose(load_sound(path, RATE, 60.0), -tone(), atol=1e-6)
    assert caplog.messages == [f"{path}: its channels cancel each other; the loudest is used"]
    caplog.clear()
    # a side that is silent, and unrelated channels, are no cancellation
    rng = np.random.default_rng(0)
    for right in (np.zeros(11025), rng.normal(0, 0.2, 11025), 0.2 * tone()):
        soundfile.write(path, np.stack([tone(), right], axis=1), RATE, "FLOAT")
        mean = (tone() + right) / 2
        np.testing.assert_allclose(load_sound(path, RATE, 60.0), mean, atol=1e-6)
    assert caplog.messages == []


def test_a_silent_sound_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    load_sound(path, RATE, 60.0)
    assert caplog.messages == [
        f"{path}: the sound is silent; what is made of it follows the query alone"
    ]


def m4a(path: Path, seconds: float = 0.5, codec: str = "aac") -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=48000, layout="stereo")
        both = np.stack([tone(seconds, 48000)] * 2)
        for start in range(0, both.shape[1], 960):
            part = np.ascontiguousarray(both[:, start : start + 960])
            form = "fltp" if codec == "aac" else "flt"
            packed = part if form == "fltp" else part.T.reshape(1, -1).copy()
            frame = av.AudioFrame.from_ndarray(packed, form, "stereo")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.m4a", "aac"), ("a.mp4", "aac"), ("a.aac", "aac"), ("a.webm", "libopus")]
)
def test_formats_that_libsndfile_lacks(tmp_path: Path, name: str, codec: str) -> None:
    pytest.importorskip("soxr")
    sound = load_sound(m4a(tmp_path / name, codec=codec), RATE, 60.0)
    assert len(sound) == pytest.approx(11025, abs=1200)  # encoders add some silence
    middle = sound[3000:8000]
    assert np.abs(np.fft.rfft(middle)).argmax() * RATE / 5000 == pytest.approx(440, abs=5)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.1)


def test_formats_that_libsndfile_lacks_are_checked_like_others(tmp_path: Path) -> None:
    path = m4a(tmp_path / "a.m4a", 3.0)
    with pytest.raises(InputError, match=r"a\.m4a: sound of 3\.0 s; at most 2 s, cut it first"):
        load_sound(path, RATE, 2.0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.m4a: cannot be read as a sound") as caught:
        load_sound(path, RATE, 60.0)
    assert "\n" not in str(caught.value)


def test_a_format_that_needs_pyav_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = m4a(tmp_path / "a.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        MissingExtraError, match=f"av is not installed.*{re.escape(install_command('sound'))}"
    ):
        load_sound(path, RATE, 60.0)


def test_a_playlist_is_no_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", tone(), RATE)
    (tmp_path / "a.m4a").write_text("#EXTM3U\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match="cannot be read as a sound"):
        load_sound(tmp_path / "a.m4a", RATE, 60.0)
