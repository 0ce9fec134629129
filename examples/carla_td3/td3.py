"""TD3 from pixels, watched by gradwatch: the networks, the agent and the training loop, to be read from here down.

Source of the algorithm: Fujimoto, van Hoof, Meger, "Addressing Function Approximation Error in Actor-Critic
Methods", ICML 2018. Everything that can be set is in ``options.py``, with the three presets and what they are for.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

import gradwatch
from examples.carla_td3.checkpoint import Checkpoints, Kept
from examples.carla_td3.env import Observation
from examples.carla_td3.evaluation import evaluate, make_env, straight_on
from examples.carla_td3.options import Options
from examples.carla_td3.replay import Batch, Replay
from examples.carla_td3.reporting import Report
from examples.carla_td3.transfer import downloaded, uploaded

__all__ = ["TD3", "Actor", "Critic", "train"]

FEATURES, VECTOR, ACTIONS, HIDDEN = 512, 53, 2, 256
# Where the warm-up drives, and how much more than the steering the pedal is tried out.
FORWARD, TRIED = np.array([0.0, 0.5]), np.array([1.0, 3.0])


# ------------------------------------------------------------------------------------------------ the networks


def make_cnn(layer_norm: bool) -> nn.Sequential:
    """uint8 (n, 4, 84, 84) as floats in [-1, 1] -> (n, 512); 1,727,392 parameters with LayerNorm."""

    def tail(*shape: int) -> list[nn.Module]:
        return [*([nn.LayerNorm(shape)] if layer_norm else []), nn.LeakyReLU(0.01)]

    return nn.Sequential(
        *[nn.Conv2d(4, 32, 8, stride=4), *tail(32, 20, 20)],
        *[nn.Conv2d(32, 64, 4, stride=2), *tail(64, 9, 9)],
        *[nn.Conv2d(64, 64, 3), *tail(64, 7, 7)],
        *[nn.Flatten(), nn.Linear(64 * 7 * 7, FEATURES), *tail(FEATURES)],
    )


def make_mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )


class Policy(nn.Module):
    """Features (n, 512) and vector (n, 53) -> the action (n, 2) in [-1, 1], and what it was before the tanh."""

    def __init__(self, last_layer: float | None) -> None:
        super().__init__()
        self.layers = make_mlp(FEATURES + VECTOR, ACTIONS)
        if last_layer is not None:
            for parameter in self.layers[-1].parameters():
                nn.init.uniform_(parameter, -last_layer, last_layer)

    def forward(self, features: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        before = self.layers(torch.cat([features, vector], dim=1))
        return torch.tanh(before), before


class Actor(nn.Module):
    """The driver: a CNN and a policy on top of it."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.cnn = make_cnn(options.layer_norm)
        self.mlp = Policy(options.last_layer)


