"""A step that the device itself leaves out: a fused optimizer changes nothing where its ``found_inf`` is 1.

That is how ``torch.amp.GradScaler`` skips a step of such an optimizer. The host reads nothing: it need not wait.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["FoundInf", "honours"]

_NAME = "found_inf"


def honours(optimizer: Optimizer) -> bool:
    """Whether the step that begins would change nothing at all where ``found_inf`` is 1.

    A class of somebody else's may do more in its step than to call the kernel.
    """
    return (
        bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        and type(optimizer).__module__.startswith("torch.optim.")
        and all(group.get("fused") and not _begins_momentum(optimizer, group) for group in optimizer.param_groups)
    )


def _begins_momentum(optimizer: Optimizer, group: dict[str, object]) -> bool:
    """Whether SGD makes its buffers in this step: where it is left out, they keep what was in that memory."""
    if not isinstance(optimizer, torch.optim.SGD) or not group["momentum"]:
        return False
    parameters = group["params"]
    assert isinstance(parameters, list)
    return any(
        p.grad is not None and optimizer.state.get(p, {}).get("momentum_buffer") is None for p in parameters
    )


class FoundInf:
    """The ``found_inf`` of one optimizer during a step, beside what a GradScaler may have put there.

    Args:
        optimizer: one that honours it.
        after: steps in a row with too large a norm, of which the last is the first that is left out.
    """

    def __init__(self, optimizer: Optimizer, after: int) -> None:
        self._optimizer = optimizer
        self._after = after
        self._in_a_row: Tensor | None = None
        self._ours: Tensor | None = None
        self._theirs: Tensor | None = None

    @property
    def is_put(self) -> bool:
        """Whether the device decides about the step that runs."""
        return self._ours is not None

    def put(self, nonfinite: Tensor, exploding: Tensor | None) -> None:
        """Have the step that begins left out where it is harmful.

        Args:
            nonfinite: whether it would consume NaN or Inf; bool, one element, on the device.
            exploding: whether its norm is too large; the same; None where that is not asked.
        """
        with torch.inference_mode(False), torch.no_grad():
            found = nonfinite.to(torch.float32)
            if exploding is not None:
                now, before = exploding.to(torch.float32), self._in_a_row
                self._in_a_row = now if before is None else (before.to(now.device, non_blocking=True) + 1) * now
                found = torch.maximum(found, (self._in_a_row >= self._after).to(torch.float32))
            self._theirs = getattr(self._optimizer, _NAME, None)
            if self._theirs is not None:
                found = torch.maximum(found, self._theirs.to(found.device, torch.float32, non_blocking=True))
        self._ours = found
        setattr(self._optimizer, _NAME, found)

    def take_back(self) -> None:
        """The step is done, or has ended in an exception: put back what was there."""
        ours, self._ours = self._ours, None
        if ours is None or getattr(self._optimizer, _NAME, None) is not ours:
            return
        if self._theirs is None:
            delattr(self._optimizer, _NAME)
        else:
            setattr(self._optimizer, _NAME, self._theirs)
        self._theirs = None
