"""From an alert to its cause: a diagnosis is armed behind a step, and asked before the next one.

Between two steps of an optimizer lies everything that makes its gradient: its forward passes and its backward
passes. The diagnosis looks at them once, and at nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from gradwatch.causes import cause
from gradwatch.diagnose import OWN_PARAMETERS, WEIGHTS_GONE, Diagnosis, Lookout, shortcut
from gradwatch.judge.judge import Judge
from gradwatch.records import Alert, Cause, StepRecord

__all__ = ["Explainer"]

# The rules whose alert may come from a loss that reaches one module around another.
_OF_A_SHORTCUT = ("explosion", "growth", "clip-saturated")

CHANGED = "every gradient was finite when the backward pass had ended: it was changed before the step"
LOSS_SCALE = "the loss times the loss scale is too large for its type: the scaler lowers the scale by itself"

# Why it cannot be told where a NaN came from, and how it can be the next time.
CONSUMED = (
    "the step had consumed it before it could be looked at, and the weights are not finite since: with "
    "guard='skip' they stay finite, and the operation is found"
)

_Key = tuple[str, str, str | None]


class Explainer:
    """Arms diagnoses for what the judge cannot explain, and tells it what they find.

    Args:
        modules: what is tracked, as ``track`` was given it; None where there are parameters alone.
        judge: asked for alerts without a cause, and told of causes.
        optimizers: names of the optimizers.
        parameters: name of an optimizer -> name and tensor of each parameter that it holds now.
    """

    # A cause that is not found in so many looks at one episode is not looked for any more.
    MOST_LOOKS = 3

    def __init__(
        self,
        modules: nn.Module | Mapping[str, nn.Module] | None,
        judge: Judge,
        optimizers: Iterable[str],
        parameters: Callable[[str], Mapping[str, Tensor]],
    ) -> None:
        self._modules = modules if modules is not None else {}
        self._judge = judge
        self._optimizers = tuple(optimizers)
        self._parameters = parameters
        self._suspected: dict[str, Cause] = {}
        self._armed: dict[str, Diagnosis] = {}
        self._closed = False
        self._looks: Counter[_Key] = Counter()
        self._newest: dict[str, StepRecord] = {}
        self._downstream: dict[str, Mapping[str, set[str]]] = {}
        self._lookout = Lookout(self._for_a_lookout, self._wants_a_lookout)

    def start(self) -> None:
        """Training is tracked from now on."""
        self._lookout.start()

    def diagnosis(self, optimizers: Iterable[str]) -> Diagnosis:
        """One for all that these optimizers hold, not armed yet."""
        return Diagnosis(self._modules, {n: p for name in optimizers for n, p in self._parameters(name).items()})

    def take(self, record: StepRecord) -> None:
        """Remember the newest record of each optimizer."""
        self._newest[record.optimizer] = record

    def stepped(self, optimizer: str) -> list[Alert]:
        """A step is done: arm a diagnosis where an alert of its optimizer has no cause.

        Returns:
            What is explained already by what was seen of the passes before it.
        """
        alerts = self._seen_at_once(optimizer)
        open_keys = {_key(alert) for alert in self._judge.active}
        if not open_keys:
            self._looks.clear()
            return alerts
        self._looks = Counter({key: looks for key, looks in self._looks.items() if key in open_keys})
        wanted = [key for key in self._unexplained(optimizer) if self._looks[key] < self.MOST_LOOKS]
        # An alert's callback may have ended the tracking within this very step.
        if wanted and optimizer not in self._armed and not self._closed:
            self._looks.update(wanted)
            self._armed[optimizer] = self.diagnosis([optimizer])
            self._armed[optimizer].start()
        return alerts

    def stepping(self, optimizer: str) -> list[Alert]:
        """The next step begins: what was found, as alerts that are explained."""
        armed = self._armed.pop(optimizer, None)
        if armed is None:
            return []
        armed.finish()
        return self.found(armed, [optimizer])

    def found(self, diagnosis: Diagnosis, optimizers: Iterable[str]) -> list[Alert]:
        """What a finished diagnosis explains, as alerts."""
        if not diagnosis.passes:
            return []
        alerts = []
        for optimizer in optimizers:
            self._downstream[optimizer] = diagnosis.downstream
            record = self._newest.get(optimizer)
            for rule, _, module in self._unexplained(optimizer):
                found = self._cause_for(diagnosis, rule, optimizer, module)
                alert = self._told(rule, optimizer, module, found)
                alerts += [] if alert is None else [alert]
            alerts += [] if record is None else self.shortcuts(record)
        return alerts

    def shortcuts(self, record: StepRecord) -> list[Alert]:
        """Alerts on large norms, explained by a path around a silent module that a diagnosis has seen."""
        fed = self._downstream.get(record.optimizer)
        firing = [a for a in self._judge.active if a.optimizer == record.optimizer and a.rule in _OF_A_SHORTCUT]
        if not fed or not firing:
            return []
        found = shortcut({name: norms.norm_before for name, norms in record.modules.items()}, fed)
        if found is None:
            return []
        told = (self._judge.explained(a.rule, a.optimizer, a.module, found, record.step) for a in firing)
        return [alert for alert in told if alert is not None]

    def close(self) -> None:
        """Disarm what is armed, and arm nothing any more."""
        self._closed = True
        self._lookout.stop()
        for armed in self._armed.values():
            armed.finish()
        self._armed.clear()

    def _seen_at_once(self, optimizer: str) -> list[Alert]:
        """What the passes before this step have shown of gradients that are not finite."""
        if self._wants_a_lookout():
            self._lookout.forget()
            self._suspected.pop(optimizer, None)
            return []
        wanted = [key for key in self._unexplained(optimizer) if key[0] == "nonfinite"]
        if wanted and math.isfinite(self._newest[optimizer].norm_before):
            causes: Mapping[str, Cause] = {}
            self._suspected[optimizer] = cause("unknown", optimizer, reason=CHANGED, ruled_out="nonfinite-op")
        else:
            causes = self._lookout.found(self._parameters(optimizer)) if wanted else {}
        self._lookout.forget()
        suspected = next((found for found in causes.values() if found.kind == "unknown"), None)
        if suspected is not None:
            self._suspected[optimizer] = suspected
        told = [self._told(*key, self._scaled(self._fitting(causes, *key), optimizer)) for key in wanted]
        return [alert for alert in told if alert is not None]

    def _scaled(self, found: Cause | None, optimizer: str) -> Cause | None:
        """A product with the loss scale that overflowed is nobody's fault: the scaler sees to it."""
        scale = self._newest[optimizer].loss_scale
        if found is None or scale is None or found.evidence.get("input_max") != scale:
            return found
        return replace(found, evidence={**found.evidence, "reason": LOSS_SCALE})

    def _for_a_lookout(self) -> Diagnosis:
        return self.diagnosis(self._optimizers)

    def _wants_a_lookout(self) -> bool:
        """What is not finite is news, as long as it has not been told."""
        return not any(alert.rule == "nonfinite" for alert in self._judge.active)

    def _told(self, rule: str, optimizer: str, module: str | None, found: Cause | None) -> Alert | None:
        record = self._newest.get(optimizer)
        if found is None or record is None:
            return None
        return self._judge.explained(rule, optimizer, module, found, record.step)

    def _unexplained(self, optimizer: str) -> list[_Key]:
        return [_key(alert) for alert in self._judge.unexplained() if alert.optimizer == optimizer]

    def _cause_for(self, diagnosis: Diagnosis, rule: str, optimizer: str, module: str | None) -> Cause | None:
        found = self._fitting(diagnosis.causes, rule, optimizer, module)
        if rule == "nonfinite" and found is not None and WEIGHTS_GONE in found.evidence.values():
            return self._too_late(optimizer, found)
        if rule == "vanishing":
            own = self._own(optimizer, module)
            faint = [diagnosis.faint[name] for name in own if name in diagnosis.faint]
            if faint:
                most = _most_common(faint)
                return most if most.kind != "unknown" or module is None else replace(most, where=module)
        if found is None and rule == "vanishing":
            return cause("unknown", module or optimizer, ruled_out="a gradient of exactly 0", parameters=len(own))
        return found

    def _too_late(self, optimizer: str, found: Cause) -> Cause:
        """The weights are not finite: by the step that the alert is about, unless that was left out."""
        record = self._newest.get(optimizer)
        if record is None or record.skipped:
            return found
        unseen = cause("unknown", optimizer, reason=CONSUMED, ruled_out="frozen, unused, detached")
        return self._suspected.pop(optimizer, unseen)

    def _fitting(self, causes: Mapping[str, Cause], rule: str, optimizer: str, module: str | None) -> Cause | None:
        """The cause at the module itself, or the one that most of its parameters have."""
        paths = [path for path in (module, *self._own(optimizer, module)) if path is not None and path in causes]
        fitting = [
            causes[path] for path in paths if causes[path].kind.startswith("nonfinite") == (rule == "nonfinite")
        ]
        return _most_common(fitting) if fitting else None

    def _own(self, optimizer: str, module: str | None) -> list[str]:
        held = self._parameters(optimizer)
        if module is None:
            return list(held)
        # Where modules overlap, the name of a shared parameter begins with one of them only; and where a part was
        # replaced, the optimizer holds the old one, which has nothing left but its name.
        own = {id(parameter) for parameter in self._parameters_of(module)}
        return [name for name, p in held.items() if id(p) in own or name.startswith(f"{module}.")]

    def _parameters_of(self, module: str) -> Iterator[Tensor]:
        if not isinstance(self._modules, nn.Module):
            return self._modules[module].parameters()
        if module == OWN_PARAMETERS:
            return self._modules.parameters(recurse=False)
        return self._modules.get_submodule(module).parameters()


def _most_common(causes: Sequence[Cause]) -> Cause:
    """The first of the kind that most of them are of."""
    most = Counter(found.kind for found in causes).most_common(1)[0][0]
    return next(found for found in causes if found.kind == most)


def _key(alert: Alert) -> _Key:
    return alert.rule, alert.optimizer, alert.module
