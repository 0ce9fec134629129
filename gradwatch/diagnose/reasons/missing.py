"""A parameter that the backward pass never reached: not called, called without grad mode, or cut off."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from gradwatch.causes import cause
from gradwatch.diagnose.graph.walk import Graph, Node, spreading
from gradwatch.diagnose.look.calls import Call, Calls
from gradwatch.diagnose.look.place import OWN_PARAMETERS
from gradwatch.records import Cause

__all__ = ["Owners", "a_copy_was_reached", "why_missing"]

_COMPILED = "it is inside what torch.compile made, whose calls are not seen: run this step once without it"

_MAYBE_COMPILED = (
    "no call of it was seen, but those inside what torch.compile made never are, and it has been at work in this "
    "process: run this step once without it"
)

_CHECKPOINTED = "a re-entrant checkpoint runs it without a graph, since no input of it asks for a gradient"
_NOT_REENTRANT = "Pass use_reentrant=False to the checkpoint, or let an input of it ask for a gradient."

_A_COPY = "Call the model that the optimizer holds: another one of the same shapes was called, such as a copy."

# Modules whose parameters their parent uses without calling them.
_CONTAINERS = (nn.ParameterList, nn.ParameterDict, nn.ModuleList, nn.ModuleDict)


class Owners:
    """Which modules hold a parameter, and which modules hold those.

    Args:
        located: every module with its path; one module may have several, and a wrapper has that of what it wraps,
            before it.
    """

    def __init__(self, located: Sequence[tuple[str, nn.Module]]) -> None:
        self._paths = dict(located)
        self._owners: dict[int, list[nn.Module]] = {}
        self._parents: dict[int, list[nn.Module]] = {}
        for module in {id(module): module for _, module in located}.values():
            for parameter in module.parameters(recurse=False):
                self._owners.setdefault(id(parameter), []).append(module)
            for child in module.children():
                self._parents.setdefault(id(child), []).append(module)

    def of(self, parameter: Tensor) -> list[nn.Module]:
        """The modules whose call uses a parameter: those that hold it, and the parents of mere containers."""
        found: list[nn.Module] = []
        for module in self._owners.get(id(parameter), []):
            found.extend(self._users(module))
        return found

    def successor(self, name: str) -> Tensor | None:
        """The parameter that has a name now; None where there is none."""
        path, _, own = name.rpartition(".")
        module = self._paths.get(path or OWN_PARAMETERS)
        return None if module is None else module._parameters.get(own)

    def enclosing(self, module: nn.Module) -> Iterator[nn.Module]:
        """A module and all that it is inside of, inner ones first."""
        return spreading([module], lambda at: self._parents.get(id(at), ()))

    def _users(self, module: nn.Module) -> Iterator[nn.Module]:
        yield module
        for parent in self._parents.get(id(module), ()):
            # Attention hands the weight of its last layer to one function, without calling the layer.
            if isinstance(module, _CONTAINERS) or isinstance(parent, nn.MultiheadAttention):
                yield from self._users(parent)


def a_copy_was_reached(where: str, passes: int, root: Node, parameters: Mapping[str, Tensor]) -> Cause | None:
    """Backward passes reached others of the same shapes in place of some parameters; None where they did not.

    Args:
        where: what the parameters are of.
        passes: how many ran since the last step.
        root: where the last one began.
        parameters: by name.
    """
    leaves = Graph([root]).leaves
    if any(id(parameter) in leaves for parameter in parameters.values()):
        return None
    reached = Counter(tuple(leaf.variable.shape) for leaf in leaves.values())
    if not Counter(tuple(parameter.shape) for parameter in parameters.values()) <= reached:
        return None
    evidence = {"backward_passes": 0, "passes_that_reached_none_of_it": passes}
    return cause(
        "no-backward", where, _A_COPY, **evidence, reason="they reached others of the same shapes: a copy"
    )


def why_missing(name: str, parameter: Tensor, owners: Owners, calls: Calls) -> Cause:
    """Why no backward pass reached a parameter."""
    if not parameter.requires_grad:
        return cause("frozen", name, requires_grad=0)
    users = owners.of(parameter)
    if not users and owners.successor(name) is not None:
        # Built anew after the optimizer: what it holds is the old one.
        where = name.rpartition(".")[0] or name
        return cause("not-in-optimizer", where, first=name, reason="the module holds another one by that name now")
    if not users:
        return cause("unknown", name, reason="no module that was given holds it", ruled_out="frozen")
    noted = [call for user in users for call in calls.of(user)]
    holds = calls.depending_on(parameter)
    if holds:
        # The last module whose output still depends on it: it is cut off after that.
        last = holds[-1]
        return cause("detached", last.path, calls=len(noted), in_output_of=last.path, in_graph_of_loss=0)
    if not any(calls.sees(user) for user in users):
        return cause("unknown", name, reason=_COMPILED, ruled_out="frozen")
    return _from_calls(name, users[0], noted, owners, calls)


def _from_calls(name: str, user: nn.Module, noted: list[Call], owners: Owners, calls: Calls) -> Cause:
    if not noted:
        around = sum(len(calls.of(module)) for module in owners.enclosing(user))
        if not around and _compiler_at_work():
            return cause("unknown", name, reason=_MAYBE_COMPILED, ruled_out="frozen")
        return cause("unused", name, calls=0, calls_of_enclosing_modules=around)
    with_graph = [call for call in noted if call.grad_mode]
    if not with_graph:
        # The outermost module called so: what is to be moved out of no_grad() is its call, not that of a part.
        last_calls = (call for module in owners.enclosing(user) for call in calls.of(module)[-1:])
        outermost = [noted[-1], *(call for call in last_calls if not call.grad_mode)][-1]
        numbers = {"calls": len(noted), "calls_in_grad_mode": 0}
        if noted[-1].checkpointed:
            return cause("no-grad", outermost.path, _NOT_REENTRANT, **numbers, reason=_CHECKPOINTED)
        return cause("no-grad", outermost.path, **numbers)
    depends = any(call.made for call in with_graph)
    evidence = {"calls": len(noted), "calls_in_grad_mode": len(with_graph), "in_graph_of_loss": 0}
    if depends and not type(user).__module__.startswith("torch.nn."):
        return cause("unused", name, **evidence, reason="the output of its module does not depend on it")
    return cause("detached", with_graph[-1].path, **evidence, output_requires_grad=int(depends))


def _compiler_at_work() -> bool:
    """Whether torch.compile has compiled anything in this process: what it runs calls no hook of ours.

    Only the wrapper that it made tells that a module is compiled, and that may not be among the modules given.
    """
    compiler = sys.modules.get("torch._dynamo.utils")
    return compiler is not None and bool(compiler.counters["stats"])
