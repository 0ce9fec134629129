"""Modules as the user wrote them: the wrappers that torch puts around a module are seen through.

A wrapper and what it wraps are told by one path, so that no name changes when a model is compiled, sharded or
copied to many devices.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from gradwatch.paths import PARAMETRIZED

__all__ = ["children", "joined", "layers", "named_parameters", "own_parameters", "unwrapped", "walk"]

# Module and name of the class, and the name under which it holds what it wraps. Told by their names, since
# importing torch's compiler or its distributed packages takes seconds.
_WRAPPERS = {
    ("torch.nn.parallel.distributed", "DistributedDataParallel"): "module",
    ("torch.nn.parallel.data_parallel", "DataParallel"): "module",
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"): "_fsdp_wrapped_module",
    (
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper",
        "ActivationWrapper",
    ): "_checkpoint_wrapped_module",
    ("torch._dynamo.eval_frame", "OptimizedModule"): "_orig_mod",
    ("torch.optim.swa_utils", "AveragedModel"): "module",
}


def walk(module: nn.Module, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """A module and all that are inside of it, outer ones first, each with its path.

    Args:
        module: where to begin.
        path: its own path.
        seen: ``id`` of the modules to leave out, added to on the way: each is met once then. With None, a module
            is met by every path that leads to it.
    """
    waiting = [(path, module)]
    while waiting:
        path, module = waiting.pop()
        if seen is not None:
            if id(module) in seen:
                continue
            seen.add(id(module))
        yield path, module
        wrapped = _holds_wrapped_as(module)
        inside = [(name, child) for name, child in module._modules.items() if child is not None]
        waiting.extend(
            (path if name == wrapped else joined(path, name), child) for name, child in reversed(inside)
        )


def children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules one level below."""
    for layer in layers(module):
        wrapped = _holds_wrapped_as(layer)
        for name, child in layer._modules.items():
            if child is not None and name != wrapped:
                yield name, child


def named_parameters(module: nn.Module, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Names and parameters of a module that has a path, each once by its first name, in torch's order."""
    seen: set[int] = set()
    for where, inner in walk(module, path, set()):
        for name, parameter in own_parameters(inner):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield joined(where, name), parameter


def own_parameters(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Names and parameters that are in a module itself, in none of those inside of it.

    A weight that a parametrization computes, such as that of a spectral norm, is still the module's: so are the
    tensors that it is computed from, which torch keeps in a module of their own.
    """
    if isinstance(module, ParametrizationList):
        return []
    held: list[tuple[str, Tensor]] = [(name, own) for name, own in module._parameters.items() if own is not None]
    parametrized = dict(module._modules.items()).get(PARAMETRIZED)
    for name, computed in () if parametrized is None else children(parametrized):
        if isinstance(computed, ParametrizationList):
            path = joined(PARAMETRIZED, name)
            held += [(joined(path, n), own) for n, own in computed._parameters.items() if own is not None]
    return held


def unwrapped(module: nn.Module) -> nn.Module:
    """What is inside of all wrappers around a module."""
    return list(layers(module))[-1]


def joined(path: str, name: str) -> str:
    """The path of what has a name in a module."""
    return f"{path}.{name}" if path else name


def layers(module: nn.Module) -> Iterator[nn.Module]:
    """A module, what it wraps, what that wraps."""
    inner: nn.Module | None = module
    while inner is not None:
        yield inner
        wrapped = _holds_wrapped_as(inner)
        inner = None if wrapped is None else inner._modules.get(wrapped)


def _holds_wrapped_as(module: nn.Module) -> str | None:
    """The name under which a wrapper holds what it wraps; None for what is no wrapper."""
    names = (_WRAPPERS.get((kind.__module__, kind.__name__)) for kind in type(module).__mro__)
    return next((name for name in names if name is not None), None)
