"""Reinforcement learning: networks whose losses run through each other."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.loops.models import mlp
from tests.loops.run import Clip, Run, conformance


def frozen_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, model: nn.Module, rate: float = 0.1) -> None:
    for slow, parameter in zip(target.parameters(), model.parameters(), strict=True):
        slow.lerp_(parameter, rate)


@conformance
def test_twin_delayed_policy_gradient(run: Run) -> None:
    """The policy is updated at every second step, and its loss writes into the critics that it runs through."""
    actor, critics = mlp(3, 2), nn.ModuleList([mlp(5), mlp(5)])
    target_actor, target_critics = frozen_copy(actor), frozen_copy(critics)
    optimizers = {
        "actor": torch.optim.Adam(actor.parameters(), lr=0.01),
        "critic": torch.optim.Adam(critics.parameters(), lr=0.01),
    }
    with run.track(optimizers, {"policy": actor, "q1": critics[0], "q2": critics[1]}):
        leaked = 0
        for step in range(8):
            state, action, reward = torch.randn(6, 3), torch.randn(6, 2), torch.randn(6, 1)
            with torch.no_grad():
                following = torch.cat([state, target_actor(state)], 1)
                target = reward + 0.9 * torch.min(*(q(following) for q in target_critics))  # type: ignore[union-attr]
            taken = torch.cat([state, action], 1)
            optimizers["critic"].zero_grad()
            sum(functional.mse_loss(q(taken), target) for q in critics).backward()  # type: ignore[union-attr]
            run.before("critic")
            norm = clip_grad_norm_(critics.parameters(), 1.0)
            run.after("critic", Clip(1.0, norm), passes=1 + leaked)
            optimizers["critic"].step()
            leaked = step % 2
            if step % 2:
                optimizers["actor"].zero_grad()
                (-critics[0](torch.cat([state, actor(state)], 1)).mean()).backward()
                run.before("actor")
                norm = clip_grad_norm_(actor.parameters(), 0.05)
                run.after("actor", Clip(0.05, norm))
                optimizers["actor"].step()
                follow(target_actor, actor)
                follow(target_critics, critics)
    run.leave(targets=[target_actor, target_critics])


@conformance
def test_a_policy_loss_that_leaks_into_the_critics_step(run: Run) -> None:
    """A fault that people make: the critic's gradients are not zeroed between the two losses."""
    actor, critic = mlp(3, 2), mlp(5)
    optimizers = {
        "actor": torch.optim.SGD(actor.parameters(), lr=0.01),
        "critic": torch.optim.SGD(critic.parameters(), lr=0.01),
    }
    with run.track(optimizers, {"policy": actor, "q": critic}):
        for _ in range(6):
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            state = torch.randn(6, 3)
            (-critic(torch.cat([state, actor(state)], 1)).mean()).backward()
            run.after("actor")
            optimizers["actor"].step()
            critic(torch.randn(6, 5)).square().mean().backward()
            run.before("critic")
            norm = clip_grad_norm_(critic.parameters(), 0.3)
            run.after("critic", Clip(0.3, norm), passes=2)
            optimizers["critic"].step()


@conformance
def test_one_agent_as_a_lone_module(run: Run) -> None:
    """Its children are the lines of the report, but for the target, which no optimizer holds."""
    agent = nn.Module()
    agent.actor, agent.critic = mlp(3, 2), mlp(5)
    agent.target = frozen_copy(agent.critic)
    optimizers = {
        "actor": torch.optim.Adam(agent.actor.parameters(), lr=0.01),
        "critic": torch.optim.Adam(agent.critic.parameters(), lr=0.01),
    }
    with run.track(optimizers, agent):
        for _ in range(6):
            state = torch.randn(6, 3)
            optimizers["critic"].zero_grad()
            functional.mse_loss(agent.critic(torch.randn(6, 5)), agent.target(torch.randn(6, 5))).backward()
            run.after("critic", passes=2 if run.trackers[0].truths else 1)
            optimizers["critic"].step()
            optimizers["actor"].zero_grad()
            (-agent.critic(torch.cat([state, agent.actor(state)], 1)).mean()).backward()
            run.before("actor")
            norm = clip_grad_norm_(agent.actor.parameters(), 0.05)
            run.after("actor", Clip(0.05, norm))
            optimizers["actor"].step()
            follow(agent.target, agent.critic)


