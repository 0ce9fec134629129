"""What is told in words, of whatever names users give: no terminal obeys it, and every encoding has it."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """The text with what cannot be printed, such as the escapes of a terminal, in the words of Python."""
    # A line end is one in every format; half of a surrogate pair is no character that any has.
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()
