"""The commands that stand beside the numbers can be given as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from examples.carla_td3.options import parse
from tests.docs.pages import blocks_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "study.md", ROOT / "examples" / "carla_td3" / "README.md"]
# A loop of the shell gives each of its values.
VALUES = {"$shared": "--no-shared-features", "$norm": "--layer-norm", "$clip": "--actor-clip 0 --critic-clip 0"}


def commands():
    for page in PAGES:
        blocks = "\n".join(block.text.replace("\\\n", " ") for block in blocks_of(page))
        for variable, value in VALUES.items():
            blocks = blocks.replace(variable, value)
        yield from re.findall(r"python -m examples\.carla_td3\.train (.*)", blocks)


@pytest.mark.parametrize("command", list(commands()))
def test_training_takes_the_command(command):
    if "--resume" in command:
        assert set(re.findall(r"--[\w-]+", command)) == {
            "--resume",
            "--max-timesteps",
            "--anneal",
            "--prometheus-port",
        }
    else:
        assert parse([*shlex.split(command), "--prometheus-port", "0"]).scenario == 0


def test_there_are_such_commands():
    assert len(list(commands())) >= 4
    assert all((ROOT / "docs" / name).exists() for name in ("study.svg", "study-legacy.svg", "legacy.gif"))
