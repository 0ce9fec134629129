"""Loops that stand still: the same data and weights at each step, so that each iteration shows the same.

Their verdict is asked of ``watch.diagnose()`` in the first iteration, for a parameter or a module at any depth; the
rules see the same fault at each step, and must tell of each line of the report that is ill, and of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tests.zoo.registry import Verdict, fault, healthy
from tests.zoo.run import Run

__all__ = ["Loop", "Modules", "still", "still_healthy"]

Modules = nn.Module | dict[str, nn.Module]

STEPS = 8


class Loop(NamedTuple):
    """One iteration of a training loop.

    Attributes:
        modules: what is trained.
        step: runs forward and backward.
        present: proof that the fault is what it is said to be.
    """

    modules: Modules
    step: Callable[[], object]
    present: Callable[[], bool] = lambda: True


def still(
    kind: str, at: str, where: str | None = None, also: tuple[str, ...] = (), **evidence: object
) -> Callable[[Callable[[], Loop]], Callable[[], Loop]]:
    """Note a fault whose cause must be told of a module or a parameter.

    Args:
        kind: of the cause.
        at: path of the module, or name of the parameter, that is ill.
        where: where the cause must be said to be; None where that is not what the fault is about.
        also: further rules whose alert is no mistake here.
        evidence: what must be in the evidence.
    """
    rule = "nonfinite" if kind.startswith("nonfinite") else "zero"
    asked = Verdict(rule, kind, module=at, where=(where,) if where else (), exact=evidence, asked=True)

    def note(build: Callable[[], Loop]) -> Callable[[], Loop]:
        def loop(run: Run) -> None:
            torch.manual_seed(7)
            _stand_still(run, build(), rule, at)

        loop.__name__ = f"{kind}_{build.__name__}"
        fault(asked, also=also)(loop)
        return build

    return note


def still_healthy(build: Callable[[], Loop]) -> Callable[[], Loop]:
    """Note a loop that has nothing wrong with it and that moves: each iteration is looked at, and has no cause."""

    def loop(run: Run) -> None:
        torch.manual_seed(11)
        made = build()
        optimizer = torch.optim.SGD(_parameters(made.modules), lr=1e-3)
        with run.track(optimizer, made.modules):
            for number in run.steps(4):
                optimizer.zero_grad()
                _iterate(run, made, looked_at=number % 2 == 1)
                run.trait("what makes it hard to tell", made.present())
                optimizer.step()

    loop.__name__ = f"iterations_of_{build.__name__}"
    healthy()(loop)
    return build


def _stand_still(run: Run, made: Loop, rule: str, at: str) -> None:
    optimizer = torch.optim.SGD(_parameters(made.modules), lr=0.0)
    with run.track(optimizer, made.modules):
        for number in run.steps(STEPS):
            optimizer.zero_grad()
            _iterate(run, made, looked_at=number == 1)
            ill = {path for path, parameters in _by_path(made.modules) if _ill(rule, parameters)}
            run.fault(at in ill and (number > 1 or made.present()))
            run.ill = {rule: ill}
            optimizer.step()


def _iterate(run: Run, made: Loop, looked_at: bool) -> None:
    if not looked_at:
        made.step()
        return
    with run.diagnose():
        made.step()


def _parameters(modules: Modules) -> list[Tensor]:
    return list({id(p): p for _, parameters in _by_path(modules) for p in parameters}.values())


def _by_path(modules: Modules) -> Iterator[tuple[str, list[Tensor]]]:
    """Paths of modules and names of parameters, by torch's own names rather than by gradwatch's."""
    holder = modules if isinstance(modules, nn.Module) else nn.ModuleDict(modules)
    yield "(root)", list(holder.parameters(recurse=False))
    for path, module in holder.named_modules(remove_duplicate=False):
        yield path, list(module.parameters())
    for name, parameter in holder.named_parameters(remove_duplicate=False):
        yield name, [parameter]


def _ill(rule: str, parameters: list[Tensor]) -> bool:
    """By torch alone: the gradients are missing and zero throughout, or one of them is not finite."""
    gradients = [p.grad for p in parameters]
    if rule == "nonfinite":
        return any(g is not None and not bool(torch.isfinite(g).all()) for g in gradients)
    return bool(gradients) and all(g is None or not bool(g.any()) for g in gradients)
