"""All families of faults and of healthy loops, in the order of the table."""

from __future__ import annotations

import importlib

from tests.zoo.registry import FAULTS, HEALTHY

__all__ = ["FAULTS", "HEALTHY"]

_FAMILIES = [
    "faults_missing",
    "faults_erased",
    "faults_ownership",
    "faults_clipping",
    "faults_rectifiers",
    "faults_saturated",
    "faults_agents",
    "faults_cut",
    "faults_factors",
    "faults_numbers",
    "faults_nonfinite",
    "faults_magnitude",
    "faults_odd",
    "faults_wild",
    "faults_consumed",
    "faults_faint",
    "faults_lookalikes",
    "faults_replaced",
    "field_numbers",
    "field_graphs",
    "twins_experts",
    "twins_constants",
    "twins_generative",
    "twins_codes",
    "twins_sequences",
    "twins_agents",
    "twins_numbers",
    "twins_loops",
    "healthy_agents",
    "healthy_parts",
    "healthy_norms",
    "still_missing",
    "still_slopes",
    "still_gates",
    "still_factors",
    "still_losses",
    "still_masks",
    "still_underflow",
    "still_nonfinite",
    "still_odd",
    "healthy_still",
]

for _family in _FAMILIES:
    importlib.import_module(f"tests.zoo.{_family}")
