"""What a GradScaler does: it divides the gradients by its scale, and leaves a step out where one is not finite.

Three inner methods of the class, and of every class made of it, are replaced while a tracker is active. They are
always looked up on the scaler, so that a ``step = scaler.step`` bound long before is seen too. A fused optimizer
unscales inside its own step; its tensors ``grad_scale`` and ``found_inf`` say how, and no tap is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.log import log
from gradwatch.patching import Patch, Replacement, replace_name, untraced

__all__ = ["ScalerListener", "scalers"]


class ScalerListener(Protocol):
    """Told of what every GradScaler in the process does to optimizers that it listens to; no method may raise."""

    def unscaled(self, optimizer: Optimizer, scale: Tensor) -> None:
        """The gradients of this optimizer were divided by the scale."""

    def stepping(self, optimizer: Optimizer) -> None:
        """The optimizer steps now, or is left out."""

    def stepped(self, optimizer: Optimizer) -> None:
        """It has stepped, or was left out."""


_checking = threading.local()


def _install() -> Iterator[Replacement]:
    for kind in set(_scaler_classes()):
        for name, make in _SHIMS.items():
            if name in vars(kind):
                yield replace_name(kind, name, untraced(make(vars(kind)[name])))
            elif kind is torch.amp.GradScaler:
                log.warning("gradwatch does not see GradScaler.%s: torch %s has none.", name, torch.__version__)


def _scaler_classes(base: type = torch.amp.GradScaler) -> Iterator[type]:
    """GradScaler and every class made of it so far, such as FSDP's own, which unscales in its own way."""
    yield base
    made_of_it: list[type] = base.__subclasses__()
    for kind in made_of_it:
        yield from _scaler_classes(kind)


def _unscaling(original: Callable[..., Any]) -> Callable[..., Any]:
    def _unscale_grads_(scaler: Any, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        returned = original(scaler, optimizer, *args, **kwargs)
        scale = getattr(scaler, "_scale", None)
        # A check for Inf alone goes the same way with a scale of 1, and divides nothing.
        if isinstance(scale, Tensor) and not getattr(_checking, "now", False):
            for listener in scalers.by_subject[id(optimizer)]:
                listener.unscaled(optimizer, scale)
        return returned

    return _unscale_grads_


def _check(original: Callable[..., Any]) -> Callable[..., Any]:
    def _check_inf_per_device(scaler: Any, optimizer: Optimizer) -> Any:
        _checking.now = True
        try:
            return original(scaler, optimizer)
        finally:
            _checking.now = False

    return _check_inf_per_device


def _step(original: Callable[..., Any]) -> Callable[..., Any]:
    def _maybe_opt_step(scaler: Any, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        listeners = scalers.by_subject[id(optimizer)]
        for listener in listeners:
            listener.stepping(optimizer)
        returned = original(scaler, optimizer, *args, **kwargs)
        for listener in listeners:
            listener.stepped(optimizer)
        return returned

    return _maybe_opt_step


scalers: Patch[ScalerListener] = Patch(_install)

_SHIMS = {"_unscale_grads_": _unscaling, "_check_inf_per_device": _check, "_maybe_opt_step": _step}
