"""Why a gradient is zero, missing or not finite: one diagnostic backward pass, its graph, its causes."""

from gradwatch.causes import REMEDIES
from gradwatch.diagnose.diagnosis import Diagnosis
from gradwatch.diagnose.missing import frozen, not_in_optimizer
from gradwatch.diagnose.shortcut import shortcut

__all__ = ["REMEDIES", "Diagnosis", "frozen", "not_in_optimizer", "shortcut"]
