"""The script that runs on a GPU, tried where there is none."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.autograd import DeviceType

from tests.gpu import agent, busy, pace, packages, suite, timing, yardstick
from tests.gpu.__main__ import main
from tests.gpu.environment import build_kernel, environment
from tests.gpu.exactness import LIMIT, exactness, host_norm, made, ulps
from tests.gpu.report import as_markdown
from tests.gpu.stages import Found, Settings, Stage, Table, carried_out
from tests.gpu.timing import Spread, Timed, Way
from tests.gpu.workloads import WORKLOADS

QUICK = Settings(torch.device("cpu"), quick=True)


def breaks(settings: Settings, found: Found) -> None:
    found.tables.append(Table("Begun", ("a",), [("1",)]))
    raise RuntimeError("no memory")


def works(settings: Settings, found: Found) -> None:
    found.tables.append(Table("Whole", ("b",), [("2",)]))
    found.data["number"] = float("inf")
    found.left_out.append("the agent: not installed here: gymnasium")


def finished(folder: Path, stages: dict[str, Stage]) -> tuple[int, str, dict]:
    code = main(["--device", "cpu", "--quick", "--out", str(folder)], stages)
    return code, (folder / "gpu.md").read_text(), json.loads((folder / "gpu.json").read_text())


def test_a_stage_that_breaks_leaves_the_others_alone(tmp_path: Path) -> None:
    code, page, told = finished(tmp_path, {"first": breaks, "second": works})
    assert code == 1
    assert "## Begun" in page
    assert "## Whole" in page
    assert page.endswith("## Failed\n\n- the stage broke: RuntimeError: no memory\n")
    assert told["card"] == "no card: the CPU"
    assert told["stages"]["second"]["data"]["number"] == "inf"


def test_what_is_left_out_is_named_and_fails_nothing(tmp_path: Path) -> None:
    code, page, _ = finished(tmp_path, {"only": works})
    assert code == 0
    assert "## Left out\n\n- the agent: not installed here: gymnasium\n" in page
    assert page.endswith("## Failed\n\nNothing.\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_what_can_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--device cpu --quick" in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packages.reason(["torch"]) is None
    monkeypatch.setattr(agent, "NEEDED", ("torch", "no_such_package"))
    monkeypatch.setattr(suite, "NEEDED", ("no_such_package",))
    monkeypatch.setattr(pace, "NEEDED", ("no_such_package",))
    for stage in (agent.agent, suite.suite, pace.pace):
        found = carried_out("one", stage, QUICK, say=lambda _: None)
        assert (found.failures, found.tables) == ([], [])
        assert found.left_out[0].endswith("not installed here: no_such_package")


def test_the_environment_needs_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gpu.environment.build_kernel", lambda root: "not tried")
    found = carried_out("environment", environment, QUICK, say=lambda _: None)
    assert found.failures == []
    assert found.data["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("script", "said"),
    [(None, "nothing to build"), ("raise SystemExit(1)", "failed: goes on without"), ("", "built")],
)
def test_the_kernel_is_built_where_it_can_be(tmp_path: Path, script: str | None, said: str) -> None:
    if script is not None:
        (tmp_path / "setup.py").write_text(script)
    assert build_kernel(tmp_path) == said


def test_a_bar_or_a_line_break_does_not_end_a_cell() -> None:
    drawn = as_markdown(Table("T", ("a", "b"), [("1 | 2", "3\n4")]))
    assert drawn == "## T\n\n| a | b |\n| --- | --- |\n| 1 \\| 2 | 3 4 |"


def test_exactness_passes() -> None:
    found = carried_out("exactness", exactness, QUICK, say=lambda _: None)
    assert found.failures == []
    assert {row[0] for row in found.tables[0].rows} == {"float32", "float16", "bfloat16", "float64"}
    assert all(row[-1] == "pass" for row in found.tables[0].rows)


def test_exactness_fails_for_norms_in_float32() -> None:
    def coarse(gradients: list[Tensor]) -> list[float]:
        return [gradient.float().norm().item() for gradient in gradients]

    found = Found()
    exactness(QUICK, found, {"coarse": coarse})
    assert {row[0] for row in found.tables[0].rows if row[-1] == "FAIL"} >= {"float32", "bfloat16"}
    assert len(found.failures) >= 2


def test_the_reference_and_its_unit() -> None:
    assert host_norm(torch.tensor([3e200, 4e200], dtype=torch.float64)) == pytest.approx(5e200, rel=1e-15)
    assert ulps(1 + 2**-23, 1.0) == 1.0
    assert ulps(float("nan"), 1.0) == float("inf")
    assert ulps(1 + LIMIT * 2**-22, 1.0) > LIMIT


def test_each_type_is_given_what_it_can_hold() -> None:
    kinds = {
        dtype: {name.split(" ")[0] for name, _ in made(dtype, (10,), QUICK.device)}
        for dtype in (torch.float16, torch.bfloat16)
    }
    assert kinds[torch.float16] == {"normal", "0.1", "subnormal"}
    assert kinds[torch.bfloat16] == {"normal", "0.1", "1e20", "1e-23", "subnormal"}


def test_differences_are_paired() -> None:
    timed = {
        "bare": [Timed(1e-6, 1e-6), Timed(5e-6, 5e-6), Timed(9e-6, 9e-6)],
        "tracked": [Timed(3e-6, 2e-6), Timed(7e-6, 6e-6), Timed(11e-6, 10e-6)],
        "naive": [Timed(2e-6, 2e-6)] * 3,
    }
    told = yardstick.summary(timed, "device")
    assert told["bare"]["median"] == pytest.approx(5.0)
    assert [told["tracked"][key] for key in ("low", "median", "high", "percent")] == pytest.approx([2, 2, 2, 40])
    assert yardstick.summary(timed, "host")["tracked"]["median"] == pytest.approx(1.0)
    assert timing.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(2.0, 3.0, 4.0)


def test_each_way_is_timed_once_a_round_in_whole_blocks() -> None:
    steps = {"one": 0, "two": 0}

    def way(name: str) -> Way:
        def step() -> None:
            steps[name] += 1

        return Way(lambda: nullcontext(step), block=4)

    timed = timing.alternate({name: way(name) for name in steps}, QUICK.device, seconds=0.01, rounds=3)
    assert [len(times) for times in timed.values()] == [3, 3]
    assert all(count % 4 == 0 and count >= 4 * 2 * 4 for count in steps.values())


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardstick, "WORKLOADS", {name: WORKLOADS[name]})
    monkeypatch.setattr(yardstick, "QUICK_SECONDS", 0.01)
    found = carried_out("yardstick", yardstick.yardstick, QUICK, say=lambda _: None)
    assert found.failures == []
    assert [row[:1] + row[3:4] for row in found.tables[0].rows] == [(name, "device"), (name, "host")]


def ran(where: DeviceType, us: float, marked: bool = False) -> SimpleNamespace:
    time_range = SimpleNamespace(elapsed_us=lambda: us)
    return SimpleNamespace(device_type=where, is_user_annotation=marked, time_range=time_range)


def test_only_what_the_device_ran_is_its_work() -> None:
    kernel = ran(DeviceType.CUDA, 6.0)
    others = [ran(DeviceType.CUDA, 90.0, marked=True), ran(DeviceType.CPU, 90.0)]
    worked = busy.per_step([kernel, kernel, *others], steps=2)
    assert worked == {"us": 6.0, "kernels": 1.0}
    more = {"us": 8.0, "kernels": 3.0}
    assert busy.row({"bare": worked, "tracked": more, "naive": worked}) == (
        "6.0",
        "1.0",
        "2.0",
        "2.0",
        "0.0",
        "0.0",
    )


def test_the_pace_of_the_workload_is_measured_bare_and_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "QUICK_SECONDS", 0.01)
    found = carried_out("pace", pace.pace, QUICK, say=lambda _: None)
    assert found.failures == []
    assert found.left_out == ["how busy the device is: there is no CUDA device"]
    ways = [(loop, way) for loop in ("update", "decision") for way in ("bare", "tracked")]
    assert [row[:2] for row in found.tables[0].rows] == ways
    assert all(float(row[2]) > 0 and row[-1] == "unknown" for row in found.tables[0].rows)


def test_the_device_is_busy_for_its_share_of_an_update() -> None:
    told = pace.summary([Timed(4e-3, 1e-3), Timed(2e-3, 1e-3), Timed(1e-3, 1e-3)], {"us": 500.0, "kernels": 9.0})
    assert told["rate"]["median"] == pytest.approx(500.0)
    assert told["busy"] == pytest.approx(0.25)
    assert pace.rows("update", {"bare": told})[0] == ("update", "bare", "500.0", "375.0 to 750.0", "500", "25.0")


def test_the_report_of_the_tests_is_counted() -> None:
    outcome = suite.read(
        "<testsuites><testsuite>"
        '<testcase classname="a" name="good"/>'
        '<testcase classname="a" name="out"><skipped/></testcase>'
        '<testcase classname="a" name="bad"><failure message="assert 1 == 2&#10;more"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert (outcome.passed, outcome.skipped, outcome.failed) == (1, 1, {"a::bad": "assert 1 == 2"})


def test_every_file_with_such_tests_is_run() -> None:
    names = [path.name for path in suite.marked_files(Path(__file__).parents[1])]
    assert {"test_landing.py", "test_norms.py", "test_unchanged.py", "test_verdicts.py", "test_waiting.py"} <= {
        *names
    }
    assert names.index("test_streams.py") > names.index("test_waiting.py")


STEP = {"kind": "step", "optimizer": "actor", "norm_before": 2.0, "norm_after": 1.0, "modules": {}}
ZERO = {
    "kind": "alert",
    "rule": "zero",
    "severity": "critical",
    "optimizer": "actor",
    "module": "actor_mlp",
    "step": 12,
}
TOLD = [
    {**STEP, "step": 1, "time": 10.0},
    {**STEP, "step": 2, "time": 10.5},
    {**STEP, "step": 3, "time": 11.0},
    {**ZERO, "state": "firing", "cause": None},
    {**ZERO, "state": "explained", "cause": {"kind": "saturated-tanh", "where": "actor_mlp"}},
]


def test_the_log_of_the_agent_is_read() -> None:
    read = agent.summary([*map(json.dumps, TOLD), '{"kind": "st'])
    assert (read["updates"], read["updates_per_second"]) == ({"actor": 3}, 2.0)
    assert read["fired"] == read["critical"] == ["zero at actor_mlp, step 12"]
    assert read["causes"] == ["saturated-tanh at actor_mlp"]


def test_what_the_agent_must_show() -> None:
    ran = {**agent.summary([json.dumps(line) for line in TOLD]), "exit_code": 0, "said": ""}
    assert agent.wrong("legacy", ran, quick=False) == []
    assert agent.wrong("fixed", ran, quick=False) == [
        "critical alerts in a healthy run: zero at actor_mlp, step 12"
    ]
    assert agent.wrong("legacy", {**ran, "causes": []}, quick=False) == ["the silent policy was not explained"]
    assert agent.wrong("legacy", {**ran, "exit_code": 1, "said": "no disk"}, quick=True) == [
        "exit code 1: no disk"
    ]
