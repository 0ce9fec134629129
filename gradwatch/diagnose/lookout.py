"""Sees where each backward pass begins, and looks at one that starts from NaN or Inf while its graph is whole.

A step that consumes NaN leaves NaN in the weights: whoever looks one step later sees nothing else. What starts
from a loss that is not finite is therefore looked at at once, where telling costs next to nothing: for a single
number in host memory. Of the last pass that began well its start is remembered until the step, since a gradient
may turn out not to be finite all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gradwatch.diagnose.diagnosis import Diagnosis
from gradwatch.diagnose.graph.walk import Node
from gradwatch.diagnose.look.witness import Witness
from gradwatch.diagnose.reasons.hidden import behind_finite_loss
from gradwatch.diagnose.reasons.missing import a_copy_was_reached
from gradwatch.records import Cause

__all__ = ["Lookout"]

# Each is asked at every pass.
_graph_task = torch._C._current_graph_task_id
_transforms = torch._C._functorch.peek_interpreter_stack
_tracing, _is_compiling = torch._C._get_tracing_state, torch.compiler.is_compiling


class Lookout:
    """Looks at what the autograd engine starts from.

    Args:
        diagnosis: makes one for all that is tracked; called where a loss is not finite.
        wanted: whether somebody wants to know, asked then.
        new: told where a pass of a sort begins that has not been seen before.

    Attributes:
        passes: runs of the engine since the last step, whatever they reached.
    """

    def __init__(
        self,
        diagnosis: Callable[[], Diagnosis],
        wanted: Callable[[], bool],
        new: Callable[[Node], object] = lambda _: None,
    ) -> None:
        self._diagnosis = diagnosis
        self._wanted = wanted
        self._causes: Mapping[str, Cause] = {}
        # Where the last pass began, and its loss; NaN where that is not known without waiting for the device.
        self._sound: tuple[Node, float] | None = None
        self._witness = Witness(new)
        self.passes = 0

    def began(
        self, roots: Sequence[object], gradients: Sequence[object], accumulates: bool = True
    ) -> Callable[[], None] | None:
        """A run of the engine starts; what is returned is to be called when it is over."""
        self.passes += 1
        root = roots[0] if len(roots) == 1 else None
        if type(root) is not Tensor or root.numel() != 1 or not _is_plain():
            return None
        value = root.item() if root.is_cpu else math.nan
        if root.is_cpu and not math.isfinite(value):
            return self._look(roots, gradients) if self._wanted() and not self._causes else None
        if accumulates and root.grad_fn is not None:
            self._sound = (self._witness.attend(root), value)
        return None

    def elsewhere(self, where: str, parameters: Mapping[str, Tensor]) -> Cause | None:
        """Why passes that ran wrote no gradient of some parameters, where that is plain to see.

        Args:
            where: what the parameters are of.
            parameters: by name.
        """
        return None if self._sound is None else a_copy_was_reached(where, self.passes, self._sound[0], parameters)

    def found(self, parameters: Mapping[str, Tensor]) -> Mapping[str, Cause]:
        """Why gradients are not finite, by name of a parameter or path of a module, as far as can be told.

        Args:
            parameters: by name, those that the optimizer holds which has stepped.
        """
        if self._causes or self._sound is None:
            return self._causes
        root, loss = self._sound
        found = behind_finite_loss(root, loss, self._witness.broken(), parameters)
        if any(each.kind == "unknown" for each in found.values()):
            self._witness.learn_anew()
        return found

    def forget(self) -> None:
        """A step is done: what led to it is of no more interest."""
        self._causes = {}
        self._sound = None
        self.passes = 0
        self._witness.forget()

    def _look(self, roots: Sequence[object], gradients: Sequence[object]) -> Callable[[], None]:
        diagnosis = self._diagnosis()
        ended = diagnosis.of_run(roots, gradients)

        def end() -> None:
            ended()
            self._causes = {
                n: found
                for n, found in diagnosis.causes.items()
                if found.kind.startswith("nonfinite") or found.kind == "unknown"
            }

        return end


def _is_plain() -> bool:
    """Whether this is a pass of its own, of tensors that hold numbers: nothing here may cost more than it must."""
    return _graph_task() == -1 and _transforms() is None and _tracing() is None and not _is_compiling()
