"""What the zoo asks for and gradwatch does not do yet: name of the loop -> why.

Each of these loops must fail: whoever mends one takes it off.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OPEN"]

OPEN: Mapping[str, str] = {
    "layer_norm_of_one_element": "A gradient of nothing but rounding is no zero: no rule fires.",
    "group_norm_of_single_channels": "A gradient of nothing but rounding is no zero: no rule fires.",
    "scale_that_is_a_plain_tensor": "A plain tensor that asks for a gradient is not told from an input that does, after the last layer.",
}
