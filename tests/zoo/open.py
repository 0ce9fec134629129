"""What the zoo asks for and gradwatch does not do yet: name of the loop -> why.

Each of these loops must fail: whoever mends one takes it off.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OPEN"]

OPEN: Mapping[str, str] = {}
