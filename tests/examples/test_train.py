import json
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.carla_td3 import train

SHORT = ["--max-timesteps", "16", "--learning-starts", "6", "--batch-size", "2", "--prometheus-port", "0"]
SHORT += ["--buffer-size", "100", "--num-eval-episodes", "1", "--action-repeat", "4"]


def command(log_dir, *more):
    return [*SHORT, "--log-dir", str(log_dir), "--device", "cpu", *more]


@pytest.fixture(scope="module", params=["fixed", "unbalanced", "legacy"])
def ran(request, tmp_path_factory):
    log_dir = tmp_path_factory.mktemp(request.param)
    more = ["--preset", request.param, "--debug", "--checkpoint-freq", "8"]
    # In so few updates nobody learns to drive.
    assert train.main(command(log_dir, *more)) == 3
    (folder,) = log_dir.iterdir()
    return request.param, folder


def test_the_folder_is_named_after_scenario_vehicles_and_time(ran):
    _, folder = ran
    assert re.fullmatch(r"TD3_scenario_0_npcs_20_\d{8}-\d{6}", folder.name)
    # The one before it is gone.
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-16.pt"]
    # One events file: TensorBoard follows one at a time.
    assert len(list(folder.glob("events.*"))) == 1


def test_the_config_holds_every_hyperparameter(ran):
    preset, folder = ran
    config = json.loads((folder / "config.json").read_text())
    assert config["max_timesteps"] == 16
    assert config["preset"] == preset
    assert config["shared_features"] == (preset == "legacy")
    assert {"learning_rate", "gamma", "tau", "target_noise", "buffer_size", "policy_delay"} <= set(config)


def test_every_step_of_both_optimizers_is_in_the_log(ran):
    _, folder = ran
    lines = [json.loads(line) for line in (folder / "gradwatch.jsonl").read_text().splitlines()]
    steps = [line["optimizer"] for line in lines if line["kind"] == "step"]
    assert steps.count("critic") == 10
    assert steps.count("actor") == 5


def test_tensorboard_has_the_tags_of_the_report_on_one_axis(ran):
    preset, folder = ran
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = set(events.Tags()["scalars"])
    for side in ("actor", "critic"):
        assert {f"debug/{side}_grad_norm_{when}_clip" for when in ("BEFORE", "AFTER")} <= tags
        assert f"debug/{side}_grad_clip_ratio" in tags
        assert {f"debug/{side}_{part}_grad_norm_AFTER_clip" for part in ("cnn", "mlp")} <= tags
        wrong = {f"debug/{side}_{part}_grad_norm_AFTER_clip_SUM_OF_NORMS" for part in ("cnn", "mlp")}
        assert wrong <= tags if preset == "legacy" else not wrong & tags
    assert {"train/actor_loss", "train/q", "reward/progress", "eval/route", "eval/collided"} <= tags
    assert any(tag.startswith("alerts/") for tag in tags)

    def axis(tag):
        return [event.step for event in events.Scalars(tag)]

    assert axis("train/critic_loss") == axis("debug/critic_grad_norm_AFTER_clip") == list(range(7, 17))
    assert axis("train/actor_loss") == axis("debug/actor_mlp_grad_norm_AFTER_clip") == [8, 10, 12, 14, 16]
    assert axis("eval/route") == [0, 16]


def test_the_checklist_is_printed_and_the_output_is_plain_where_it_is_no_terminal(capsys, tmp_path):
    assert train.main(command(tmp_path)) == 3
    out, err = capsys.readouterr()
    assert "evaluation, untrained: route 0.0%" in out
    assert "evaluation, trained: route" in out
    assert "10 critic and 5 actor updates" in out
    assert "saturated actions" in out
    assert "FAIL" in out
    assert "\x1b" not in out
    assert err == ""


def test_a_checklist_that_holds_ends_with_0(tmp_path, monkeypatch):
    monkeypatch.setattr("examples.carla_td3.checklist.Checklist.holds", True)
    assert train.main(command(tmp_path)) == 0


def test_evaluations_are_made_and_do_not_disturb_the_training(ran, capsys, tmp_path):
    preset, folder = ran
    assert train.main(command(tmp_path, "--preset", preset, "--eval-freq", "8")) == 3
    assert capsys.readouterr().out.count("evaluation, trained") == 2
    (other,) = tmp_path.iterdir()
    plain, judged = (torch.load(f / "checkpoint-16.pt", weights_only=True)["parts"] for f in (folder, other))
    for name, weight in plain["agent"]["actor"].items():
        assert torch.equal(weight, judged["agent"]["actor"][name])


def test_a_run_that_is_stopped_by_hand_says_so_and_closes_its_logs(capsys, tmp_path, monkeypatch):
    def stop(self, step, said):
        raise KeyboardInterrupt

    monkeypatch.setattr("examples.carla_td3.reporting.Report.updated", stop)
    assert train.main(command(tmp_path)) == 130
    assert capsys.readouterr().err.count("\n") == 1
    (folder,) = tmp_path.iterdir()
    kinds = [json.loads(line)["kind"] for line in (folder / "gradwatch.jsonl").read_text().splitlines()]
    assert kinds == ["run", "step"]
