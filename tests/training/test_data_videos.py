"""Videos to shards: pictures and sound of the right moment; what cannot be used is counted."""

import dataclasses
import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from clipsynth_rt.bundles.manifest import MelSpec
from clipsynth_rt.errors import DataError, OutputError
from clipsynth_training.data import videos
from clipsynth_training.data.clips import CutSpec, UnusableError, read_video
from clipsynth_training.data.shards import ShardSet
from clipsynth_training.data.videos import prepare
from clipsynth_training.mel import MelSpectrogram

RATE = 22050


def tone(seconds, hz=440.0, rate=RATE, peak=0.5):
    times = np.arange(round(seconds * rate)) / rate
    return (peak * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def write_video(
    path, sound=None, pictures=None, rate=RATE, fps=4, codec="flac", form="s16", offset_s=0.0
):
    """Write ``sound`` float32 [T] and ``pictures`` uint8 [N, H, W, 3], either of them optional."""
    with av.open(str(path), "w") as container:
        video = audio = None
        if pictures is not None:
            video = container.add_stream("mpeg4", rate=fps, options={"qscale": "2"})
            video.height, video.width = pictures.shape[1:3]
            video.pix_fmt = "yuv420p"
        if sound is not None:
            audio = container.add_stream(codec, rate=rate, layout="mono", format=form)
        for number, picture in enumerate(pictures if video else ()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame))
        if video:
            container.mux(video.encode())
        if audio:
            pcm = np.round(sound * 32767).astype(np.int16)
            for start in range(0, len(pcm), 4096):
                part = pcm[None, start : start + 4096]
                frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = start + round(offset_s * rate)
                container.mux(audio.encode(frame))
            container.mux(audio.encode())


