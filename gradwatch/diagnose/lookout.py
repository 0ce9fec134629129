"""Sees each backward pass begin, and looks at one that starts from NaN or Inf while its graph is still whole.

A step that consumes NaN leaves NaN in the weights: whoever looks one step later sees nothing else. What starts
from a loss that is not finite is therefore looked at at once, where telling costs next to nothing: for a single
number in host memory. Of the last pass that began well its start is remembered until the step, since a gradient
may turn out not to be finite all the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gradwatch.diagnose import engine
from gradwatch.diagnose.diagnosis import Diagnosis
from gradwatch.diagnose.elimination import only_singular
from gradwatch.diagnose.forward import readable
from gradwatch.diagnose.walk import Node, root_of
from gradwatch.records import Cause

__all__ = ["Lookout"]


class Lookout:
    """Listens to the engine from ``start`` to ``stop``.

    Args:
        diagnosis: makes one for all that is tracked; called where a loss is not finite.
        wanted: whether somebody wants to know, asked then.
    """

    def __init__(self, diagnosis: Callable[[], Diagnosis], wanted: Callable[[], bool]) -> None:
        self._diagnosis = diagnosis
        self._wanted = wanted
        self._running: list[Diagnosis] = []
        self._causes: Mapping[str, Cause] = {}
        self._sound: tuple[tuple[Node, ...], float] | None = None
        self._lock = threading.Lock()
        self._listening = False

    def start(self) -> None:
        """Listen from now on."""
        engine.listen(self)
        self._listening = True

    def stop(self) -> None:
        """Listen no more."""
        if self._listening:
            engine.stop_listening(self)
        self._listening = False
        self.forget()

    def began(self, roots: Sequence[object], gradients: Sequence[object]) -> Callable[[], None]:
        """A run of the engine starts; what is returned is to be called when it is over."""
        running = tuple(self._running)
        if running:
            # A run inside the one that is looked at, as a re-entrant checkpoint makes it.
            return running[-1].began(roots, gradients)
        value = _value(roots)
        if value is None or torch._C._current_graph_task_id() != -1:
            return _nothing
        if math.isfinite(value):
            self._sound = tuple(node for node in map(root_of, roots) if node is not None), value
            return _nothing
        return self._look(roots, gradients) if self._wanted() and not self._causes else _nothing

    def found(self, parameters: Mapping[str, Tensor]) -> Mapping[str, Cause]:
        """Why gradients are not finite, by name of a parameter or path of a module, as far as can be told.

        Args:
            parameters: by name, those that the optimizer holds which has stepped.
        """
        if self._causes or self._sound is None:
            return self._causes
        roots, value = self._sound
        return only_singular(roots, value, parameters)

    def forget(self) -> None:
        """A step is done: what led to it is of no more interest."""
        self._causes = {}
        self._sound = None

    def _look(self, roots: Sequence[object], gradients: Sequence[object]) -> Callable[[], None]:
        diagnosis = self._diagnosis()
        ended = diagnosis.of_run(roots, gradients)
        with self._lock:
            self._running.append(diagnosis)

        def end() -> None:
            with self._lock:
                self._running.remove(diagnosis)
            ended()
            self._causes = {
                n: found for n, found in diagnosis.causes.items() if found.kind.startswith("nonfinite")
            }

        return end


def _nothing() -> None:
    """Called when a run is over that nobody looks at."""


def _value(roots: Sequence[object]) -> float | None:
    """What a pass starts from, where that is one number in host memory."""
    root = roots[0] if len(roots) == 1 else None
    if not isinstance(root, Tensor) or type(root) is not Tensor or root.numel() != 1 or root.device.type != "cpu":
        return None
    return float(root.detach()) if readable() else None
