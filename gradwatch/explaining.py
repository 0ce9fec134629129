"""From an alert to its cause: a diagnosis is armed behind a step, and asked before the next one.

Between two steps of an optimizer lies everything that makes its gradient: its forward passes and its backward
passes. The diagnosis looks at them once, and at nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from gradwatch.alerts import SEEN_AT
from gradwatch.causes import cause
from gradwatch.diagnose import Diagnosis, Lookout, Stray, shortcut, strays
from gradwatch.fitting import Fitting
from gradwatch.judge.judge import Judge
from gradwatch.measure.lines import Lines
from gradwatch.records import Alert, Cause, Severity, StepRecord

__all__ = ["Explainer"]

CHANGED = "every gradient was finite when the backward pass had ended: it was changed before the step"
LOSS_SCALE = "the loss times the loss scale is too large for its type"
LOWER_THE_SCALE = (
    "Let the scaler lower its scale by itself, or begin with a lower init_scale; if steps are skipped all the "
    "same, keep this operation in bfloat16 or float32."
)

# Why it cannot be told where a NaN came from, and how it can be the next time.
CONSUMED = (
    "the step had consumed it before it could be looked at, and the weights are not finite since: with "
    "guard='skip' they stay finite, and the operation is found"
)

_Key = tuple[str, str, str | None]


class Explainer:
    """Arms diagnoses for what the judge cannot explain, and tells it what they find.

    Args:
        lines: the report's lines, and the modules that they are read from.
        judge: asked for alerts without a cause, and told of causes.
        optimizers: names of the optimizers.
        parameters: name of an optimizer -> name and tensor of each parameter that it holds now.
        newest: name of an optimizer -> its newest record.
        strays: told of parameters that the loss reaches and that nobody is known to hold.
    """

    # A cause that is not found in so many looks at one episode is not looked for any more.
    MOST_LOOKS = 3

    def __init__(
        self,
        lines: Lines,
        judge: Judge,
        optimizers: Iterable[str],
        parameters: Callable[[str], Mapping[str, Tensor]],
        newest: Callable[[str], StepRecord | None],
        strays: Callable[[list[Stray]], object],
    ) -> None:
        self._lines = lines
        self._judge = judge
        self._optimizers = tuple(optimizers)
        self._parameters = parameters
        self._fitting = Fitting(lines, parameters)
        self._suspected: dict[str, Cause] = {}
        self._armed: dict[str, Diagnosis] = {}
        self._closed = False
        self._passless: Counter[str] = Counter()
        self._looks: Counter[tuple[_Key, Severity]] = Counter()
        # By optimizer, the judge's revision at which there was nothing left to look for.
        self._asked_all: dict[str, int] = {}
        self._newest = newest
        self._downstream: dict[str, Mapping[str, set[str]]] = {}
        self._strays = strays
        self._lookout = Lookout(self._for_a_lookout, self._wants_a_lookout, self._survey)
        # The autograd engine starts from something; what is returned is to be called when it is over.
        self.starting_from = self._lookout.began

    def diagnosis(self, optimizers: Iterable[str]) -> Diagnosis:
        """One for all that these optimizers hold, not armed yet."""
        parameters = {n: p for name in optimizers for n, p in self._parameters(name).items()}
        suspects = {
            n for name in optimizers for m in self._judge.suspects(name) for n in self._fitting.own(name, m)
        }
        return Diagnosis(self._lines.modules, parameters, self._lines.lines, suspects)

    def nothing_is_asked(self) -> None:
        """A step is done, and no cause is looked for: what led to it is of no more interest."""
        self._lookout.forget()
        if (self._suspected or self._looks) and not self._judge.asks_why:
            self._suspected.clear()
            self._looks.clear()

    def has_asked_all(self, optimizer: str) -> bool:
        """Whether the judge says what it said when there was nothing left to look for."""
        return self._asked_all.get(optimizer) == self._judge.revision

    def reconsidered(self, alert: Alert) -> Alert:
        """An alert that has just fired: where it says that there was no backward pass, though one reached others.

        What the loss depends on instead may be told at once; else a look must tell.
        """
        known = alert.cause
        if alert.state != "firing" or known is None or known.kind != "no-backward" or not self._lookout.passes:
            return alert
        held = self._parameters(alert.optimizer)
        own = {name: held[name] for name in self._fitting.own(alert.optimizer, alert.module)}
        return self._judge.corrected(alert, self._lookout.elsewhere(known.where, own))

    def stepped(self, optimizer: str) -> list[Alert]:
        """A step is done: arm a diagnosis where an alert of its optimizer has no cause.

        Returns:
            What is explained already by what was seen of the passes before it.
        """
        revision = self._judge.revision
        alerts = self._seen_at_once(optimizer)
        # What has become worse is looked into anew: what it began with may have been another thing.
        severities = {_key(alert): alert.severity for alert in self._judge.active}
        self._looks = Counter({one: n for one, n in self._looks.items() if severities.get(one[0]) == one[1]})
        unexplained = [(key, severities[key]) for key in self._unexplained(optimizer)]
        wanted = [one for one in unexplained if self._looks[one] < self.MOST_LOOKS]
        alerts += self._given_up(
            optimizer, [key for key, _ in unexplained if (key, severities[key]) not in wanted]
        )
        suspects = self._judge.suspects(optimizer)
        # An alert's callback may have ended the tracking within this very step.
        if (wanted or suspects) and optimizer not in self._armed and not self._closed:
            self._looks.update(wanted)
            armed = self._armed[optimizer] = self.diagnosis([optimizer])
            armed.start()
            if optimizer not in self._armed:  # another thread has closed it meanwhile
                armed.finish()
        # What is not finite may come again in a step that is not measured, and be seen by its passes alone.
        elif not any(alert.rule == "nonfinite" for alert in self._judge.active):
            self._asked_all[optimizer] = revision
        return alerts

    def stepping(self, optimizer: str) -> Diagnosis | None:
        """The next step begins: what a look has seen since the last one, where one was armed."""
        armed = self._armed.pop(optimizer, None)
        if armed is not None:
            armed.finish()
        return armed

    def found_before(self, diagnosis: Diagnosis, optimizer: str) -> list[Alert]:
        """What a look has found in the passes before a step that is about to be taken, as alerts."""
        newest = self._newest(optimizer)
        return self.found(diagnosis, [optimizer], None if newest is None else newest.step + 1)

    def found(self, diagnosis: Diagnosis, optimizers: Iterable[str], step: int | None = None) -> list[Alert]:
        """What a finished diagnosis explains, as alerts.

        Args:
            diagnosis: finished.
            optimizers: whose alerts it may explain.
            step: the one before which it has looked, where that is known.
        """
        alerts = []
        for optimizer in optimizers:
            self._passless[optimizer] = 0 if diagnosis.passes else self._passless[optimizer] + 1
            if self._passless[optimizer] >= self.MOST_LOOKS:
                # Its passes run where no look hears of them, as in another thread: nothing can be proven.
                self._of_suspects(diagnosis, optimizer)
            if not diagnosis.passes:
                continue
            self._downstream[optimizer] = diagnosis.downstream
            self._of_suspects(diagnosis, optimizer)
            record = self._newest(optimizer)
            for rule, _, module in self._unexplained(optimizer):
                found = self._fitting_to(diagnosis, rule, optimizer, module)
                if found is not None and found.kind == "nonfinite-weights":
                    found = self._too_late(optimizer, found)
                found = self._scaled(found, optimizer)
                if found is not None and found.kind != "unknown" and rule == "nonfinite" and step is not None:
                    # The step that the alert is about may have had another reason.
                    found = replace(found, evidence={**found.evidence, SEEN_AT: step})
                alert = self._told(rule, optimizer, module, found)
                alerts += [] if alert is None else [alert]
            alerts += [] if record is None else self.shortcuts(record)
        return alerts

    def _of_suspects(self, diagnosis: Diagnosis, optimizer: str) -> None:
        # Who has been suspected since it was armed is asked about by the next.
        own = {module: self._fitting.own(optimizer, module) for module in self._judge.suspects(optimizer)}
        suspects = [module for module, names in own.items() if diagnosis.suspects.issuperset(names)]
        if suspects:
            causes = {m: self._fitting_to(diagnosis, "vanishing", optimizer, m) for m in suspects}
            self._judge.answered(optimizer, {m: found for m, found in causes.items() if found is not None})

    def _fitting_to(self, diagnosis: Diagnosis, rule: str, optimizer: str, module: str | None) -> Cause | None:
        found = self._fitting.to(diagnosis, rule, optimizer, module)
        return None if found is None else self._judge.weighed(rule, optimizer, module, found)

    def shortcuts(self, record: StepRecord) -> list[Alert]:
        """Alerts on large norms, explained by a path around a silent module that a diagnosis has seen."""
        fed = self._downstream.get(record.optimizer)
        firing = [a for a in self._judge.perhaps_shortcuts() if a.optimizer == record.optimizer]
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
        self._lookout.forget()
        # Another thread may be stepping: it takes away what it has armed itself, and may be about to arm more.
        for armed in list(self._armed.values()):
            armed.finish()
        self._armed.clear()

    def _seen_at_once(self, optimizer: str) -> list[Alert]:
        """What the passes before this step have shown of gradients that are not finite, also of a recurrence."""
        if not any(alert.rule == "nonfinite" for alert in self._judge.active):
            self._lookout.forget()
            self._suspected.pop(optimizer, None)
            return []
        wanted = [key for key in self._unexplained(optimizer) if key[0] == "nonfinite"]
        newest = self._newest(optimizer)
        causes: Mapping[str, Cause] = {}
        if newest is not None and not newest.nonfinite:
            # The step that the alert is about was an earlier one: of this one there is nothing to tell.
            wanted = []
        elif wanted and newest is not None and math.isfinite(newest.norm_before):
            self._suspected[optimizer] = cause("unknown", optimizer, reason=CHANGED, ruled_out="nonfinite-op")
        else:
            undecided = [alert for alert in self._judge.undecided() if alert.optimizer == optimizer]
            again = [_key(alert) for alert in undecided if alert.rule == "nonfinite"]
            wanted += again
            causes = self._lookout.found(self._parameters(optimizer)) if wanted else {}
            if again and newest is not None and not newest.skipped:
                # The step that the alert is about has made the weights so.
                causes = {name: found for name, found in causes.items() if found.kind != "nonfinite-weights"}
        self._lookout.forget()
        suspected = next((found for found in causes.values() if found.kind == "unknown"), None)
        if suspected is not None:
            self._suspected[optimizer] = suspected
        told = [self._told(*key, self._scaled(self._fitting.among(causes, *key), optimizer)) for key in wanted]
        return [alert for alert in told if alert is not None]

    def _given_up(self, optimizer: str, keys: Iterable[_Key]) -> list[Alert]:
        """What was not finite in a step or two, and in none that was looked at: what may have been, is told."""
        suspected, newest = self._suspected.get(optimizer), self._newest(optimizer)
        if newest is None or newest.loss_scale is not None:
            # That a GradScaler skips a step now and then is how it finds its scale.
            return []
        told = [self._told(*key, suspected) for key in keys if key[0] == "nonfinite"]
        return [alert for alert in told if alert is not None]

    def _scaled(self, found: Cause | None, optimizer: str) -> Cause | None:
        """A product with the loss scale that overflowed is nobody's fault: the scaler sees to it."""
        newest = self._newest(optimizer)
        scale = None if newest is None else newest.loss_scale
        if found is None or scale is None:
            return found
        if found.evidence.get("input_max") == scale:
            found = replace(found, evidence={**found.evidence, "reason": LOSS_SCALE}, remedy=LOWER_THE_SCALE)
        elif found.evidence.get("direction") == "backward" and found.evidence.get("output") == "Inf":
            # All gradients of this pass were multiplied by it.
            found = replace(found, remedy=LOWER_THE_SCALE)
        return found

    def _for_a_lookout(self) -> Diagnosis:
        return self.diagnosis(self._optimizers)

    def _survey(self, root: object) -> None:
        """A graph of a new sort: are there parameters in it that nobody is known to hold?"""
        held = {id(p): n for name in self._optimizers for n, p in self._parameters(name).items()}
        found = strays(root, {**self._lines.names, **held}, self._lines.plain_tensors)
        if found:
            self._strays(found)

    def _wants_a_lookout(self) -> bool:
        """What is not finite is news, as long as it has not been told why."""
        told = [alert for alert in self._judge.active if alert.rule == "nonfinite"]
        return all(alert in self._judge.undecided() for alert in told)

    def _told(self, rule: str, optimizer: str, module: str | None, found: Cause | None) -> Alert | None:
        record = self._newest(optimizer)
        if found is None or record is None:
            return None
        return self._judge.explained(rule, optimizer, module, found, record.step)

    def _unexplained(self, optimizer: str) -> list[_Key]:
        return [_key(alert) for alert in self._judge.unexplained() if alert.optimizer == optimizer]

    def _too_late(self, optimizer: str, found: Cause) -> Cause:
        """The weights are not finite: by the step that the alert is about, unless that was left out."""
        record = self._newest(optimizer)
        if record is None or record.skipped:
            return found
        unseen = cause("unknown", optimizer, reason=CONSUMED, ruled_out="frozen, unused, detached")
        return self._suspected.pop(optimizer, unseen)


def _key(alert: Alert) -> _Key:
    return alert.rule, alert.optimizer, alert.module
