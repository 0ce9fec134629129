"""How ranks agree: through the key-value store that their process group was set up with."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

__all__ = ["agree", "is_refused", "next_meeting"]

# How often this process has met others about the same, by what it was about.
_meetings: dict[str, int] = {}
_meetings_lock = threading.Lock()


def agree(store: Any, key: str, members: int, willing: bool, patience: float) -> bool:
    """Whether all members are willing: the same answer on each of them, whoever comes late or not at all.

    The answer is one value in the store that is set once: to yes by the last member to come, to no by one that
    is unwilling or has waited for too long.

    Args:
        store: the key-value store that all members see.
        key: what it is about; to be used once.
        members: how many have to come.
        willing: whether this one is.
        patience: how long to wait for the others, in seconds.

    Raises:
        RuntimeError: the store has failed.
    """
    answer = f"{key}/answer"
    if not willing:
        store.compare_set(answer, "", "no")
    elif store.add(f"{key}/came", 1) == members:
        store.compare_set(answer, "", "yes")
    elif not _appears(store, answer, patience, members):
        store.compare_set(answer, "", "no")
    return bytes(store.get(answer)) == b"yes"


def _appears(store: Any, key: str, patience: float, members: int) -> bool:
    # Asked again and again rather than waited for inside the store, which others in this process use as well; by
    # all members together some 10,000 times a second at most.
    until, pause = time.monotonic() + patience, 0.001
    while not store.check([key]):
        if time.monotonic() > until:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.25 + members / 10_000)
    return True


def is_refused(store: Any, key: str) -> bool:
    """Whether what members are to agree on is known to be refused; waits for nobody.

    Raises:
        RuntimeError: the store has failed.
    """
    answer = f"{key}/answer"
    return bool(store.check([answer])) and bytes(store.get(answer)) == b"no"


def next_meeting(store: Any, terms: str) -> str:
    """The key of the first meeting after the last one that this process was at, and that is not over.

    One that is over without this process was about a tracker that it does not have.
    """
    kind = hashlib.sha1(terms.encode()).hexdigest()
    with _meetings_lock:
        number = _meetings.get(kind, 0) + 1
        while store.check([f"gradwatch/{kind}/{number}/met/answer"]):
            number += 1
        _meetings[kind] = number
    return f"gradwatch/{kind}/{number}"
