"""The laws of norms, checked on logs that others wrote: nothing here needs torch.

A log is read into curves (``events``, ``jsonl``), its names are paired (``tags``, ``pairing``), and what it says
is held against what holds for any gradient (``laws``).
"""

from gradwatch.audit.auditing import Audit, audit
from gradwatch.audit.words import as_json, told

__all__ = ["Audit", "as_json", "audit", "told"]
