"""``python -m tests.comparison [--cost]``: the tables of docs/comparison.md, of those tools that are installed."""

from __future__ import annotations

import argparse
import contextlib
import io
import warnings

from tests.comparison.cost import added
from tests.comparison.table import TRUTH, head, row, there
from tests.comparison.tools import TOOLS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.comparison", description=__doc__)
    parser.add_argument("--cost", action="store_true", help="the CPU time that each adds to a step, in its place")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the others, of themselves and of the machine
    if options.cost:
        for tool, line in added():
            print(f"| {tool} | {line} |", flush=True)
        return
    print(head())
    for tool in (TRUTH, *filter(there, TOOLS)):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            line = row(tool)
        print(line, flush=True)
    print("not installed:", ", ".join(TOOLS[tool][0] for tool in TOOLS if not there(tool)) or "none")


if __name__ == "__main__":
    main()
