"""From an alert to its cause: a diagnosis is armed behind a step, and asked before the next one.

Between two steps of an optimizer lies everything that makes its gradient: its forward passes and its backward
passes. The diagnosis looks at them once, and at nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from gradwatch.causes import cause
from gradwatch.diagnose import Diagnosis, shortcut
from gradwatch.judge.judge import Judge
from gradwatch.records import Alert, Cause, StepRecord

__all__ = ["Explainer"]

# The rules whose alert may come from a loss that reaches one module around another.
_OF_A_SHORTCUT = ("explosion", "growth", "clip-saturated")

_Key = tuple[str, str, str | None]


class Explainer:
    """Arms diagnoses for what the judge cannot explain, and tells it what they find.

    Args:
        modules: what is tracked, as ``track`` was given it; None where there are parameters alone.
        judge: asked for alerts without a cause, and told of causes.
        parameters: name of an optimizer -> name and tensor of each parameter that it holds now.
    """

    # A cause that is not found in so many looks at one episode is not looked for any more.
    MOST_LOOKS = 3

    def __init__(
        self,
        modules: nn.Module | Mapping[str, nn.Module] | None,
        judge: Judge,
        parameters: Callable[[str], Mapping[str, Tensor]],
    ) -> None:
        self._modules = modules if modules is not None else {}
        self._judge = judge
        self._parameters = parameters
        self._armed: dict[str, Diagnosis] = {}
        self._closed = False
        self._looks: Counter[_Key] = Counter()
        self._newest: dict[str, StepRecord] = {}
        self._downstream: dict[str, Mapping[str, set[str]]] = {}

    def diagnosis(self, optimizers: Iterable[str]) -> Diagnosis:
        """One for all that these optimizers hold, not armed yet."""
        return Diagnosis(self._modules, {n: p for name in optimizers for n, p in self._parameters(name).items()})

    def take(self, record: StepRecord) -> None:
        """Remember the newest record of each optimizer."""
        self._newest[record.optimizer] = record

    def stepped(self, optimizer: str) -> None:
        """A step is done: arm a diagnosis where an alert of its optimizer has no cause."""
        open_keys = {_key(alert) for alert in self._judge.active}
        self._looks = Counter({key: looks for key, looks in self._looks.items() if key in open_keys})
        wanted = [key for key in self._unexplained(optimizer) if self._looks[key] < self.MOST_LOOKS]
        # An alert's callback may have ended the tracking within this very step.
        if wanted and optimizer not in self._armed and not self._closed:
            self._looks.update(wanted)
            self._armed[optimizer] = self.diagnosis([optimizer])
            self._armed[optimizer].start()

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
        for armed in self._armed.values():
            armed.finish()
        self._armed.clear()

    def _told(self, rule: str, optimizer: str, module: str | None, found: Cause | None) -> Alert | None:
        record = self._newest.get(optimizer)
        if found is None or record is None:
            return None
        return self._judge.explained(rule, optimizer, module, found, record.step)

    def _unexplained(self, optimizer: str) -> list[_Key]:
        return [_key(alert) for alert in self._judge.unexplained() if alert.optimizer == optimizer]

    def _cause_for(self, diagnosis: Diagnosis, rule: str, optimizer: str, module: str | None) -> Cause | None:
        """The cause at the module itself, or the one that most of its parameters have."""
        names = self._parameters(optimizer)
        own = [name for name in names if module is None or name.startswith(f"{module}.")]
        causes = [
            diagnosis.causes[path] for path in (module, *own) if path is not None and path in diagnosis.causes
        ]
        fitting = [found for found in causes if found.kind.startswith("nonfinite") == (rule == "nonfinite")]
        if fitting:
            kinds = Counter(found.kind for found in fitting)
            most = kinds.most_common(1)[0][0]
            return next(found for found in fitting if found.kind == most)
        if rule == "vanishing":
            return cause("unknown", module or optimizer, ruled_out="a gradient of exactly 0", parameters=len(own))
        return None


def _key(alert: Alert) -> _Key:
    return alert.rule, alert.optimizer, alert.module
