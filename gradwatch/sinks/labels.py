"""Names as labels and tags: whatever a user calls a module, a scrape stays whole, and no terminal obeys it."""

from __future__ import annotations

from zlib import crc32

from gradwatch.printing import printable

__all__ = ["label"]

LONGEST = 1000


def label(text: str) -> str:
    """The text itself; where it is too long or cannot be printed, what can be, and a number of its own."""
    shown = printable(text[:LONGEST])
    if shown == text:
        return text
    return f"{shown}... ({crc32(text.encode('utf-8', 'surrogatepass')):08x})"
