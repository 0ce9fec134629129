"""What a watch is saved as: taken wholly, or refused in one sentence with nothing changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from gradwatch.errors import ArgumentError
from gradwatch.judge.judge import Judge
from gradwatch.judge.saved import JUDGE
from gradwatch.shapes import COUNT, Fields, MisfitError, Named

__all__ = ["load", "state_of"]

log = logging.getLogger("gradwatch")

# To be counted up with each change of what is saved: what another version saved is of no use to rules.
VERSION = 3

_STATE = Fields(version=COUNT, steps=Named(COUNT), judge=JUDGE)


def state_of(steps: Mapping[str, int], judge: Judge) -> dict[str, Any]:
    """What a resumed run needs, as values that JSON can hold."""
    return {"version": VERSION, "steps": dict(steps), "judge": judge.state_dict()}


def load(
    state: Any, optimizers: Iterable[str], judge: Judge, go_on_from: Callable[[Mapping[str, int]], object]
) -> None:
    """Take in what ``state_of`` gave.

    Args:
        state: whatever it is.
        optimizers: those that are tracked.
        judge: goes on from it; anew, where another version of gradwatch has saved it.
        go_on_from: is told of the steps.

    Raises:
        ArgumentError: it is no such state, or of other optimizers; nothing has changed.
    """
    try:
        _load(state, frozenset(optimizers), judge, go_on_from)
    except ArgumentError:
        raise
    except MisfitError as misfit:
        raise ArgumentError(f"{misfit}: load what Watch.state_dict() gave.") from None
    except Exception as error:  # a mapping that is none, or more levels than Python can go down
        raise ArgumentError(
            f"The state cannot be read ({type(error).__name__}): load what Watch.state_dict() gave."
        ) from error


def _load(
    state: Any, optimizers: frozenset[str], judge: Judge, go_on_from: Callable[[Mapping[str, int]], object]
) -> None:
    if isinstance(state, Mapping) and state.get("version", VERSION) != VERSION:
        COUNT.check(state["version"], "The state['version']")
        Named(COUNT).check(state.get("steps"), "The state['steps']")
    else:
        _STATE.check(state, "The state")
    if set(state["steps"]) != optimizers:
        raise ArgumentError(
            f"The state is of the optimizers {sorted(state['steps'])}, but {sorted(optimizers)} are tracked: give "
            "the optimizers the names that they had."
        )
    if state["version"] == VERSION:
        judge.load_state_dict(state["judge"], optimizers, "The state['judge']")
    else:
        with suppress(Exception):  # a handler of the user's
            log.warning("The state was saved by another version of gradwatch: steps go on, and rules begin anew.")
    go_on_from(state["steps"])
