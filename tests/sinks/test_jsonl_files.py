"""A JSONL file whose folder goes away, whose disk is full, or that has become large."""

import errno
import json
import logging
import os
import shutil
import sys
from io import FileIO

import pytest

from gradwatch.errors import ArgumentError, SinkError
from gradwatch.records import Health
from gradwatch.sinks import Jsonl
from gradwatch.sinks.line_file import Unbuffered
from tests.made_up import alert, record, run_info


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "1" / "run.jsonl"


def opened(path, **options):
    sink = Jsonl(path, **options)
    sink.open(run_info(), Health)
    return sink


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def kinds(lines):
    return [line.get("step", line["kind"]) for line in lines]


class Disk:
    """A disk with so many bytes of room."""

    def __init__(self, monkeypatch):
        self.room, write = [1 << 30], Unbuffered.write

        def limited(file, data):
            fits = min(len(data), self.room[0])
            if not fits and len(data):
                raise OSError(errno.ENOSPC, "No space left on device")
            self.room[0] -= fits
            return write(file, data[:fits])

        monkeypatch.setattr(Unbuffered, "write", limited)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def test_a_file_whose_folder_was_deleted_is_begun_anew_and_says_what_was_lost(path, caplog):
    sink = opened(path)
    sink.write([record(1), record(2)], [alert(step=2)])
    shutil.rmtree(path.parent.parent)
    sink.write([record(3)], [])
    sink.write([record(4)], [])
    sink.close()
    run, *steps = read(path)
    assert (run["kind"], run["run"]) == ("run", "test-1")
    assert run["lost"] == {"steps": 2, "alerts": 1, "reason": "the file was deleted"}
    assert kinds(steps) == [3, 4]
    (said,) = [entry.getMessage() for entry in caplog.records]
    assert said.startswith(
        f"The JSONL file '{path}' is written again; 2 steps and 1 alerts are missing: the file was"
    )


def test_a_file_that_was_moved_has_lost_nothing(path, caplog):
    sink = opened(path)
    sink.write([record(1)], [])
    path.rename(path.with_suffix(".old"))
    sink.write([record(2)], [])
    sink.write([record(3)], [])
    sink.close()
    # What was on its way goes with it.
    assert kinds(read(path.with_suffix(".old"))) == ["run", 1, 2]
    assert kinds(read(path)) == ["run", 3]
    assert "lost" not in read(path)[0]
    assert caplog.records == []


def test_on_a_full_disk_lines_are_counted_and_told_as_soon_as_there_is_room(path, disk, caplog):
    sink = opened(path)
    sink.write([record(1)], [])
    disk.room[0] = 100
    for step in (2, 3):
        with pytest.raises(SinkError, match=r"cannot be written \(No space left on device\): make room"):
            sink.write([record(step)], [alert(step=step)])
    disk.room[0] = 1 << 30
    sink.write([record(4)], [])
    sink.close()
    first, before, torn, again, after = path.read_text().splitlines()
    assert kinds(map(json.loads, (first, before, again, after))) == ["run", 1, "run", 4]
    assert len(torn) == 100
    assert json.loads(again)["lost"] == {"steps": 2, "alerts": 2, "reason": "No space left on device"}
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]


def test_what_is_lost_to_the_end_is_told_in_the_log(path, disk, caplog):
    sink = opened(path)
    disk.room[0] = 0
    with pytest.raises(SinkError):
        sink.write([record(1)], [])
    sink.close()
    (said,) = [entry.getMessage() for entry in caplog.records]
    assert "could not be written to the end; 1 steps and 0 alerts are missing" in said


def test_a_file_that_would_become_too_large_is_moved_aside_and_a_few_are_kept(path):
    sink = opened(path, max_bytes=1500, keep=2)
    for step in range(1, 41):
        sink.write([record(step)], [])
    sink.close()
    files = {file.name: file for file in path.parent.iterdir()}
    assert set(files) == {"run.jsonl", "run.jsonl.1", "run.jsonl.2"}
    assert all(file.stat().st_size <= 1500 for file in files.values())
    lines = [read(files[name]) for name in ("run.jsonl.2", "run.jsonl.1", "run.jsonl")]
    assert [part[0]["kind"] for part in lines] == ["run"] * 3
    steps = [line["step"] for part in lines for line in part[1:]]
    assert steps == list(range(steps[0], 41))
    assert 2 < len(steps) < 40


def test_one_batch_that_is_larger_than_a_file_may_be_is_written_all_the_same(path):
    sink = opened(path, max_bytes=10, keep=1)
    for step in (1, 3):
        sink.write([record(step), record(step + 1)], [])
    sink.close()
    assert kinds(read(path.with_name("run.jsonl.1"))) == ["run", 1, 2]
    assert kinds(read(path)) == ["run", 3, 4]


def test_a_file_that_cannot_be_moved_aside_goes_on_to_grow(path, monkeypatch):
    sink = opened(path, max_bytes=10)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(PermissionError()))
    sink.write([record(1)], [])
    sink.write([record(2)], [])
    sink.close()
    assert [line["step"] for line in read(path) if line["kind"] == "step"] == [1, 2]


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_bytes": 1.5}, {"max_bytes": True}, {"keep": 0}])
def test_a_number_that_cannot_be_meant_is_refused(path, options):
    with pytest.raises(ArgumentError, match="whole number from 1 on"):
        Jsonl(path, **options)


def test_a_name_with_terminal_escapes_is_no_escape_in_the_file(path):
    name = "\x1b]0;gone\x07\x1b[2J\x9b31m"
    sink = opened(path)
    sink.write([record(optimizer=name)], [alert(module=name, message=name)])
    sink.close()
    text = path.read_text()
    assert text.replace("\n", "").isprintable()
    assert read(path)[1]["optimizer"] == name


def test_lines_are_written_before_the_system_is_asked_anything_else(path):
    """Each of its calls lets go of the interpreter: a training that is killed meanwhile has lost them."""
    sink, asked = opened(path, max_bytes=1 << 20), []

    def called(frame, event, function):
        of_a_file = isinstance(getattr(function, "__self__", None), FileIO)
        if event == "c_call" and (of_a_file or getattr(function, "__module__", "") in ("posix", "nt")):
            asked.append(function.__name__)

    sys.setprofile(called)
    try:
        sink.write([record(1)], [alert()])
    finally:
        sys.setprofile(None)
    sink.close()
    assert asked[0] == "write"
    assert "stat" in asked


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_nobody_reads_is_told_of_and_one_that_is_read_is_written(tmp_path):
    """To open it as a file is opened would wait for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SinkError, match=r"cannot be written \(No such device"):
        opened(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = opened(pipe)
    sink.write([record(1)], [])
    sink.close()
    lines = os.read(reader, 1 << 16).splitlines()
    os.close(reader)
    assert kinds(map(json.loads, lines)) == ["run", 1]
