"""A film of a run: made of its folder, in step with its gradients."""

import json
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageSequence

from examples.carla_td3 import record, train
from examples.carla_td3.history import History
from examples.carla_td3.options import OptionError, parse
from examples.carla_td3.replay import Replay

RUN = ["--max-timesteps", "16", "--learning-starts", "6", "--batch-size", "2", "--buffer-size", "100"]
RUN += ["--num-eval-episodes", "1", "--prometheus-port", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    pytest.importorskip("pandas", reason='pandas is missing: pip install "gradwatch[pandas]"')
    log_dir = tmp_path_factory.mktemp("runs")
    film = log_dir.parent / "film.gif"
    assert train.main([*RUN, "--log-dir", str(log_dir), "--record", str(film)]) == 3
    (folder,) = log_dir.iterdir()
    return folder, film


def test_training_ends_with_the_film_that_was_asked_for(filmed, tmp_path):
    folder, film = filmed
    with Image.open(film) as shown:
        assert shown.size == (record.WIDTH, record.HEIGHT)
        # A picture for each decision of four ticks, and one of what the last has led to.
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(shown)) == 17 * 200
    assert record.record(folder, tmp_path / "again.gif", episode=1).startswith("decisions 1 to 16, 3.4 s")
    assert (tmp_path / "again.gif").read_bytes() == film.read_bytes()


def test_the_film_of_a_run_can_be_of_any_of_its_episodes(filmed, tmp_path, capsys):
    folder, _ = filmed
    assert record.main([str(folder), str(tmp_path / "film.gif"), "--episode", "99"]) == 2
    assert "--episode got 99" in capsys.readouterr().err


def buffer(folder, lengths):
    """Episodes of so many decisions, each with pictures of its own."""
    replay, shade = Replay(100, folder), 0
    for length in lengths:
        stack = np.full((4, 84, 84), shade := shade + 1, np.uint8)
        for _ in range(length):
            following = np.concatenate([stack[1:], np.full((1, 84, 84), shade := shade + 1, np.uint8)])
            seen, led_to = ({"image": image, "vector": np.zeros(53, np.float32)} for image in (stack, following))
            replay.add(seen, np.zeros(2, np.float32), 0.0, led_to, terminated=False)
            stack = following
    return replay


def test_an_episode_begins_where_the_pictures_do_not_go_on(tmp_path):
    replay = buffer(tmp_path, [5, 3, 4])
    assert record._episodes(replay, 12) == [(1, 5), (6, 8), (9, 12)]
    # By default it is the last that is known to have ended.
    assert record._chosen(record._episodes(replay, 12), None) == (6, 8)
    assert record._chosen([(1, 7)], None) == (1, 7)


def test_an_episode_that_the_buffer_has_half_forgotten_is_none(tmp_path):
    replay = buffer(tmp_path, [60, 50, 5])
    assert record._episodes(replay, 115) == [(61, 110), (111, 115)]


def test_norms_stand_at_the_decision_that_they_belong_to(filmed):
    history = History(filmed[0])
    assert [line.name for line in history.sides["actor"]] == ["actor", "actor_cnn", "actor_mlp"]
    assert [point[0] for point in history.sides["critic"][0].points] == list(range(7, 17))
    assert [point[0] for point in history.sides["actor"][0].points] == [8, 10, 12, 14, 16]


@pytest.mark.parametrize("kind", [".gif", ".mp4"])
def test_what_is_missing_is_told_before_anything_is_trained(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "_missing", lambda module: True)
    assert train.main([*RUN, "--log-dir", str(tmp_path), "--record", str(tmp_path / f"film{kind}")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"pip install pillow pandas{' imageio-ffmpeg' if kind == '.mp4' else ''}." in said
    assert list(tmp_path.iterdir()) == []


def test_a_film_of_another_kind_and_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "_missing", lambda module: False)
    with pytest.raises(OptionError, match=r"are \.gif or \.mp4"):
        record.check_film(tmp_path / "film.avi")
    with pytest.raises(OptionError, match="make it first"):
        record.check_film(tmp_path / "no" / "film.gif")


def test_a_mp4_is_written_with_what_the_encoder_is_told(tmp_path, monkeypatch):
    told = []

    class Encoder:
        @staticmethod
        def write_frames(path, size, fps):
            told.append((path, size, fps))
            while True:
                told.append((yield))

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", Encoder)
    picture = Image.new("RGB", (record.WIDTH, record.HEIGHT), "white")
    record._write_mp4(iter([picture, picture]), tmp_path / "film.mp4", 5.0)
    assert told == [(str(tmp_path / "film.mp4"), (record.WIDTH, record.HEIGHT), 5.0), *[picture.tobytes()] * 2]


def test_a_run_goes_on_without_the_film_of_before(filmed):
    assert parse(["--resume", str(filmed[0]), "--max-timesteps", "200", "--prometheus-port", "0"]).record is None


def test_what_fires_is_said_while_it_does_and_what_is_critical_first(filmed):
    history = History(filmed[0])

    def alert(step, rule, severity, state, cause=None):
        place = {"optimizer": "actor", "module": "actor_mlp"}
        return {**place, "step": step, "rule": rule, "severity": severity, "state": state, "cause": cause}

    history.alerts = [
        alert(1, "growth", "warning", "firing"),
        alert(2, "zero", "critical", "firing"),
        alert(2, "zero", "critical", "explained", {"kind": "saturated-tanh", "where": "actor_mlp"}),
        alert(3, "growth", "warning", "resolved"),
    ]
    zero = "CRITICAL zero at actor_mlp: saturated-tanh at actor_mlp"
    # The actor's n-th update comes with decision 6 + 2n.
    assert history.firing(7) == []
    assert history.firing(9) == ["WARNING growth at actor_mlp"]
    assert history.firing(10) == [zero, "WARNING growth at actor_mlp"]
    assert history.firing(12) == [zero]


def test_the_picture_of_the_study_is_made_of_runs(filmed, tmp_path, capsys):
    script = Path(__file__).parents[2] / "docs" / "study_picture.py"
    runpy.run_path(str(script))["main"](str(tmp_path / "study.svg"), [str(filmed[0])] * 3)
    drawn = ElementTree.parse(tmp_path / "study.svg").getroot()
    curves = [part for part in drawn.iter() if part.tag.endswith("polyline")]
    assert len(curves) == 9
    assert len(curves[0].get("points").split()) == 5
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 5
    assert table[2].startswith("| no | yes | yes |")
    assert "| never |" in table[2]


def test_a_step_that_a_resumed_run_made_again_counts_once(filmed, tmp_path):
    lines = (filmed[0] / "gradwatch.jsonl").read_text().splitlines()
    again = [json.loads(line) for line in lines if '"step"' in line and '"critic"' in line][-1]
    again["norm_after"] = 7.0
    (tmp_path / "gradwatch.jsonl").write_text("\n".join([*lines, json.dumps(again)]) + "\n")
    points = History(tmp_path).sides["critic"][0].points
    assert [point[0] for point in points] == list(range(7, 17))
    assert points[-1][2] == 7.0
