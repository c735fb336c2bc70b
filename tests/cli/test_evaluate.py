"""``clipsynth-rt evaluate``: what it refuses before it measures anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from clipsynth_rt.cli.main import main
from clipsynth_rt.errors import CheckpointError

pytest.importorskip("torch")


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["evaluate", *arguments])
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    return result.output


def test_update_needs_a_report(tmp_path: Path) -> None:
    shards, labels = str(tmp_path), str(tmp_path / "labels.csv")
    assert "--update needs -o" in refused(shards, "--labels", labels, "--update")
    report = tmp_path / "report.json"
    options = (shards, "--labels", labels, "--update", "-o", str(report))
    assert "report.json: cannot be read" in refused(*options)
    report.write_text("[1]")
    assert "is no report" in refused(*options)


def test_a_report_that_cannot_be_written_is_refused_before_the_corpus_is_read(
    tmp_path: Path,
) -> None:
    corpus = (str(tmp_path / "no shards"), "--labels", str(tmp_path / "labels.csv"))
    assert "there is no folder" in refused(*corpus, "-o", str(tmp_path / "nope" / "report.json"))
    assert "is a folder; give a file name" in refused(*corpus, "-o", str(tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("x", "y", "x"), "'x' is named twice"),
        (("retrieval",), "'retrieval' is one of the baselines' names"),
        (("real",), "'real' is one of the baselines' names"),
        (("resynthesis",), "'resynthesis' is one of the baselines' names"),
        # which would share a folder of the page
        (("step 1", "step.1"), "'step.1' is too much like 'step 1'"),
    ],
)
def test_systems_have_names_of_their_own(
    names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    options = [option for name in names for option in ("--system", f"{name}=voice")]
    labels = ["--labels", str(tmp_path / "labels.csv")]
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), *labels, *options])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("damage", "message"),
    [(b"\xff\xfe", r"denoiser\.json: damaged"), (b"[1]", r"denoiser\.json: holds no JSON object")],
)
def test_a_system_of_damaged_json_is_refused_by_name(
    damage: bytes, message: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    import torch

    from clipsynth_rt.cli.evaluate import _system
    from clipsynth_training.checkpoint import save_component

    save_component(tmp_path / "run", "denoiser", {"w": torch.zeros(1)}, {})
    (tmp_path / "run" / "denoiser.json").write_bytes(damage)
    with pytest.raises(CheckpointError, match=message):
        _system(f"ours={tmp_path / 'run'}", tmp_path)


def test_a_checkpoint_is_exported_once(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipsynth_export import assemble
    from clipsynth_rt.cli.evaluate import _system

    exported: list[Path] = []

    def export_bundle(checkpoint: Path, out: Path, name: str) -> None:
        exported.append(checkpoint)
        shutil.copytree(tiny_bundle, out)

    monkeypatch.setattr(assemble, "export_bundle", export_bundle)
    checkpoint = tmp_path / "run"
    checkpoint.mkdir()
    for name in ("denoiser.json", "denoiser.safetensors"):
        (checkpoint / name).write_text("{}")
    first = _system(f"ours={checkpoint}", tmp_path)
    assert first == _system(f"ours={checkpoint}", tmp_path)
    assert first[0] == "ours"
    assert exported == [checkpoint]
    (checkpoint / "denoiser.safetensors").write_text("other weights")
    assert _system(f"ours={checkpoint}", tmp_path) != first
    assert _system(f"tiny={tiny_bundle}", tmp_path) == ("tiny", tiny_bundle)
    assert exported == [checkpoint] * 2
    # configurations decide as much as weights do
    known = {_system(f"ours={checkpoint}", tmp_path)[1]}
    for name in ("clip.json", "vocoder.json", "denoiser_distilled.json"):
        (checkpoint / name).write_text("{}")
        known.add(_system(f"ours={checkpoint}", tmp_path)[1])
    assert len(known) == 4


def test_a_checkpoint_is_exported_anew_by_other_code(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipsynth_export import assemble
    from clipsynth_rt.cli.evaluate import _system
    from clipsynth_training import checkpoint
    from clipsynth_training.clip import encoder as clip
    from clipsynth_training.denoiser import unet as networks
    from clipsynth_training.evaluate import cache

    monkeypatch.setattr(
        assemble, "export_bundle", lambda _, out, name: shutil.copytree(tiny_bundle, out)
    )
    (tmp_path / "denoiser.json").write_text("{}")
    known = {_system(f"ours={tmp_path}", tmp_path)}
    read = cache._source
    for changed in (assemble, checkpoint, clip, networks):
        monkeypatch.setattr(
            cache, "_source", lambda part, it=changed: read(part) + "# new" * (part is it)
        )
        cache.code_version.cache_clear()
        known.add(_system(f"ours={tmp_path}", tmp_path))
    cache.code_version.cache_clear()
    assert len(known) == 5
    # of a package, every file counts
    assert "class UNet" in read(networks)
