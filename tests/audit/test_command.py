"""The command: its exit status, its object, and one sentence for whatever cannot be read."""

import json
import os
import sys

import pytest

from gradwatch.cli import main
from tests.audit.logs import one_file, write
from tests.report.files import written

CONTRADICTS = {"grad_norm_total": [1.0, 1.0], "grad_norm/a\x1b[31m{at}": [2.0, float("inf")]}


def run(capsys, *arguments):
    status = main(["audit", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_one_object(tmp_path, capsys):
    status, out, _ = run(capsys, write(tmp_path, CONTRADICTS), "--json")
    said = json.loads(out)
    (found,) = said["runs"]
    assert (status, said["contradicts"], found["steps"], found["norms"]) == (1, True, 2, 2)
    assert [(breach["law"], breach["factor"]) for breach in found["contradictions"]] == [
        ("part-below-whole", "Infinity")
    ]


def test_a_screen_whatever_the_names_and_runs_are(tmp_path, capsys):
    for number in range(9):
        write(tmp_path / f"run{number}", CONTRADICTS)
    status, out, _ = run(capsys, tmp_path)
    assert status == 1
    assert out.startswith("9 contradictions: 18 steps, 18 curves of norms looked at (TensorBoard, 9 runs)")
    assert "run0: grad_norm/a\\x1b[31m{at} is above grad_norm_total" in out
    assert "and 6 more, which --json lists" in out
    assert len(out.splitlines()) < 30


@pytest.mark.parametrize("make", ["missing", "empty", "no-norms", "no-events", "binary", "text", "records"])
def test_what_cannot_be_read_is_one_sentence(make, tmp_path, capsys):
    path = tmp_path / "log"
    if make == "empty":
        path.mkdir()
    elif make == "no-norms":
        write(path, {"train/loss": [1.0], "grad_norm_std": [1.0]})
    elif make == "no-events":
        path.mkdir()
        (path / "events.out.tfevents.1").write_bytes(b"no event at all")
    elif make == "binary":
        path.write_bytes(bytes(range(256)))
    elif make == "text":
        path.write_text('{"kind": "step"}\n{"kind": []}\n', encoding="utf-8")
    elif make == "records":
        path.write_text('{"loss": 1.0}\n', encoding="utf-8")
    status, out, err = run(capsys, path)
    assert (status, out) == (2, "")
    assert err.startswith("gradwatch: ")
    assert (err.count("\n"), err[-2:]) == (1, ".\n")


def test_a_torn_file_is_read_up_to_there(tmp_path, capsys):
    file = one_file(write(tmp_path, {"grad_norm": [1.0, 2.0, 3.0]}))
    whole = file.read_bytes()
    for torn in (whole[:-5], whole[:-20] + b"\xff" + whole[-19:]):
        file.write_bytes(torn)
        status, out, _ = run(capsys, file)
        assert status == 0
        assert "nothing contradicts: 2 steps" in out
        assert "is torn" in out


def test_without_tensorboard(tmp_path, capsys, monkeypatch):
    write(tmp_path, {"grad_norm": [1.0]})
    name = "tensorboard.backend.event_processing.event_file_loader"
    monkeypatch.setitem(sys.modules, name, None)
    status, out, err = run(capsys, tmp_path)
    assert (status, out) == (2, "")
    assert 'pip install "gradwatch[tensorboard]"' in err


def test_a_run_without_a_step_is_told_from_what_is_no_run(tmp_path, capsys):
    _, _, err = run(capsys, written(tmp_path / "run.jsonl", []))
    assert "holds a run of gradwatch without a step: give one" in err


def test_a_folder_that_goes_away_is_passed_over(tmp_path, capsys, monkeypatch):
    write(tmp_path / "here", CONTRADICTS)
    (tmp_path / "gone").mkdir()
    scandir = os.scandir

    def scanned(path):
        if os.fspath(path).endswith("gone"):
            raise FileNotFoundError(2, "No such file or directory")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scanned)
    assert run(capsys, tmp_path)[0] == 1
