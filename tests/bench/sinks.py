"""Calls of Python that JSONL, TensorBoard and Prometheus together add to a step, those in their own threads too.

Their threads share the interpreter with the loop, so that the training waits for what runs in them. When they run
hangs on the clock; here each has its turn at the same steps in every run: JSONL after each block, as it is prompt, the
others after 64 steps. A model whose steps take a millisecond has more of them between two turns.
"""

from __future__ import annotations

from pathlib import Path

import gradwatch
from gradwatch.reporting import Reporting
from gradwatch.sinks import Jsonl, Prometheus, TensorBoard
from gradwatch.sinks.outlet import Outlet
from tests.bench.calls import RUNS, STEPS, WARM, calls_of
from tests.bench.isolated import Isolated, tiny_mlp

__all__ = ["calls_of_three_sinks"]


class _Turn:
    """Stands in the place of an outlet's thread: what is in the queue is written when it is told so, here."""

    ident = 1

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.is_prompt = outlet._prompt

    def start(self) -> None:
        """Nothing runs."""

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float) -> None:
        self._outlet._publish()

    def take(self) -> None:
        if not self._outlet._queue.empty():
            self._outlet._goes_on()


def calls_of_three_sinks(folder: Path) -> float:
    """To a step of a tiny MLP; the fewest of some runs, as one may meet what is done once in a while."""
    isolated = Isolated(tiny_mlp())
    sinks = Jsonl(folder / "run.jsonl"), TensorBoard(folder), Prometheus(port=0)
    return (_calls(isolated, *sinks) - _calls(isolated)) / STEPS


def _calls(isolated: Isolated, *sinks: gradwatch.sinks.Sink) -> int:
    watch = gradwatch.track(isolated.optimizer, isolated.model, sinks=sinks)
    turns = []
    for outlet in watch._fanout._outlets:
        outlet.thread = turn = _Turn(outlet)  # type: ignore[assignment]
        turns.append(turn)
    with watch:
        _with_turns(isolated, turns, WARM)
        return min(calls_of(lambda: _with_turns(isolated, turns, STEPS)) for _ in range(RUNS))


def _with_turns(isolated: Isolated, turns: list[_Turn], steps: int) -> None:
    for _ in range(0, steps, Reporting.BLOCK):
        isolated.run(Reporting.BLOCK)
        for turn in turns:
            if turn.is_prompt:
                turn.take()
    for turn in turns:
        turn.take()
