"""Armed for one forward and one backward pass, it says why gradients are zero, missing or not finite."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import get_ident
from types import TracebackType

import torch
from torch import Tensor, nn

from gradwatch.causes import cause
from gradwatch.diagnose.contributions import Contribution, Contributions, faint, together
from gradwatch.diagnose.graph.walk import Node
from gradwatch.diagnose.look.budget import Budget
from gradwatch.diagnose.look.calls import Calls, readable
from gradwatch.diagnose.look.engine import runs
from gradwatch.diagnose.look.numbers import largest
from gradwatch.diagnose.look.place import OWN_PARAMETERS
from gradwatch.diagnose.passes import Pass
from gradwatch.diagnose.reasons.feeding import downstream
from gradwatch.diagnose.reasons.missing import Owners, why_missing
from gradwatch.diagnose.words import told
from gradwatch.log import log
from gradwatch.records import Cause
from gradwatch.wrappers import named_parameters, walk

__all__ = ["Diagnosis"]

LONE_MODULE = ""

_graph_task: Callable[[], int] = torch._C._current_graph_task_id
NO_PASS = -1


class Diagnosis:
    """Looks at what runs between ``start`` and ``finish``: forward passes, and the backward passes after them.

    It may be armed and disarmed from hooks, in a loop that knows nothing of it, or be used as a context manager
    around one iteration. It reads the device while it is armed; training is left as it is, bit for bit. It takes
    so much only, see ``Budget``, and sees nothing of a forked child.

    Args:
        modules: what is watched, by name; a lone module is told by the paths inside it. Wrappers are seen through.
        parameters: by name, what causes are wanted for; None for all parameters of the modules.
        lines: by name, the parameters of what ``downstream`` tells apart.
        suspects: names of parameters whose gradient is asked how it became as small as it is, whatever its size.

    Attributes:
        causes: by path of a module and by name of a parameter, for those whose gradient was zero, missing or not
            finite in what was seen; empty until it is finished.
        faint: by name of a parameter, for those whose gradient was there, and all but nothing: why.
        downstream: name of a line -> names of those that it feeds.
        passes: backward passes seen.
        errors: what went wrong inside; nothing is ever raised into what runs.
    """

    def __init__(
        self,
        modules: nn.Module | Mapping[str, nn.Module],
        parameters: Mapping[str, Tensor] | None = None,
        lines: Mapping[str, Iterable[Tensor]] | None = None,
        suspects: Iterable[str] = (),
    ) -> None:
        given = {LONE_MODULE: modules} if isinstance(modules, nn.Module) else dict(modules)
        located = [(path or OWN_PARAMETERS, at) for name, top in given.items() for path, at in walk(top, name)]
        # Of a wrapper and what it wraps, which have one path, this is what is wrapped.
        self._paths = dict(located)
        named = {path: own for name, top in given.items() for path, own in named_parameters(top, name)}
        self._parameters = dict(named if parameters is None else parameters)
        self.suspects = frozenset(suspects)
        self._names = {id(parameter): name for name, parameter in named.items()}
        self._lines = {name: frozenset(map(id, held)) for name, held in (lines or {}).items()}
        self._owners = Owners(located)
        self._budget = Budget()
        self._calls = Calls(located, self._failed, self._budget)
        # Passes that run, and which operation of which other pass each runs in.
        self._open: dict[Pass, tuple[Pass | None, Node | None]] = {}
        self._found: dict[int, list[Contribution]] = {}
        # Gradients as they were when it was armed, to tell whether something wrote to one unseen.
        self._before: dict[str, tuple[int, int] | None] = {}
        self._blind = False
        self._armed = False
        # In it the passes run that are looked at; those within a pass may run in a thread of torch's.
        self._thread = get_ident()
        self._lock = threading.RLock()
        self.causes: Mapping[str, Cause] = {}
        self.faint: Mapping[str, Cause] = {}
        self.downstream: dict[str, set[str]] = {}
        self.passes = 0
        self.errors: list[Exception] = []

    def __enter__(self) -> Diagnosis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def __str__(self) -> str:
        """What it has found, a line for each cause; see ``causes`` for all of it."""
        return told(self.passes, self.causes, self.faint)

    # What a notebook shows of it.
    __repr__ = __str__

    def start(self) -> None:
        """Arm it: what runs from now on is looked at."""
        self._guarded(self._start)

    def finish(self) -> None:
        """Disarm it and draw the conclusions; allowed at the end of a backward pass, from within it, and twice."""
        if self._armed:
            self._guarded(self._disarm)
            self._guarded(self._conclude)
            self._calls.forget()
        self._armed = False

    def of_run(self, roots: Sequence[object], gradients: Sequence[object]) -> Callable[[], None]:
        """Arm it for one run of the autograd engine that starts now; what is returned ends that, and concludes.

        Nothing is known of the forward pass then but what its operations saved.
        """
        self._armed = True
        self._thread = get_ident()
        ended = self.began(roots, gradients)
        runs.listen(self)  # to those inside of it, as a re-entrant checkpoint makes them

        def end() -> None:
            ended()
            self.finish()

        return end

    def began(
        self, roots: Sequence[object], gradients: Sequence[object], accumulates: bool = True
    ) -> Callable[[], None]:
        """A run of the autograd engine starts; what is returned is to be called when it is over."""
        if get_ident() != self._thread and _graph_task() == NO_PASS:
            return lambda: None  # of another thread's loop
        if not self._budget.allows("passes"):
            runs.stop_listening(self)
            self._calls.detach()
            return lambda: None
        try:
            looked_at = self._begin(roots, gradients) if readable() else None
        except Exception as error:
            self._blind = True
            self._failed(error)
            looked_at = None
        return (lambda: None) if looked_at is None else lambda: self._guarded(self._end, looked_at)

    def _start(self) -> None:
        self._armed = True
        self._thread = get_ident()
        self._before = {name: _state_of(parameter) for name, parameter in self._parameters.items()}
        self._budget.begin()
        self._calls.attach()
        runs.listen(self)

    def _disarm(self) -> None:
        runs.stop_listening(self)
        self._calls.detach()
        # Called from within a backward pass, at its end: what it has shown is all that it will.
        for looked_at in reversed(tuple(self._open)):
            self._end(looked_at)

    def _begin(self, roots: Sequence[object], gradients: Sequence[object]) -> Pass:
        looked_at = Pass(roots, gradients, self._calls, self._failed, self._names)
        parent = torch._C._current_autograd_node()
        with self._lock:
            around = next((outer for outer in reversed(self._open) if parent in outer.graph.inputs), None)
            self._open[looked_at] = around, parent
        looked_at.attach()
        return looked_at

    def _end(self, looked_at: Pass) -> None:
        with self._lock:
            if looked_at not in self._open:
                return
            around, parent = self._open.pop(looked_at)
        looked_at.detach()
        if around is not None:
            around.adopt(looked_at, parent)
            return
        self.passes += 1
        suspects = frozenset(id(self._parameters[name]) for name in self.suspects)
        given = Contributions(looked_at, suspects).to(map(id, self._parameters.values()))
        for parameter, contribution in given.items():
            self._found.setdefault(parameter, []).append(contribution)
        for name, fed in downstream(looked_at.graph, self._lines).items():
            self.downstream.setdefault(name, set()).update(fed)

    def _conclude(self) -> None:
        if not self.passes and not self._blind:
            return
        by_id: dict[int, Cause] = {}
        for name, parameter in self._parameters.items():
            found = self._cause_of(name, parameter)
            if found is not None:
                by_id[id(parameter)] = found
        by_name = {n: by_id[id(p)] for n, p in self._parameters.items() if id(p) in by_id}
        self.causes = {**self._causes_of_modules(by_id), **by_name}
        whys = {name: faint(self._found.get(id(p), [])) for name, p in self._parameters.items()}
        self.faint = {name: found for name, found in whys.items() if found is not None}

    def _cause_of(self, name: str, parameter: Tensor) -> Cause | None:
        contributions = self._found.get(id(parameter), [])
        found = together(contributions) if contributions else self._unreached(name, parameter)
        if found is not None and found.kind == "unknown" and self.errors:
            found = replace(found, evidence={**found.evidence, "error": repr(self.errors[0])})
        return found

    def _unreached(self, name: str, parameter: Tensor) -> Cause | None:
        """Why no backward pass reached a parameter; None where it has got its gradient in another way."""
        written = parameter.grad is not None and _state_of(parameter) != self._before.get(name)
        if written and largest(parameter.grad) != 0.0:
            return None
        if self._budget.spent:
            return cause(
                "unknown", name, reason=f"the look for it ended before the step, after {self._budget.spent}"
            )
        if self._blind:
            return cause("unknown", name, reason="the backward pass could not be looked at")
        if hasattr(parameter, "to_local"):
            return cause("unknown", name, reason="it is sharded, and no graph holds it", ruled_out="frozen")
        return why_missing(name, parameter, self._owners, self._calls)

    def _causes_of_modules(self, by_id: Mapping[int, Cause]) -> dict[str, Cause]:
        wanted = frozenset(map(id, self._parameters.values()))
        found = {}
        for path, module in self._paths.items():
            own = path == OWN_PARAMETERS
            # What is told of in a line may be what a module owns itself alone.
            told_of = wanted & self._lines.get(path, wanted)
            held = [id(p) for p in module.parameters(recurse=not own) if id(p) in told_of]
            cause_of_it = _common([by_id.get(parameter) for parameter in held])
            if path and cause_of_it is not None:
                # What is so of every parameter is so of the module.
                of_one = cause_of_it.where in self._parameters and not cause_of_it.kind.startswith("nonfinite")
                found[path] = replace(cause_of_it, where=path) if of_one and held else cause_of_it
        return found

    def _guarded(self, function: Callable[..., None], *args: object) -> None:
        try:
            function(*args)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self.errors:
            log.warning("gradwatch's diagnosis failed in part; training goes on.", exc_info=error)
        self.errors.append(error)


def _common(causes: Sequence[Cause | None]) -> Cause | None:
    """A module's cause: one that is not finite, else the one that most of its parameters have, if all have one."""
    known = [each for each in causes if each is not None]
    not_finite = [each for each in known if each.kind.startswith("nonfinite")]
    if not_finite:
        return not_finite[0]
    if not known or len(known) < len(causes):
        return None
    kind = Counter(each.kind for each in known).most_common(1)[0][0]
    return next(each for each in known if each.kind == kind)


def _state_of(parameter: Tensor) -> tuple[int, int] | None:
    gradient = parameter.grad
    return None if gradient is None else (id(gradient), gradient._version)
