"""A run as a table: the same from the watch and from its file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gradwatch
from gradwatch.errors import ArgumentError, MissingExtraError

pd = pytest.importorskip("pandas", reason='pandas is missing: pip install "gradwatch[pandas]"')


def train(path: Path, *, run: str = "mine", steps: int = 30, **options: Any) -> gradwatch.Watch:
    """Two optimizers; gradients that are clipped, missing, zero and NaN."""
    torch.manual_seed(0)
    net, head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)
    optimizers = {"net": torch.optim.SGD(net.parameters(), 0.01), "head": torch.optim.SGD(head.parameters(), 0.01)}
    with gradwatch.track(
        optimizers, {"net": net, "head": head}, sinks=[gradwatch.sinks.Jsonl(path, **options)], run=run
    ) as watch:
        for step in range(steps):
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            out = head(net(torch.randn(8, 4)).detach() if step == 5 else net(torch.randn(8, 4)))
            (out.square().mean() * (float("nan") if step == 9 else 0.0 if step == 12 else 1.0)).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
            for optimizer in optimizers.values():
                optimizer.step()
    return watch


def test_the_columns_of_a_watch(tmp_path: Path) -> None:
    watch = train(tmp_path / "x")
    frame = watch.to_frame()
    assert list(frame.columns) == [
        "optimizer", "step", "time", "norm_before", "norm_after", "clip_ratio", "max_norm", "clipped", "skipped",
        "nonfinite", "backward_passes", "loss_scale", "loop_step", "run", "net.before", "net.after", "head.before", "head.after",
    ]  # fmt: skip
    assert len(frame) == len(watch.history) == 60
    row, record = frame.iloc[14], watch.history[14]
    assert (row.optimizer, row.step, row.norm_before, row.max_norm) == ("net", 8, record.norm_before, 0.05)
    assert row["net.before"] == record.modules["net"].norm_before
    assert set(frame.run) == {"mine"}
    assert frame[frame.optimizer == "head"]["net.before"].isna().all()
    # From step 10 on the weights are NaN.
    assert frame.nonfinite.tolist() == [False] * 18 + [True] * 42
    assert {"net.weight.before", "head.bias.after"} <= set(watch.to_frame(parameters=True).columns)


@pytest.mark.parametrize("parameters", [False, True])
def test_a_file_gives_the_same_table(parameters: bool, tmp_path: Path) -> None:
    watch = train(tmp_path / "x", parameters=parameters)
    frame = gradwatch.read(tmp_path / "x")
    # Times are kept in milliseconds, and the norms of lines in nine digits.
    expected = watch.to_frame(parameters)
    assert (frame.time - expected.time).abs().max() <= 0.0006
    rtol = 0.0 if parameters else 5e-9
    pd.testing.assert_frame_equal(frame.drop(columns="time"), expected.drop(columns="time"), rtol=rtol, atol=0)
    for exact in ("norm_before", "norm_after", "clip_ratio", "max_norm"):
        pd.testing.assert_series_equal(frame[exact], watch.to_frame()[exact], rtol=0, atol=0)
    assert [alert["rule"] for alert in frame.attrs["alerts"]] == [alert.rule for alert in watch.alerts]
    assert frame.attrs["torn"] == 0


def test_a_file_that_was_torn_is_read_but_for_the_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "x"
    train(path, run="first")
    # 60 steps, and a few alerts, which come where a block ends.
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:40]) + lines[40][: len(lines[40]) // 2])
    kept = len(gradwatch.read(path))
    assert 20 < kept < 40
    with path.open("ab") as file:
        file.write(b"\xff\x00 not a line\n{}\n[]\n")
    train(path, run="second")
    frame = gradwatch.read(path)
    assert list(frame.run) == ["first"] * kept + ["second"] * 60
    assert frame.attrs["torn"] >= 3


def test_what_was_put_aside_is_read_before(tmp_path: Path) -> None:
    for number in (3, 2, 1):
        train(tmp_path / "x", run=f"{number}", steps=2)
        (tmp_path / "x").rename(tmp_path / f"x.{number}")
    train(tmp_path / "x", run="0", steps=2)
    assert list(gradwatch.read(tmp_path / "x").run) == ["3"] * 4 + ["2"] * 4 + ["1"] * 4 + ["0"] * 4


def test_a_run_without_a_step_has_all_columns(tmp_path: Path) -> None:
    watch = train(tmp_path / "x", steps=0)
    pd.testing.assert_frame_equal(gradwatch.read(tmp_path / "x"), watch.to_frame())
    assert len(watch.to_frame().columns) == 14


def test_what_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="No such file"):
        gradwatch.read(tmp_path / "none")
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(ArgumentError, match="holds no step of gradwatch"):
        gradwatch.read(tmp_path / "text")


def test_pandas_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = train(tmp_path / "x", steps=1)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"gradwatch\[pandas\]"):
        watch.to_frame()


def test_a_watch_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    html = train(tmp_path / "x")._repr_html_()
    assert html.startswith("<pre")
    for word in ("norm (L2)", "net, step 30", "gradwatch: "):
        assert word in html


def test_ten_thousand_steps_of_a_gpt2_are_at_most_10_mb(tmp_path: Path) -> None:
    """Fifteen lines: the embeddings, twelve blocks, the last norm; measured on 100 steps."""
    lines = {
        name: torch.nn.Linear(2, 2) for name in ("wte", "wpe", *(f"transformer.h.{n}" for n in range(12)), "ln_f")
    }
    optimizer = torch.optim.SGD([p for line in lines.values() for p in line.parameters()], 1e-3)
    with gradwatch.track(optimizer, lines, sinks=[gradwatch.sinks.Jsonl(tmp_path / "x")]):
        for _ in range(100):
            optimizer.zero_grad()
            sum((line(torch.randn(4, 2)).square().mean() for line in lines.values()), torch.zeros(())).backward()
            torch.nn.utils.clip_grad_norm_([p for line in lines.values() for p in line.parameters()], 0.1)
            optimizer.step()
    head, *steps = (tmp_path / "x").read_text().splitlines(keepends=True)
    size = len(head) + 100 * sum(map(len, steps))
    assert size <= 10_000_000
