"""Which modules were called, how, and which operations each call made.

torch numbers the operations of a thread's graph in the order in which they are made. The number before a call
and the one after it tell which operations belong to it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradwatch.diagnose.graph.walk import Graph, Node, lasting, made_as
from gradwatch.diagnose.look.budget import Budget
from gradwatch.diagnose.look.dispatch import module_calls
from gradwatch.diagnose.look.numbers import Extent, extent, tensors_in

__all__ = ["Call", "Calls", "readable"]

_next_number: Callable[[], int] = torch._C._autograd._get_sequence_nr


@dataclass
class Call:
    """One call of a module.

    Attributes:
        path: name of the module.
        module: the module.
        thread: identity of the thread that called it.
        grad_mode: whether operations were recorded for a backward pass.
        checkpointed: whether that was kept from it by a re-entrant checkpoint.
        inputs: ranges of its floating-point inputs.
        first: number of the first operation made in it.
        end: number of the first operation made after it.
        made: of those of its outputs that need a gradient, where they come from in the graph, which is kept alive
            by that. Empty once more recent calls of the same module have been noted.
    """

    path: str
    module: nn.Module
    thread: int
    grad_mode: bool
    inputs: tuple[Extent, ...]
    first: int
    end: int = -1
    made: tuple[Node, ...] = field(default=(), repr=False)
    checkpointed: bool = False

    @property
    def was_given_finite(self) -> bool:
        """Whether nothing that is not finite came into it, nor was in the module itself."""
        own = (*self.module.parameters(recurse=False), *self.module.buffers(recurse=False))
        return bool(self.inputs) and all(each.finite for each in (*self.inputs, *map(extent, tensors_in(own))))

    @property
    def evidence(self) -> dict[str, float | int | str]:
        """Where an operation inside got something that is not finite all the same."""
        low, high = min(each.low for each in self.inputs), max(each.high for each in self.inputs)
        reason = "what came into the module was finite: a cast to a narrower type is not"
        return {"direction": "forward", "input_min": low, "input_max": high, "reason": reason}

    def forget(self) -> None:
        """Let go of the operations, and with them of what they saved."""
        self.made = ()


class _Known(NamedTuple):
    """A module whose calls are noted, its path, and what it is known by."""

    path: str
    module: nn.Module
    mark: object


class Calls:
    """Notes the calls of modules while it is attached.

    Args:
        located: modules with their paths; of several paths to one module the first counts.
        failed: told of an error; what runs in a module's call never raises.
        budget: of calls; nothing is noted beyond it.

    Attributes:
        all: the calls so far, in the order in which they were left.
    """

    # A module that is called over and over in one step, as in a loop over time, is told by its last calls.
    MOST_MADE = 4

    def __init__(
        self,
        located: Sequence[tuple[str, nn.Module]],
        failed: Callable[[Exception], object],
        budget: Budget | None = None,
    ) -> None:
        self._known: dict[int, _Known] = {}
        for path, module in located:
            self._known.setdefault(id(_mark(module)), _Known(path, module, _mark(module)))
        self._failed = failed
        self._budget = Budget() if budget is None else budget
        # By module, how many of its calls in which no graph was recorded are noted.
        self._bare: Counter[int] = Counter()
        self._open = threading.local()
        self.all: list[Call] = []
        self._of: dict[int, list[Call]] = {}
        # Of all that they made, once it is asked for.
        self._graph: Graph | None = None
        self._hidden = _hidden(module for _, module in located)

    def attach(self) -> None:
        """See the calls of every module from now on."""
        module_calls.listen(self)

    def detach(self) -> None:
        """See no more; the notes stay."""
        module_calls.stop_listening(self)

    def forget(self) -> None:
        """Let go of the operations that were noted."""
        self._graph = None
        for call in self.all:
            call.forget()

    def depending_on(self, parameter: Tensor) -> list[Call]:
        """The calls whose output depends on a parameter, in the order in which they were left.

        To be asked when all calls are made.
        """
        if self._graph is None:
            self._graph = Graph(node for call in self.all for node in call.made)
        leaf = self._graph.leaves.get(id(parameter))
        depending = set() if leaf is None else set(self._graph.above(leaf))
        return [call for call in self.all if not depending.isdisjoint(call.made)]

    def of(self, module: nn.Module) -> list[Call]:
        """The calls of one module, oldest first."""
        return self._of.get(id(module), [])

    def sees(self, module: nn.Module) -> bool:
        """Whether a module's calls would be noted."""
        return id(module) not in self._hidden

    def around(self, node: Node, thread: int) -> list[Call]:
        """The calls that an operation was made in, innermost first."""
        number = made_as(node)
        holding = [call for call in self.all if call.thread == thread and call.first <= number < call.end]
        return sorted(holding, key=lambda call: call.end - call.first)

    def entered(self, module: nn.Module, given: object) -> None:
        """A module is called."""
        known = self._known.get(id(_mark(module)))
        if known is None or id(known.module) in self._hidden:
            return
        if self._is_bare(known.module):
            self._stack().append(known.module)
        elif self._budget.allows("calls"):
            self._guarded(self._enter, known, given)
        else:
            self.detach()

    def left(self, module: nn.Module, output: Any) -> None:
        """Its call is over."""
        known = self._known.get(id(_mark(module)))
        if known is not None:
            self._guarded(self._leave, known, output)

    def _is_bare(self, module: nn.Module) -> bool:
        """Whether this is one more call of many without a graph, as in an evaluation or where an agent acts."""
        if torch.is_grad_enabled():
            return False
        self._bare[id(module)] += 1
        return self._bare[id(module)] > self.MOST_MADE

    def _guarded(self, function: Callable[..., None], *args: Any) -> None:
        try:
            if readable():
                function(*args)
        except Exception as error:
            self._failed(error)

    def _enter(self, known: _Known, given: object) -> None:
        with torch.no_grad():
            inputs = tuple(map(extent, tensors_in(given)))
        grad_mode, thread = torch.is_grad_enabled(), threading.get_ident()
        call = Call(known.path, known.module, thread, grad_mode, inputs, _next_number())
        call.checkpointed = not call.grad_mode and _in_reentrant_checkpoint()
        self._stack().append(call)

    def _leave(self, known: _Known, output: Any) -> None:
        stack = self._stack()
        # A call that ended in an exception never left: whatever lies above ours is such a one.
        while stack:
            call = stack.pop()
            if call is known.module:
                return
            if isinstance(call, Call) and call.module is known.module:
                break
        else:
            return
        call.end = _next_number()
        self.all.append(call)
        call.made = tuple(lasting(one) for one in tensors_in(output) if one.grad_fn is not None)
        earlier = self._of.setdefault(id(call.module), [])
        earlier.append(call)
        if len(earlier) > self.MOST_MADE:
            earlier[-self.MOST_MADE - 1].forget()

    def _stack(self) -> list[Call | nn.Module]:
        """The calls that this thread is in; of one that is not noted the module."""
        if not hasattr(self._open, "calls"):
            self._open.calls = []
        calls: list[Call | nn.Module] = self._open.calls
        return calls


def _mark(module: nn.Module) -> object:
    """What a module shares with nothing but the replicas that DataParallel makes of it for each call."""
    return module.__dict__.get("_forward_hooks", module)


def _hidden(modules: Iterable[nn.Module]) -> set[int]:
    """``id`` of the modules whose calls are not seen, since they are inside of what is compiled.

    What was compiled as a whole is itself called in Python. It is known by name: importing torch's compiler for
    the type takes seconds.
    """
    found: set[int] = set()
    for module in modules:
        in_place = getattr(module, "_compiled_call_impl", None) is not None
        if in_place or isinstance(module, torch.jit.ScriptModule) or type(module).__name__ == "OptimizedModule":
            found.update(id(inner) for inner in module.modules() if inner is not module)
    return found


def _in_reentrant_checkpoint() -> bool:
    """Whether torch's re-entrant checkpoint is what called: it runs its function without recording it."""
    module = sys.modules.get("torch.utils.checkpoint")
    if module is None:
        return False
    code = module.CheckpointFunction.forward.__code__
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def readable() -> bool:
    """Whether values may be read here: not while torch traces, transforms or captures what runs."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
        return False
    return not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())  # type: ignore[no-untyped-call]
