"""``python -m tests.zoo [NAME ...]``: the table of all faults and healthy loops, and the three figures."""

from __future__ import annotations

import argparse
import sys
import warnings

from tests.zoo.families import FAULTS, HEALTHY
from tests.zoo.judged import judged_fault, judged_healthy
from tests.zoo.table import show


def main(arguments: list[str]) -> int:
    """Judge the loops whose names begin with one of these, all where there are none; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.zoo", description="Judges planted faults and healthy loops."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what their names begin with; all without one")
    chosen = tuple(parser.parse_args(arguments).names) or ("",)
    if not any(name.startswith(chosen) for name in (*FAULTS, *HEALTHY)):
        parser.error(f"no loop has a name that begins with {' or '.join(chosen)}")
    warnings.simplefilter("error")
    faults = [judged_fault(fault) for name, fault in FAULTS.items() if name.startswith(chosen)]
    healthy = [judged_healthy(loop) for name, loop in HEALTHY.items() if name.startswith(chosen)]
    return show(faults, healthy)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
