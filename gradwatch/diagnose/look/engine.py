"""Every run of the autograd engine: what it starts from, before it starts, and that it is over.

``Tensor.backward``, ``torch.autograd.backward`` and ``torch.autograd.grad`` all call one function through one
name in ``torch.autograd``, whatever alias the caller has of them, and so do the libraries that wrap them. While
somebody listens, that name holds a shim; torch's own tracing exchanges the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from gradwatch.patching import Patch, Replacement, replace_name

__all__ = ["RunListener", "runs"]

_NAME = "_engine_run_backward"


class RunListener(Protocol):
    """Told of each run in the process."""

    def began(
        self, roots: Sequence[object], gradients: Sequence[object], accumulates: bool = True
    ) -> Callable[[], None] | None:
        """A run starts from these tensors (or gradient edges) with these gradients.

        It ``accumulates``, as ``backward`` does, or gives its gradients out, as ``torch.autograd.grad`` does.
        Neither this nor the function that it returns, which is called when the run is over, may raise.
        """


def _replace() -> Iterator[Replacement]:
    original: Callable[..., Any] = getattr(torch.autograd, _NAME)

    def run(outputs: Sequence[object], *args: Any, **kwargs: Any) -> Any:
        gradients = args[0] if args else kwargs.get("grad_tensors", ())
        accumulates = bool(kwargs.get("accumulate_grad", True))
        begun = [listener.began(outputs, gradients, accumulates) for listener in runs.listeners]
        try:
            return original(outputs, *args, **kwargs)
        finally:
            for end in reversed([end for end in begun if end is not None]):
                end()

    yield replace_name(torch.autograd, _NAME, run)


runs: Patch[RunListener] = Patch(_replace)
