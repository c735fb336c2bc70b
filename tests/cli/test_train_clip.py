"""clipsynth-rt train clip: what it is told, and what it passes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clipsynth_rt.cli.main import main
from clipsynth_training.clip import train as train_clip
from clipsynth_training.clip.published_network import PUBLISHED


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(*arguments: Any, **options: Any) -> dict[str, float]:
        seen.append((arguments, options))
        return {"names": 0.5}

    monkeypatch.setattr(train_clip, "train_clip", record)
    return seen


def test_the_shipped_encoders_configuration_is_the_default(calls, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    result = CliRunner().invoke(main, ["train", "clip", "--source-dir", "pictures", "--out", out])
    assert result.exit_code == 0, result.output
    (source, folder, config), options = calls[0]
    assert (source, folder) == (Path("pictures"), Path(out))
    assert options["text_from"] is None
    published = config.image_tower.published
    assert published is not None
    assert published.network in PUBLISHED
    # pictures are drawn larger than they are seen, to be moved and turned
    assert config.draw_size > config.image_tower.image_size


def test_another_configuration_and_a_kept_text_tower(calls, tmp_path: Path) -> None:
    scratch = Path(train_clip.__file__).parents[1] / "configs" / "clip_scratch.toml"
    arguments = ["--config", str(scratch), "--text-from", "voice", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, ["train", "clip", *arguments])
    assert result.exit_code == 0, result.output
    (_, _, config), options = calls[0]
    assert config.image_tower.published is None
    assert config.image_tower.widths == (64, 128, 256)
    assert options["text_from"] == Path("voice")


def test_a_configuration_that_cannot_be_read_is_one_line(calls, tmp_path: Path) -> None:
    for name, text, reason in (
        ("none", None, "cannot be read (No such file or directory)"),
        ("broken", b"steps = ", "not TOML"),
        ("latin", b"# caf\xe9", "not TOML"),
        ("wrong", b"stepz = 1", "not a configuration of train clip"),
    ):
        path = tmp_path / f"{name}.toml"
        if text is not None:
            path.write_bytes(text)
        options = ["--source-dir", "pictures", "--out", str(tmp_path), "--config", str(path)]
        result = CliRunner().invoke(main, ["train", "clip", *options])
        assert result.exit_code == 1
        assert f"{name}.toml: {reason}" in result.stderr
        assert result.stderr.count("\n") == 1
    assert not calls
