"""``python -m tests.zoo [NAME ...]``: the table of all faults and healthy loops, and the three figures."""

from __future__ import annotations

import sys
import warnings

from tests.zoo.families import FAULTS, HEALTHY
from tests.zoo.judged import judged_fault, judged_healthy
from tests.zoo.table import show


def main(names: list[str]) -> int:
    """Judge the loops whose names begin with one of these, all where there are none; 1 where anything is wrong."""
    warnings.simplefilter("error")
    chosen = tuple(names) or ("",)
    faults = [judged_fault(fault) for name, fault in FAULTS.items() if name.startswith(chosen)]
    healthy = [judged_healthy(loop) for name, loop in HEALTHY.items() if name.startswith(chosen)]
    return show(faults, healthy)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
