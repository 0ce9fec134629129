import json
import subprocess
import sys

import pytest

from gradwatch.cli import main
from gradwatch.version import __version__


def gradwatch(*arguments, **options):
    command = [sys.executable, "-m", "gradwatch", *arguments]
    return subprocess.run(command, text=True, check=False, **{"capture_output": True, **options})


def test_rules_prints_the_alerting_rules(capsys):
    assert main(["rules"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("groups:\n")
    assert "NonFiniteGradients" in out
    assert "keep_firing_for" in out


def test_the_links_of_the_rules_lead_to_where_the_docs_are_read(capsys):
    assert main(["rules", "--docs", "http://docs.test/gradwatch/"]) == 0
    printed = capsys.readouterr()
    assert "'http://docs.test/gradwatch/alerts.md#nonfinitegradients'" in printed.out
    assert printed.err == ""
    assert main(["rules"]) == 0
    assert "with --docs URL" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["rules", "--docs", "docs.test"])
    assert "'docs.test' is no URL" in capsys.readouterr().err


def test_dashboard_prints_the_dashboard(capsys):
    assert main(["dashboard"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "gradwatch"


def test_rules_for_servers_that_know_no_keep_firing_for(capsys):
    assert main(["rules", "--vmalert"]) == 0
    out = capsys.readouterr().out
    assert "NonFiniteGradients" in out
    assert "keep_firing_for" not in out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"gradwatch {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["rules", "--no-such-option"], ["rules", "more"]])
def test_a_bad_call_is_one_sentence_and_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    assert said.err.startswith("gradwatch")
    assert said.err.count("\n") == 1
    assert said.err.endswith(".\n")


def test_the_module_runs_as_a_program():
    result = gradwatch("no-such-command")
    assert result.returncode == 2
    assert "no-such-command" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m gradwatch rules | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("0\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
def test_an_output_that_takes_nothing_is_one_sentence():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = gradwatch("rules", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 2
    assert result.stderr.startswith("gradwatch: the output cannot be written")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "step", "step": 2}',
        '{"kind": "step", "step": 2, "optimizer": "o", "norm_before": "x", "norm_after": 1.0}',
        '{"kind": "step", "step": 2, "optimizer": "o", "norm_before": 1.0, "norm_after": 1.0, "clips": [{}]}',
        '{"kind": "step", "step": 2, "optimizer": "o", "norm_before": 1, "norm_after": 1, "parameters": {"w": 1}}',
        '{"kind": ["step"]}',
        "[" * 100_000,
    ],
)
def test_a_report_passes_over_lines_that_cannot_be_read(line, tmp_path, capsys):
    good = '{"kind": "step", "step": 1, "optimizer": "o", "norm_before": 3.0, "norm_after": 1.0, "max_norm": 1.0}'
    path = tmp_path / "run.jsonl"
    path.write_text(f'{{"kind": "run", "run": "mine"}}\n{good}\n{line}\n')
    assert main(["report", str(path)]) == 0
    out = capsys.readouterr().out
    assert "step 1 of o: 3 -> 1, a limit of 1" in out
    assert ("a line of step 2 cannot be read" in out) == ('"step": 2' in line)
