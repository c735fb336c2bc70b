"""Commands, files and extras that the documentation names are there."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from clipsynth_rt.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield text


def commands(page: Path) -> Iterator[list[str]]:
    """Return every simple command of a page's shell blocks as words."""
    for text in blocks(page, "sh", "powershell"):
        for line in text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in lexer:
                if set(word) <= set("&|;"):
                    yield words
                    words = []
                else:
                    words.append(word)
            yield words


def root() -> click.Context:
    # with its settings: a command keeps the help option that it was first asked for
    return click.Context(main, info_name="clipsynth-rt", **main.context_settings)


def check_command(command: click.Command, words: list[str], ctx: click.Context) -> None:
    """Refuse subcommands and options that are not there."""
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(ctx, words[0])
        assert inner is not None, f"no command {words[0]}"
        check_command(inner, words[1:], click.Context(inner, parent=ctx, info_name=words[0]))
        return
    command.make_parser(ctx).parse_args(list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_are_real(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(extras["optional-dependencies"])
    for words in commands(page):
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words = words[1:]
        if words[:1] == ["torchrun"] or words[:3] == ["python", "-m", "clipsynth_rt"]:
            words = ["clipsynth-rt", *words[words.index("clipsynth_rt") + 1 :]]
        if words[:1] == ["clipsynth-rt"]:
            ctx = root()
            try:
                check_command(main, words[1:], ctx)
            except click.UsageError as error:
                pytest.fail(f"{shlex.join(words)}: {error.format_message()}")
        if words[:1] == ["python"] and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), shlex.join(words)
        for word in words:
            for extra in re.findall(r"\.\[([\w,-]+)\]", word):
                assert set(extra.split(",")) <= known, word


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_code_compiles(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, str(page), "exec")


def test_the_check_sees() -> None:
    ctx = root()
    with pytest.raises(click.UsageError, match="--nope"):
        check_command(main, ["synth", "drum", "--nope"], ctx)
    with pytest.raises(AssertionError, match="no command sing"):
        check_command(main, ["sing"], ctx)
