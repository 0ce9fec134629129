import numpy as np
import pytest

from examples.carla_td3 import train
from examples.carla_td3.compare import BASELINES, constant, main, pure_pursuit
from examples.carla_td3.env import DrivingEnv
from examples.carla_td3.evaluation import Episode, Evaluation, evaluate, straight_on


@pytest.fixture(scope="module")
def env():
    return DrivingEnv(20, action_repeat=4)


def test_a_driver_that_looks_beats_the_best_constant_one(env):
    looking, blind = evaluate(pure_pursuit, env, 3), evaluate(straight_on, env, 3)
    assert looking.route > 0.9 > 0.4 > blind.route
    assert looking.reward > blind.reward
    assert looking.spread > 0.05
    assert blind.spread == 0.0


def test_standing_pays_less_than_creeping_and_that_less_than_driving(env):
    rewards = [evaluate(constant(0.0, pedal), env, 3).reward for pedal in (-1.0, 0.06, 0.3)]
    assert rewards == sorted(rewards)
    assert rewards[0] == pytest.approx(-500.0)


def test_each_evaluation_drives_the_same_episodes(env):
    one, other = evaluate(straight_on, env, 2), evaluate(straight_on, env, 2)
    assert one.episodes == other.episodes
    assert one.episodes[0] != one.episodes[1]


def test_ends_are_counted_and_told():
    episodes = [
        Episode(1.0, 2, 0.5, "collided"),
        Episode(3.0, 4, 1.0, "finished"),
        Episode(2.0, 3, 0.0, "collided"),
    ]
    found = Evaluation(episodes, np.array([[1.0, -0.96], [0.0, 0.94]], dtype=np.float32))
    assert (found.reward, found.route, found.saturated) == (2.0, 0.5, 0.5)
    assert found.ends == {"collided": 2, "finished": 1}
    assert "of 3 episodes 2 collided, 1 finished" in str(found)


def test_trained_drivers_are_shown_beside_the_others(tmp_path, capsys, monkeypatch):
    arguments = ["--max-timesteps", "12", "--learning-starts", "6", "--batch-size", "2", "--buffer-size", "20"]
    train.main([*arguments, "--num-eval-episodes", "1", "--prometheus-port", "0", "--log-dir", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["compare", str(folder), "--episodes", "1"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(BASELINES) + 3
    assert [line[:32].strip() for line in lines[-3:]] == [
        "fixed, seed 42, 12",
        "fixed, seed 42, 12, gray camera",
        "fixed, seed 42, 12, looking",
    ]
