"""Sees where each backward pass begins, and looks at one that starts from NaN or Inf while its graph is whole.

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

from gradwatch.diagnose.diagnosis import Diagnosis
from gradwatch.diagnose.elimination import Beginning, only_singular
from gradwatch.diagnose.walk import Node
from gradwatch.records import Cause

__all__ = ["Lookout"]


class Lookout:
    """Looks at what the autograd engine starts from.

    Args:
        diagnosis: makes one for all that is tracked; called where a loss is not finite.
        wanted: whether somebody wants to know, asked then.
    """

    def __init__(self, diagnosis: Callable[[], Diagnosis], wanted: Callable[[], bool]) -> None:
        self._diagnosis = diagnosis
        self._wanted = wanted
        self._running: list[Diagnosis] = []
        self._causes: Mapping[str, Cause] = {}
        self._sound: Beginning | None = None
        self._alike = True
        self._lock = threading.Lock()

    def began(
        self, roots: Sequence[object], gradients: Sequence[object], accumulates: bool = True
    ) -> Callable[[], None] | None:
        """A run of the engine starts; what is returned is to be called when it is over."""
        if self._running:
            # A run inside the one that is looked at, as a re-entrant checkpoint makes it.
            running = tuple(self._running)
            return running[-1].began(roots, gradients) if running else None
        root = roots[0] if len(roots) == 1 else None
        if type(root) is not Tensor or root.numel() != 1 or not root.is_cpu or not _is_plain():
            self._alike &= not accumulates
            return None
        value = root.item()
        if not math.isfinite(value):
            return self._look(roots, gradients) if self._wanted() and not self._causes else None
        if accumulates:
            self._take_sound(root.grad_fn, value)
        return None

    def _take_sound(self, root: Node, value: float) -> None:
        """Remember the last pass; of those before it since the step, their losses and whether they were alike."""
        before, size = self._sound, abs(value)
        if before is None:
            self._sound = Beginning(root, value, size, size, alike=True)
            return
        alike = before.alike and _first_operations(before.root) == _first_operations(root)
        self._sound = Beginning(root, value, min(size, before.smallest), max(size, before.largest), alike)

    def found(self, parameters: Mapping[str, Tensor]) -> Mapping[str, Cause]:
        """Why gradients are not finite, by name of a parameter or path of a module, as far as can be told.

        Args:
            parameters: by name, those that the optimizer holds which has stepped.
        """
        if self._causes or self._sound is None:
            return self._causes
        if self._sound.root is None:
            return {}
        return only_singular(self._sound._replace(alike=self._sound.alike and self._alike), parameters)

    def forget(self) -> None:
        """A step is done: what led to it is of no more interest."""
        self._causes = {}
        self._sound = None
        self._alike = True

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


def _first_operations(root: Node, count: int = 6) -> tuple[str, ...]:
    """The first operations of a backward pass, along the first input of each."""
    names: list[str] = []
    while root is not None and len(names) < count:
        names.append(root.name())
        root = next((below for below, _ in root.next_functions if below is not None), None)
    return tuple(names)


def _is_plain() -> bool:
    """Whether this is a pass of its own, of tensors that hold numbers: nothing here may cost more than it must."""
    if torch._C._current_graph_task_id() != -1 or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return torch._C._get_tracing_state() is None and not torch.compiler.is_compiling()
