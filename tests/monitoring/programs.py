"""The programs of Prometheus: as ``make prometheus`` has unpacked them, or those of this machine."""

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / ".prometheus"


def program(name):
    """Where it is; a test that needs it is skipped where it is not."""
    found = shutil.which(name, path=FOLDER / "usr" / "bin") or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: `make prometheus` unpacks it into a folder of its own")
    return found
