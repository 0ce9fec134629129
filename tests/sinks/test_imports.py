import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["rich", "prometheus_client", "tensorboard"])
def test_importing_and_making_the_sinks_loads_no_package_of_theirs(package):
    code = (
        "import sys, gradwatch.sinks as s, gradwatch.monitoring.rules, gradwatch.cli;"
        "s.Memory(), s.Console(), s.Jsonl('x'), s.TensorBoard('x'), s.Prometheus();"
        f"sys.exit({package!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