class Heads(nn.Module):
    """Two Q functions of features (n, 512), vector (n, 53) and action (n, 2) -> (n, 1) each."""

    def __init__(self) -> None:
        super().__init__()
        self.q1 = make_mlp(FEATURES + VECTOR + ACTIONS, 1)
        self.q2 = make_mlp(FEATURES + VECTOR + ACTIONS, 1)

    def forward(self, features: Tensor, vector: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([features, vector, action], dim=1)
        return self.q1(seen), self.q2(seen)


class Critic(nn.Module):
    """The judge: a CNN of its own and both heads."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.cnn = make_cnn(options.layer_norm)
        self.mlp = Heads()


# --------------------------------------------------------------------------------------------------- the agent


class TD3:
    """Two networks, their slow targets and two optimizers."""

    def __init__(self, options: Options, device: torch.device) -> None:
        self.options = options
        self.device = device
        self.actor, self.critic = Actor(options).to(device), Critic(options).to(device)
        self.target_actor, self.target_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        if not options.target_cnns:
            # The seed's targets look through the very CNNs that are being trained: they move with every update.
            self.target_actor.cnn, self.target_critic.cnn = self.actor.cnn, self.critic.cnn
        # Of the CNN and of what is on top of it.
        self._rates = (
            options.learning_rate if options.cnn_rate is None else options.cnn_rate,
            options.learning_rate,
        )
        self.actor_optimizer, self.critic_optimizer = self._optimizer(self.actor), self._optimizer(self.critic)
        self.mean, self.spread = torch.zeros(VECTOR, device=device), torch.ones(VECTOR, device=device)
        self.updates = 0

    @torch.no_grad()
    def act(self, observation: Observation) -> npt.NDArray[np.float32]:
        """The policy's action (2,) for one observation, without noise."""
        image, vector = (uploaded(observation[name], self.device)[None] for name in ("image", "vector"))
        return downloaded(self._decide(self.actor, image, self._level(vector))[0][0])

    def balance(self, vectors: npt.NDArray[np.float32]) -> None:
        """Bring the 53 numbers (n, 53) of the warm-up to one scale: as they come, 512 features drown them."""
        self.mean = uploaded(vectors.mean(0), self.device)
        # The floor is for waypoints that hardly move: their noise is no news.
        self.spread = uploaded(vectors.std(0) + 0.02, self.device)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the critic and, every ``policy_delay``, one of the actor and of the targets.

        Returns:
            0-dim tensors by name, still on the device.
        """
        o = self.options
        vector, next_vector = self._level(batch.vector), self._level(batch.next_vector)

        with torch.no_grad():
            noise = (torch.randn_like(batch.action) * o.target_noise).clamp(-o.noise_clip, o.noise_clip)
            next_action = (self._decide(self.target_actor, batch.next_image, next_vector)[0] + noise).clamp(-1, 1)
            next_q = torch.minimum(*self._judge(self.target_critic, batch.next_image, next_vector, next_action))
            wanted = o.reward_scale * batch.reward + o.gamma * batch.not_done * next_q

        q1, q2 = self._judge(self.critic, batch.image, vector, batch.action)
        critic_loss = mse_loss(q1, wanted) + mse_loss(q2, wanted)
        self._descend(self.critic, self.critic_optimizer, critic_loss, o.critic_clip)
        self.updates += 1
        said = {"train/critic_loss": critic_loss.detach(), "train/q": q1.detach().mean()}
        if o.wrong_metric:  # now: the actor's loss writes into the critic as well
            said |= self._wrong_norms("critic", self.critic)
        if self.updates % o.policy_delay:
            return said

        seen = self.see(self.actor.cnn, batch.image)
        action, before_tanh = self.actor.mlp(seen, vector)
        if not o.shared_features:
            # Otherwise the loss reaches the actor's CNN around the policy: the seed's fault.
            with torch.no_grad():
                seen = self.see(self.critic.cnn, batch.image)
        actor_loss = -self.critic.mlp(seen, vector, action)[0].mean()
        # The penalty keeps tanh away from its flat ends, where no gradient would bring it back.
        penalty = o.action_penalty * before_tanh.square().mean()
        self._descend(self.actor, self.actor_optimizer, actor_loss + penalty, o.actor_clip)
        self._follow()
        said["train/actor_loss"] = actor_loss.detach()
        if o.wrong_metric:
            said |= self._wrong_norms("actor", self.actor)
        return said

    def state_dict(self) -> dict[str, Any]:
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, "mean": self.mean, "spread": self.spread, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.mean, self.spread = state["mean"].to(self.device), state["spread"].to(self.device)
        self.updates = state["updates"]

    def _optimizer(self, network: Actor | Critic) -> torch.optim.Adam:
        parts = (network.cnn, network.mlp)
        groups = [{"params": part.parameters(), "lr": rate} for part, rate in zip(parts, self._rates, strict=True)]
        return torch.optim.Adam(groups, fused=True)

    def cool(self, share: float) -> None:
        """Bring the learning rates to a share of what they are by the options."""
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
                group["lr"] = share * rate

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        networks = ("actor", "critic", "target_actor", "target_critic")
        return {name: getattr(self, name) for name in (*networks, "actor_optimizer", "critic_optimizer")}

    def _level(self, vector: Tensor) -> Tensor:
        return (vector - self.mean) / self.spread

    def see(self, cnn: nn.Module, image: Tensor) -> Tensor:
        """Pictures (n, 4, 84, 84) uint8 as the features (n, 512) that stand beside the vector."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bfloat16):
            features: Tensor = cnn((image.float() / 255.0 - 0.5) / 0.5)
        return features.float() * self.options.image_weight

    def _decide(self, actor: Actor, image: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        action, before_tanh = actor.mlp(self.see(actor.cnn, image), vector)
        return action, before_tanh

    def _judge(self, critic: Critic, image: Tensor, vector: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        q1, q2 = critic.mlp(self.see(critic.cnn, image), vector, action)
        return q1, q2

    def _descend(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if clip:
            clip_grad_norm_(network.parameters(), clip)
        optimizer.step()

    def _wrong_norms(self, side: str, network: Actor | Critic) -> dict[str, Tensor]:
        """The seed's metric: a sum of norms, where the square root of the sum of their squares is meant."""
        return {
            f"debug/{side}_{part}_grad_norm_AFTER_clip_SUM_OF_NORMS": torch.stack(
                [p.grad.norm() for p in module.parameters() if p.grad is not None]
            ).sum()
            for part, module in (("cnn", network.cnn), ("mlp", network.mlp))
        }

    @torch.no_grad()
    def _follow(self) -> None:
        for slow, fast in ((self.target_actor, self.actor), (self.target_critic, self.critic)):
            torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), self.options.tau)


# ---------------------------------------------------------------------------------------------------- the loop


class Driver:
    """Who drives while it is learned: chance at first, then the policy with noise.

    Chance that is even over throttle and brake stands still, since the brake is the stronger of the two: the
    warm-up goes forward, and holds its course from one decision to the next long enough to get somewhere.
    """

    def __init__(self, options: Options, chance: np.random.Generator) -> None:
        self.options = options
        self.chance = chance
        self.drift = np.zeros(ACTIONS)

    def action(self, agent: TD3, step: int, observation: Observation) -> npt.NDArray[np.float32]:
        noise = self.options.exploration_noise * TRIED
        if step > self.options.learning_starts:
            action = agent.act(observation) + self.chance.normal(0.0, noise)
        elif self.options.warm_up == "uniform":
            action = self.chance.uniform(-1.0, 1.0, ACTIONS)
        else:
            self.drift = 0.8 * self.drift + self.chance.normal(0.0, noise)
            action = self.drift + FORWARD
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"drift": self.drift.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drift = np.array(state["drift"])


def train(options: Options, checkpoints: Checkpoints, report: Report) -> TD3:
    """Drive, remember, learn; goes on from the newest checkpoint where the run has one."""
    random.seed(options.seed)
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    if device.type == "cuda":
        # What names no device, such as page-locked memory, is then of this one, and no other is touched.
        torch.cuda.set_device(device)
    chance = np.random.default_rng(options.seed)
    env, judged = make_env(options), make_env(options)
    agent = TD3(options, device)
    driver = Driver(options, chance)
    replay = Replay(options.buffer_size, checkpoints.folder, spare=options.checkpoint_freq)

    # gradwatch is told what to watch; agent and loop are what they are without it.
    watch = gradwatch.track(
        {"actor": agent.actor_optimizer, "critic": agent.critic_optimizer},
        {
            "actor_cnn": agent.actor.cnn,
            "actor_mlp": agent.actor.mlp,
            "critic_cnn": agent.critic.cnn,
            "critic_mlp": agent.critic.mlp,
        },
        sinks=report.sinks,
    )
    with watch, env, judged:
        env.reset(seed=options.seed)
        kept: dict[str, Kept] = {
            "agent": agent,
            "env": env,
            "driver": driver,
            "replay": replay,
            "report": report,
            "watch": watch,
        }
        start = checkpoints.load(kept, chance)
        if not start:
            report.evaluated(0, evaluate(agent.act, judged, options.num_eval_episodes))
        observation = env.observation()
        for step in range(start + 1, options.max_timesteps + 1):
            action = driver.action(agent, step, observation)
            following, reward, terminated, truncated, info = env.step(action)
            replay.add(observation, action, reward, following, terminated)
            report.stepped(step, reward, truncated, info)
            observation = env.reset()[0] if terminated or truncated else following

            if step == options.learning_starts and options.balanced:
                agent.balance(replay.vectors())
            if step > options.learning_starts and step % options.update_every == 0:
                agent.cool(min(1.0, (options.max_timesteps - step + 1) / max(1, options.anneal)))
                watch.loop_step = step
                report.updated(step, agent.update(replay.sample(options.batch_size, chance, agent.device)))
            if _due(step, options.eval_freq, options):
                report.evaluated(step, evaluate(agent.act, judged, options.num_eval_episodes))
                observation = env.observation()
            if _due(step, options.checkpoint_freq, options):
                checkpoints.save(step, kept, chance)
        report.compared("straight on", evaluate(straight_on, judged, options.num_eval_episodes))
    return agent


def _due(step: int, every: int, options: Options) -> bool:
    return step == options.max_timesteps or (every > 0 and step % every == 0)
