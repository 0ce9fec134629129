"""Names as labels and tags: whatever a user calls a module, a scrape stays whole, and no terminal obeys it."""

from __future__ import annotations

from zlib import crc32

__all__ = ["label", "printable"]

LONGEST = 1000


def label(text: str) -> str:
    """The text itself; where it is too long or cannot be printed, what can be, and a number of its own."""
    shown = printable(text[:LONGEST])
    if shown == text:
        return text
    return f"{shown}... ({crc32(text.encode('utf-8', 'surrogatepass')):08x})"


def printable(text: str) -> str:
    """The text with what cannot be printed, such as the escapes of a terminal, in the words of Python."""
    # A line end is one in every format; half of a surrogate pair is no character that any has.
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()
