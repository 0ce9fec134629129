"""What runs here: the card, the versions, and whether a native kernel could be built."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from tests.gpu.stages import Found, Settings, Table

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 60.0


def environment(settings: Settings, found: Found) -> None:
    """The first table: one line for each thing that the numbers depend on."""
    found.data.update(
        card=card(settings.device),
        driver=driver(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        python=platform.python_version(),
        processor=platform.processor() or platform.machine(),
        threads=torch.get_num_threads(),
        build=build_kernel(ROOT),
        kernel=kernel_kind(),
    )
    rows = [(name, str(value)) for name, value in found.data.items()]
    found.tables.append(Table("Environment", ("what", "found"), rows))


def card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "no card: the CPU"


def driver() -> str:
    """The driver's version, as the tool that comes with it says it."""
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    return told.stdout.strip().splitlines()[0] if told.returncode == 0 and told.stdout.strip() else "unknown"


def build_kernel(root: Path) -> str:
    """Build the native kernel beside its source where there is something to build; say what became of it."""
    if not (root / "setup.py").exists():
        return "nothing to build"
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    try:
        built = subprocess.run(command, cwd=root, capture_output=True, check=False, timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired:
        return "took too long"
    return "built" if built.returncode == 0 else "failed: goes on without"


def kernel_kind() -> str:
    """Which kernel measures gradients on the CPU: ``none`` where this version of gradwatch has none."""
    try:
        return str(importlib.import_module("gradwatch.measure.kernel").KIND)
    except (ImportError, AttributeError):
        return "none"
