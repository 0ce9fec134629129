"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from gradwatch.version import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gradwatch``; the exit status."""
    parser = argparse.ArgumentParser(prog="gradwatch", description="What gradwatch does outside a training loop.")
    parser.add_argument("--version", action="version", version=f"gradwatch {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("rules", help="print the Prometheus alerting rules")
    parser.parse_args(arguments)
    return _print_rules()


def _print_rules() -> int:
    from gradwatch.monitoring.rules import alerting_rules

    try:
        sys.stdout.write(alerting_rules())
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has enough, as with `| head`: the rest goes nowhere, also what Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
