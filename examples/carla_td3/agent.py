"""TD3 with pixels: one CNN for each side, and joint clipping of CNN and MLP.

Source: Fujimoto, van Hoof, Meger, "Addressing Function Approximation Error in Actor-Critic Methods", ICML 2018.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from examples.carla_td3.networks import Actor, TwinCritic, make_cnn, normalised
from examples.carla_td3.presets import Preset
from examples.carla_td3.replay import Batch

__all__ = ["ACTOR_LIMIT", "CRITIC_LIMIT", "TD3", "Update"]

GAMMA = 0.99
TAU = 0.005
TARGET_NOISE, TARGET_NOISE_LIMIT = 0.2, 0.5
POLICY_DELAY = 2
ACTOR_LIMIT, CRITIC_LIMIT = 1.0, 10.0


@dataclass(frozen=True)
class Update:
    """What one update did; ``actor_loss`` is None where the policy was not trained.

    Attributes:
        critic_loss: mean squared Bellman error of both Q heads.
        actor_loss: minus the mean Q1 of the policy's own actions.
        wrong_norms: the seed's metric by module, ``legacy`` only.
    """

    critic_loss: float
    actor_loss: float | None
    wrong_norms: dict[str, float] = field(default_factory=dict)


class TD3:
    """The agent. ``modules`` and ``optimizers`` are what gradwatch is given to watch."""

    def __init__(self, preset: Preset, device: torch.device) -> None:
        self.preset = preset
        self.device = device
        self.actor_cnn = make_cnn(preset.layer_norm).to(device)
        self.critic_cnn = make_cnn(preset.layer_norm).to(device)
        self.actor = Actor(preset.last_layer).to(device)
        self.critic = TwinCritic().to(device)
        self._targets = self._make_targets()
        self.actor_optimizer = torch.optim.Adam(self._actor_side(), lr=preset.learning_rate)
        self.critic_optimizer = torch.optim.Adam(self._critic_side(), lr=preset.learning_rate)
        self.critic_updates = 0
        self.actor_updates = 0

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {
            "actor_cnn": self.actor_cnn,
            "actor_mlp": self.actor,
            "critic_cnn": self.critic_cnn,
            "critic_mlp": self.critic,
        }

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"actor": self.actor_optimizer, "critic": self.critic_optimizer}

    @torch.no_grad()
    def act(self, observation: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The policy's action (2,) for one observation, without noise."""
        image = torch.from_numpy(observation["image"]).to(self.device)[None]
        vector = torch.from_numpy(observation["vector"]).to(self.device)[None]
        action: npt.NDArray[np.float32] = self.actor(self.actor_cnn(normalised(image)), vector)[0].cpu().numpy()
        return action

    def update(self, batch: Batch) -> Update:
        """One update of the critic and, every second time, one of the actor and of the targets."""
        critic_loss = self._train_critic(batch)
        self.critic_updates += 1
        wrong = self._wrong_norms("critic")
        if self.critic_updates % POLICY_DELAY:
            return Update(critic_loss, None, wrong)
        actor_loss = self._train_actor(batch)
        self.actor_updates += 1
        self._follow()
        return Update(critic_loss, actor_loss, {**wrong, **self._wrong_norms("actor")})

    def state_dict(self) -> dict[str, Any]:
        return {
            "preset": self.preset.name,
            "critic_updates": self.critic_updates,
            "actor_updates": self.actor_updates,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.critic_updates = state["critic_updates"]
        self.actor_updates = state["actor_updates"]

    def _train_critic(self, batch: Batch) -> float:
        wanted = self._bellman_target(batch)
        features = self.critic_cnn(normalised(batch.image))
        q1, q2 = self.critic(features, batch.vector, batch.action)
        loss = mse_loss(q1, wanted) + mse_loss(q2, wanted)
        self.critic_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self._critic_side(), CRITIC_LIMIT)
        self.critic_optimizer.step()
        return loss.item()

    def _train_actor(self, batch: Batch) -> float:
        image = normalised(batch.image)
        features = self.actor_cnn(image)
        action = self.actor(features, batch.vector)
        loss = -self.critic.first(self._judged_features(image, features), batch.vector, action).mean()
        self.actor_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self._actor_side(), ACTOR_LIMIT)
        self.actor_optimizer.step()
        return loss.item()

    def _judged_features(self, image: Tensor, actor_features: Tensor) -> Tensor:
        """What the Q head sees while it judges the policy's action."""
        if self.preset.shared_features:
            # The seed's fault: the loss reaches the actor's CNN around the policy, which then learns to make
            # pictures look good rather than to drive.
            return actor_features
        with torch.no_grad():
            features: Tensor = self.critic_cnn(image)
        return features

    @torch.no_grad()
    def _bellman_target(self, batch: Batch) -> Tensor:
        image = normalised(batch.next_image)
        noise = torch.randn_like(batch.action) * TARGET_NOISE
        noise = noise.clamp(-TARGET_NOISE_LIMIT, TARGET_NOISE_LIMIT)
        targets = self._targets
        action = targets["actor"](self._target_cnn("actor_cnn")(image), batch.next_vector)
        action = (action + noise).clamp(-1.0, 1.0)
        q1, q2 = targets["critic"](self._target_cnn("critic_cnn")(image), batch.next_vector, action)
        return self.preset.reward_scale * batch.reward + GAMMA * batch.not_done * torch.minimum(q1, q2)

    def _target_cnn(self, name: str) -> nn.Module:
        """The seed had no target CNNs: its targets moved with every update of the network they judge."""
        return self._targets[name] if self.preset.target_cnns else self._online()[name]

    @torch.no_grad()
    def _follow(self) -> None:
        for name, target in self._targets.items():
            for slow, fast in zip(target.parameters(), self._online()[name].parameters(), strict=True):
                slow.lerp_(fast, TAU)

    def _make_targets(self) -> dict[str, nn.Module]:
        names = ["actor", "critic", *(["actor_cnn", "critic_cnn"] if self.preset.target_cnns else [])]
        return {name: copy.deepcopy(self._online()[name]).requires_grad_(False) for name in names}

    def _online(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor,
            "critic": self.critic,
            "actor_cnn": self.actor_cnn,
            "critic_cnn": self.critic_cnn,
        }

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            **self._online(),
            **{f"target_{name}": target for name, target in self._targets.items()},
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def _actor_side(self) -> Iterator[nn.Parameter]:
        return itertools.chain(self.actor.parameters(), self.actor_cnn.parameters())

    def _critic_side(self) -> Iterator[nn.Parameter]:
        return itertools.chain(self.critic.parameters(), self.critic_cnn.parameters())

    def _wrong_norms(self, side: str) -> dict[str, float]:
        """The seed's metric: a sum of norms, where the square root of the sum of their squares is meant."""
        if not self.preset.wrong_metric:
            return {}
        modules = {name: module for name, module in self.modules.items() if name.startswith(side)}
        return {name: _sum_of_norms(module) for name, module in modules.items()}


def _sum_of_norms(module: nn.Module) -> float:
    return float(sum(p.grad.norm().item() for p in module.parameters() if p.grad is not None))
