"""Why a gradient is zero, missing or not finite: one diagnostic backward pass, its graph, its causes."""

from gradwatch.causes import REMEDIES
from gradwatch.diagnose.contributions import WEIGHTS_GONE
from gradwatch.diagnose.diagnosis import Diagnosis
from gradwatch.diagnose.lookout import Lookout
from gradwatch.diagnose.missing import frozen, not_in_optimizer
from gradwatch.diagnose.place import OWN_PARAMETERS
from gradwatch.diagnose.shortcut import shortcut

__all__ = [
    "OWN_PARAMETERS",
    "REMEDIES",
    "WEIGHTS_GONE",
    "Diagnosis",
    "Lookout",
    "frozen",
    "not_in_optimizer",
    "shortcut",
]
