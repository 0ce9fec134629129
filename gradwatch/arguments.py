"""What ``track`` was given, checked: every refusal is one sentence."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradwatch.errors import ArgumentError
from gradwatch.guarding import Guard
from gradwatch.judge.rule import severities
from gradwatch.records import Severity

__all__ = ["check_optimized", "checked_guard", "checked_modules", "checked_options", "listed", "named_optimizers"]

LONE_OPTIMIZER = "optimizer"
_RULE_NAMES = ("id", "severity", "fires_after", "clears_after", "look")


def named_optimizers(given: object) -> dict[str, Optimizer]:
    """The optimizers by name; wrappers that hold the real one in ``.optimizer`` are opened.

    Raises:
        ArgumentError: there is none, one is no optimizer, or one is given twice.
    """
    entries = _entries(given, "optimizers") if isinstance(given, Mapping) else {LONE_OPTIMIZER: given}
    if not entries:
        raise ArgumentError("track got no optimizer, but needs at least one: pass the optimizer of your loop.")
    optimizers = {name: _optimizer(name, entry) for name, entry in entries.items()}
    names: dict[int, str] = {}
    for name, optimizer in optimizers.items():
        first = names.setdefault(id(optimizer), name)
        if first != name:
            raise ArgumentError(f"The same optimizer is given as {first!r} and as {name!r}: name it once.")
    return optimizers


def _optimizer(name: str, given: Any) -> Optimizer:
    # Accelerate wraps the optimizer, and others may wrap that; torch's hooks belong on the real one.
    inner, seen = given, set[int]()
    while isinstance(getattr(inner, "optimizer", None), Optimizer) and id(inner) not in seen:
        seen.add(id(inner))
        inner = inner.optimizer
    if not isinstance(inner, Optimizer) or not hasattr(inner, "_optimizer_step_pre_hooks"):
        raise ArgumentError(
            f"The optimizer {name!r} is of type {type(given).__name__}, but a torch.optim.Optimizer was expected: "
            f"{_MODEL_FIRST if isinstance(inner, nn.Module) else 'pass the object whose step() your loop calls'}."
        )
    return inner


_MODEL_FIRST = "the optimizer comes first, then the model, as in track(optimizer, model)"


def checked_modules(given: object) -> nn.Module | dict[str, nn.Module] | None:
    """The modules to report on.

    Raises:
        ArgumentError: one is no module.
    """
    if given is None or isinstance(given, nn.Module):
        return given
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"The modules are of type {type(given).__name__}, but a torch.nn.Module or a mapping from names to "
            'modules was expected: pass model or {"name": module}.'
        )
    modules: dict[str, nn.Module] = {}
    for name, module in _entries(given, "modules").items():
        if not isinstance(module, nn.Module):
            raise ArgumentError(
                f"The module {name!r} is of type {type(module).__name__}, but a torch.nn.Module was expected."
            )
        modules[name] = module
    return modules


def check_optimized(
    modules: nn.Module | Mapping[str, nn.Module] | None, optimizers: Mapping[str, Optimizer]
) -> None:
    """Check that of each module something is optimized.

    Raises:
        ArgumentError: of one nothing is.
    """
    held = [[p for group in o.param_groups for p in group["params"]] for o in optimizers.values()]
    known = {id(parameter) for parameters in held for parameter in parameters}
    named = {"": modules} if isinstance(modules, nn.Module) else modules or {}
    for name, module in named.items():
        own = list(module.parameters())
        if known.isdisjoint(map(id, own)):
            what = f"the module {name!r}" if name else "the module"
            may_be_copy = own and any(_shapes(own) <= _shapes(parameters) for parameters in held)
            todo = _COPY if may_be_copy else _ELSEWHERE
            raise ArgumentError(
                f"No tracked optimizer holds a parameter of {what}: {todo}, or leave the module out."
            )


_ELSEWHERE = (
    "see that its optimizer was built from its parameters and is given to track as well, give the whole model "
    "where add_param_group brings them later"
)
_COPY = (
    "it may be a copy of what is trained, or made anew after its optimizer, which holds others of the same "
    "shapes; give what is trained, its own optimizer to track as well"
)


def _shapes(parameters: Iterable[Tensor]) -> Counter[torch.Size]:
    return Counter(parameter.shape for parameter in parameters)


def _entries(given: Mapping[Any, Any], what: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, entry in given.items():
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"A name among the {what} is {name!r}, but a non-empty string was expected.")
        if name in entries:
            raise ArgumentError(f"The name {name!r} is used twice among the {what}: give each a name of its own.")
        entries[name] = entry
    return entries


T = TypeVar("T")


def listed(given: Iterable[T], what: str) -> tuple[T, ...]:
    """Several things as a tuple.

    Raises:
        ArgumentError: it is one thing, or a string.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ArgumentError(f"The {what} are {given!r}, but several were expected: put it in a list.")
    return tuple(given)


