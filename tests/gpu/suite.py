"""The tests marked ``cuda``, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tests.gpu.environment import ROOT
from tests.gpu.packages import reason
from tests.gpu.stages import Found, Settings, Table

NEEDED = ("pytest", "hypothesis")
SECONDS = 150.0
SAID = 4000
# Plugins that happen to be installed are not this project's. cuBLAS reads its setting once, when it begins; the
# same sums in the same order need it.
SURROUNDINGS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


@dataclass
class Outcome:
    """What a run of pytest came to."""

    passed: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def suite(settings: Settings, found: Found) -> None:
    """Run what is marked ``cuda``; on the CPU, one file of these tests stands for all."""
    why = reason(NEEDED)
    if why is not None:
        found.left_out.append(f"the tests marked cuda: {why}")
        return
    marked = "cuda" if settings.device.type == "cuda" else "not cuda"
    files = marked_files(ROOT / "tests") if marked == "cuda" else [ROOT / "tests/gpu/test_verdicts.py"]
    outcome, said = ran(files, marked)
    found.data.update(passed=outcome.passed, skipped=outcome.skipped, failed=outcome.failed, said=said[-SAID:])
    counts = (str(outcome.passed), str(len(outcome.failed)), str(outcome.skipped))
    found.tables.append(Table("Tests on the device", ("passed", "failed", "skipped"), [counts]))
    found.failures += [f"test {name}: {why}" for name, why in outcome.failed.items()]
    if outcome.passed == 0:
        found.failures.append(f"no test passed; pytest said: {said[-SAID:]}")


def marked_files(folder: Path) -> list[Path]:
    """The files that hold such tests: collecting the others would import every library they test."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("test_*.py"))}
    marked = [path for path, text in texts.items() if "mark.cuda" in text or "import DEVICES" in text]
    # A capture that breaks may leave the device unusable: those that capture go last.
    return sorted(marked, key=lambda path: "cuda.graph(" in texts[path])


def ran(files: list[Path], marked: str) -> tuple[Outcome, str]:
    """Run pytest and read its report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        options = [
            "-p",
            "no:cacheprovider",
            "--continue-on-collection-errors",
            f"--junitxml={report}",
            "--tb=short",
        ]
        command = [sys.executable, "-m", "pytest", *options, "-m", marked, *map(str, files)]
        surroundings = {**os.environ, **SURROUNDINGS}
        try:
            process = subprocess.run(
                command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False, timeout=SECONDS
            )
            said = process.stdout + process.stderr
        except subprocess.TimeoutExpired as late:
            return Outcome(failed={"all": f"not done in {SECONDS:.0f} s"}), str(late.stdout)
        return (read(report.read_text(encoding="utf-8")) if report.exists() else Outcome()), said


def read(report: str) -> Outcome:
    """Count what a report in JUnit's format tells of."""
    outcome = Outcome()
    for case in ElementTree.fromstring(report).iter("testcase"):
        ill = next((child for child in case if child.tag in ("failure", "error")), None)
        if ill is not None:
            name = f"{case.get('classname')}::{case.get('name')}"
            outcome.failed[name] = (ill.get("message") or "").split("\n")[0][:300]
        elif case.find("skipped") is not None:
            outcome.skipped += 1
        else:
            outcome.passed += 1
    return outcome
