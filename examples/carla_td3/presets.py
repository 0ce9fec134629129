"""The two agents: ``fixed``, which learns, and ``legacy``, the one whose failure started this project."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """What tells one agent from the other.

    Attributes:
        name: as in ``--preset``.
        learning_rate: of both Adam optimizers.
        layer_norm: whether the CNNs have LayerNorm.
        last_layer: bound of the policy's last layer at the start; None for torch's own.
        reward_scale: what rewards are multiplied by before they are learned from.
        target_cnns: whether the target networks include CNNs of their own.
        shared_features: whether the actor's loss feeds the *actor's* CNN features to Q heads that were
            trained on the critic's: the short path around the policy.
        wrong_metric: whether the sum of norms is logged beside the norm.
    """

    name: str
    learning_rate: float
    layer_norm: bool
    last_layer: float | None
    reward_scale: float
    target_cnns: bool
    shared_features: bool
    wrong_metric: bool


PRESETS = {
    # Rate, last layer and reward scale are measured choices: see the README.
    "fixed": Preset(
        name="fixed",
        learning_rate=1e-5,
        layer_norm=True,
        last_layer=1e-3,
        reward_scale=1.0,
        target_cnns=True,
        shared_features=False,
        wrong_metric=False,
    ),
    "legacy": Preset(
        name="legacy",
        learning_rate=1e-3,
        layer_norm=False,
        last_layer=None,
        reward_scale=1.0,
        target_cnns=False,
        shared_features=True,
        wrong_metric=True,
    ),
}