def checked_options(
    *,
    every: object,
    rules: Iterable[Any] | None,
    sinks: Iterable[Any],
    on_alert: Callable[..., object] | None,
    guard: object,
    history: object,
    depth: object,
    run: object,
) -> tuple[tuple[Any, ...] | None, tuple[Any, ...], Guard | None]:
    """What ``track`` was given besides optimizers and modules: the rules, the sinks and the guard.

    Raises:
        ArgumentError: something cannot be meant as it stands.
    """
    sinks = listed(sinks, "sinks")
    rules = None if rules is None else listed(rules, "rules")
    for name, value, least in (("every", every, 1), ("history", history, 0)):
        if not _is_whole(value, least):
            raise ArgumentError(f"{name} is {value!r}, but a whole number of at least {least} was expected.")
    _check_report(depth, run)
    for sink in sinks:
        methods = callable(getattr(sink, "write", None)) and callable(getattr(sink, "close", None))
        if not methods or isinstance(sink, type):
            raise ArgumentError(
                f"The sink {sink!r} has no write(records, alerts) and close(): pass an instance of a sink, such "
                "as gradwatch.sinks.Console()."
            )
    _check_rules(rules or ())
    if on_alert is not None and not callable(on_alert):
        raise ArgumentError(f"on_alert is {on_alert!r}, but a function that takes an Alert was expected.")
    return rules, sinks, checked_guard(guard, every)


def _check_rules(rules: Iterable[Any]) -> None:
    ids = set[str]()
    for rule in rules:
        if isinstance(rule, type) or not all(hasattr(rule, name) for name in _RULE_NAMES):
            raise ArgumentError(
                f"The rule {rule!r} has not all of {', '.join(_RULE_NAMES)}: pass an instance of a rule, such as "
                "gradwatch.rules.Zero()."
            )
        _check_rule(rule)
        if rule.id in ids:
            raise ArgumentError(f"Two rules have the id {rule.id!r}: give one of them another, or leave it out.")
        ids.add(rule.id)


def _check_rule(rule: Any) -> None:
    if not _is_name(rule.id):
        raise ArgumentError(f"A rule's id is {rule.id!r}, but a name without control characters was expected.")
    for severity in (rule.severity, *listed(severities(rule), f"severities of the rule {rule.id!r}")):
        if severity not in get_args(Severity):
            raise ArgumentError(
                f'A severity of the rule {rule.id!r} is {severity!r}, but "warning" or "critical" was expected.'
            )
    for name in ("fires_after", "clears_after"):
        if not _is_whole(getattr(rule, name), 1):
            raise ArgumentError(
                f"The {name} of the rule {rule.id!r} is {getattr(rule, name)!r}, but a whole number of at least 1 "
                "was expected."
            )


def _check_report(depth: object, run: object) -> None:
    if depth is not None and not _is_whole(depth, 1):
        raise ArgumentError(f"depth is {depth!r}, but a whole number of at least 1, or None, was expected.")
    # A control character would tear the lines of a log apart.
    if run is not None and not _is_name(run):
        raise ArgumentError(f"run is {run!r}, but a name without control characters, or None, was expected.")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not any(map(_is_control, value))


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def checked_guard(guard: Any, every: object) -> Guard | None:
    """The guard; ``"raise"`` and ``"skip"`` stand for one that looks for NaN and Inf alone.

    Raises:
        ArgumentError: it is none, or not each step is looked at.
    """
    if guard is None:
        return None
    if not isinstance(guard, Guard) and guard not in ("raise", "skip"):
        raise ArgumentError(f'guard is {guard!r}, but "raise", "skip", a gradwatch.Guard or None was expected.')
    if every != 1:
        raise ArgumentError(
            f"guard is {guard!r} and every is {every}, but a guard looks at each step: leave every at 1."
        )
    return guard if isinstance(guard, Guard) else Guard(guard)
