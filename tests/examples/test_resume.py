"""A run that goes on from its checkpoint is the run that was never stopped, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.carla_td3 import train
from examples.carla_td3.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
# The ring is small enough to come round.
RUN = ["--learning-starts", "6", "--batch-size", "8", "--buffer-size", "12", "--checkpoint-freq", "5"]
RUN += ["--num-eval-episodes", "1", "--prometheus-port", "0", "--device", "cpu"]


def newest(folder):
    step = Checkpoints(folder).step
    return torch.load(folder / f"checkpoint-{step}.pt", weights_only=True)


def assert_same(one, other, where="state"):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        # A look for a cause reads the passes that it meets, and is begun anew by a run that goes on: what gradwatch
        # remembers is the same, the numbers of evidence beside a cause may be those of a later pass.
        for name in one.keys() - {"evidence"}:
            assert_same(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    else:
        assert one == other or (one != one and other != other), where


def started(log_dir, *more):
    assert train.main([*RUN, "--log-dir", str(log_dir), *more]) in (0, 3)
    (folder,) = log_dir.iterdir()
    return folder


class Killed(BaseException):
    """Stands for a kill at any line."""


def test_everything_is_as_in_a_run_that_was_never_stopped(tmp_path, monkeypatch):
    whole = started(tmp_path / "whole", "--max-timesteps", "40")
    real = train.Report.stepped

    def killed(self, step, *rest):
        if step == 35:
            raise Killed
        real(self, step, *rest)

    monkeypatch.setattr(train.Report, "stepped", killed)
    with pytest.raises(Killed):
        started(tmp_path / "cut", "--max-timesteps", "40")
    monkeypatch.setattr(train.Report, "stepped", real)
    (cut,) = (tmp_path / "cut").iterdir()
    assert Checkpoints(cut).step == 30
    # In between, the process does something else.
    torch.manual_seed(0)
    np.random.seed(0)
    assert train.main(["--resume", str(cut), "--prometheus-port", "0"]) in (0, 3)
    assert_same(newest(whole), newest(cut))


def test_what_gradwatch_counts_goes_on(tmp_path):
    folder = started(tmp_path, "--max-timesteps", "20")
    assert train.main(["--resume", str(folder), "--max-timesteps", "24", "--prometheus-port", "0"]) in (0, 3)
    lines = [json.loads(line) for line in (folder / "gradwatch.jsonl").read_text().splitlines()]
    critic = [line["step"] for line in lines if line["kind"] == "step" and line["optimizer"] == "critic"]
    assert critic == list(range(1, 19))


def test_one_checkpoint_is_kept_and_a_half_written_one_is_not_read(tmp_path):
    folder = started(tmp_path, "--max-timesteps", "20")
    assert [path.name for path in folder.glob("checkpoint-*.pt")] == ["checkpoint-20.pt"]
    (folder / "checkpoint-25.partial").write_bytes(b"half")
    assert Checkpoints(folder).step == 20


def test_a_run_that_is_done_is_refused(tmp_path, capsys):
    folder = started(tmp_path, "--max-timesteps", "20")
    capsys.readouterr()
    assert train.main(["--resume", str(folder), "--prometheus-port", "0"]) == 2
    assert "nothing is left to do" in capsys.readouterr().err


def killed_at_random(folder, log_dir, chance, wait):
    """Run the command in a process of its own and kill it after up to ``wait`` seconds; its exit code."""
    arguments = (
        ["--resume", str(folder)] if folder else [*RUN, "--log-dir", str(log_dir), "--max-timesteps", "100000"]
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.carla_td3.train", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        process.wait(timeout=float(chance.uniform(0, wait)))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    return process.returncode, said.decode()


@pytest.mark.skipif("KILLS" not in os.environ, reason="takes minutes: KILLS=20 says how many")
def test_kills_at_random_moments_lose_only_what_came_after_the_last_checkpoint(tmp_path):
    chance = np.random.default_rng(int(time.time()))
    log_dir, steps = tmp_path / "runs", [0]
    kills = 0
    while kills < int(os.environ["KILLS"]):
        folder = next(iter(log_dir.iterdir()), None) if log_dir.exists() else None
        if folder is not None and not (folder / "config.json").exists():
            shutil.rmtree(folder)
            folder = None
        code, said = killed_at_random(folder, log_dir, chance, wait=12.0)
        assert code == -signal.SIGKILL, said
        kills += 1
        folder = next(iter(log_dir.iterdir()), None) if log_dir.exists() else None
        steps.append(Checkpoints(folder).step if folder else 0)
        assert steps[-1] >= steps[-2]
    print(f"{kills} kills, checkpoints at {steps}")
    end = str(steps[-1] + 5)
    assert train.main(["--resume", str(folder), "--max-timesteps", end]) in (0, 3)
    assert_same(newest(started(tmp_path / "whole", "--max-timesteps", end)), newest(folder))
