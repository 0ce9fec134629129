"""Which alerts are one incident, and which stay several."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.incidents import Incidents
from gradwatch.records import Alert, Cause, Incident
from tests.made_up import alert

TANH = Cause("saturated-tanh", "mlp.2", {"share": 0.99}, "Lower the learning rate.")
WAY = Cause("shortcut", "cnn", {"share": 1.0, "silent": "mlp"}, "Cut it.")
UNKNOWN = Cause("unknown", "mlp", {}, "Read the evidence.")


def made_of(*alerts: Alert) -> list[Incident]:
    incidents = Incidents()
    for each in alerts:
        incidents.take(each)
    return incidents.all()


def unworded(incident: Incident) -> tuple[Alert, ...]:
    return tuple(replace(alert, words="") for alert in incident.alerts)


def titles(*alerts: Alert) -> list[str]:
    return [incident.title for incident in made_of(*alerts)]


def norm(rule: str = "growth", step: int = 25, **other: Any) -> Alert:
    return alert(step=step, rule=rule, module=None, severity="warning", message=f"{rule} it is", **other)


def explained(step: int = 13, cause: Cause = TANH, **other: Any) -> Alert:
    return alert("explained", step, cause=cause, **other)


def test_the_story_of_the_seed_is_one_and_begins_with_the_tanh() -> None:
    fired, why = alert(step=12), explained()
    growth, cut = norm(cause=WAY), norm("clip-saturated", 60, cause=WAY)
    (told,) = made_of(fired, why, growth, cut)
    assert (told.title, told.root, told.since, told.over) == ("saturated-tanh at mlp.2", TANH, 12, None)
    assert unworded(told) == (fired, why, growth, cut)
    assert told.severity == "critical"


def test_the_root_is_first_whatever_fired_first() -> None:
    growth, fired, why = norm(step=5), alert(step=12), explained()
    later = norm(step=14, state="explained", cause=WAY)
    (told,) = made_of(growth, fired, why, later)
    assert (told.root, told.since) == (TANH, 12)
    assert unworded(told) == (fired, why, growth, later)


def test_clipping_that_hides_a_norm_that_grows_is_a_part_of_it_and_not_before_it() -> None:
    assert titles(norm("growth", 25), norm("clip-saturated", 60)) == ["growth"]
    assert titles(norm("clip-saturated", 20), norm("growth", 25)) == ["clip-saturated", "growth"]


def test_one_cause_is_one_incident_in_whichever_optimizer() -> None:
    assert len(made_of(alert(cause=TANH), alert(module="cnn", optimizer="critic", cause=TANH, time=5.0))) == 1


@pytest.mark.parametrize(
    "second",
    [
        Cause("dead-relu", "mlp.2", {}, "Raise the bias."),
        Cause("saturated-tanh", "cnn.2", {}, "Lower the learning rate."),
    ],
)
def test_two_causes_are_two_incidents_also_in_one_step(second: Cause) -> None:
    assert len(made_of(alert(cause=TANH), alert(module="cnn", cause=second))) == 2
    # Nor does a part of a module share the cause of the whole.
    assert len(made_of(alert(cause=TANH), alert(module="mlp.0", cause=second))) == 2


@pytest.mark.parametrize(
    "other",
    [
        alert(step=2, module="cnn"),
        alert(step=1, module="mlp", optimizer="critic"),
        norm("growth", 1),
        norm("clip-saturated", 1),
        alert(step=1, rule="stale"),
        alert(step=1, rule="nonfinite", module=None),
        norm("growth", 1, cause=Cause("shortcut", "mlp", {"silent": "cnn"}, "Cut it.")),
        alert(rule="stale", module="cnn", cause=Cause("shortcut", "mlp", {"silent": "cnn"}, "Cut it.")),
    ],
)
def test_what_merely_comes_at_the_same_time_stays_apart(other: Alert) -> None:
    assert len(made_of(alert(), other)) == 2


def test_what_was_over_before_the_other_began_stays_apart() -> None:
    over = [alert(cause=TANH), alert("resolved", 20, cause=TANH)]
    assert titles(*over, alert(step=21, cause=TANH)) == ["saturated-tanh at mlp.2"] * 2
    assert titles(*over, norm(step=25, cause=WAY)) == ["saturated-tanh at mlp.2", "shortcut at cnn"]


def test_without_a_cause_what_fires_in_one_step_is_one_until_a_cause_tells_it_apart() -> None:
    together = [alert(module=f"h.{i}") for i in range(12)]
    assert titles(*together) == ["zero at h.0 and 11 more"]
    assert titles(*together[:2]) == ["zero at h.0 and h.1"]
    same = [explained(2, TANH, module=f"h.{i}") for i in range(12)]
    assert titles(*together, *same) == ["saturated-tanh at mlp.2"]
    frozen = Cause("frozen", "h.3", {}, "Set requires_grad.")
    assert titles(*together[:4], *same[:3], explained(2, frozen, module="h.3")) == [
        "saturated-tanh at mlp.2",
        "frozen at h.3",
    ]


def test_what_is_unknown_joins_nothing_and_parts_nothing() -> None:
    assert len(made_of(alert(cause=UNKNOWN), alert(step=2, module="cnn", cause=UNKNOWN))) == 2
    assert len(made_of(alert(cause=UNKNOWN), alert(module="cnn", cause=UNKNOWN))) == 1


@pytest.mark.parametrize("part", ["mlp.0", None])
def test_zero_and_next_to_nothing_in_a_module_and_its_part_are_one(part: str | None) -> None:
    assert len(made_of(alert(), alert(step=9, rule="vanishing", module=part))) == 1
    assert len(made_of(alert(), alert(step=9, rule="vanishing", module="mlp2"))) == 2


def test_a_warning_that_becomes_critical_is_one_line() -> None:
    warned = alert(severity="warning")
    worse = [alert("resolved", 9, severity="warning"), alert(step=9)]
    (told,) = made_of(warned, *worse)
    assert (told.severity, told.since, told.over) == ("critical", 1, None)
    assert len(str(told).splitlines()) == 2


def test_it_is_over_when_nothing_of_it_fires() -> None:
    begun = [alert(step=12, cause=TANH), norm(cause=WAY), alert("resolved", 40, cause=TANH)]
    assert [incident.over for incident in made_of(*begun)] == [None]
    (told,) = made_of(*begun, norm(step=44, state="resolved"))
    assert told.over == 44


def test_incidents_of_long_ago_are_kept_as_they_were_told() -> None:
    several = [
        alert(state, 2 * i + end, rule="stale")
        for i in range(200)
        for end, state in enumerate(("firing", "resolved"))
    ]
    told = made_of(*several)
    assert [incident.since for incident in told] == list(range(0, 400, 2))
    incidents = Incidents()
    for each in several:
        incidents.take(each)
    assert len(incidents._recent) <= Incidents.REMEMBERED + 1


def test_a_path_around_a_module_follows_from_its_silence_and_from_nothing_else_of_it() -> None:
    assert len(made_of(alert(rule="stale"), norm(cause=WAY))) == 2
    assert len(made_of(alert(rule="vanishing"), norm(cause=WAY))) == 1


def test_who_keeps_few_counts_the_others() -> None:
    incidents = Incidents(most=5)
    for i in range(100):
        incidents.take(alert("firing", 2 * i, rule="stale"))
        incidents.take(alert("resolved", 2 * i + 1, rule="stale"))
    assert len(incidents.all()) == Incidents.REMEMBERED + 5
    assert len(incidents.all()) + incidents.forgotten == 100
    assert incidents.all()[-1].since == 198


def test_an_end_that_nobody_saw_the_beginning_of_is_told() -> None:
    (told,) = made_of(alert("resolved", 7))
    assert (told.since, told.over) == (7, 7)


def test_an_alert_is_given_back_as_a_part_of_what_it_belongs_to() -> None:
    incidents = Incidents(began=100.0)
    lines = [str(incidents.take(each)) for each in (alert(cause=TANH, time=134.0), norm(cause=WAY))]
    assert "step 1 of actor (34 s)" in lines[0]
    assert lines[1].endswith("It follows from saturated-tanh at mlp.2.")
    assert [str(each) for each in incidents.all()[0].alerts] == lines


def test_an_alert_that_has_its_words_keeps_them() -> None:
    worded = replace(norm(cause=WAY), words="as told")
    assert Incidents().take(worded) is worded


class Policy(nn.Module):
    """The seed's: features that reach the value around a policy that is saturated."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.mlp = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.cnn(x)
        return features, torch.tanh(self.mlp(features) * 1e6)