def colours(seconds, values, height=48, width=64, fps=4):
    """Return plain pictures whose grey goes through ``values``, in equal parts of the time."""
    count = round(seconds * fps)
    greys = np.asarray(values)[np.arange(count) * len(values) // count]
    return np.broadcast_to(greys[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


CUT = CutSpec(num_frames=88, hop_frames=88, images=2, image_size=16, min_seconds=0.5)
SECONDS = 88 * 256 / RATE  # 1.02 s


def good(path, seconds=2.0, hz=440.0, **options):
    return write_video(path, tone(seconds, hz), colours(seconds, [40, 200]), **options)


def reason(path, cut=CUT):
    with pytest.raises(UnusableError) as caught:
        read_video(path, cut)
    return caught.value.reason


def test_a_clip_holds_the_sound_as_it_is_at_a_known_peak(tmp_path):
    sound = tone(SECONDS + 0.1, peak=0.3)
    write_video(tmp_path / "a.mp4", sound, colours(2, [128]))
    clips = read_video(tmp_path / "a.mp4", CUT)
    window = sound[: CUT.samples]
    expected = window * (0.95 / np.abs(window).max())
    assert clips.numbers == [0]
    # two roundings to 16 bits: one in the file, magnified by 0.95 / 0.3, and one of the shard
    np.testing.assert_allclose(clips.audio[0] / 32767, expected, atol=(0.95 / 0.3 + 1) / 32767)
    mel = MelSpectrogram(CUT.mel)(torch.from_numpy(clips.audio.astype(np.float32) / 32767))
    assert clips.mel.dtype == np.float16
    np.testing.assert_allclose(clips.mel.astype(np.float32), mel.numpy(), atol=2e-3)  # float16


def test_every_window_has_its_own_sound_and_pictures(tmp_path):
    sound = np.concatenate([tone(SECONDS, hz) for hz in (220, 880)])
    write_video(tmp_path / "a.mp4", sound, colours(2.04, [30, 90, 160, 230]))
    clips = read_video(tmp_path / "a.mp4", CUT)
    assert clips.numbers == [0, 1]
    greys = clips.frames.mean(axis=(2, 3, 4))
    np.testing.assert_allclose(greys, [[30, 90], [160, 230]], atol=6)  # lossy pictures
    peaks = np.abs(np.fft.rfft(clips.audio[:, :22050])).argmax(axis=1)
    np.testing.assert_allclose(peaks, [220, 880], atol=1)


def test_windows_may_overlap_and_are_limited(tmp_path):
    good(tmp_path / "a.mp4", seconds=4.0)
    dense = dataclasses.replace(CUT, hop_frames=44)
    assert read_video(tmp_path / "a.mp4", dense).numbers == [0, 1, 2, 3, 4, 5]
    few = dataclasses.replace(dense, clips_per_video=2)
    assert read_video(tmp_path / "a.mp4", few).numbers == [0, 1]


def test_a_silent_window_is_left_out_of_a_long_video(tmp_path):
    sound = np.concatenate([tone(SECONDS), 0 * tone(SECONDS), tone(SECONDS)])
    write_video(tmp_path / "a.mp4", sound, colours(3, [128]))
    assert read_video(tmp_path / "a.mp4", CUT).numbers == [0, 2]


def test_a_sound_shorter_than_a_clip_ends_in_silence(tmp_path):
    write_video(tmp_path / "a.mp4", tone(0.6), colours(0.75, [128]))
    audio = read_video(tmp_path / "a.mp4", CUT).audio[0]
    assert np.abs(audio[: round(0.6 * RATE)]).max() == round(0.95 * 32767)
    assert not audio[round(0.6 * RATE) :].any()


def test_sound_of_another_rate_is_resampled(tmp_path):
    write_video(
        tmp_path / "a.mkv", tone(2.0, rate=48000), colours(2, [9]), 48000, codec="aac", form="fltp"
    )
    audio = read_video(tmp_path / "a.mkv", CUT).audio[0]
    assert abs(int(np.abs(np.fft.rfft(audio[:22050])).argmax()) - 440) <= 1


def test_pictures_follow_a_sound_that_starts_late(tmp_path):
    write_video(tmp_path / "a.mkv", tone(SECONDS + 0.1), colours(2.25, [50, 200]), offset_s=1.125)
    greys = read_video(tmp_path / "a.mkv", CUT).frames.mean(axis=(2, 3, 4))
    np.testing.assert_allclose(greys, [[200, 200]], atol=6)


def test_the_centre_of_a_wide_picture_is_taken(tmp_path):
    picture = np.zeros((4, 32, 96, 3), np.uint8)
    picture[:, :, 32:64] = 200
    write_video(tmp_path / "a.mp4", tone(1.1), picture)
    frames = read_video(tmp_path / "a.mp4", CUT).frames
    assert frames.shape == (1, 2, 16, 16, 3)
    assert frames[..., 2:-2, :].min() > 180  # the edge columns bleed into each other


def test_reasons_why_a_file_is_not_used(tmp_path):
    write_video(tmp_path / "mute.mp4", None, colours(2, [128]))
    write_video(tmp_path / "radio.mp4", tone(2.0))
    write_video(tmp_path / "silent.mp4", 0 * tone(2.0), colours(2, [128]))
    write_video(tmp_path / "short.mp4", tone(0.3), colours(0.5, [128]))
    good(tmp_path / "whole.mp4")
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    names = ("mute", "radio", "silent", "short", "cut", "empty")
    assert [reason(tmp_path / f"{name}.mp4") for name in names] == [
        "no_audio", "no_video", "silent", "too_short", "broken", "broken",
    ]  # fmt: skip


def test_files_without_pictures_are_kept_where_that_is_asked_for(tmp_path):
    write_video(tmp_path / "radio.mp4", tone(2.0))
    good(tmp_path / "video.mp4")
    keep = dataclasses.replace(CUT, keep_pictureless=True)
    prepare(tmp_path, tmp_path / "shards", keep, workers=1)
    shards = ShardSet.open(tmp_path / "shards")
    assert shards.ids == ["radio", "video"]
    assert shards.has_pictures.tolist() == [False, True]
    assert (shards.frames(0) == 0).all()


def folder_of_six(folder):
    (folder / "more").mkdir(parents=True)
    good(folder / "b.mp4", 3.2, 300)
    good(folder / "a.MP4", 1.1, 400)
    good(folder / "more" / "c.mkv", 1.1, 500)
    (folder / "more" / "broken.webm").write_bytes(b"no video")
    write_video(folder / "mute.mp4", None, colours(2, [128]))
    (folder / "notes.txt").write_text("not a video")


def test_a_folder_becomes_shards_and_a_report(tmp_path):
    folder_of_six(tmp_path / "videos")
    report = prepare(tmp_path / "videos", tmp_path / "shards", CUT, workers=1, shard_size=2)
    shards = ShardSet.open(tmp_path / "shards", MelSpec())
    assert shards.ids == ["a", "b", "b#1", "b#2", "more/c"]
    assert shards.mels().shape == (5, 80, 88)
    assert report["videos"] == 5
    assert report["clips"] == 5
    assert report["skipped"] == {"broken": 1, "no_audio": 1}
    stored = json.loads((tmp_path / "shards" / "report.json").read_text())
    assert stored == report
    assert [entry["path"] for entry in stored["skipped_files"]] == ["more/broken.webm", "mute.mp4"]


def test_two_processes_give_the_same_shards_as_one(tmp_path):
    folder_of_six(tmp_path / "videos")
    one = prepare(tmp_path / "videos", tmp_path / "one", CUT, workers=1)
    two = prepare(tmp_path / "videos", tmp_path / "two", CUT, workers=2)
    assert one == two
    for name in ("shards.json", "shard-00000.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    folder_of_six(tmp_path / "videos")
    read = []

    def stop_at_c(path, cut):
        if path.stem == "c" and len(read) < 5:
            raise KeyboardInterrupt
        read.append(path.name)
        return read_video(path, cut)

    monkeypatch.setattr(videos, "read_video", stop_at_c)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "videos", tmp_path / "shards", CUT, workers=1, shard_size=4)
    assert read == ["a.MP4", "b.mp4", "broken.webm"]
    assert ShardSet.open(tmp_path / "shards").ids == ["a", "b", "b#1", "b#2"]
    read.extend(["", ""])
    report = prepare(tmp_path / "videos", tmp_path / "shards", CUT, workers=1, shard_size=4)
    assert read[5:] == ["broken.webm", "c.mkv", "mute.mp4"]
    assert ShardSet.open(tmp_path / "shards").ids[-1] == "more/c"
    assert report["skipped"] == {"broken": 1, "no_audio": 1}


def test_shards_cut_in_another_way_are_refused(tmp_path):
    good(tmp_path / "a.mp4")
    prepare(tmp_path, tmp_path / "shards", CUT, workers=1)
    other = dataclasses.replace(CUT, hop_frames=44)
    with pytest.raises(DataError, match="prepared with hop_frames 88, this run has 44"):
        prepare(tmp_path, tmp_path / "shards", other, workers=1)
    (tmp_path / "shards" / "prepare.json").write_text("{")
    with pytest.raises(DataError, match=r"prepare\.json: damaged"):
        prepare(tmp_path, tmp_path / "shards", CUT, workers=1)


def test_names_that_would_share_an_id_keep_their_extension(tmp_path):
    for name in ("a.mp4", "a.mkv", "b#1.mp4", "b.mp4"):
        good(tmp_path / name, 1.1)
    prepare(tmp_path, tmp_path / "shards", CUT, workers=1)
    assert ShardSet.open(tmp_path / "shards").ids == ["a.mkv", "a.mp4", "b#1.mp4", "b"]


def test_a_video_keeps_its_id_whatever_comes_later(tmp_path):
    good(tmp_path / "a.mkv", 1.1)
    prepare(tmp_path, tmp_path / "shards", CUT, workers=1)
    good(tmp_path / "a.mp4", 1.1)
    prepare(tmp_path, tmp_path / "shards", CUT, workers=1)
    assert ShardSet.open(tmp_path / "shards").ids == ["a", "a.mp4"]


def test_a_video_of_no_use_leaves_its_id_to_what_comes_in_its_place(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"broken")
    good(tmp_path / "b.mkv", 1.1)
    prepare(tmp_path, tmp_path / "shards", CUT, workers=1)
    (tmp_path / "a.mkv").unlink()
    good(tmp_path / "a.mp4", 1.1)
    prepare(tmp_path, tmp_path / "shards", CUT, workers=1)
    assert ShardSet.open(tmp_path / "shards").ids == ["b", "a"]


def test_another_video_of_the_same_name_is_not_passed_over(tmp_path):
    for folder, seconds in (("one", 1.1), ("other", 2.0)):
        (tmp_path / folder).mkdir()
        good(tmp_path / folder / "a.mkv", seconds)
    prepare(tmp_path / "one", tmp_path / "shards", CUT, workers=1)
    with pytest.raises(DataError, match=r"other/a\.mkv: .* another video of that name"):
        prepare(tmp_path / "other", tmp_path / "shards", CUT, workers=1)
    # what was of no use may be replaced
    (tmp_path / "one" / "b.mkv").write_bytes(b"broken")
    prepare(tmp_path / "one", tmp_path / "shards", CUT, workers=1)
    good(tmp_path / "one" / "b.mkv", 1.1)
    prepare(tmp_path / "one", tmp_path / "shards", CUT, workers=1)
    assert ShardSet.open(tmp_path / "shards").ids == ["a", "b"]
    (tmp_path / "shards" / "videos.json").write_text("[]")
    with pytest.raises(DataError, match=r"videos\.json: damaged"):
        prepare(tmp_path / "one", tmp_path / "shards", CUT, workers=1)


def test_a_folder_without_a_usable_video_leaves_nothing(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "notes.txt").write_text("")
    with pytest.raises(DataError, match="no videos in it"):
        prepare(tmp_path / "videos", tmp_path / "shards", CUT, workers=1)
    (tmp_path / "videos" / "a.mp4").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"none of its 1 videos can be used \(1 broken\)"):
        prepare(tmp_path / "videos", tmp_path / "shards", CUT, workers=1)
    with pytest.raises(DataError, match="no such folder"):
        prepare(tmp_path / "nothing", tmp_path / "shards", CUT, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos"]


def test_a_file_in_place_of_the_shard_folder(tmp_path):
    good(tmp_path / "a.mp4")
    (tmp_path / "shards").write_text("")
    with pytest.raises(OutputError, match="shards: cannot be written to"):
        prepare(tmp_path, tmp_path / "shards", CUT, workers=1)
