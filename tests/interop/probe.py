"""A second look at a training loop that a library owns, taken where the library calls torch. Nothing of gradwatch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tests.loops.run import Clip, Run

# Whether a gradient is another one than a moment ago: the tensor itself, kept alive, and how often it was changed.
_Marks = dict[Tensor, tuple[Tensor | None, int]]


class Probe:
    """Tells a run of what a library does with its optimizers: the backward passes, the clip calls and the steps.

    It stands in for ``Tensor.backward`` and ``torch.nn.utils.clip_grad_norm_``, by which the libraries call them, and
    looks at ``.grad`` at each step. To be entered inside ``run.track``.

    Args:
        run: the run that takes the truth.
        optimizers: as they are tracked; a wrapper has the real one in ``.optimizer``.
        closures: the library computes the gradients inside ``step``, and says by ``consumed`` when they are final.
        scaler: the library's, where it has one; it clips, and so unscales, before the step.
    """

    def __init__(
        self,
        run: Run,
        optimizers: Mapping[str, Optimizer],
        *,
        closures: bool = False,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self._run = run
        self._optimizers = {name: getattr(given, "optimizer", given) for name, given in optimizers.items()}
        self._closures = closures
        self._scaler = scaler
        self._passes = dict.fromkeys(optimizers, 0)
        self._clips: dict[str, list[Clip]] = {name: [] for name in optimizers}
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> Probe:
        self._put(torch.nn.utils, "clip_grad_norm_", self._clipping)
        self._put(torch.Tensor, "backward", self._backward)
        if self._closures:
            return self
        if self._scaler is not None:
            self._put(self._scaler, "step", self._scaler_step)
            return self
        for name, optimizer in self._optimizers.items():
            hook = optimizer.register_step_pre_hook(lambda *_, name=name: self.consumed(name))
            self._restore.callback(hook.remove)
        return self

    def __exit__(self, *error: Any) -> None:
        self._restore.close()

    def consumed(self, name: str = "optimizer") -> None:
        """The optimizer takes the gradients as they are now; where they are not finite, a scaler lets it not."""
        seen: dict[str, Any] = {"passes": self._passes[name]}
        takes = self._run.after
        if self._scaler is not None:
            seen["loss_scale"] = self._scaler.get_scale()
            held = [p for group in self._optimizers[name].param_groups for p in group["params"]]
            takes = takes if all(bool(p.grad.isfinite().all()) for p in held) else self._run.skipped
        takes(name, *self._clips[name], **seen)
        self._clips[name], self._passes[name] = [], 0

    def _scaler_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def observed(optimizer: Optimizer, *arguments: Any, **named: Any) -> Any:
            self.consumed(*(name for name, held in self._optimizers.items() if held is optimizer))
            return step(optimizer, *arguments, **named)

        return observed

    def _put(self, owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original, own = getattr(owner, name), name in vars(owner)
        setattr(owner, name, around(original))
        if own:
            self._restore.callback(setattr, owner, name, original)
        else:
            self._restore.callback(delattr, owner, name)

    def _clipping(self, clip_grad_norm_: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def clip(parameters: Any, max_norm: float, norm_type: float = 2.0, **rest: Any) -> Tensor:
            given, parameters = _seen(parameters)
            touched = [name for name, held in self._held() if held & given]
            for name in touched:
                if not self._clips[name]:
                    self._run.before(name)
            norm = clip_grad_norm_(parameters, max_norm, norm_type, **rest)
            for name in touched:
                self._clips[name].append(Clip(max_norm, norm, norm_type))
            return norm

        return clip

    def _backward(self, backward: Callable[..., None]) -> Callable[..., None]:
        def run(tensor: Tensor, *arguments: Any, **named: Any) -> None:
            before = {name: _marks(held) for name, held in self._held()}
            backward(tensor, *arguments, **named)
            for name, held in self._held():
                self._passes[name] += _rewritten(before[name], _marks(held))

        return run

    def _held(self) -> Iterator[tuple[str, set[Tensor]]]:
        for name, optimizer in self._optimizers.items():
            yield name, {p for group in optimizer.param_groups for p in group["params"]}


def _seen(parameters: Tensor | Iterable[Tensor]) -> tuple[set[Tensor], Tensor | Iterable[Tensor]]:
    """The tensors, and the same argument again: a generator stays one."""
    if isinstance(parameters, Tensor):
        return {parameters}, parameters
    if isinstance(parameters, Iterator):
        parameters, again = itertools.tee(parameters)
        return set(again), parameters
    return set(parameters), parameters


def _marks(parameters: Iterable[Tensor]) -> _Marks:
    return {p: (p.grad, -1 if p.grad is None else p.grad._version) for p in parameters}


def _rewritten(before: _Marks, after: _Marks) -> bool:
    return any(after[p][0] is not grad or after[p][1] != version for p, (grad, version) in before.items())
