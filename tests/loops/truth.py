"""What a record must say: the norms of the gradients that an optimizer holds, computed one float at a time.

Nothing of gradwatch is used here. Names are resolved anew at every call, from the modules as they then are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.reference import exact_norm

Modules = nn.Module | Mapping[str, nn.Module] | None


@dataclass(frozen=True)
class Clip:
    """A clip call that the record must name.

    Args:
        limit: ``max_norm`` or ``clip_value``.
        norm: the norm that torch held against the limit; None for clipping by value.
        norm_type: p of the p-norm; None where the function is given none.
        function: the function's name.
        returned: what the call returned, where that is not the norm.
    """

    limit: float
    norm: Tensor | float | None = None
    norm_type: float | None = 2.0
    function: str = "clip_grad_norm_"
    returned: bool = True

    def __post_init__(self) -> None:
        # Read now: a tensor would be kept as it is and printed rounded.
        object.__setattr__(self, "norm", None if self.norm is None else float(self.norm))

    @property
    def max_norm(self) -> float | None:
        """The limit where it limits a norm."""
        return None if self.norm is None or math.isinf(self.limit) else self.limit

    @property
    def in_force(self) -> bool:
        return self.max_norm is not None and self.norm is not None and self.norm > self.limit

    @property
    def norm_returned(self) -> float | None:
        return self.norm if self.returned else None  # type: ignore[return-value]


@dataclass(frozen=True)
class Norms:
    """The gradients of one optimizer at one moment; NaN where there is none."""

    whole: float
    modules: Mapping[str, float]
    parameters: Mapping[str, float]
    missing: frozenset[str]
    nonfinite: frozenset[str]

    @classmethod
    def now(cls, optimizer: Optimizer, modules: Modules, scale: float = 1.0) -> Norms:
        """Look at ``.grad`` as it is, divided by the scale."""
        held = _held(optimizer, modules)
        parameters = {name: _norm([p], scale) for p, name in held.items()}
        groups = {line: [p for p in owned if p in held] for line, owned in _lines(modules).items()}
        return cls(
            whole=_norm(held, scale),
            modules={line: _norm(of, scale) for line, of in groups.items() if of},
            parameters=parameters,
            missing=frozenset(name for p, name in held.items() if p.grad is None),
            nonfinite=frozenset(name for p, name in held.items() if _holds_nonfinite(p)),
        )

    def emptied(self) -> Norms:
        """The same parameters with nothing consumed of them."""
        return replace(
            self,
            whole=math.nan,
            modules=dict.fromkeys(self.modules, math.nan),
            parameters=dict.fromkeys(self.parameters, math.nan),
            nonfinite=frozenset(),
        )


@dataclass(frozen=True)
class Truth:
    """What the record of one step must say."""

    optimizer: str
    step: int
    before: Norms
    after: Norms
    clips: tuple[Clip, ...] = ()
    passes: int = 1
    skipped: bool = False
    loss_scale: float | None = None

    @property
    def max_norm(self) -> float | None:
        return min((c.max_norm for c in self.clips if c.max_norm is not None), default=None)

    @property
    def clipped(self) -> bool:
        return any(clip.in_force for clip in self.clips)

    @property
    def clip_ratio(self) -> float:
        before, after = self.before.whole, self.after.whole
        if before == 0.0:
            return 1.0 if after == 0.0 else math.inf if after > 0.0 else math.nan
        return after / before


def _held(optimizer: Optimizer, modules: Modules) -> dict[Tensor, str]:
    """Each parameter once, with the name that it is reported under. (Tensors hash by identity.)"""
    names: dict[Tensor, str] = {}
    for name, parameter in _named(modules):
        names.setdefault(parameter, name)
    held: dict[Tensor, str] = {}
    for g, group in enumerate(optimizer.param_groups):
        for i, parameter in enumerate(group["params"]):
            held.setdefault(parameter, names.get(parameter, f"group{g}.param{i}"))
    return held


def _named(modules: Modules) -> Iterable[tuple[str, Tensor]]:
    if isinstance(modules, nn.Module):
        return modules.named_parameters()
    return ((f"{entry}.{name}", p) for entry, m in (modules or {}).items() for name, p in m.named_parameters())


def _lines(modules: Modules) -> dict[str, list[Tensor]]:
    """The lines of the report, and the parameters under each."""
    if isinstance(modules, nn.Module):
        parts = {path: list(modules.get_submodule(path).parameters()) for path in _paths_told_of(modules)}
        return {**parts, "(root)": list(modules.parameters(recurse=False))}
    return {entry: list(module.parameters()) for entry, module in (modules or {}).items()}


def _paths_told_of(model: nn.Module) -> list[str]:
    """A model's children; in place of one that only holds others these, level by level."""
    told = level = _children(model, "")
    while level:
        level = [
            inner
            for path in level
            if _only_holds_others(model, path) and len(told) + len(_children(model, path)) <= 41
            for inner in _children(model, path)
        ]
        told = [path for path in told if not any(inner.startswith(f"{path}.") for inner in level)] + level
    return told


def _children(model: nn.Module, path: str) -> list[str]:
    named = model.get_submodule(path).named_children()
    return [f"{path}.{name}".strip(".") for name, child in named if any(True for _ in child.parameters())]


def _only_holds_others(model: nn.Module, path: str) -> bool:
    part, above = model.get_submodule(path), model.get_submodule(path.rpartition(".")[0])
    lists = type(part) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return lists or set(part.parameters()) == set(above.parameters())


def _norm(parameters: Iterable[Tensor], scale: float) -> float:
    there = [_dense(p.grad) for p in parameters if p.grad is not None]
    if not there or any(bool(gradient.isnan().any()) for gradient in there):
        return math.nan
    return exact_norm(there) / scale


def _dense(gradient: Tensor) -> Tensor:
    dense = gradient.detach().to_dense() if gradient.layout != torch.strided else gradient.detach()
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense


def _holds_nonfinite(parameter: Tensor) -> bool:
    return parameter.grad is not None and not bool(_dense(parameter.grad).isfinite().all())
