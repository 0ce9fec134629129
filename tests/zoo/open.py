"""What the zoo asks for and gradwatch does not do yet: name of the loop -> why.

Each of these loops must fail: whoever mends one takes it off.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OPEN"]

OPEN: Mapping[str, str] = {
    "layer_norm_of_one_element": "A gradient of nothing but rounding is no zero: no rule fires.",
    "zero_grad_at_the_head_of_an_accumulation": "There is no rule lost.",
    "nothing_left_to_train": "An optimizer of which nothing can learn is a warning.",
    "group_norm_of_single_channels": "A gradient of nothing but rounding is no zero: no rule fires.",
    "zeroed_before_each_micro_batch": "There is no rule lost.",
    "zeroed_before_each_of_the_losses": "There is no rule lost.",
    "clipped_by_the_mean_of_the_norms": "A total norm that is not that of what is clipped passes as fine.",
    "clipped_by_the_largest_of_the_norms": "A total norm that is not that of what is clipped passes as fine.",
    "clipped_by_a_sum_of_squares": "A total norm that is not that of what is clipped passes as fine.",
    "scale_that_is_a_plain_tensor": "A plain tensor that asks for a gradient is not told from an input that does, after the last layer.",
}
