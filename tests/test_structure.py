import subprocess
import sys

import pytest

import gradwatch


@pytest.mark.parametrize("package", ["rich", "prometheus_client", "tensorboard"])
def test_importing_gradwatch_loads_no_package_of_a_sink(package):
    code = f"import gradwatch, sys; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_public_surface_is_what_it_says():
    assert set(gradwatch.__all__) <= set(dir(gradwatch))
    assert set(gradwatch.sinks.__all__) == {"Console", "Jsonl", "Memory", "Prometheus", "TensorBoard"}
