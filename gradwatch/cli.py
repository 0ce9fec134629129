"""The command line."""

from __future__ import annotations

import argparse
import errno
import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from gradwatch.version import __version__

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence; the usage is what ``--help`` is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; run `{self.prog} --help` for what there is.\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """None are left to the program as a whole, whose help does not have the options of a command."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gradwatch``; the exit status: 2 where the arguments or the output are wrong, 130 after Ctrl-C."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("gradwatch: interrupted.\n")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader has enough, as with `| head`: the rest goes nowhere, also what Python flushes at exit.
        _discard_output()
        return 0
    except OSError as error:
        _discard_output()
        sys.stderr.write(f"gradwatch: the output cannot be written ({error.strerror}).\n")
        return 2


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names are the user's: what the terminal's encoding lacks is told by its number.
        sys.stdout.reconfigure(errors="backslashreplace")
    if options.command is None:
        parser.print_help()
        return 0
    if options.command == "report":
        return _report(options.path, options.run, options.html)
    if options.command == "audit":
        return _audit(options.path, options.json)
    # argparse has refused any other.
    print(options.text(options), end="", flush=True)
    if options.command == "rules" and options.docs is None:
        # Beside the file, which is what is checked in.
        sys.stderr.write("gradwatch: the links to what to do are paths; with --docs URL they can be clicked on.\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradwatch",
        description="What gradwatch does outside a training loop.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gradwatch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    report = commands.add_parser("report", help="what happened in a run, from its JSONL or flight recorder's file")
    report.add_argument("path", metavar="RUN.jsonl")
    report.add_argument("--run", metavar="NAME", help="of several runs in the file this one, not the newest")
    page = "write it as a page for a browser instead, with charts; - is the standard output"
    report.add_argument("--html", metavar="FILE", help=page)
    check = "check the arithmetic of a log: a TensorBoard directory or JSONL"
    statuses = "exit status: 0 where nothing contradicts, 1 where something does, 2 where PATH cannot be read"
    audit = commands.add_parser(
        "audit", help=check, description=f"{check[0].upper()}{check[1:]}.", epilog=statuses
    )
    audit.add_argument("path", metavar="PATH")
    audit.add_argument("--json", action="store_true", help="print one JSON object instead")
    rules = commands.add_parser("rules", help="print the Prometheus alerting rules")
    rules.set_defaults(text=_rules)
    rules.add_argument(
        "--vmalert",
        action="store_true",
        help="leave out keep_firing_for, which vmalert and Prometheus before 2.42 refuse",
    )
    rules.add_argument(
        "--docs", metavar="URL", type=_url, help="where these docs are read, for the links to what to do"
    )
    dashboard = commands.add_parser("dashboard", help="print the Grafana dashboard")
    dashboard.set_defaults(text=_dashboard)
    return parser


_EXAMPLES = """\
examples:
  gradwatch report run.jsonl                    what was wrong, and what to do
  gradwatch report run.jsonl --html run.html    the same as a page, with charts
  gradwatch audit runs/1                        whether the gradient norms in a log can be true
  gradwatch rules > gradwatch-rules.yml         for a Prometheus server
  gradwatch dashboard > gradwatch.json          for Grafana
"""


def _report(path: str, name: str | None, html: str | None) -> int:
    from gradwatch.errors import ArgumentError
    from gradwatch.report import newest_run, page, told

    try:
        with _patience(path):
            run = newest_run(path, name)
    except ArgumentError as error:
        sys.stderr.write(f"gradwatch: {error}\n")
        return 2
    if html == "-":
        print(page(run), flush=True)
        return 0
    if html is not None:
        return _write(Path(html), page(run), beside=Path(path))
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    print("\n".join(told(run, width)), flush=True)
    return 0


def _audit(path: str, as_object: bool) -> int:
    """Exit status: 0 where nothing contradicts, 1 where something does, 2 where it cannot be read."""
    from gradwatch.audit import as_json, audit, told
    from gradwatch.errors import GradwatchError

    try:
        with _patience(path):
            audits = audit(path)
    except GradwatchError as error:
        sys.stderr.write(f"gradwatch: {error}\n")
        return 2
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    print(as_json(path, audits) if as_object else "\n".join(told(audits, width)), flush=True)
    return int(any(found.breaches for found in audits))


# Seconds after which who waits is told so.
_PATIENCE = 3.0


@contextmanager
def _patience(path: str) -> Iterator[None]:
    """Says that reading takes long, where it does."""
    words = f"gradwatch: still reading {path!r}; Ctrl-C ends it.\n"
    timer = threading.Timer(_PATIENCE, sys.stderr.write, [words])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# Characters of a line that are read at ease.
_WIDEST = 100


def _write(path: Path, text: str, beside: Path) -> int:
    try:
        if path.exists() and path.samefile(beside):
            raise OSError(errno.EEXIST, "it is the run itself")
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"gradwatch: {str(path)!r} cannot be written ({error.strerror}).\n")
        return 2
    print(f"{path}: open it in a browser.", flush=True)
    return 0


def _url(text: str) -> str:
    if "://" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL, such as https://docs.example.org/gradwatch")
    return text.rstrip("/")


def _rules(options: argparse.Namespace) -> str:
    from gradwatch.monitoring.rules import DOCS, alerting_rules

    return alerting_rules(keep_firing=not options.vmalert, docs=options.docs or DOCS)


def _dashboard(_: argparse.Namespace) -> str:
    from gradwatch.monitoring.dashboard import dashboard

    return dashboard()


def _discard_output() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
