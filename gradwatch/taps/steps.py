"""The step of an optimizer: what it is about to consume, and that it is done.

Torch's own hooks are used, on the instance. Replacing ``optimizer.step`` would break learning rate schedulers,
which expect a bound method there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from gradwatch.patching import untraced
from gradwatch.taps.step_hooks import StepHooks

__all__ = ["LEAVE_OUT", "StepTap"]

LEAVE_OUT = object()

# The code that every hooked ``step`` shares. Compiling keeps its name and its file.
_WRAPPER = Optimizer.profile_hook_step(lambda: None).__code__

# Frames between a hook and what calls it: what ``untraced`` made of the hook.
_HOOKED = 2

_Call = tuple[tuple[Any, ...], dict[str, Any]]


class StepTap:
    """Calls ``consuming()`` when the gradients of a step are final, and ``stepped()`` after it.

    With a closure the gradients are made inside the step: ``consuming`` comes after its first evaluation, or
    after the step where the optimizer never evaluated it. ``super().step()`` fires torch's hooks again inside
    the outer call; only the outer one counts.

    Args:
        optimizer: any ``torch.optim.Optimizer``.
        consuming: must not raise. What it returns decides: an exception is raised in the place of the step,
            ``LEAVE_OUT`` takes the gradients away from the step, so that it changes nothing, and puts them back
            behind it, anything else lets it go on.
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
        self._consumed = False
        self._put_aside: list[tuple[Tensor, Tensor | None]] = []
        # Each the same object for as long as it is hooked, unlike a method.
        self._hooks = untraced(self._before), untraced(self._after)

    def open(self) -> None:
        """Hook the optimizer."""
        StepHooks.add(self._optimizer, *self._hooks)

    def close(self) -> None:
        """Remove both hooks; in the middle of a step they fall silent, whatever is still called of them."""
        self._consuming = self._stepped = _silent
        StepHooks.remove(self._optimizer, *self._hooks)
        self._put_back_unless_made_anew()
        self._outer = None

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        frame = sys._getframe(_HOOKED)
        if self._outer is not None and any(around is self._outer for around in _stack(frame)):
            return None
        self._outer = _step_around(frame)
        self._consumed = False
        if self._put_aside:
            self._put_back_unless_made_anew()
        if kwargs or len(args) > 1:
            return self._begin(args, kwargs)
        self._consume()
        return None

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._consume()
            return None
        watched = _after_calls(closure, self._consume, self._leave_out_again)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    def _consume(self) -> None:
        self._consumed = True
        verdict = self._consuming()
        if isinstance(verdict, Exception):
            self._outer = None
            raise verdict
        if verdict is LEAVE_OUT and self._consuming is not _silent:
            # Without a gradient a parameter is passed over, and so is its state.
            held = [p for group in self._optimizer.param_groups for p in group["params"]]
            self._put_aside = [(parameter, parameter.grad) for parameter in held]
            self._leave_out_again()

    def _leave_out_again(self) -> None:
        """A step that is left out gets no gradient from any evaluation of its closure."""
        for parameter, _ in self._put_aside:
            parameter.grad = None

    def _put_back(self) -> None:
        put_aside, self._put_aside = self._put_aside, []
        for parameter, gradient in put_aside:
            parameter.grad = gradient

    def _put_back_unless_made_anew(self) -> None:
        """After a step that was left out and ended in an exception: the loop may have gone on to its next pass."""
        if all(parameter.grad is None for parameter, _ in self._put_aside):
            self._put_back()
        self._put_aside = []

    def _after(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._outer is not None and _step_around(sys._getframe(_HOOKED)) is self._outer:
            self._outer = None
            if self._put_aside:
                self._put_back()
            if not self._consumed:
                # The closure was never evaluated: the step took the gradients as they were, and still are.
                self._consume()
            self._stepped()


def _step_around(frame: FrameType) -> FrameType:
    """The innermost ``step`` on the stack."""
    around: FrameType | None = frame
    # Not compiled as a rule, which is seen without a call.
    while around is not None and around.f_code is not _WRAPPER and not _is_step(around):
        around = around.f_back
    return frame if around is None else around


def _silent(*_: object) -> None:
    """In the place of what was called."""


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_step(frame: FrameType) -> bool:
    """Whether it is torch's wrapper around ``step``, which calls the hooks, compiled or not."""
    code = frame.f_code
    return code.co_name == _WRAPPER.co_name and code.co_filename == _WRAPPER.co_filename


def _after_calls(
    closure: Callable[[], Any], first: Callable[[], object], later: Callable[[], object]
) -> Callable[[], Any]:
    then = first

    def watched() -> Any:
        nonlocal then
        loss = closure()
        after, then = then, later
        after()
        return loss

    return watched
