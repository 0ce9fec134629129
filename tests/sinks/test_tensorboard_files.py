"""An event file whose folder goes away, or whose disk is full."""

import shutil

import pytest

from gradwatch.errors import SinkError
from gradwatch.records import GroupNorms, Health
from gradwatch.sinks import TensorBoard, event_file
from tests.made_up import alert, record, run_info
from tests.sinks.test_jsonl_files import Disk
from tests.sinks.test_tensorboard import read

pytest.importorskip("tensorboard")

TAG = "gradwatch/actor/norm_before"


def opened(folder):
    sink = TensorBoard(folder)
    sink.open(run_info(), Health)
    return sink


def steps(folder):
    return [scalar.step for scalar in read(folder).Scalars(TAG)]


def told(folder):
    return [event.tensor_proto.string_val[0].decode() for event in read(folder).Tensors("gradwatch/lost")]


@pytest.fixture
def disk(monkeypatch):
    """Bytes of room; what does not fit is torn."""
    return Disk(monkeypatch).room


def test_on_a_full_disk_a_new_file_is_begun_when_there_is_room_and_says_what_is_lost(tmp_path, disk, caplog):
    sink = opened(tmp_path)
    sink.write([record(1)], [])
    disk[0] = 100
    for step in (2, 3, 4):
        with pytest.raises(SinkError, match=r"cannot be written \(No space left on device\): make room"):
            sink.write([record(step)], [alert(step=step)])
    disk[0] = 1 << 30
    sink.write([record(5)], [])
    sink.write([record(6)], [])
    sink.close()
    assert steps(tmp_path) == [1, 5, 6]
    assert told(tmp_path) == ["3 steps and 3 alerts are missing: No space left on device."]
    assert len(list(tmp_path.iterdir())) == 2
    (said,) = [entry.getMessage() for entry in caplog.records]
    assert said.endswith("is written again; 3 steps and 3 alerts are missing: No space left on device.")


def test_files_of_one_second_are_read_in_the_order_in_which_they_were_begun(monkeypatch):
    monkeypatch.setattr(event_file.time, "time", lambda: 1.0)
    names = [event_file._file_name() for _ in range(120)]
    assert names == sorted(names)


def test_a_folder_that_was_deleted_is_made_again(tmp_path):
    folder = tmp_path / "runs" / "1"
    sink = opened(folder)
    sink.write([record(1), record(2)], [alert(step=2)])
    shutil.rmtree(folder.parent)
    sink.write([record(3)], [])
    sink.write([record(4)], [])
    sink.close()
    assert steps(folder) == [3, 4]
    assert told(folder) == ["2 steps and 1 alerts are missing: the file was deleted."]


def test_a_file_that_was_deleted_is_begun_anew_with_its_head(tmp_path):
    sink = opened(tmp_path)
    sink.write([record(1)], [])
    for file in tmp_path.iterdir():
        file.unlink()
    sink.write([record(2)], [])
    sink.close()
    assert steps(tmp_path) == [2]
    assert read(tmp_path).file_version == 2.0


def test_what_is_lost_at_the_end_is_told_in_the_log_and_in_a_file_where_there_is_room(tmp_path, disk, caplog):
    for room in (0, 1 << 30):
        folder = tmp_path / str(room)
        disk[0] = 1 << 30
        sink = opened(folder)
        sink.write([record(1)], [])
        disk[0] = 0
        with pytest.raises(SinkError):
            sink.write([record(2)], [])
        disk[0] = room
        sink.close()
    assert told(folder) == ["1 steps and 0 alerts are missing: No space left on device."]
    first, second = [entry.getMessage().split(";")[0] for entry in caplog.records]
    assert first.endswith("could not be written to the end")
    assert second.endswith("is written again")


def test_names_with_terminal_escapes_are_none_in_the_file(tmp_path):
    name = "\x1b]0;gone\x07\x1b[2J\x9b31m"
    sink = opened(tmp_path)
    norms = {name: GroupNorms(1.0, 1.0)}
    sink.write([record(modules=norms)], [alert(module=name, message=name, optimizer=name)])
    sink.close()
    (file,) = tmp_path.iterdir()
    held = file.read_bytes()
    for escape in (b"\x1b]", b"\x1b[", b"\x9b31m"):
        assert escape not in held
    assert b"\\x1b[2J" in held
    assert len(read(tmp_path).Tags()["scalars"]) == 7
