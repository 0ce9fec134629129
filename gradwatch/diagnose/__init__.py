"""Why a gradient is zero, missing or not finite: one diagnostic backward pass, its graph, its causes."""

from gradwatch.causes import REMEDIES
from gradwatch.diagnose.diagnosis import Diagnosis
from gradwatch.diagnose.graph.shortcut import shortcut
from gradwatch.diagnose.look.place import OWN_PARAMETERS
from gradwatch.diagnose.lookout import Lookout
from gradwatch.diagnose.reasons.contributions import WEIGHTS_GONE
from gradwatch.diagnose.reasons.missing import frozen, not_in_optimizer
from gradwatch.diagnose.reasons.strays import Stray, strays

__all__ = [
    "OWN_PARAMETERS",
    "REMEDIES",
    "WEIGHTS_GONE",
    "Diagnosis",
    "Lookout",
    "Stray",
    "frozen",
    "not_in_optimizer",
    "shortcut",
    "strays",
]
