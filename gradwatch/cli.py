"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from gradwatch.version import __version__

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence; the usage is what ``--help`` is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; run `gradwatch --help` for what there is.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gradwatch``; the exit status: 2 where the arguments or the output are wrong."""
    try:
        return _run(arguments)
    except BrokenPipeError:
        # The reader has enough, as with `| head`: the rest goes nowhere, also what Python flushes at exit.
        _discard_output()
        return 0
    except OSError as error:
        _discard_output()
        sys.stderr.write(f"gradwatch: the output cannot be written ({error.strerror}).\n")
        return 2


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    if options.command == "report":
        return _print_report(options.path)
    # argparse has refused any other.
    print(options.text(options), end="", flush=True)
    if options.command == "rules" and options.docs is None:
        # Beside the file, which is what is checked in.
        sys.stderr.write("gradwatch: the links to what to do are paths; with --docs URL they can be clicked on.\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gradwatch", description="What gradwatch does outside a training loop.")
    parser.add_argument("--version", action="version", version=f"gradwatch {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
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
    report = commands.add_parser("report", help="what happened in a run, from its JSONL or flight recorder's file")
    report.add_argument("path", metavar="RUN.jsonl")
    return parser


def _print_report(path: str) -> int:
    from gradwatch.errors import ArgumentError
    from gradwatch.reading import told

    try:
        for words in told(path):
            print(words)
    except ArgumentError as error:
        sys.stderr.write(f"gradwatch: {error}\n")
        return 2
    sys.stdout.flush()
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
