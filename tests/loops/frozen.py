"""Everything that training leaves behind, as plain values by path, so that two runs can be held side by side."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.utils._python_dispatch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.optim import Optimizer
from torch.optim import optimizer as optimizer_hooks

Frozen = dict[str, Any]


def frozen(**things: Any) -> Frozen:
    """The things named, and the random state and the settings of the process."""
    process = {
        "torch": torch.get_rng_state(),
        "numpy": repr(np.random.get_state()[1].tolist()),
        "python": repr(random.getstate()),
        "grad mode": torch.is_grad_enabled(),
        "dtype": str(torch.get_default_dtype()),
    }
    return dict(_walk("", {**things, "process": process}))


def _walk(path: str, thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, Tensor):
        yield path, _tensor(thing)
    elif isinstance(thing, nn.Module):
        yield from _module(path, thing)
    elif isinstance(thing, Optimizer):
        yield from _optimizer(path, thing)
    elif isinstance(thing, Mapping):
        yield f"{path}.keys", list(map(str, thing))
        for key, value in thing.items():
            yield from _walk(f"{path}.{key}", value)
    elif isinstance(thing, (list, tuple)):
        yield f"{path}.length", len(thing)
        for i, value in enumerate(thing):
            yield from _walk(f"{path}.{i}", value)
    elif hasattr(thing, "state_dict"):  # a GradScaler, a learning rate scheduler
        yield f"{path}.attributes", sorted(vars(thing))
        yield from _walk(path, thing.state_dict())
    elif isinstance(thing, np.ndarray):
        yield path, thing.tobytes()
    elif callable(thing):
        yield path, _name(thing)
    else:
        yield path, repr(thing)  # NaN equals itself this way


def _module(path: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from _walk(f"{path}.state", module.state_dict())
    for name, parameter in module.named_parameters():
        yield from _parameter(f"{path}.{name}", parameter)
    for name, part in module.named_modules():
        yield from _hooks(f"{path}.{name}", part)


def _optimizer(path: str, optimizer: Optimizer) -> Iterator[tuple[str, Any]]:
    yield from _walk(f"{path}.state", optimizer.state_dict())
    yield from _hooks(path, optimizer)
    for g, group in enumerate(optimizer.param_groups):
        for i, parameter in enumerate(group["params"]):
            yield from _parameter(f"{path}.group{g}.param{i}", parameter)


def _parameter(path: str, parameter: Tensor) -> Iterator[tuple[str, Any]]:
    yield path, _tensor(parameter)
    yield f"{path}.grad", None if parameter.grad is None else _tensor(parameter.grad)
    # Torch leaves an empty dict behind where the last hook was removed: as good as none.
    yield f"{path}.hooks", _names(parameter._backward_hooks)
    yield f"{path}.hooks after", _names(parameter._post_accumulate_grad_hooks)


def _hooks(path: str, thing: Any) -> Iterator[tuple[str, Any]]:
    yield f"{path}.attributes", sorted(vars(thing))
    for attribute, value in vars(thing).items():
        if "hook" in attribute and isinstance(value, Mapping):
            yield f"{path}.{attribute}", _names(value)


def _names(hooks: Mapping[int, Any] | None) -> list[str]:
    return [_name(hook) for hook in (hooks or {}).values()]


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _tensor(tensor: Tensor) -> tuple[Any, ...]:
    form = (str(tensor.dtype), tuple(tensor.shape), str(tensor.layout), tensor.requires_grad)
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_coo:
        return *form, tensor.is_coalesced(), _tensor(tensor._indices()), _tensor(tensor._values())
    contiguous = tensor.resolve_conj().contiguous().reshape(-1)
    return *form, tensor.stride(), tensor._version, contiguous.view(torch.uint8).numpy().tobytes()


def differences(one: Frozen, other: Frozen) -> list[str]:
    """The paths at which two runs are not the same."""
    paths = dict.fromkeys([*one, *other])
    return [path for path in paths if one.get(path, "absent") != other.get(path, "absent")]


_NOWHERE = object()

# What tracking touches in torch itself, and what it might.
_TOUCHED = (
    torch.nn.utils,
    torch.nn.utils.clip_grad,
    torch.amp.GradScaler,
    torch.amp.grad_scaler,
    torch.optim,
    torch.optim.Optimizer,
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.LBFGS,
    optimizer_hooks,
    module_hooks,
    torch.nn.Module,
    torch.nn.Parameter,
    torch.Tensor,
    torch.autograd,
    torch.autograd.graph,
)


def torch_itself() -> dict[str, Any]:
    """Every attribute of torch that tracking may touch, with what the closures of its functions hold."""
    found: dict[str, Any] = {}
    for owner in _TOUCHED:
        for name, value in vars(owner).items():
            # The compiler keeps what it made beside what it was made from, in a bare run as well.
            if name.startswith(("__resume_at_", "__builtins_dict__", "__compiled_fn_", "__import_")):
                continue
            found[f"{owner.__name__}.{name}"] = value
            for i, cell in enumerate(getattr(value, "__closure__", None) or ()):
                found[f"{owner.__name__}.{name}.closure{i}"] = cell.cell_contents
            if "hooks" in name and isinstance(value, dict):
                found |= {f"{owner.__name__}.{name}.{key}": hook for key, hook in value.items()}
    found["dispatch modes"] = torch.utils._python_dispatch._len_torch_dispatch_stack()
    return found


def not_restored(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is no longer the identical object."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if before.get(name, _NOWHERE) is not after.get(name, _NOWHERE)]
