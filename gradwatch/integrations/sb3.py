"""Stable-Baselines3: ``agent.learn(steps, callback=gradwatch.integrations.sb3.Callback())``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from torch import nn
from torch.optim import Optimizer

from gradwatch.integrations.following import Following
from gradwatch.watching import Watch

__all__ = ["Callback"]


class Callback(BaseCallback):
    """Watches every optimizer of an agent: each is named by the network that it belongs to.

    These are ``actor`` and ``critic`` (TD3, SAC), ``ent_coef`` for SAC's temperature, and the lone ``optimizer``
    of PPO, A2C and DQN. A further ``learn`` with the same callback goes on counting. For another process keep
    ``state_dict()`` beside ``agent.save``, and give it to ``load_state_dict`` of the callback there.
    Stable-Baselines3 tells a callback of no error: after one, watching ends with the interpreter, or with the next
    ``learn``.

    Args:
        options: the arguments of ``gradwatch.track``; ``modules`` replaces the networks.

    Raises:
        ArgumentError: an argument cannot be meant as it stands.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._following = Following(options)

    @property
    def watch(self) -> Watch | None:
        """The watch of the present or the last training; None before the first."""
        return self._following.watch

    def state_dict(self) -> dict[str, Any]:
        """What the watch has counted, as plain values; empty before the first training."""
        return self._following.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next training go on from there."""
        self._following.load_state_dict(state)

    def _on_training_start(self) -> None:
        owners = dict(_owners(self.model.policy))
        optimizers = {name: owner.optimizer for name, owner in owners.items()}
        optimizers |= {
            name.removesuffix("_optimizer"): value
            for name, value in vars(self.model).items()
            if isinstance(value, Optimizer)
        }
        if self.watch is not None:
            self._following.load_state_dict(self.watch.state_dict())
        lone = len(optimizers) == 1 and len(owners) == 1
        self._following.begin(optimizers, next(iter(owners.values())) if lone else owners)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._following.end()


def _owners(policy: nn.Module) -> Iterator[tuple[str, Any]]:
    """The networks that hold an optimizer, by their path in the policy."""
    for name, module in policy.named_modules():
        if isinstance(getattr(module, "optimizer", None), Optimizer):
            yield name or "policy", module
