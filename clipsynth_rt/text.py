"""Text of others on one's own terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return ``text`` in one line, its control and formatting characters escaped.

    A terminal obeys some of them: colours, titles, the cursor, the direction of writing.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def short(value: object, size: int = 60) -> str:
    """Return ``repr(value)``, its end cut off where it is too long for a message.

    >>> short("drum " * 100, 20)
    "'drum drum drum d..."
    """
    text = repr(value)
    return text if len(text) <= size else f"{text[: size - 3]}..."
