"""The step of an optimizer: what it is about to consume, and that it is done.

Torch's own hooks are used, on the instance. Replacing ``optimizer.step`` would break learning rate schedulers,
which expect a bound method there.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gradwatch.patching import untraced

__all__ = ["LEAVE_OUT", "StepTap"]

LEAVE_OUT = object()

# The code that every hooked ``step`` shares. Compiling keeps its name and its file.
_WRAPPER = Optimizer.profile_hook_step(lambda: None).__code__

# The pre hooks of all taps, by torch's number of the hook.
_own_pre_hooks: set[int] = set()

_Call = tuple[tuple[Any, ...], dict[str, Any]]
_Hook = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], _Call | None]


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
        self._stand_in: tuple[int, _Hook, _Hook] | None = None
        self._hooks = cast("OrderedDict[int, _Hook]", optimizer._optimizer_step_pre_hooks)
        self._post_hooks = cast("OrderedDict[int, Any]", optimizer._optimizer_step_post_hooks)
        self._pre = optimizer.register_step_pre_hook(untraced(self._before))
        self._post = optimizer.register_step_post_hook(untraced(self._after))
        # The step ends here: a backward pass in a post hook of the user's belongs to the next one.
        self._post_hooks.move_to_end(self._post.id, last=False)
        _own_pre_hooks.add(self._pre.id)

    def stay_last(self) -> None:
        """Run after every pre hook that the user has added meanwhile; not to be called from a pre hook."""
        if len(self._hooks) > 1 and self._last_behind() is not None:
            self._hooks.move_to_end(self._pre.id)

    def close(self) -> None:
        """Remove both hooks; in the middle of a step they fall silent, and go when the next one begins."""
        self._take_back_stand_in()
        self._put_back_unless_made_anew()
        outer, self._outer = self._outer, None
        if _is_stepping(self._optimizer) or _is_running(outer):
            self._consuming = self._stepped = _silent
            self._hooks[self._pre.id] = self._leave
            self._post_hooks[self._post.id] = _silent
        else:
            self._remove()

    def _remove(self) -> None:
        handles: tuple[RemovableHandle, ...] = (self._pre, self._post)
        for handle in handles:
            handle.remove()
        _own_pre_hooks.discard(self._pre.id)

    def _leave(self, *_: object) -> None:
        # Torch iterates over these hooks now. Behind the last one it looks no more.
        if next(reversed(self._hooks)) == self._pre.id:
            self._remove()

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        frame = sys._getframe(1)
        if self._outer is not None and any(around is self._outer for around in _stack(frame)):
            return None
        self._outer = _step_around(frame)
        self._consumed = False
        if self._put_aside:
            self._put_back_unless_made_anew()
        if self._stand_in is not None:
            self._take_back_stand_in()
        last = self._last_behind() if len(self._hooks) > 1 else None
        if last is not None:
            self._stand_behind(last)
        elif kwargs or len(args) > 1:
            return self._begin(args, kwargs)
        else:
            self._consume()
        return None

    def _last_behind(self) -> int | None:
        """The last hook that runs behind this tap's; other trackers' taps change nothing and do not count."""
        for place in reversed(self._hooks):
            if place == self._pre.id:
                return None
            if place not in _own_pre_hooks:
                return place
        return None

    def _stand_behind(self, last: int) -> None:
        """Begin behind a hook that the user has added since the last step.

        Torch is iterating over the hooks, so that none can be added or moved now; the value of an entry can be
        exchanged, and is put back at once when it has run.
        """
        hook = self._hooks[last]

        def hook_and_begin(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
            self._take_back_stand_in()
            changed = hook(optimizer, args, kwargs)
            begun = self._begin(*(changed or (args, kwargs)))
            return begun or changed

        self._stand_in = (last, hook, hook_and_begin)
        self._hooks[last] = hook_and_begin

    def _take_back_stand_in(self) -> None:
        if self._stand_in is not None:
            (place, hook, stand_in), self._stand_in = self._stand_in, None
            if self._hooks.get(place) is stand_in:
                self._hooks[place] = hook

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
        if verdict is LEAVE_OUT:
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
        if self._outer is not None and _step_around(sys._getframe(1)) is self._outer:
            self._outer = None
            if self._put_aside:
                self._put_back()
            if not self._consumed:
                # The closure was never evaluated: the step took the gradients as they were, and still are.
                self._consume()
            self._stepped()
            self.stay_last()


def _step_around(frame: FrameType) -> FrameType:
    """The innermost ``step`` on the stack."""
    around: FrameType | None = frame
    # Not compiled as a rule, which is seen without a call.
    while around is not None and around.f_code is not _WRAPPER and not _is_step(around):
        around = around.f_back
    return frame if around is None else around


def _is_stepping(optimizer: Optimizer) -> bool:
    """Whether this thread is in a step of the optimizer: torch iterates over its hooks then."""
    steps = (frame for frame in _stack(sys._getframe(1)) if _is_step(frame))
    return any(step.f_locals.get("self", optimizer) is optimizer for step in steps)


def _is_running(step: FrameType | None) -> bool:
    """Whether a step that has begun, perhaps in another thread, has not ended.

    The stack of a thread that runs meanwhile cannot be walked: its frames may be gone before they are looked at,
    and the process with them. A frame that is held tells by itself; of one that has ended in an exception
    nothing is lost but the local variables of torch's wrapper.
    """
    if step is None:
        return False
    try:
        step.clear()
    except RuntimeError:
        return True
    return False


def _silent(*_: object) -> None:
    """In the place of what was called, until the hooks can be removed."""


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
