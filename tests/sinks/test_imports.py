import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def imported():
    code = (
        "import sys, gradwatch.sinks as s, gradwatch.monitoring.rules, gradwatch.cli;"
        "s.Memory(), s.Console(), s.Jsonl('x'), s.TensorBoard('x'), s.Prometheus();"
        "print(*sys.modules)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()


@pytest.mark.parametrize("package", ["rich", "prometheus_client", "tensorboard"])
def test_importing_and_making_the_sinks_loads_no_package_of_theirs(imported, package):
    assert "gradwatch.sinks.jsonl" in imported
    assert package not in imported
