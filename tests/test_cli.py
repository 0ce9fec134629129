import subprocess
import sys

import pytest

from gradwatch.cli import main
from gradwatch.version import __version__


def test_rules_prints_the_alerting_rules(capsys):
    assert main(["rules"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("groups:\n")
    assert "NonFiniteGradients" in out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["rules", "--no-such-option"]])
def test_a_bad_call_is_exit_2_without_a_traceback(arguments):
    result = subprocess.run(
        [sys.executable, "-m", "gradwatch", *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "gradwatch" in result.stderr


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m gradwatch rules | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "groups:\n", "")
