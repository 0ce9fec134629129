"""The whole command on CARLA's environment, on the stand-in: training, evaluations, and the ways out."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.carla_td3 import evaluation, td3, train
from examples.carla_td3.env.carla import CarlaEnv, environment
from tests.examples.carla_fixtures import simulation

SHORT = ["--max-timesteps", "12", "--learning-starts", "4", "--batch-size", "2", "--prometheus-port", "0"]
SHORT += ["--device", "cpu", "--buffer-size", "50", "--num-eval-episodes", "1", "--eval-freq", "6"]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The server, and the command line of a short run on it."""
    simulated, (host, port) = simulation(monkeypatch)
    monkeypatch.setattr(train, "find_server", lambda *address: None)
    monkeypatch.setattr(environment, "SETTLE", 2)

    def make_env(given):
        env = evaluation.make_env(given)
        assert isinstance(env, CarlaEnv)
        assert (env._vehicles, env._action_repeat) == (20, 4)
        env._max_steps, env._vehicles = 20, 2
        return env

    monkeypatch.setattr(td3, "make_env", make_env)
    return simulated, [*SHORT, "--env", "carla", "--host", host, "--port", str(port), "--log-dir", str(tmp_path)]


def given_back(simulated):
    return not simulated.actors and not simulated.settings.synchronous_mode and not simulated.traffic.synchronous


def test_a_run_drives_learns_is_judged_in_between_and_goes_on(command, tmp_path, capsys):
    simulated, arguments = command
    assert train.main(arguments) == 3
    assert given_back(simulated)
    (folder,) = tmp_path.iterdir()
    steps = [json.loads(line) for line in (folder / "gradwatch.jsonl").read_text().splitlines()]
    assert [line["optimizer"] for line in steps if line["kind"] == "step"].count("critic") == 8
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    # Five decisions of four ticks are an episode. The one that the evaluation of step 6 cut is not counted with the next.
    assert [(e.step, e.value) for e in events.Scalars("train/episode_length")] == [(5, 5.0), (11, 5.0)]
    more = ["--resume", str(folder), "--max-timesteps", "14", "--prometheus-port", "0"]
    assert train.main(more) == 3
    assert given_back(simulated)
    assert "10 critic and 5 actor updates" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (RuntimeError("time-out of 60000ms"), 2)])
def test_a_run_that_is_stopped_or_loses_its_server_says_so_and_gives_the_world_back(
    command, monkeypatch, capsys, error, code
):
    simulated, arguments = command
    look = CarlaEnv._look

    def stop(env, before):
        if simulated.frame > 60:
            raise error
        return look(env, before)

    monkeypatch.setattr(CarlaEnv, "_look", stop)
    assert train.main(arguments) == code
    assert given_back(simulated)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("Stopped by hand" if code == 130 else "The CARLA server at nowhere")


def test_a_server_that_is_gone_ends_the_run_with_one_sentence(command, capsys):
    simulated, arguments = command
    simulated.gone_at = 60
    assert train.main(arguments) == 2
    assert "is lost (time-out of 60000ms" in capsys.readouterr().err.strip().splitlines()[-1]
