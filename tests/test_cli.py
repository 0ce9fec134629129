import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from gradwatch.cli import main
from gradwatch.version import __version__
from tests.made_up import record
from tests.report.files import named, written


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


@pytest.mark.parametrize("arguments", [["no-such-command"], ["rules", "--no-such-option"], ["rules", "more"]])
def test_a_bad_call_is_one_sentence_and_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    assert said.err.startswith("gradwatch")
    assert said.err.count("\n") == 1
    assert said.err.endswith(".\n")


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        (["report", "run.jsonl", "--hmtl", "x"], "gradwatch report"),
        (["rules", "--docs"], "gradwatch rules"),
        (["no-such-command"], "gradwatch"),
    ],
)
def test_a_bad_call_is_sent_to_the_help_of_its_own_command(arguments, who, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr().err
    assert said.startswith(f"{who}: ")
    assert f"; run `{who} --help` for what there is." in said


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
@pytest.mark.parametrize("command", ["audit", "report"])
def test_an_interrupt_ends_it_in_one_sentence(command, tmp_path):
    path = tmp_path / "run.jsonl"
    os.mkfifo(path)
    arguments = [sys.executable, "-m", "gradwatch", command, str(path)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process, path.open("w"):  # open as soon as the other side reads
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.splitlines()[-1]) == (130, "", "gradwatch: interrupted.")
    assert "Traceback" not in err


def test_who_waits_for_long_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gradwatch.cli._PATIENCE", 0.0)
    monkeypatch.setattr("gradwatch.report.newest_run", lambda *_: said.wait(60))
    said = threading.Event()
    monkeypatch.setattr(sys.stderr, "write", lambda words, write=sys.stderr.write: (write(words), said.set()))
    monkeypatch.setattr("gradwatch.report.told", lambda *_: ["done"])
    assert main(["report", "run.jsonl"]) == 0
    assert capsys.readouterr() == ("done\n", "gradwatch: still reading 'run.jsonl'; Ctrl-C ends it.\n")


def test_of_several_runs_one_is_chosen_by_its_name(tmp_path, capsys):
    path = written(written(tmp_path / "x", [record(1)], run=named("first")), [record(2)], run=named("second"))
    assert main(["report", str(path)]) == 0
    assert "1 other run, to be chosen by `--run NAME`: first." in " ".join(capsys.readouterr().out.split())
    assert main(["report", str(path), "--run", "first"]) == 0
    assert capsys.readouterr().out.startswith("Run first")
    assert main(["report", str(path), "--run", "third"]) == 2
    assert "holds no run 'third': give one that it holds, such as 'first', 'second'." in capsys.readouterr().err


def test_a_page_goes_to_the_standard_output(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(written(tmp_path / "x", [record(1)])), "--html", "-"]) == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_help_of_audit_tells_its_exit_statuses(capsys):
    with pytest.raises(SystemExit):
        main(["audit", "--help"])
    assert "0 where nothing contradicts, 1 where something does, 2 where" in " ".join(
        capsys.readouterr().out.split()
    )


def test_an_output_that_takes_nothing_is_one_sentence():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = gradwatch("rules", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 2
    assert result.stderr.startswith("gradwatch: the output cannot be written")
    assert result.stderr.count("\n") == 1


STEP = '{"kind": "step", "step": 1, "optimizer": "o", "time": 1, "norm_before": 3, "norm_after": 1, "max_norm": 1}'


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "step", "step": 2}',
        STEP.replace('"norm_before": 3', '"norm_before": "x"'),
        STEP.replace('"step": 1', '"step": 1e999'),
        STEP.replace('"max_norm": 1', '"clips": [{}]'),
        STEP.replace('"max_norm": 1', '"parameters": {"w": {}}'),
        '{"kind": "alert", "severity": "critical"}',
        '{"kind": ["step"]}',
        "[" * 100_000,
    ],
)
def test_a_report_counts_lines_that_cannot_be_read(line, tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    path.write_text(f'{{"kind": "run", "run": "mine"}}\n{STEP}\n{line}\n')
    assert main(["report", str(path)]) == 0
    out = capsys.readouterr().out
    assert "1 line of the file cannot be read" in " ".join(out.split())
    assert ["1", "3", "1", "limit", "1"] in [row.split() for row in out.splitlines()]


def test_without_a_command_there_is_help_with_an_example_of_each():
    said = gradwatch()
    assert said.returncode == 0
    examples = said.stdout.split("examples:")[1]
    for command in ("report run.jsonl", "report run.jsonl --html run.html", "rules", "dashboard"):
        assert f"  gradwatch {command} " in examples


@pytest.mark.parametrize(
    ("arguments", "but"), [([], "numpy"), ([], "torch"), (["rules"], "torch"), (["report", "{run}"], "torch")]
)
def test_no_command_waits_for_what_it_does_not_need(arguments, but, tmp_path):
    """Help is there at once, and the rest before torch would be."""
    run = tmp_path / "run.jsonl"
    run.write_text(f'{{"kind": "run"}}\n{STEP}\n')
    given = [argument.format(run=run) for argument in arguments]
    code = f"import sys; from gradwatch.cli import main; main({given}); sys.exit({but!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe" * 1000, b"[]\n7\n", b"PK\x03\x04\n\n", None])
@pytest.mark.parametrize("html", [False, True])
def test_what_is_no_run_is_one_sentence(content, html, tmp_path, capsys):
    path = tmp_path / "x"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    page = tmp_path / "page.html"
    assert main(["report", str(path), *(["--html", str(page)] if html else [])]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gradwatch: ")
    assert said.err.count("\n") == 1
    assert not page.exists()


def test_a_file_that_is_somebody_elses_is_one_sentence(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "run.jsonl"
    path.write_text("{}")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert main(["report", str(path)]) == 2
    assert "cannot be read (Permission denied)" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["run.jsonl", ".", "none/page.html"])
def test_a_page_that_cannot_be_written_is_one_sentence_and_changes_nothing(page, tmp_path, capsys):
    run = tmp_path / "run.jsonl"
    run.write_text(f'{{"kind": "run"}}\n{STEP}\n')
    before = run.read_bytes()
    assert main(["report", str(run), "--html", str(tmp_path / page)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run.read_bytes() == before


def test_an_encoding_that_lacks_a_sign_stops_no_report(tmp_path):
    run = tmp_path / "run.jsonl"
    run.write_text('{"kind": "run", "run": "\\u00fcber\\ud800\\u001b[2J"}\n')
    for encoding in ("ascii", "cp1252", "utf-8"):
        told = gradwatch("report", str(run), env={**os.environ, "PYTHONIOENCODING": encoding}, encoding=encoding)
        assert (told.returncode, told.stderr) == (0, "")
        assert "ber\\ud800\\x1b[2J" in told.stdout
