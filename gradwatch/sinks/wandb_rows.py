"""Rows between those of a program, in a run of W&B whose steps may only grow.

Who logs without a step leaves the counting to W&B, and rows of others in between do no harm. Who gives steps owns
them: there a row of gradwatch goes into the program's own row, or on a step that the program has passed by, at the
moment when the program gives its next one. What finds no place waits for the end of the run.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

__all__ = ["Rows", "rows_of"]

_Row = dict[str, float]


class Rows:
    """Stands before ``run.log`` and ``run.finish``, and looks at the steps only.

    What W&B raises of a row of gradwatch's does not reach a program that logs one of its own.

    Args:
        run: of W&B.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._log, self._finish = run.log, run.finish
        self._waiting: dict[str, deque[_Row]] = {}
        self._changing = threading.RLock()
        # Whether the program gives steps; None as long as it has logged nothing.
        self._gives_steps: bool | None = None
        self._last = 0
        self._taken = True
        # The program has begun a row and has not ended it.
        self._begun = False
        self._error: Exception | None = None
        run.log, run.finish = self._of_the_program, self._at_the_end
        wandb = sys.modules["wandb"]
        if wandb.run is run:
            wandb.log = self._of_the_program  # type: ignore[attr-defined]
        # Behind W&B's own, and so called before it.
        atexit.register(self._log_the_rest)

    def put(self, optimizer: str, row: _Row) -> None:
        """One more row of an optimizer; rows of several go together."""
        with self._changing:
            self._waiting.setdefault(optimizer, deque()).append(row)

    def log_what_may_be_logged(self) -> None:
        """All of it, where the program leaves the steps to W&B; raises what was raised of a row before."""
        with self._changing:
            error, self._error = self._error, None
            if error is not None:
                raise error
            if self._gives_steps is False and not self._begun:
                for row in self._rows():
                    self._log(row)

    def _of_the_program(self, data: Any, step: int | None = None, commit: bool | None = None, **rest: Any) -> None:
        with self._changing:
            if step is None:
                self._gives_steps = bool(self._gives_steps)
                self._begun = commit is False
            else:
                self._fill_up_to(step)
                self._gives_steps = True
            self._log(data, step=step, commit=commit, **rest)

    def _fill_up_to(self, step: int) -> None:
        """Use the row of the last step, and the steps between that and the next one."""
        if step <= self._last:
            return
        if self._gives_steps:
            free = range(self._last + self._taken, step)
            for place, row in zip(free, self._rows(), strict=False):
                self._try_to_log(row, place)
        self._last, self._taken = step, False

    def _try_to_log(self, row: _Row, step: int | None = None) -> None:
        try:
            self._log(row, step=step)
        except Exception as error:
            self._error = error

    def _rows(self) -> Iterator[_Row]:
        """What waits, the oldest of each optimizer in one row."""
        while any(self._waiting.values()):
            yield {tag: value for rows in self._waiting.values() if rows for tag, value in rows.popleft().items()}

    def _at_the_end(self, *given: Any, **named: Any) -> Any:
        self._log_the_rest()
        return self._finish(*given, **named)

    def _log_the_rest(self) -> None:
        atexit.unregister(self._log_the_rest)
        with self._changing:
            for row in self._rows():
                self._try_to_log(row)


_found = threading.Lock()


def rows_of(run: Any) -> Rows:
    """Those of a run: several sinks share them."""
    with _found:
        before = getattr(run.log, "__self__", None)
        return before if isinstance(before, Rows) else Rows(run)
