"""Odd media files: what a player shows and plays is what training sees and hears."""

from __future__ import annotations

import logging
import struct
from fractions import Fraction

import numpy as np
import pytest

from clipsynth_training.data.clips import CutSpec, UnusableError, read_sound, read_video
from clipsynth_training.data.folders import files_below
from clipsynth_training.data.media import read_sound_track
from clipsynth_training.data.shards import ShardSet
from clipsynth_training.data.videos import prepare

av = pytest.importorskip("av")
RATE = 22050
CUT = CutSpec(num_frames=88, hop_frames=88, images=2, image_size=16, min_seconds=0.5)
SECONDS = 88 * 256 / RATE
IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def tone(seconds, hz=440.0, rate=RATE):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def write(
    path, sounds, pictures=None, *, layout="mono", starts=None, fps=4, aspect=None, codec="flac",
    default=None,
):  # fmt: skip
    """Write tracks of sound [C, T] and pictures [N, H, W, 3]; ``starts`` puts chunks in time."""
    with av.open(str(path), "w") as container:
        video = None
        if pictures is not None:
            video = container.add_stream("mpeg4", rate=fps, options={"qscale": "2"})
            video.height, video.width = pictures.shape[1:3]
            video.pix_fmt = "yuv420p"
            if aspect is not None:
                video.codec_context.sample_aspect_ratio = aspect
        form = "s16"
        tracks = [
            container.add_stream(codec, rate=RATE, layout=layout, format=form) for _ in sounds
        ]
        for number, track in enumerate(tracks):
            if default is not None:
                track.disposition = av.stream.Disposition.default * (number == default)
        for number, picture in enumerate(pictures if video else ()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame))
        if video:
            container.mux(video.encode())
        for track, sound in zip(tracks, sounds, strict=True):
            pcm = np.round(np.atleast_2d(sound) * 32767).astype(np.int16)
            for start in range(0, pcm.shape[1], 2048):
                part = pcm[:, start : start + 2048]
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(part.T.reshape(1, -1)), "s16", layout
                )
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = start + (starts(start) if starts else 0)
                container.mux(track.encode(frame))
            container.mux(track.encode())