@conformance
def test_soft_actor_critic_with_its_temperature(run: Run) -> None:
    """Three optimizers; the temperature is one number, and its module is a list of parameters."""
    actor, critic = mlp(3, 4), mlp(5)
    temperature = nn.ParameterList([nn.Parameter(torch.tensor(0.1))])
    optimizers = {
        "critic": torch.optim.Adam(critic.parameters(), lr=0.01),
        "actor": torch.optim.Adam(actor.parameters(), lr=0.01),
        "alpha": torch.optim.Adam(temperature.parameters(), lr=0.01),
    }

    def sample(state: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = actor(state).chunk(2, 1)
        draw = torch.distributions.Normal(mean, spread.clamp(-5, 2).exp())
        action = draw.rsample()
        log_p: Tensor = (draw.log_prob(action) - torch.log1p(-(action.tanh() ** 2) + 1e-6)).sum(1)
        return action.tanh(), log_p

    with run.track(optimizers, {"policy": actor, "q": critic, "temperature": temperature}):
        for step in range(6):
            state = torch.randn(6, 3)
            action, log_p = sample(state)
            optimizers["alpha"].zero_grad()
            (-(temperature[0] * (log_p.detach() - 2.0)).mean()).backward()
            run.after("alpha")
            optimizers["alpha"].step()
            optimizers["critic"].zero_grad()
            functional.mse_loss(critic(torch.randn(6, 5)), torch.randn(6, 1)).backward()
            run.before("critic")
            norm = clip_grad_norm_(critic.parameters(), 1.0)
            run.after("critic", Clip(1.0, norm), passes=1 + (step > 0))
            optimizers["critic"].step()
            optimizers["actor"].zero_grad()
            value = critic(torch.cat([state, action], 1)).squeeze(1)
            (temperature[0].detach().exp() * log_p - value).mean().backward()
            run.after("actor")
            optimizers["actor"].step()


@conformance
def test_policy_gradient_over_epochs_and_minibatches(run: Run) -> None:
    """One optimizer for policy and value, several passes over the same rollout, a stop when it has moved too far."""
    policy = mlp(3, 3)
    value = mlp(3)
    both = nn.ModuleDict({"policy": policy, "value": value})
    optimizer = torch.optim.Adam(both.parameters(), lr=0.01, eps=1e-5)
    with run.track(optimizer, both):
        for _ in range(2):
            states, actions, returns = torch.randn(12, 3), torch.randint(3, (12,)), torch.randn(12)
            with torch.no_grad():
                old = policy(states).log_softmax(1).gather(1, actions[:, None]).squeeze(1)
            for epoch in range(2):
                for part in torch.randperm(12).chunk(2):
                    new = policy(states[part]).log_softmax(1).gather(1, actions[part, None]).squeeze(1)
                    ratio = (new - old[part]).exp()
                    gain = returns[part]
                    surrogate = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
                    loss = -surrogate + functional.mse_loss(value(states[part]).squeeze(1), gain)
                    optimizer.zero_grad()
                    loss.backward()
                    run.before()
                    norm = clip_grad_norm_(both.parameters(), 0.5)
                    run.after("optimizer", Clip(0.5, norm))
                    optimizer.step()
                if epoch == 0 and ratio.max() > 100:
                    break


@conformance
def test_q_learning_with_an_average_of_weights(run: Run) -> None:
    model = mlp(4, 2)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            state, action = torch.randn(6, 4), torch.randint(2, (6, 1))
            with torch.no_grad():
                target = 1.0 + 0.9 * average(torch.randn(6, 4)).max(1).values
            optimizer.zero_grad()
            functional.smooth_l1_loss(model(state).gather(1, action).squeeze(1), target).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.clamp_(-0.1, 0.1)  # type: ignore[union-attr]
            run.after()
            optimizer.step()
            average.update_parameters(model)
    run.leave(average=average)
