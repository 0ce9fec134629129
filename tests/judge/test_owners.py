"""Verdicts on the modules that own parameters: each ill told once, at the highest module that is ill as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from gradwatch.judge.judge import Judge
from gradwatch.judge.naming import Naming
from gradwatch.judge.presence import Presences
from gradwatch.judge.rule import Rule
from gradwatch.records import Alert, GroupNorms, StepRecord
from gradwatch.rules import Vanishing, Zero
from tests.made_up import record

NAN = math.nan
H = [f"h.{i}.{part}" for i in range(3) for part in ("attn", "mlp")]
OWNERS = ["wte", *H, "head"]
LINES = ("wte", "h", "head")


def made(step: int, ill: Mapping[str, float] = {}, owners: Iterable[str] = OWNERS, **other: Any) -> StepRecord:
    """A step in which each owner has a norm of 1, but for those that are ill."""
    norms = {owner: ill.get(owner, 1.0) for owner in owners}
    lines: dict[str, list[float]] = {}
    for owner, norm in norms.items():
        lines.setdefault(owner.split(".")[0], []).append(norm)
    whole = {line: math.hypot(*(n for n in those if n == n)) for line, those in lines.items()}
    missing = tuple(owner for owner, norm in norms.items() if math.isnan(norm))
    values = {
        "modules": {line: GroupNorms(norm, norm) for line, norm in whole.items()},
        "owners": {owner: GroupNorms(norm, norm) for owner, norm in norms.items()},
        "parameters": {f"{owner}.weight": GroupNorms(norm, norm) for owner, norm in norms.items()},
        "missing": tuple(f"{owner}.weight" for owner in missing),
        "unwritten": tuple(f"{owner}.weight" for owner in missing),
        "missing_owners": missing,
        "missing_modules": tuple(line for line, those in lines.items() if all(map(math.isnan, those))),
        **other,
    }
    norm = math.hypot(*whole.values())
    return record(step, norm, norm, **values)


def told(records: Iterable[StepRecord], rule: Rule | None = None) -> list[Alert]:
    judge = Judge([rule or Zero()])
    return [alert for one in records for alert in judge.judge(one)]


def fired(alerts: Iterable[Alert]) -> list[tuple[str | None, int, str]]:
    return [(a.module, a.step, a.severity) for a in alerts if a.state == "firing"]


def zero(*owners: str) -> dict[str, float]:
    return dict.fromkeys(owners, 0.0)


@pytest.mark.parametrize(
    ("ill", "names"),
    [
        (["h.1.mlp"], ["h.1.mlp"]),
        (["h.1.mlp", "h.1.attn"], ["h.1"]),
        (["h.1.mlp", "h.1.attn", "h.2.attn"], ["h.1", "h.2.attn"]),
        (H, ["h"]),
        (OWNERS, ["wte", "h", "head"]),
    ],
)
def test_zero_is_told_at_the_highest_module_that_is_ill_as_a_whole(ill: list[str], names: list[str]) -> None:
    assert fired(told(made(step, zero(*ill)) for step in range(1, 9))) == [(name, 3, "critical") for name in names]


def test_no_name_is_higher_than_a_line() -> None:
    owners = ["net.h.0.a", "net.h.0.b", "net.h.1.a"]
    lines = {line: GroupNorms(0.0, 0.0) for line in ("net.h.0", "net.h.1")}
    alerts = told(made(step, zero(*owners), owners, modules=lines) for step in range(1, 5))
    assert [alert.module for alert in alerts] == ["net.h.0", "net.h.1"]


def test_a_dead_inner_layer_of_a_living_module_is_named() -> None:
    """As under DistributedDataParallel, which lets a layer be that the loss does not reach."""
    owners = ["conv", "final.time_mlp.1", "final.block1", "final.block2", "norm"]
    gone = {"final.time_mlp.1": NAN, "norm": NAN}
    alerts = told(made(step, gone, owners) for step in range(1, 30))
    assert fired(alerts) == [
        ("final.time_mlp", 3, "warning"), ("norm", 3, "warning"),
        ("final.time_mlp", 11, "critical"), ("norm", 11, "critical"),
    ]  # fmt: skip
    assert "the gradient of final.time_mlp is missing" in alerts[0].message
    assert all("the loss does not reach it" in alert.message for alert in alerts if alert.state == "firing")


def test_what_is_ill_for_another_reason_is_told_apart() -> None:
    frozen = {"frozen": ("h.0.attn.weight", "h.0.mlp.weight")}
    ill = {"h.0.attn": NAN, "h.0.mlp": NAN, "h.1.attn": NAN, "h.1.mlp": NAN, "h.2.attn": 0.0, "h.2.mlp": 0.0}
    alerts = told(made(step, ill, **frozen) for step in range(1, 4))
    assert fired(alerts) == [("h.0", 3, "warning"), ("h.1", 3, "warning"), ("h.2", 3, "critical")]
    assert alerts[0].cause is not None
    assert (alerts[0].cause.kind, alerts[0].cause.where, alerts[0].cause.evidence["parameters"]) == (
        "frozen",
        "h.0",
        2,
    )


def test_what_a_module_owns_itself_is_told_without_what_lives_beneath_it() -> None:
    owners = ["block", "block.a", "block.b"]
    frozen = {"frozen": ("block.weight",)}
    alerts = told(made(step, {"block": NAN}, owners, **frozen) for step in range(1, 4))
    assert fired(alerts) == [("block", 3, "warning")]
    assert alerts[0].cause is not None
    assert alerts[0].cause.evidence["parameters"] == 1


def test_a_name_goes_on_while_all_around_it_falls_ill() -> None:
    first = [made(step, zero("h.1.attn", "h.1.mlp")) for step in range(1, 10)]
    then = [made(step, zero(*H)) for step in range(10, 30)]
    well = [made(step) for step in range(30, 40)]
    alerts = told([*first, *then, *well])
    assert fired(alerts) == [("h.1", 3, "critical"), ("h", 12, "critical")]
    assert [(a.module, a.step) for a in alerts if a.state == "resolved"] == [("h.1", 32), ("h", 32)]


def test_all_of_a_module_is_told_only_where_a_part_of_it_bears_no_name() -> None:
    naming = Naming(clears_after=3)
    ill: dict[str | None, str] = {}
    said = []
    for block in range(3):
        ill |= dict.fromkeys((f"h.{block}.attn", f"h.{block}.mlp"), "zero")
        said.append(list(naming.take(ill, OWNERS, LINES)))
    # The last of them is what makes all of ``h`` ill.
    assert said == [["h.0"], ["h.0", "h.1"], ["h.0", "h.1", "h"]]
    assert list(naming.take(ill, OWNERS, LINES)) == said[-1]


def test_what_is_left_of_an_ill_is_named_anew() -> None:
    both = [made(step, zero("h.1.attn", "h.1.mlp")) for step in range(1, 6)]
    one = [made(step, zero("h.1.mlp")) for step in range(6, 20)]
    alerts = told([*both, *one])
    assert fired(alerts) == [("h.1", 3, "critical"), ("h.1.mlp", 8, "critical")]
    assert [(a.module, a.step) for a in alerts if a.state == "resolved"] == [("h.1", 10)]


def test_a_part_that_is_well_for_a_step_changes_no_name() -> None:
    flickers = [made(step, zero("h.1.attn") | (zero("h.1.mlp") if step % 3 else {})) for step in range(1, 4)]
    steps = [made(step, zero("h.1.attn", *(["h.1.mlp"] if step % 5 else []))) for step in range(4, 30)]
    assert len({name for name, *_ in fired(told([*flickers, *steps]))}) <= 2


def test_names_go_on_after_a_resume() -> None:
    first, second = Judge([Zero()]), Judge([Zero()])
    for step in range(1, 10):
        first.judge(made(step, zero("h.1.attn", "h.1.mlp")))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.judge(made(10, zero("h.1.attn", "h.1.mlp", "h.2.mlp"))) == []
    assert [a.module for a in second.active] == ["h.1"]


def test_vanishing_is_told_so_too() -> None:
    healthy = [made(step) for step in range(1, 30)]
    ill = [made(step, {"h.1.attn": 3e-9, "h.1.mlp": 4e-9}) for step in range(30, 40)]
    (alert,) = told([*healthy, *ill], Vanishing())
    assert (alert.module, alert.step, alert.value) == ("h.1", 34, pytest.approx(5e-9))


def test_naming_gives_up_a_name_only_after_so_many_well_steps() -> None:
    naming = Naming(clears_after=2)
    ill = dict.fromkeys(("h.1.attn", "h.1.mlp"), "zero")
    assert naming.take(ill, OWNERS, LINES) == {"h.1": ["h.1.attn", "h.1.mlp"]}
    assert naming.take({"h.1.mlp": "zero"}, OWNERS, LINES) == {"h.1": ["h.1.mlp"]}
    assert naming.take(ill, OWNERS, LINES) == {"h.1": ["h.1.attn", "h.1.mlp"]}
    assert naming.take({"h.1.mlp": "zero"}, OWNERS, LINES) == {"h.1": ["h.1.mlp"]}
    assert naming.take({"h.1.mlp": "zero"}, OWNERS, LINES) == {"h.1.mlp": ["h.1.mlp"]}
    assert naming.take({}, OWNERS, LINES) == naming.take({}, OWNERS, LINES) == {}
    assert not naming


# How long a silence is too long, with many owners.


def heads(parts: int) -> Presences:
    """Four heads of so many owners each, drawn in turn; a fifth was never drawn."""
    known = Presences(3)
    names = tuple(f"heads.{i}.{part}" for i in range(5) for part in range(parts))
    for step in range(12):
        known.take(names, [name for name in names if not name.startswith(f"heads.{step % 4}.")])
    return known


def test_the_owners_of_one_head_are_waited_for_as_one() -> None:
    one, many = heads(1), heads(30)
    for head in range(5):
        assert many.patience(f"heads.{head}.0") == one.patience(f"heads.{head}.0")


def test_a_head_of_many_owners_that_dies_is_one_alert() -> None:
    owners = ["trunk", *(f"heads.{i}.{part}" for i in range(3) for part in ("fc1", "fc2"))]

    def step_of(step: int) -> StepRecord:
        drawn = step % 3 if step < 200 else step % 2
        return made(
            step, {o: NAN for o in owners if o.startswith("heads.") and o.split(".")[1] != str(drawn)}, owners
        )

    assert [name for name, *_ in fired(told(map(step_of, range(1, 500))))] == ["heads.2"]


# Many modules, one reason


LAYERS = [f"h.{i}.{part}" for i in range(12) for part in ("attn", "mlp")]


@pytest.mark.parametrize(("rule", "norm"), [(Zero, 0.0), (Vanishing, 1e-9)])
def test_many_modules_that_fall_ill_for_one_reason_are_one_alert(rule: type[Rule], norm: float) -> None:
    ill = {owner: norm for owner in LAYERS if owner.endswith("mlp")}
    owners = ["wte", *LAYERS, "head"]
    well = [made(step, owners=owners) for step in range(1, 10)]
    alerts = told([*well, *(made(step, ill, owners) for step in range(10, 40))], rule())
    assert [alert.module for alert in alerts] == ["h.0.mlp"]
    assert "the gradient of h.0.mlp and 11 more" in alerts[0].message


def test_the_name_of_many_stays_while_the_first_is_ill() -> None:
    owners = ["wte", *LAYERS, "head"]
    ill = [owner for owner in LAYERS if owner.endswith("mlp")]
    well = [made(step, owners=owners) for step in range(1, 10)]
    records = [*well, *(made(step, zero(*ill), owners) for step in range(10, 20))]
    some_are_well = [made(step, zero(*ill[:6]), owners) for step in range(20, 40)]
    the_first_is_well = [made(step, zero(*ill[1:6]), owners) for step in range(40, 60)]
    states = [(a.state, a.module, a.step) for a in told([*records, *some_are_well, *the_first_is_well])]
    assert states == [("firing", "h.0.mlp", 12), ("firing", "h.1.mlp", 42), ("resolved", "h.0.mlp", 44)]
