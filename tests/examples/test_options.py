import argparse
import socket
from pathlib import Path

import pytest
import torch

from examples.carla_td3 import train
from examples.carla_td3.options import OptionError, parse

QUIET = ["--prometheus-port", "0"]


def test_the_defaults_are_the_command_of_the_readme():
    options = parse(["--scenario", "0", "--max-timesteps", "500", "--seed", "42", "--debug", *QUIET])
    assert parse([*QUIET, "--debug"]) == options
    assert (options.preset, options.env, options.device) == ("fixed", "embedded", "auto")
    assert (options.learning_starts, options.batch_size) == (100, 64)
    assert options.log_dir == Path("runs")
    assert options.resume is None


def test_every_option_arrives(tmp_path):
    (tmp_path / "c.pt").touch()
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
        "resume": str(tmp_path / "c.pt"),
        "log-dir": str(tmp_path),
        "batch-size": "8",
        "learning-starts": "2",
        "prometheus-port": "0",
    }
    options = parse([part for name, value in given.items() for part in (f"--{name}", value)])
    assert {name: str(getattr(options, name.replace("-", "_"))) for name in given} == given


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
    (["--env", "carla"], "not there yet"),
    (["--device", "tpu"], "--device got 'tpu'"),
    (["--port", "0"], "--port got 0"),
    (["--prometheus-port", "70000"], "--prometheus-port got 70000"),
    (["--prometheus-port", "-1"], "--prometheus-port got -1"),
    (["--resume", "no/such/checkpoint.pt"], "--resume got 'no/such/checkpoint.pt'"),
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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device got 'cuda'" in one_sentence(capsys, ["--device", "cuda", *QUIET])


def test_a_log_dir_that_cannot_be_written(capsys, tmp_path):
    file = tmp_path / "file"
    file.touch()
    said = one_sentence(capsys, ["--log-dir", str(file / "below"), *QUIET])
    assert "--log-dir got" in said
    assert "Not a directory" in said


def test_a_file_that_is_no_checkpoint(capsys, tmp_path):
    file = tmp_path / "checkpoint-1.pt"
    file.write_bytes(b"not a checkpoint")
    assert "no checkpoint of this program" in one_sentence(
        capsys, ["--resume", str(file), "--log-dir", str(tmp_path / "runs"), *QUIET]
    )


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
