"""gradwatch: the exact gradient norm before and after clipping, and what is wrong with it, in any loop.

What is here is imported when it is first asked for, so that the command line answers without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from gradwatch.version import __version__

if TYPE_CHECKING:
    from gradwatch import errors, rules, sinks
    from gradwatch.frames import read
    from gradwatch.guarding import Guard
    from gradwatch.measure.norms import global_norm
    from gradwatch.records import Alert, Cause, ClipCall, GroupNorms, Incident, StepRecord
    from gradwatch.rules import Rule, default_rules
    from gradwatch.watching import Watch, track

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

_HOMES = {
    "Guard": "guarding",
    "Rule": "rules",
    "Watch": "watching",
    "default_rules": "rules",
    "global_norm": "measure.norms",
    "read": "frames",
    "track": "watching",
    **dict.fromkeys(("Alert", "Cause", "ClipCall", "GroupNorms", "Incident", "StepRecord"), "records"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES.get(name, name)}")
    return globals().setdefault(name, getattr(home, name) if name in _HOMES else home)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
