"""Every planted fault gets the cause it must get, and looking for it changes nothing."""

from __future__ import annotations

import math

import pytest
import torch

from gradwatch.diagnose import REMEDIES, Diagnosis
from tests.diagnose import faults_factors, faults_missing, faults_nonfinite, faults_odd, faults_slopes
from tests.diagnose.planted import FAULTS, Fault, Loop, parameters_at

MODULES = (faults_factors, faults_missing, faults_nonfinite, faults_odd, faults_slopes)


def built(fault: Fault) -> Loop:
    torch.manual_seed(7)
    return fault.build()


def state(loop: Loop) -> list[object]:
    """Gradients and random state, so that they can be compared bit for bit."""
    modules = [loop.modules] if isinstance(loop.modules, torch.nn.Module) else list(loop.modules.values())
    parameters = [p for module in modules for p in module.parameters()]
    gradients = [None if p.grad is None else (p.grad.numpy().tobytes(), p.grad.stride()) for p in parameters]
    return [gradients, [p.detach().numpy().tobytes() for p in parameters], torch.get_rng_state().numpy().tobytes()]


def is_ill(fault: Fault, loop: Loop) -> bool:
    """By torch alone: the gradient is missing, zero or not finite where it is said to be."""
    gradients = [p.grad for p in parameters_at(loop.modules, fault.at).values()]
    if fault.kind.startswith("nonfinite"):
        return any(g is not None and not bool(torch.isfinite(g).all()) for g in gradients)
    return all(g is None or not bool(g.any()) for g in gradients)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(fault: Fault) -> None:
    bare = built(fault)
    bare.step()
    without = state(bare)
    assert is_ill(fault, bare), "the fault is not there"
    assert bare.present(), "the fault is not what it is said to be"

    loop = built(fault)
    with Diagnosis(loop.modules) as diagnosis:
        loop.step()
    assert state(loop) == without
    assert not diagnosis.errors
    cause = diagnosis.causes[fault.at]
    assert cause.kind == fault.kind, cause
    assert fault.where in (None, cause.where), cause
    assert cause.remedy.startswith(fault.remedy or REMEDIES[fault.kind])
    for name, value in fault.evidence.items():
        assert cause.evidence[name] == value, cause
    assert all(isinstance(v, (int, float, str)) for v in cause.evidence.values())
    assert not any(
        isinstance(v, float) and math.isnan(v) and k.startswith("share") for k, v in cause.evidence.items()
    )


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 45
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
