"""What is told in words, of whatever names users give: no terminal obeys it, and every encoding has it."""

from __future__ import annotations

import re

__all__ = ["called", "printable"]

_NUMBER = re.compile(r"\d+(\.\d+)*(?= |$)")


def called(module: str) -> str:
    """A module as it is said: a part of a Sequential, whose name is a number, would be taken for one."""
    return f"module {module}" if _NUMBER.match(module) else module


def printable(text: str) -> str:
    """The text with what cannot be printed, such as the escapes of a terminal, in the words of Python."""
    # A line end is one in every format; half of a surrogate pair is no character that any has.
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()
