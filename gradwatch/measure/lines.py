"""The lines of the report: which modules are told of, what every parameter is called, and who owns it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from gradwatch.paths import ROOT
from gradwatch.wrappers import children, joined, layers, named_parameters, own_parameters, unwrapped, walk

__all__ = ["Lines"]

# By name, each parameter once by its ``id``.
_Held = dict[str, dict[int, Tensor]]

# What a module has for its forward that cannot be called, or that does nothing but call its parts.
_FORWARD_OF_CONTAINERS = (nn.Module.forward, nn.Sequential.forward)


class _Line(NamedTuple):
    """A module that is told of.

    Attributes:
        path: its path, ``""`` for a lone module.
        module: the module.
        own: its own parameters alone are meant: its children are lines themselves.
        lone: it holds all that the module above it holds.
    """

    path: str
    module: nn.Module
    own: bool = False
    lone: bool = False

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """What is told of in this line, by path, each module once."""
        if self.own:
            return ((self.path, layer) for layer in layers(self.module))
        return walk(self.module, self.path, set())

    def opened(self) -> list[_Line]:
        """The line of its own parameters and those of its parts; itself where no part holds parameters."""
        if self.own:
            return [self]
        held = _count(self.module)
        parts: dict[int, tuple[str, nn.Module]] = {}
        for name, child in children(self.module):
            parts.setdefault(id(child), (name, child))  # as in torch, what has two names goes by the first
        inner = [
            _Line(joined(self.path, name), child, lone=count == held)
            for name, child in parts.values()
            if (count := _count(child))
        ]
        if not inner:
            return [self]
        # In the order in which torch names parameters: the first name of one that is shared is then the same.
        owns = any(own_parameters(layer) for layer in layers(self.module))
        return [_Line(self.path, self.module, own=True), *inner] if owns else inner

    def only_holds_others(self) -> bool:
        """Whether nothing is to be said of it that is not said of its parts."""
        # What torch.jit has scripted has no forward before it is asked for one of its own.
        return self.lone or getattr(type(unwrapped(self.module)), "forward", None) in _FORWARD_OF_CONTAINERS


class Lines:
    """The report's lines, read from the modules; wrappers are seen through.

    A lone module's lines are its children, and what holds nothing but others is opened as long as there are at
    most ``MOST`` lines, level by level. Of a mapping each entry is a line.

    Args:
        modules: what ``track`` was given; None where there are parameters alone.
        depth: levels to open instead, whatever is in them: of a lone module 1 gives its children, of a mapping 1
            gives the entries and 2 their children. What has no children left stays as it is.

    Attributes:
        names: ``id`` of a parameter -> its name. Where modules share one, the first name wins.
        lines: name of a line -> parameters. What a module owns itself beside children that are lines goes by the
            module's own name, or ``"(root)"``.
        owners: path of a module that owns parameters itself -> these. It begins with the name of a line.
    """

    MOST = 40

    names: dict[int, str]
    lines: dict[str, list[Tensor]]
    owners: dict[str, list[Tensor]]

    def __init__(self, modules: nn.Module | Mapping[str, nn.Module] | None, depth: int | None = None) -> None:
        self._lone = isinstance(modules, nn.Module)
        self.modules = {"": modules} if isinstance(modules, nn.Module) else dict(modules or {})
        self._depth = depth
        self.renew()

    def renew(self) -> None:
        """Read the modules anew: a part of them may have been replaced."""
        self.names = {}
        lines: _Held = {}
        owners: _Held = {}
        for line in self._chosen():
            for path, module in line.modules():
                for name, parameter in own_parameters(module):
                    self.names.setdefault(id(parameter), joined(path, name))
                    lines.setdefault(line.path or ROOT, {})[id(parameter)] = parameter
                    owners.setdefault(path or ROOT, {})[id(parameter)] = parameter
        self.lines = {name: list(held.values()) for name, held in lines.items()}
        self.owners = {path: list(held.values()) for path, held in owners.items()}

    def module_of(self, path: str) -> nn.Module | None:
        """The module that has a path, or a line's name, now; None where there is none."""
        if self._lone and path == ROOT:
            return unwrapped(self.modules[""])
        for entry, module in self.modules.items():
            if path == entry or self._lone or path.startswith(f"{entry}."):
                found = _inside(module, path[len(entry) :].removeprefix("."))
                if found is not None:
                    return found
        return None

    def plain_tensors(self) -> dict[int, str]:
        """By ``id``, the tensors that ask for a gradient and that a module keeps without registering them."""
        return {
            id(kept): joined(path, name)
            for entry, top in self.modules.items()
            for path, module in walk(top, entry, set())
            for name, kept in vars(module).items()
            if isinstance(kept, Tensor) and kept.requires_grad and kept.is_leaf
        }

    def _chosen(self) -> list[_Line]:
        lines = [_Line(entry, module) for entry, module in self.modules.items()]
        if self._depth is not None:
            return _to_depth(lines, self._depth if self._lone else self._depth - 1)
        return _containers_opened(lines[0].opened(), self.MOST) if self._lone else lines


def _to_depth(lines: list[_Line], levels: int) -> list[_Line]:
    for _ in range(levels):
        opened = [line.opened() for line in lines]
        if all(inner[0] is line for inner, line in zip(opened, lines, strict=True)):
            break
        lines = [line for inner in opened for line in inner]
    return lines


def _containers_opened(lines: list[_Line], most: int) -> list[_Line]:
    """Level by level, each container as a whole or not at all."""
    waiting = deque(lines)
    while waiting:
        line = waiting.popleft()
        inner = line.opened() if line.only_holds_others() else [line]
        if inner[0] is not line and len(lines) - 1 + len(inner) <= most:
            at = next(at for at, other in enumerate(lines) if other is line)
            lines[at : at + 1] = inner
            waiting.extend(inner)
    return lines


def _count(module: nn.Module) -> int:
    """How many parameters a module holds, each once."""
    return sum(1 for _ in named_parameters(module))


def _inside(module: nn.Module, path: str) -> nn.Module | None:
    found: nn.Module | None = module
    for name in path.split(".") if path else ():
        found = None if found is None else dict(children(found)).get(name)
    return None if found is None else unwrapped(found)
