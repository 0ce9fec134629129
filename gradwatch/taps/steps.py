"""The step of an optimizer: what it is about to consume, and that it is done.

Torch's own hooks are used, on the instance. Replacing ``optimizer.step`` would break learning rate schedulers,
which expect a bound method there.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

__all__ = ["StepTap"]


class StepTap:
    """Calls ``consuming()`` when the gradients of a step are final, and ``stepped()`` after it.

    With a closure the gradients are made inside the step: ``consuming`` comes after its first evaluation.
    ``super().step()`` fires torch's hooks again inside the outer call; only the outer one counts.

    Args:
        optimizer: any ``torch.optim.Optimizer``.
        consuming: must not raise.
        stepped: must not raise.
    """

    def __init__(
        self, optimizer: Optimizer, consuming: Callable[[], object], stepped: Callable[[], object]
    ) -> None:
        self._optimizer = optimizer
        self._consuming = consuming
        self._stepped = stepped
        # The frame of the outermost step. Its presence in the stack tells a nested call from a step that
        # ended in an exception, for which torch runs no post hook.
        self._outer: FrameType | None = None
        self._pre = optimizer.register_step_pre_hook(self._before)
        self._post = optimizer.register_step_post_hook(self._after)

    def stay_last(self) -> None:
        """Run after every pre hook that the user has added meanwhile; not to be called from a pre hook."""
        hooks = cast("OrderedDict[int, Any]", self._optimizer._optimizer_step_pre_hooks)
        if self._pre.id in hooks and next(reversed(hooks)) != self._pre.id:
            hooks.move_to_end(self._pre.id)

    def close(self) -> None:
        """Remove both hooks."""
        handles: tuple[RemovableHandle, ...] = (self._pre, self._post)
        for handle in handles:
            handle.remove()
        self._outer = None

    def _before(
        self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        frame = sys._getframe(1)
        if self._outer is not None and _is_running(self._outer, frame):
            return None
        self._outer = frame
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._consuming()
            return None
        watched = _after_first_call(closure, self._consuming)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    def _after(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._outer is not None and sys._getframe(1) is self._outer:
            self._outer = None
            self._stepped()
            self.stay_last()


def _is_running(frame: FrameType, innermost: FrameType | None) -> bool:
    while innermost is not None:
        if innermost is frame:
            return True
        innermost = innermost.f_back
    return False


def _after_first_call(closure: Callable[[], Any], then: Callable[[], object]) -> Callable[[], Any]:
    called = False

    def watched() -> Any:
        nonlocal called
        loss = closure()
        if not called:
            called = True
            then()
        return loss

    return watched
