"""What tags are read as, and which are left alone."""

import pytest

from gradwatch.audit.tags import read

SAID = {
    "debug/actor_grad_norm_BEFORE_clip": ("norm", "debug/actor", "before"),
    "debug/actor_cnn_grad_norm_after_clip": ("norm", "debug/actor_cnn", "after"),
    "debug/actor_grad_clip_ratio": ("ratio", "debug/actor", ""),
    "debug/actor_cnn_grad_norm_AFTER_clip_SUM_OF_NORMS": ("sum", "debug/actor_cnn", "after"),
    "gradients/actor_cnn_norm": ("norm", "actor_cnn", ""),
    "train/grad_norm": ("norm", "train", ""),
    "grad_2.0_norm_total": ("norm", "", ""),
    "grad_2.0_norm/layer_norm.weight": ("norm", "layer_norm.weight", ""),
    "grad_norm/log_std": ("norm", "log_std", ""),
    "unclipped_grad_norm": ("norm", "", "before"),
    "grad_norm/block.post_norm": ("norm", "block.post_norm", ""),
    "train/max_grad_norm": ("limit", "train", ""),
    "gradwatch/actor/cnn/norm_before": ("norm", "gradwatch/actor/cnn", "before"),
}  # fmt: skip
LEFT = [
    "train/loss", "weight_norm", "debug/upgrade_norm", "grad_norm_std", "grad_norm/mean", "avg_grad_norm",
    "grad_inf_norm/layer", "grad_1.0_norm", "gradients/a_l1_norm", "gradients/layer.weight", "train/clip_range",
    "grad_norm_ratio_before_after",
]  # fmt: skip


@pytest.mark.parametrize("tag", SAID)
def test_a_tag_is_read(tag):
    said = read(tag)
    assert (said.role, said.name, said.side) == SAID[tag]


@pytest.mark.parametrize("tag", LEFT)
def test_a_tag_is_left_alone(tag):
    assert read(tag) is None
