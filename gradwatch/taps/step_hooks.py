"""What torch calls before and after the steps of an optimizer: hooks that come and go while it steps.

Torch iterates over a dictionary of hooks while they run, and an iteration ends in an error where the dictionary
has changed meanwhile: in a hook that removes itself, in another thread. So nothing is put into torch's own
dictionaries. While anybody listens, others stand in their place, which give what is in torch's and beside it what
listens, all of it as it is at the moment when torch begins to iterate.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping, ValuesView
from typing import Any, ClassVar

from torch.optim import Optimizer

from gradwatch.patching import Turn

__all__ = ["Hook", "StepHooks"]

Hook = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], Any]

_BEFORE, _AFTER = "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"


class StepHooks:
    """The hooks of one optimizer: those that its user registers, and of ours as many as listen now.

    Ours come last before a step and first after it, so that they see what the optimizer consumes, and nothing of
    what the user does when it has.
    """

    # A handle that the user got meanwhile removes its hook from what stood in torch's place then. That has to live
    # as long as the optimizer, which has it only while anybody listens.
    _kept: ClassVar[dict[int, StepHooks]] = {}
    _turn: ClassVar[Turn] = Turn()

    def __init__(self, optimizer: Optimizer) -> None:
        self._before = _Beside(self, optimizer, _BEFORE)
        self._after = _Beside(self, optimizer, _AFTER)
        self._key = id(optimizer)
        weakref.finalize(optimizer, self._kept.pop, self._key, None).atexit = False

    @classmethod
    def add(cls, optimizer: Optimizer, before: Hook | None, after: Hook | None) -> None:
        """Call these, in the step that begins next for the first time."""
        with cls._turn:
            hooks = cls._standing(optimizer, _BEFORE) or cls._kept.get(id(optimizer)) or cls(optimizer)
            hooks._before.add(before, optimizer)
            hooks._after.add(after, optimizer)
            cls._kept.pop(id(optimizer), None)

    @classmethod
    def remove(cls, optimizer: Optimizer, before: Hook | None, after: Hook | None) -> None:
        """Call them no more; a step that runs may still do so. With the last ones torch is as it was."""
        with cls._turn:
            standing = [cls._standing(optimizer, name) for name in (_BEFORE, _AFTER)]
            # Also one that was to stand there when an interrupt came.
            for hooks in filter(None, [*standing, cls._kept.get(id(optimizer))]):
                hooks._remove(optimizer, before, after)

    @classmethod
    def _standing(cls, optimizer: Optimizer, name: str) -> StepHooks | None:
        """What stands in torch's place for it, and not for one whose attributes it has taken over."""
        standing = vars(optimizer)[name]
        own = isinstance(standing, _Beside) and standing.whole._key == id(optimizer)
        return standing.whole if own else None

    def _remove(self, optimizer: Optimizer, before: Hook | None, after: Hook | None) -> None:
        self._before.own = _without(self._before.own, before)
        self._after.own = _without(self._after.own, after)
        if not self._before.own and not self._after.own:
            self._kept[self._key] = self
            self._after.take_back(optimizer)
            self._before.take_back(optimizer)


class _Beside(MutableMapping[int, Hook]):
    """In the place of one of torch's dictionaries: the same, with hooks of ours beside it when torch iterates.

    Args:
        whole: what it is a part of.
        optimizer: whose it is.
        name: what the optimizer calls it.

    Attributes:
        own: hooks of ours, in the order in which they are called.
        ours_first: they come before torch's.
        torchs: torch's dictionary, held while the optimizer does not hold it.
    """

    def __init__(self, whole: StepHooks, optimizer: Optimizer, name: str) -> None:
        self.whole = whole
        self.own: tuple[Hook, ...] = ()
        self.torchs: OrderedDict[int, Hook] | None = None
        self.ours_first = name == _AFTER
        self._name = name
        self._reference = weakref.ref(vars(optimizer)[name])
        self._values = _AtOnce(self)

    def add(self, hook: Hook | None, optimizer: Optimizer) -> None:
        """Stand in torch's place, with one hook more."""
        if hook is not None:
            others = _without(self.own, hook)
            self.own = (hook, *others) if self.ours_first else (*others, hook)
        if vars(optimizer)[self._name] is not self:
            self.torchs = vars(optimizer)[self._name]
            self._reference = weakref.ref(self.torchs)
            setattr(optimizer, self._name, self)

    def take_back(self, optimizer: Optimizer) -> None:
        """Put back torch's, and hold nothing: what is in it may hold the optimizer."""
        if vars(optimizer)[self._name] is self:
            setattr(optimizer, self._name, self.torchs)
        self.torchs = None

    def known(self) -> OrderedDict[int, Hook]:
        """Torch's dictionary, whoever holds it; a new one where nobody does, as when a wrapper outlives it."""
        torchs = self._reference()
        if torchs is None:
            torchs = self.torchs = OrderedDict()
            self._reference = weakref.ref(torchs)
        return torchs

    def values(self) -> ValuesView[Hook]:
        return self._values

    def __getitem__(self, number: int) -> Hook:
        return self.known()[number]

    def __setitem__(self, number: int, hook: Hook) -> None:
        self.known()[number] = hook

    def __delitem__(self, number: int) -> None:
        del self.known()[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self.known())

    def __len__(self) -> int:
        return len(self.known())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.known(), name)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of an optimizer is not tracked."""
        return OrderedDict, (list(self.known().items()),)


class _AtOnce(ValuesView[Hook]):
    """What torch iterates over."""

    _mapping: _Beside

    def __iter__(self) -> Iterator[Hook]:
        beside = self._mapping
        torchs = beside.torchs
        if torchs is None:
            return iter([*beside.known().values()])
        if not torchs:
            return iter(beside.own)
        own = beside.own
        return iter([*own, *torchs.values()] if beside.ours_first else [*torchs.values(), *own])


def _without(hooks: tuple[Hook, ...], gone: Hook | None) -> tuple[Hook, ...]:
    return tuple(one for one in hooks if one is not gone)
