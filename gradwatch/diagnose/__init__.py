"""Why a gradient is zero, missing or not finite: one diagnostic backward pass, its graph, its causes."""

from gradwatch.causes import REMEDIES
from gradwatch.diagnose.diagnosis import Diagnosis
from gradwatch.diagnose.look.place import OWN_PARAMETERS
from gradwatch.diagnose.lookout import Lookout
from gradwatch.diagnose.reasons.feeding import Stray, shortcut, strays

__all__ = [
    "OWN_PARAMETERS",
    "REMEDIES",
    "Diagnosis",
    "Lookout",
    "Stray",
    "shortcut",
    "strays",
]
