"""gradwatch's own logs: a real run contradicts nothing, in any form; a number that is changed does."""

import json

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gradwatch
from gradwatch.audit import audit

FORMS = {
    "brief": lambda folder: gradwatch.sinks.Jsonl(folder / "run.jsonl"),
    "full": lambda folder: gradwatch.sinks.Jsonl(folder / "run.jsonl", parameters=True),
    "tags": gradwatch.sinks.TensorBoard,
    "old-tags": lambda folder: gradwatch.sinks.TensorBoard(folder, prefix="debug"),
}


def train(sink, seed=0, steps=3, limits=(1e-3,), scale=1.0, dtype=torch.float32, grown=1.0):
    """Two optimizers; of one the parts overlap, the other's names are nested; clipped as a whole or by layer."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.Tanh(), torch.nn.Linear(9, 2)).to(dtype)
    head = torch.nn.Linear(2, 1).to(dtype)
    optimizers = {"net": torch.optim.SGD(net.parameters(), 0.1), "head": torch.optim.SGD(head.parameters(), 0.1)}
    lines = {"net_first": net[0], "net": net, "net.2": net[2], "head": head}
    with gradwatch.track(optimizers, lines, sinks=[sink], rules=[]):
        for _ in range(steps):
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            (head(net(torch.randn(5, 4, dtype=dtype))).pow(2).mean() * scale).backward()
            # One clip call for the whole, one for each layer, for one of them, or none.
            for limit, given in zip(limits, [net] if len(limits) == 1 else [net[0], net[2]], strict=False):
                if limit is not None:
                    torch.nn.utils.clip_grad_norm_(given.parameters(), limit)
            for parameter in () if any(limits) else net.parameters():
                parameter.grad.mul_(grown)
            for optimizer in optimizers.values():
                optimizer.step()


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99),
    limits=st.sampled_from([(), (1e-3,), (10.0,), (1e-3, 0.1), (None, 1e-3), (1e-3, None)]),
    scale=st.sampled_from([1.0, 1e-30, 1e15, 0.0, float("nan"), float("inf")]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    grown=st.sampled_from([1.0, 2.0]),
)
@example(seed=0, limits=(), scale=1.0, dtype=torch.float32, grown=2.0)
@example(seed=0, limits=(None, 1e-3), scale=1.0, dtype=torch.float32, grown=1.0)
def test_a_real_run_contradicts_nothing(form, tmp_path_factory, seed, limits, scale, dtype, grown):
    folder = tmp_path_factory.mktemp("run")
    train(FORMS[form](folder), seed=seed, limits=limits, scale=scale, dtype=dtype, grown=grown)
    (found,) = audit(folder / "run.jsonl" if form in ("brief", "full") else folder)
    assert found.breaches == []
    assert found.steps == 3
    assert not found.log.unread


@pytest.fixture
def lines(tmp_path):
    """The lines of a run with every parameter, and the file that they are in."""
    path = tmp_path / "run.jsonl"
    train(FORMS["full"](tmp_path))
    return path, [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def changed(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    (found,) = audit(path)
    return {breach.law for breach in found.breaches}


def test_a_number_that_is_changed_contradicts(lines):
    path, entries = lines
    step = next(entry for entry in entries if entry["kind"] == "step" and entry["optimizer"] == "net")
    step["norm_after"] *= 1.001
    assert changed(path, entries) == {"within-limit", "ratio"}
    # torch's own norm was too low by as much, and it scales by that.
    step["clips"][0]["norm_returned"] /= 1.001
    assert changed(path, entries) == {"ratio"}
    step["norm_after"] /= 1.001
    assert changed(path, entries) == set()
    step["norm_before"] *= 0.999
    assert {"ratio", "part-below-whole", "root-of-squares"} <= changed(path, entries)


def test_a_brief_line_knows_its_limit_where_all_was_scaled_as_one(tmp_path):
    path = tmp_path / "run.jsonl"
    train(FORMS["brief"](tmp_path))
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for entry in entries:
        if entry.get("optimizer") == "net":
            entry["norm_after"] *= 1.93
    assert changed(path, entries) == {"within-limit"}
    for entry in entries:
        if entry.get("optimizer") == "net":
            # As two clip calls, each for one of them, would have left it.
            entry["modules"][0][1] *= 0.5
    assert changed(path, entries) == set()
    for entry in entries:
        if entry.get("optimizer") == "net":
            # Of what no line holds nothing is known.
            entry["modules"] = {"a": [1e-3, 1e-4], "b": [1e-3, 1e-4]}
    assert changed(path, entries) == set()
    (found,) = audit(path)
    assert "above max_norm at 3 steps" in found.remarks[0]


def test_a_step_that_comes_twice_contradicts_where_it_says_something_else(lines):
    path, entries = lines
    again = dict(next(entry for entry in entries if entry["kind"] == "step"))
    at = entries.index(next(entry for entry in entries if entry["kind"] == "step"))
    assert changed(path, [*entries[:at], again, *entries[at:]]) == set()
    again["norm_before"], again["modules"], again["parameters"] = again["norm_before"] * 2, {}, {}
    assert "in-order" in changed(path, [*entries[:at], again, *entries[at:]])


def test_two_runs_in_one_file_are_told_apart(tmp_path):
    for seed in range(2):
        train(FORMS["brief"](tmp_path), seed=seed)
    found = audit(tmp_path / "run.jsonl")
    assert [len(one.breaches) for one in found] == [0, 0]
