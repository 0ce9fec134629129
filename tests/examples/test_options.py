import argparse
import json
import socket
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch

from examples.carla_td3 import train
from examples.carla_td3.options import PRESETS, OptionError, Options, parse

QUIET = ["--prometheus-port", "0"]


def test_the_defaults_are_the_command_of_the_readme():
    options = parse(["--scenario", "0", "--max-timesteps", "500", "--seed", "42", "--debug", *QUIET])
    assert parse([*QUIET, "--debug"]) == options
    assert (options.preset, options.env) == ("fixed", "embedded")
    assert (options.learning_starts, options.batch_size) == (100, 64)
    assert options.log_dir == Path("runs")
    assert options.resume is None


def test_every_option_arrives(tmp_path):
    given = {
        "scenario": "2",
        "max-timesteps": "9",
        "seed": "3",
        "preset": "legacy",
        "env": "embedded",
        "host": "h",
        "port": "7",
        "device": "cpu",
        "eval-freq": "4",
        "num-eval-episodes": "5",
        "checkpoint-freq": "6",
        "log-dir": str(tmp_path),
        "batch-size": "8",
        "learning-starts": "2",
        "prometheus-port": "0",
    }
    options = parse([part for name, value in given.items() for part in (f"--{name}", value)])
    assert {name: str(getattr(options, name.replace("-", "_"))) for name in given} == given


def test_a_preset_sets_what_it_is_made_of_and_an_option_goes_before_it():
    assert parse(["--preset", "legacy", *QUIET]).shared_features
    assert not parse(["--preset", "legacy", "--no-shared-features", *QUIET]).shared_features
    assert parse(["--preset", "unbalanced", "--gamma", "0.9", *QUIET]).gamma == 0.9
    known = {field.name for field in fields(Options)}
    assert all(known >= set(preset) for preset in PRESETS.values())


def test_a_run_goes_on_with_its_own_options(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({**asdict(parse(["--batch-size", "8", *QUIET])), "torch": "2"}, default=str)
    )
    options = parse(["--resume", str(tmp_path), "--max-timesteps", "900", "--batch-size", "16"])
    assert (options.batch_size, options.max_timesteps, options.resume) == (8, 900, tmp_path)


BAD = [
    (["--scenario", "7"], "--scenario got 7"),
    (["--scenario", "town"], "--scenario"),
    (["--max-timesteps", "-5"], "--max-timesteps got -5"),
    (["--max-timesteps", "0"], "--max-timesteps got 0"),
    (["--max-timesteps", "many"], "--max-timesteps"),
    (["--learning-starts", "500"], "--learning-starts got 500 with --max-timesteps 500"),
    (["--learning-starts", "-1"], "--learning-starts got -1"),
    (["--batch-size", "0"], "--batch-size got 0"),
    (["--eval-freq", "-1"], "--eval-freq got -1"),
    (["--num-eval-episodes", "0"], "--num-eval-episodes got 0"),
    (["--checkpoint-freq", "-1"], "--checkpoint-freq got -1"),
    (["--seed", "-1"], "--seed got -1"),
    (["--seed", str(2**32)], "--seed got 4294967296"),
    (["--preset", "broken"], "--preset got 'broken'"),
    (["--env", "metadrive"], "--env got 'metadrive'"),
    (["--env", "carla", "--port", "1"], "--env carla"),
    (["--device", "tpu"], "--device got 'tpu'"),
    (["--device", "cuda:x"], "--device got 'cuda:x'"),
    (["--learning-rate", "nan"], "--learning-rate got nan"),
    (["--warm-up", "sideways"], "--warm-up got 'sideways'"),
    (["--update-every", "0"], "--update-every got 0"),
    (["--port", "0"], "--port got 0"),
    (["--prometheus-port", "70000"], "--prometheus-port got 70000"),
    (["--prometheus-port", "-1"], "--prometheus-port got -1"),
    (["--resume", "no/such/run"], "--resume got 'no/such/run'"),
    (["--no-such-option"], "--no-such-option"),
]


def one_sentence(capsys, arguments):
    assert train.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[" ".join(bad) for bad, _ in BAD])
def test_what_cannot_be_meant_is_answered_in_one_sentence(capsys, tmp_path, arguments, said):
    quiet = [] if "--prometheus-port" in arguments else QUIET
    assert said in one_sentence(capsys, [*arguments, *quiet, "--log-dir", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_named(capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = one_sentence(capsys, ["--prometheus-port", str(port), "--log-dir", str(tmp_path)])
    assert f"--prometheus-port got {port}" in said
    assert list(tmp_path.iterdir()) == []


def test_cuda_where_there_is_none(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "--device got 'cuda'" in one_sentence(capsys, ["--device", "cuda", *QUIET])


def test_a_log_dir_that_cannot_be_written(capsys, tmp_path):
    file = tmp_path / "file"
    file.touch()
    said = one_sentence(capsys, ["--log-dir", str(file / "below"), *QUIET])
    assert "--log-dir got" in said
    assert "Not a directory" in said


def test_a_folder_that_is_of_no_run(capsys, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert "no folder of a run" in one_sentence(capsys, ["--resume", str(tmp_path), *QUIET])


def test_help_describes_every_option(capsys):
    with pytest.raises(SystemExit) as left:
        parse(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert argparse.SUPPRESS not in text
    for flag in ("--scenario", "--preset", "--prometheus-port", "--resume", "--learning-starts"):
        assert flag in text


def test_parse_raises_its_own_error():
    with pytest.raises(OptionError):
        parse(["--scenario", "7"])
