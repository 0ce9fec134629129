"""gradwatch: the exact gradient norm before and after clipping, and what is wrong with it, in any loop."""

from gradwatch import errors, rules, sinks
from gradwatch.frames import read
from gradwatch.guarding import Guard
from gradwatch.measure.norms import global_norm
from gradwatch.records import Alert, Cause, ClipCall, GroupNorms, Incident, StepRecord
from gradwatch.rules import Rule, default_rules
from gradwatch.track import Watch, track
from gradwatch.version import __version__

__all__ = [
    "Alert",
    "Cause",
    "ClipCall",
    "GroupNorms",
    "Guard",
    "Incident",
    "Rule",
    "StepRecord",
    "Watch",
    "__version__",
    "default_rules",
    "errors",
    "global_norm",
    "read",
    "rules",
    "sinks",
    "track",
]
