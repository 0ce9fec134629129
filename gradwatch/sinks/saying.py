"""Whole lines among those of a program, whatever bars it shows."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

__all__ = ["say"]


def say(text: str, to: TextIO | None = None) -> None:
    """Print to where the program prints now, or to another stream.

    That is above a bar of rich, which takes prints in, and around those of tqdm. It is one write, so that what
    another thread prints does not come between; what the stream cannot encode is written as ``?``.
    """
    stream = sys.stdout if to is None else to
    if stream is None:  # pythonw
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with _without_bars(stream):
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()


def _without_bars(stream: TextIO) -> AbstractContextManager[None]:
    """Takes the bars of tqdm away and draws them again; there are none where nobody has loaded it."""
    tqdm = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    if tqdm is None:
        return nullcontext()
    return tqdm.external_write_mode(file=stream)  # type: ignore[no-any-return]