def greys(seconds, values, fps=4):
    count = round(seconds * fps)
    shades = np.asarray(values)[np.arange(count) * len(values) // count]
    return np.broadcast_to(shades[:, None, None, None], (count, 48, 64, 3)).astype(np.uint8)


def pitch(sound):
    return np.abs(np.fft.rfft(sound.astype(float))).argmax() * RATE / len(sound)


def test_a_gap_in_the_sound_is_silence_and_later_pictures_stay_with_their_sound(tmp_path):
    # a clip of 440 Hz, nothing for a little longer than a clip, then 880 Hz
    sound = np.concatenate([tone(SECONDS), tone(1.2 * SECONDS, 880)])
    write(
        tmp_path / "a.mkv", [sound], greys(3 * SECONDS, [40, 120, 220]), codec="pcm_s16le",
        starts=lambda at: 12 * 2048 if at >= 11 * 2048 else 0,
    )  # fmt: skip
    clips = read_video(tmp_path / "a.mkv", CUT)
    assert clips.numbers == [0, 2]
    assert clips.remarks == ("gap",)
    assert [round(pitch(audio)) for audio in clips.audio] == [
        pytest.approx(440, abs=3), pytest.approx(880, abs=3),
    ]  # fmt: skip
    np.testing.assert_allclose(clips.frames[1].mean(axis=(1, 2, 3)), 220, atol=8)


def test_the_sample_rate_may_change_within_a_file(tmp_path):
    for name, rate in (("a", 44100), ("b", 22050)):
        with av.open(str(tmp_path / f"{name}.aac"), "w", format="adts") as container:
            track = container.add_stream("aac", rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(tone(1.0, rate=rate)[None], "fltp", "mono")
            frame.sample_rate = rate
            container.mux(track.encode(frame))
            container.mux(track.encode())
    joined = tmp_path / "joined.aac"
    joined.write_bytes((tmp_path / "a.aac").read_bytes() + (tmp_path / "b.aac").read_bytes())
    sound = read_sound_track(joined, RATE, 3 * RATE)
    assert len(sound.samples) == pytest.approx(2 * RATE, rel=0.1)
    for start in (0.3, 1.4):
        part = sound.samples[round(start * RATE) : round((start + 0.4) * RATE)]
        assert pitch(part) == pytest.approx(440, abs=4)


def damage(path, share):
    """Overwrite the packets of the sound whose place in the file is in ``share``."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.audio[0]) if p.size]
    data = bytearray(path.read_bytes())
    low, high = (round(bound * len(packets)) for bound in share)
    for position, size in packets[low:high]:
        data[position : position + size] = b"\0" * size
    path.write_bytes(data)
    return high - low


def test_a_bad_packet_is_silence_and_costs_no_more_than_itself(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, [tone(SECONDS)], greys(2, [128]))
    whole = read_video(path, CUT).audio[0]
    assert damage(path, (0.4, 0.6)) > 0
    clips = read_video(path, CUT)
    assert set(clips.remarks) >= {"damaged_packets", "gap"}
    quarter = len(whole) // 4
    for rows in (slice(0, quarter), slice(-quarter, None)):
        np.testing.assert_allclose(clips.audio[0][rows], whole[rows], atol=400)
    assert not clips.audio[0][round(0.47 * len(whole)) : round(0.53 * len(whole))].any()


def test_a_file_that_is_mostly_damaged_is_broken(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, [tone(SECONDS)], greys(2, [128]))
    damage(path, (0.1, 0.9))
    with pytest.raises(UnusableError) as caught:
        read_video(path, CUT)
    assert caught.value.reason == "broken"


def test_opposite_phase_is_no_silence(tmp_path):
    sound = tone(SECONDS + 0.1)
    write(tmp_path / "a.mp4", [np.stack([sound, -0.9 * sound])], greys(2, [9]), layout="stereo")
    clips = read_video(tmp_path / "a.mp4", CUT)
    assert clips.remarks == ("opposite_phase",)
    assert pitch(clips.audio[0]) == pytest.approx(440, abs=2)


# clockwise quarter turns and mirrors, as matrices a b c d of (x, y) -> (a x + c y, b x + d y)
TURNS = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1],
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: np.rot90(p.transpose(1, 0, 2), 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_pictures_are_turned_and_mirrored_as_the_file_says(tmp_path, matrix):
    path = tmp_path / "a.mp4"
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32, :32], picture[:32, 32:] = (220, 30, 30), (30, 220, 30)
    picture[32:, :32] = (30, 30, 220)  # the fourth quarter is black
    write(path, [tone(SECONDS)], np.stack([picture] * 8))
    plain = read_video(path, CUT).frames[0, 0].astype(int)
    a, b, c, d = (value << 16 for value in matrix)
    data = path.read_bytes()
    at = data.index(IDENTITY, data.index(b"tkhd"))
    data = data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]
    path.write_bytes(data)
    shown = read_video(path, CUT).frames[0, 0].astype(int)
    np.testing.assert_allclose(shown, TURNS[matrix](plain), atol=3)


def test_pixels_that_are_not_square_are_shown_in_their_shape(tmp_path):
    # stored 32 wide and shown 64 wide: the centre square is the middle half of what is stored
    picture = np.zeros((4, 64, 64, 3), np.uint8)
    picture[:, :, 16:48] = 200
    write(tmp_path / "a.mkv", [tone(SECONDS + 0.1)], picture, aspect=Fraction(2, 1))
    frames = read_video(tmp_path / "a.mkv", CUT).frames
    assert frames[..., 2:-2, :].min() > 170
    write(tmp_path / "b.mkv", [tone(SECONDS + 0.1)], picture)
    assert read_video(tmp_path / "b.mkv", CUT).frames[..., :2, :].max() < 60


def test_the_cover_of_an_album_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=RATE, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = 32
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), "rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(tone(2.0)[None], "fltp", "mono")
        frame.sample_rate = RATE
        container.mux(track.encode(frame))
        container.mux(track.encode())
    with pytest.raises(UnusableError) as caught:
        read_video(path, CUT)
    assert caught.value.reason == "no_video"
    keep = CutSpec(num_frames=88, hop_frames=88, images=2, image_size=16, keep_pictureless=True)
    clips = read_video(path, keep)
    assert not clips.has_pictures
    assert not clips.frames.any()


def test_the_default_soundtrack_is_taken(tmp_path):
    path = tmp_path / "a.mkv"
    write(path, [tone(2.0), tone(2.0, 880)], greys(2, [9]), default=1)
    assert pitch(read_video(path, CUT).audio[0]) == pytest.approx(880, abs=2)
    write(path, [tone(2.0), tone(2.0, 880)], greys(2, [9]), default=0)
    assert pitch(read_video(path, CUT).audio[0]) == pytest.approx(440, abs=2)


def test_links_to_folders_are_followed_once(tmp_path, caplog):
    elsewhere, videos = tmp_path / "elsewhere", tmp_path / "videos"
    for folder in (elsewhere, videos / "real"):
        folder.mkdir(parents=True)
        write(folder / f"{folder.name}.mp4", [tone(1.1)], greys(2, [9]))
    (videos / "away").symlink_to(elsewhere, target_is_directory=True)
    (videos / "again").symlink_to(videos / "real", target_is_directory=True)
    (elsewhere / "circle").symlink_to(videos, target_is_directory=True)
    (videos / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    with caplog.at_level(logging.WARNING):
        prepare(videos, tmp_path / "shards", CUT, workers=1)
    assert ShardSet.open(tmp_path / "shards").ids == ["away/elsewhere", "real/real"]
    told = "\n".join(caplog.messages)
    assert f"{videos / 'again'}: a link to a folder that is read already" in told
    assert f"{videos / 'away' / 'circle'}: a link to a folder that is read already" in told
    assert f"{videos / 'gone.mp4'}: a link to nothing" in told


def test_files_below_a_folder_are_sorted(tmp_path):
    for name in ("b/2", "b/1", "a/1", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    names = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert names == ["a/1", "b/1", "b/2", "c"]


def test_the_report_says_what_was_unusual(tmp_path):
    sound = tone(1.1)
    (tmp_path / "videos").mkdir()
    path = tmp_path / "videos" / "a.mp4"
    write(path, [np.stack([sound, -sound])], greys(2, [9]), layout="stereo")
    report = prepare(tmp_path / "videos", tmp_path / "shards", CUT, workers=1)
    assert report["remarks"] == {"opposite_phase": ["a.mp4"]}


def test_a_sound_of_opposite_phase_is_told_of_when_a_folder_is_read(tmp_path):
    sound = tone(1.1)
    write(tmp_path / "dog.mkv", [np.stack([sound, -sound])], layout="stereo")
    assert read_sound(tmp_path / "dog.mkv", CUT).remarks == ("opposite_phase",)
