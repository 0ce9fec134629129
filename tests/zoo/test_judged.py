"""The judging itself can fail: each way of being wrong is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from gradwatch.causes import REMEDIES
from tests.zoo.families import FAULTS, HEALTHY
from tests.zoo.judged import judged_fault, judged_healthy
from tests.zoo.nets import mlp, silent, trained
from tests.zoo.open import OPEN
from tests.zoo.registry import ANYWHERE, SEVERITIES, Fault, Healthy, Verdict
from tests.zoo.run import Run


def saturated(run: Run) -> None:
    """A plain fault: the first layer's tanh is saturated."""
    net = mlp()
    torch.nn.init.constant_(net[0].bias, 40.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with run.track(optimizer, net):
        for _ in run.steps(15):
            with run.diagnose():
                trained(optimizer, lambda: net(torch.randn(4, 6)).square().mean())
            run.fault(silent(net[0]), share_saturated=1.0)
            run.trait("looks ill", silent(net[0]))
            optimizer.step()


def fine(run: Run) -> None:
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with run.track(optimizer, net):
        for _ in run.steps(15):
            trained(optimizer, lambda: net(torch.randn(4, 6)).square().mean())
            run.fault(silent(net[0]))
            run.trait("looks ill", silent(net[0]))
            optimizer.step()


def changed(run: Run) -> None:
    """What a tracker that is not neutral would do."""
    fine(run)
    if run.watch is not None:
        torch.rand(1)


def told(loop: Callable[[Run], None], *verdicts: Verdict) -> str:
    return "\n".join(judged_fault(Fault("made up", loop, verdicts, ())).complaints)


RIGHT = {
    "rule": "zero",
    "cause": "saturated-tanh",
    "module": "0",
    "where": ("1",),
    "evidence": ("share_saturated",),
}


@pytest.mark.parametrize(
    "also", [{}, {"module": ANYWHERE}, {"cause": "dead-relu|saturated-tanh"}, {"recurs": True}]
)
def test_the_right_verdict_is_no_complaint(also: dict[str, object]) -> None:
    assert told(saturated, Verdict(**{**RIGHT, **also})) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"module": "2"}, "no zero alert on optimizer/2"),
        ({"rule": "vanishing"}, "no vanishing alert"),
        ({"severity": "warning"}, "zero is critical, not warning"),
        ({"cause": "dead-relu"}, "the cause is saturated-tanh"),
        ({"cause": "dead-relu", "asked": True}, "the cause is saturated-tanh"),
        ({"module": "2", "asked": True}, "a diagnosis has no cause for 2"),
        ({"exact": {"operation": "ReluBackward0"}}, "operation='TanhBackward0', should be 'ReluBackward0'"),
        ({"remedy": ("make", "loss scaler")}, "the remedy does not speak of 'loss scaler'"),
        ({"where": ("2",)}, "the cause is at '1', should be at 2"),
        ({"evidence": ("share_saturated", "units")}, "units"),
    ],
)
def test_a_wrong_one_is(wrong: dict[str, object], words: str) -> None:
    loop = saturated if "evidence" not in wrong else _measures_other_units
    assert words in told(loop, Verdict(**{**RIGHT, **wrong}))  # type: ignore[arg-type]


def _measures_other_units(run: Run) -> None:
    real = run.fault
    run.fault = lambda present, **numbers: real(present, units=-1.0, **numbers)  # type: ignore[method-assign]
    saturated(run)


def test_a_line_that_is_ill_and_not_told_of_is() -> None:
    def also_the_last(run: Run) -> None:
        run.ill = {"zero": {"0", "2"}}
        saturated(run)

    assert told(also_the_last) == "no zero alert on 2"


def test_an_alert_that_nobody_asked_for_is() -> None:
    assert "critical zero on optimizer/0 at step 3" in told(saturated)


def test_a_fault_that_is_not_there_is() -> None:
    assert "the fault is not there" in told(fine, Verdict("zero", module="0"))


def test_a_change_of_the_training_is() -> None:
    assert "tracking changed training" in "\n".join(judged_healthy(Healthy("made up", changed)).complaints)


def test_a_healthy_loop_that_is_ill_or_not_hard_to_tell_is() -> None:
    warned = Healthy("made up", saturated, {"zero": "a critical one is never right"})
    complaints = "\n".join(judged_healthy(warned).complaints)
    assert "critical zero" in complaints
    assert "a cause of nothing: saturated-tanh" in complaints
    assert "the fault is there all the same" in complaints
    assert "never looks ill" in "\n".join(judged_healthy(Healthy("made up", fine)).complaints)


def test_every_rule_and_kind_of_cause_is_planted_twice() -> None:
    """In two loops at least, and there are as many loops as were promised."""
    known = [fault for name, fault in FAULTS.items() if name not in OPEN]
    rules = Counter(rule for f in known for rule in {v.rule for v in f.verdicts})
    kinds = Counter(
        kind for f in known for kind in {v.cause for v in f.verdicts if v.cause and "|" not in v.cause}
    )
    # It takes several processes to plant the other, see tests/ranks/test_replicas.py.
    assert {rule for rule in SEVERITIES if rules[rule] < 2} == {"diverged"}
    assert {kind for kind in REMEDIES if kinds[kind] < 2} == set()
    assert set(kinds) <= set(REMEDIES)
    assert len(FAULTS) >= 360
    assert len(HEALTHY) >= 130
