"""A watch that begins and ends with the training of a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gradwatch.arguments import checked_modules, checked_options
from gradwatch.errors import ArgumentError
from gradwatch.watching import Watch, track

__all__ = ["Following", "named"]


_ARGUMENTS = {name: given.default for name, given in signature(track).parameters.items() if name != "optimizers"}


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in _ARGUMENTS:
            raise ArgumentError(
                f"A Callback got the argument {name!r}, but those of gradwatch.track were expected: give one of "
                f"{', '.join(_ARGUMENTS)}."
            )
    given = {**_ARGUMENTS, **options}
    checked_modules(given.pop("modules"))
    rules, sinks, _ = checked_options(**given)
    # Each as a list that can be read again, for the next training.
    return {**options, "rules": rules, "sinks": sinks}


class Following:
    """Tracks one training after another with the same arguments, and goes on counting.

    Args:
        options: those of ``gradwatch.track``; ``modules`` among them takes the place of what the adapter would
            report on.

    Attributes:
        watch: that of the present training, or of the last; None before the first.

    Raises:
        ArgumentError: an argument cannot be meant as it stands.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = _checked(options)
        self.watch: Watch | None = None
        # What a checkpoint holds, until there is a watch that it can be loaded into.
        self._resumed: Mapping[str, Any] | None = None

    def begin(self, optimizers: Mapping[str, Optimizer], modules: nn.Module | Mapping[str, nn.Module]) -> Watch:
        """Start to watch; a training that ended by an exception is ended here."""
        self.end()
        lone = next(iter(optimizers.values())) if len(optimizers) == 1 else optimizers
        self.watch = watch = track(lone, **{"modules": modules, **self._options})
        if self._resumed is not None:
            watch.load_state_dict(self._resumed)
            self._resumed = None
        return watch.start()

    def end(self) -> None:
        """Stop watching."""
        if self.watch is not None:
            self.watch.close()

    def state_dict(self) -> dict[str, Any]:
        """What the watch has counted; empty before the first."""
        return {} if self.watch is None else self.watch.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next watch goes on from there."""
        self._resumed = state or None


def named(optimizers: Sequence[Optimizer], module: nn.Module) -> dict[str, Optimizer]:
    """Each optimizer by the one child of the module that holds all its parameters; numbered where that fails."""
    names = [_child_of(optimizer, module) for optimizer in optimizers]
    if None in names or len(set(names)) < len(names):
        names = [f"optimizer{place}" for place in range(len(optimizers))]
    return {str(name): optimizer for name, optimizer in zip(names, optimizers, strict=True)}


def _child_of(optimizer: Optimizer, module: nn.Module) -> str | None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, child in module.named_children():
        if held <= {id(parameter) for parameter in child.parameters()}:
            return name
    return None
