"""A turn of the interpreter, for native code that reads for long.

Python code gives its lock away where it loops, if another thread has waited for the switch interval. Native code
that runs a loop of Python code does the same, and so does not need to release a lock that nobody waits for: one
that is released and taken again at once is never had by anybody else.
"""

from __future__ import annotations

__all__ = ["take_turns"]


def take_turns() -> None:
    """Let another thread run, or a signal's handler, if one is due; some 50 ns if none is."""
    for _ in (0, 1):
        pass