def trained(steps: int = 100) -> gradwatch.Watch:
    model, value = Policy(), nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.track({"actor": optimizer}, {"actor_cnn": model.cnn, "actor_mlp": model.mlp}) as watch:
        for step in range(steps):
            optimizer.zero_grad()
            features, action = model(torch.randn(16, 4))
            (-value(torch.cat([features, action], 1)).mean() * 2.0 ** (step / 2)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return watch


def test_a_saturated_policy_a_norm_that_grows_around_it_and_clipping_that_hides_it_are_one_story() -> None:
    watch = trained()
    (told,) = watch.incidents
    assert told.root is not None
    assert told.root.kind == "saturated-tanh"
    rules = list(dict.fromkeys(a.rule for a in told.alerts))
    assert rules[0] == "zero"
    assert {"growth", "clip-saturated"} <= set(rules)
    story = str(told).splitlines()
    assert story[0].endswith(told.root.title)
    assert any(line.startswith("  To do: ") for line in story)
    assert sorted(map(str, told.alerts)) == sorted(map(str, watch.alerts))


def test_every_sink_and_the_log_have_the_same_lines(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    memory = gradwatch.sinks.Memory()
    heard: list[str] = []
    net = nn.ModuleDict({"body": nn.Linear(4, 4), "dead": nn.Linear(4, 4)})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sinks = [memory, gradwatch.sinks.Jsonl(tmp_path / "run.jsonl")]
    with (
        caplog.at_level("INFO", logger="gradwatch"),
        gradwatch.track(optimizer, net, sinks=sinks, on_alert=lambda one: heard.append(str(one))) as watch,
    ):
        for _ in range(8):
            optimizer.zero_grad()
            net["body"](torch.ones(3, 4)).square().mean().backward()
            optimizer.step()
    lines = list(map(str, watch.alerts))
    assert lines
    assert lines == heard == list(map(str, memory.alerts)) == [r.getMessage() for r in caplog.records]
    assert all(f'"words": "{line[:40]}' in (tmp_path / "run.jsonl").read_text() for line in lines)
    assert [a.time for a in watch.alerts] == [watch.history[a.step - 1].time for a in watch.alerts]
    assert [a.time for a in watch.active] == [watch.alerts[0].time]


def test_two_faults_of_one_optimizer_that_are_not_linked_are_two_incidents() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"body": nn.Linear(4, 8), "dead": nn.Linear(8, 8), "unused": nn.Linear(8, 1)})
    with torch.no_grad():
        net["dead"].bias.fill_(-50.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(12):
            optimizer.zero_grad()
            (net["body"](torch.randn(6, 4)).sum() + torch.relu(net["dead"](torch.randn(6, 8))).sum()).backward()
            optimizer.step()
    assert sorted(incident.title for incident in watch.incidents) == [
        "dead-relu at Relu",
        "unused at unused",
    ]
    assert all(len({a.module for a in incident.alerts}) == 1 for incident in watch.incidents)
    assert len(list(itertools.chain(*(i.alerts for i in watch.incidents)))) == len(watch.alerts)


LEAKED = Cause("leaked", "actor", {"parameters": 4, "norm": 2.0, "backward_passes": 1}, "Call zero_grad().")


@pytest.mark.parametrize("rule", ["growth", "explosion", "clip-saturated"])
def test_what_grows_because_it_is_never_zeroed_is_a_part_of_that(rule: str) -> None:
    leaked = norm("leaked", 2, cause=LEAKED)
    assert titles(leaked, norm(rule, 25)) == ["leaked at actor"]
    assert len(titles(norm(rule, 1), norm("leaked", 2, cause=LEAKED))) == 2
    of_another = replace(LEAKED, evidence={**LEAKED.evidence, "backward_passes": 2})
    assert len(titles(norm("leaked", 2, cause=of_another), norm(rule, 25))) == 2


def test_what_clipping_erased_for_an_infinite_norm_is_a_part_of_what_made_it_infinite() -> None:
    broken = alert(rule="nonfinite", module=None, cause=Cause("nonfinite-op", "root", {}, "Look."))
    for returned, told in ((float("inf"), 1), (float("nan"), 1), (3.0, 2)):
        erased = Cause("clipped-to-zero", "mlp", {"norm_returned": returned}, "Check the limit.")
        assert len(titles(broken, alert(step=3, cause=erased))) == told


def test_clipping_that_overflows_is_one_with_what_it_erases_and_with_the_norm_it_met() -> None:
    why = Cause("clip-overflow", "actor", {"norm": 1e20, "norm_returned": float("inf")}, "Scale the loss down.")
    overflows = norm("clip-overflow", 1, cause=why)
    (told,) = made_of(norm("explosion", 1), overflows, alert(step=3, cause=replace(why, where="mlp")))
    assert [each.rule for each in told.alerts] == ["explosion", "clip-overflow", "zero"]


GROWN = {"largest_of_type": 3.4e38, "dtype": "float32"}
HIGH = alert(rule="explosion", module=None, step=5)


def not_finite(evidence: dict[str, Any], kind: str = "nonfinite-op", step: int = 7, **other: Any) -> Alert:
    why = Cause(kind, "net", evidence, "Lower the learning rate.")
    return alert(rule="nonfinite", module=None, step=step, cause=why, **other)


@pytest.mark.parametrize(
    "overflow", [not_finite(GROWN), not_finite({"largest": "Inf", "dtype": "float32"}, "nonfinite-weights")]
)
def test_an_overflow_follows_from_the_explosion_before_it(overflow: Alert) -> None:
    (told,) = made_of(HIGH, overflow)
    assert (told.title, told.since, told.remedies()) == ("explosion", 5, ["Lower the learning rate."])


@pytest.mark.parametrize(
    "other",
    [
        not_finite({"operation": "LogBackward0"}),
        not_finite({**GROWN, "dtype": "float16"}),
        not_finite({"largest": "NaN", "dtype": "float32"}, "nonfinite-weights"),
        not_finite(GROWN, step=3),
        not_finite(GROWN, optimizer="critic", time=7.0),
    ],
)
def test_what_may_have_come_without_the_explosion_is_another_incident(other: Alert) -> None:
    assert len(made_of(HIGH, other)) == 2
    over = alert("resolved", 6, rule="explosion", module=None)
    assert len(made_of(HIGH, over, not_finite(GROWN))) == 2


def test_a_limit_that_leaves_nothing_and_clipping_that_takes_all_are_one() -> None:
    erased = alert(step=3, cause=Cause("clipped-to-zero", "mlp", {"limit": 0.0}, "Raise the limit."))
    saturated = norm("clip-saturated", 45)
    assert titles(erased, replace(saturated, value=0.0)) == ["clipped-to-zero at mlp"]
    assert len(made_of(erased, replace(saturated, value=0.001))) == 2


def test_a_run_that_explodes_until_it_overflows_is_one_incident() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e8)
    with gradwatch.track(optimizer, net) as watch:
        for _ in range(6):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(torch.randn(8, 4)), torch.ones(8, 1)).backward()
            optimizer.step()
    (told,) = watch.incidents
    assert told.title == "explosion"
    assert {alert.rule for alert in told.alerts} == {"explosion", "nonfinite"}
    assert "float16" not in str(told)
