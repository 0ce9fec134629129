"""What the zoo asks for and gradwatch does not do yet: name of the loop -> why.

Each of these loops must fail: whoever mends one takes it off.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OPEN"]

OPEN: Mapping[str, str] = {
    "regression_on_targets_with_gaps": "The NaN of the targets is taken for an overflow or a hook: the constant of the graph that holds it is not looked at.",
    "two_atoms_at_the_same_place": "What comes back after twelve steps is not looked at again.",
    "half_weights_and_the_epsilon_of_adam": "There is no kind nonfinite-weights.",
    "layer_norm_of_one_element": "There is no kind constant, and a gradient of nothing but rounding is no zero.",
    "coordinates_of_the_same_node": "A factor that is exactly 0 and no mask is called one: there is no kind zero-factor.",
    "zero_grad_at_the_head_of_an_accumulation": "There is no rule lost.",
    "layers_in_a_list": "Tensors that no module and no optimizer holds are not seen.",
    "adapters_behind_reentrant_checkpoints": "The remedy of no-grad does not know of re-entrant checkpoints.",
    "meta_learner_that_is_a_copy": "A backward that reached none of the tracked is told as none at all.",
    "router_renormalised_over_one": "There is no kind constant: a softmax over one element is unknown.",
    "capacity_of_no_token": "A factor of zeros inside of a product of matrices is unknown.",
    "adapter_scaled_by_a_whole_number": "There is no kind zero-factor: a scale of 0 is called a mask.",
    "nothing_left_to_train": "An optimizer of which nothing can learn is a warning.",
    "control_net_behind_a_frozen_zero": "A frozen weight of zeros is called a mask where the layer has no bias.",
    "softmax_over_one_output": "There is no kind constant: a softmax over one element is unknown.",
    "cross_entropy_of_one_class": "The remedy of a loss that is satisfied does not speak of its one class.",
    "contrast_within_a_batch_of_one": "The remedy of a loss that is satisfied does not speak of its one class.",
    "attention_normalised_over_its_heads": "There is no kind constant: a softmax over one element is unknown.",
    "group_norm_of_single_channels": "There is no kind constant, and a gradient of nothing but rounding is no zero.",
    "constant_rounding": "There is no kind constant: a rounding is unknown.",
    "constant_attention_over_one_token": "There is no kind constant: a softmax over one element is unknown.",
    "rounding_without_a_straight_through_gradient": "There is no kind constant: a rounding is unknown.",
    "zero-factor_times_zero_between_modules": "There is no kind zero-factor: a number that is 0 is called a mask.",
    "hash_code_by_its_sign": "There is no kind constant: a sign is unknown.",
    "activations_rounded_to_eight_bits": "There is no kind constant: a rounding is unknown.",
    "transformer_of_space_that_samples_the_nearest": "There is no kind constant: sampling is not known.",
    "last_step_of_a_padded_sequence": "A copy into a slice that nothing is read of afterwards is unknown.",
    "alignment_of_more_labels_than_frames": "The remedy of a CTC loss speaks of an epsilon.",
    "cross_entropy_of_a_batch_that_is_all_ignored": "A division of 0 by 0 is not seen in what a pass has saved.",
    "both_values_of_the_target": "A backward that reached none of the tracked is told as none at all.",
    "actor_judged_by_the_actions_that_were_stored": "A backward that reached none of the tracked is told as none at all.",
    "optimizer_of_the_average": "A backward that reached none of the tracked is told as none at all.",
    "scores_too_large_for_half": "The remedy of a cast that overflowed speaks of an epsilon.",
    "root_of_a_mean_square_that_is_nothing": "The remedy of a square root at 0 does not say that the epsilon belongs inside.",
    "weights_normalised_by_a_length_of_nothing": "There is no kind nonfinite-weights.",
    "rate_divided_by_the_steps_that_are_left": "There is no kind nonfinite-weights.",
    "zeroed_before_each_micro_batch": "There is no rule lost.",
    "zeroed_before_each_of_the_losses": "There is no rule lost.",
    "clipped_by_the_mean_of_the_norms": "A total norm that is not that of what is clipped passes as fine.",
    "clipped_by_the_largest_of_the_norms": "A total norm that is not that of what is clipped passes as fine.",
    "clipped_by_a_sum_of_squares": "A total norm that is not that of what is clipped passes as fine.",
    "scale_that_is_a_plain_tensor": "Tensors that no module and no optimizer holds are not seen.",
    "layer_made_anew_in_each_forward": "Tensors that no module and no optimizer holds are not seen.",
}
