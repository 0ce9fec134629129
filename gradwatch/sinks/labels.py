"""Names as the values of labels: whatever a user calls a module, a scrape stays whole."""

from __future__ import annotations

from zlib import crc32

__all__ = ["label"]

LONGEST = 1000


def label(text: str) -> str:
    """The text itself; where it is too long or cannot be printed, what can be, and a number of its own."""
    # A line end is escaped by the format; half of a surrogate pair is no character that it has.
    shown = "".join(map(_printable, text[:LONGEST]))
    if shown == text:
        return text
    return f"{shown}... ({crc32(text.encode('utf-8', 'surrogatepass')):08x})"


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()
