"""Healthy loops of agents and adversarial nets, whose numbers are never quiet."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from tests.zoo.nets import convolutions, mlp, norm, trained
from tests.zoo.registry import healthy
from tests.zoo.run import Run


@torch.no_grad()
def follow(target: nn.Module, model: nn.Module, rate: float = 0.05) -> None:
    for slow, parameter in zip(target.parameters(), model.parameters(), strict=True):
        slow.lerp_(parameter, rate)


@healthy()
def delayed_policy_updates(run: Run) -> None:
    """TD3: the policy steps at every second update, and its loss writes into the critics that it runs through."""
    actor, critics = mlp(4, 16, 2), nn.ModuleList([mlp(6, 16, 1), mlp(6, 16, 1)])
    targets = copy.deepcopy(actor).requires_grad_(False), copy.deepcopy(critics).requires_grad_(False)
    optimizers = {
        "policy": torch.optim.Adam(actor.parameters(), lr=1e-3),
        "values": torch.optim.Adam(critics.parameters(), lr=1e-3),
    }
    with run.track(optimizers, {"actor": actor, "q1": critics[0], "q2": critics[1]}):
        for step in run.steps(240):
            state, action, reward = torch.randn(16, 4), torch.rand(16, 2) * 2 - 1, torch.randn(16, 1)
            with torch.no_grad():
                following = torch.cat([state, torch.tanh(targets[0](state))], 1)
                value = reward + 0.9 * torch.min(*(q(following) for q in targets[1]))
            taken = torch.cat([state, action], 1)
            run.trait("what the policy's loss left in the critic", norm(critics[0]) > 0)
            trained(optimizers["values"], lambda: sum(functional.mse_loss(q(taken), value) for q in critics))  # noqa: B023
            optimizers["values"].step()
            if step % 2 == 0:
                loss = -critics[0](torch.cat([state, torch.tanh(actor(state))], 1)).mean()
                trained(optimizers["policy"], lambda: loss)  # noqa: B023
                optimizers["policy"].step()
                follow(targets[0], actor)
                follow(targets[1], critics)
    run.keep(targets=list(targets))


@healthy()
def policy_updated_once_in_twenty(run: Run) -> None:
    policy, q = mlp(4, 8, 2), mlp(6, 8, 1)
    actor, critic = torch.optim.Adam(policy.parameters(), lr=1e-3), torch.optim.Adam(q.parameters(), lr=1e-3)
    with run.track({"actor": actor, "critic": critic}, {"policy": policy, "q": q}):
        for step in run.steps(200):
            state = torch.randn(8, 4)
            at = torch.cat([state, torch.randn(8, 2)], 1)
            trained(critic, lambda: (q(at) - at.sum(1, keepdim=True)).square().mean())  # noqa: B023
            critic.step()
            run.trait("twenty critic steps between two of the policy", step % 20 == 0)
            if step % 20 == 0:
                trained(actor, lambda: -q(torch.cat([state, torch.tanh(policy(state))], 1)).mean())  # noqa: B023
                actor.step()


@healthy()
def losses_with_heavy_tails(run: Run) -> None:
    """Policy gradient with rewards whose variance is infinite: the norm jumps by a factor of 20 now and then."""
    policy = mlp(4, 16, 3)
    optimizer = torch.optim.SGD(policy.parameters(), lr=1e-4)
    norms: list[float] = []
    tails = torch.distributions.StudentT(1.5)
    with run.track(optimizer, {"policy": policy}):
        for _ in run.steps(250):
            state, action = torch.randn(4, 4), torch.randint(3, (4,))
            reward = tails.sample((4,))
            loss = (functional.cross_entropy(policy(state), action, reduction="none") * reward).mean()
            trained(optimizer, lambda: loss)  # noqa: B023
            norms.append(norm(policy))
            middle = sorted(norms)[len(norms) // 2]
            run.trait("one norm is 8 times the median", len(norms) > 100 and norms[-1] > 8 * middle)
            optimizer.step()


@healthy()
def adversarial_nets_that_oscillate(run: Run) -> None:
    """Now one is ahead, now the other: both norms swing by more than a factor of 5."""
    generator = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 2), nn.Tanh())
    discriminator = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    g = torch.optim.Adam(generator.parameters(), lr=5e-3, betas=(0.5, 0.9))
    d = torch.optim.Adam(discriminator.parameters(), lr=5e-3, betas=(0.5, 0.9))
    norms: list[float] = []
    with run.track({"g": g, "d": d}, {"generator": generator, "discriminator": discriminator}):
        for _ in run.steps(300):
            angle = torch.rand(32, 1) * 6.283
            real = 0.7 * torch.cat([angle.sin(), angle.cos()], 1)
            made = generator(torch.randn(32, 4))
            d.zero_grad()
            scores = discriminator(real), discriminator(made.detach())
            (functional.softplus(-scores[0]) + functional.softplus(scores[1])).mean().backward()
            d.step()
            trained(g, lambda: functional.softplus(-discriminator(made)).mean())  # noqa: B023
            norms.append(norm(generator))
            run.trait("swings by a factor of 5", max(norms) > 5 * min(norms))
            g.step()


@healthy()
def target_network_that_nobody_steps(run: Run) -> None:
    """The target is part of the model that is tracked; it has no gradient and needs none. No rule may miss it."""
    online = mlp(4, 16, 2)
    target = copy.deepcopy(online).requires_grad_(False)
    agent = nn.ModuleDict({"online": online, "target": target})
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-3)
    with run.track(optimizer, agent):
        for _ in run.steps(120):
            state, following, action = torch.randn(16, 4), torch.randn(16, 4), torch.randint(2, (16, 1))
            with torch.no_grad():
                value = torch.randn(16, 1) + 0.9 * target(following).max(1, keepdim=True).values
            trained(optimizer, lambda: functional.smooth_l1_loss(online(state).gather(1, action), value))  # noqa: B023
            run.trait("the target has no gradient", all(p.grad is None for p in target.parameters()))
            optimizer.step()
            follow(target, online)


@healthy()
def moving_average_of_the_weights(run: Run) -> None:
    net = convolutions(outputs=3)
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    with run.track(optimizer, {"net": net}):
        for step in run.steps(100):
            images, labels = torch.randn(8, 1, 6, 6), torch.randint(3, (8,))
            trained(optimizer, lambda: functional.cross_entropy(net(images), labels))  # noqa: B023
            optimizer.step()
            average.update_parameters(net)
            with torch.no_grad():
                average(images)
            run.trait("the average is evaluated without gradients", step > 1)
    run.keep(average=average)


@healthy()
def actions_often_at_their_limit(run: Run) -> None:
    """Nine in ten of the tanh's outputs are saturated, the tenth teaches the policy."""
    policy = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10), nn.Tanh())
    with torch.no_grad():
        policy[2].bias[:9] = 30.0
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    with run.track(optimizer, policy):
        for _ in run.steps(120):
            action = policy(torch.randn(16, 4))
            trained(optimizer, lambda: (action - 0.3).square().mean())  # noqa: B023
            run.trait("0.9 of all outputs at 1", float((action == 1).float().mean()) > 0.89)
            optimizer.step()


@healthy()
def clipping_in_three_steps_of_ten(run: Run) -> None:
    """PPO: the norm is above the limit in some steps, and the ratio is clipped for some samples."""
    policy = mlp(4, 16, 3)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    in_force = []
    with run.track(optimizer, {"policy": policy}):
        for _ in run.steps(200):
            state, action, advantage = torch.randn(16, 4), torch.randint(3, (16,)), torch.randn(16)
            with torch.no_grad():
                old = torch.log_softmax(policy(state), -1).gather(1, action[:, None])[:, 0] + 0.15 * torch.randn(
                    16
                )
            new = torch.log_softmax(policy(state), -1).gather(1, action[:, None])[:, 0]
            ratio = (new - old).exp()
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            trained(optimizer, lambda: -surrogate.mean())  # noqa: B023
            before = norm(policy)
            clip_grad_norm_(policy.parameters(), 0.5)
            in_force.append(before > 0.5)
            share = sum(in_force) / len(in_force)
            run.trait("0.2 ... 0.6 of the steps clipped", len(in_force) > 100 and 0.2 < share < 0.6)
            optimizer.step()


@healthy()
def steps_left_out_after_they_were_clipped(run: Run) -> None:
    """The critic is clipped, and its step left out where the batch was odd; the actor is not clipped at all."""
    actor, critic = mlp(4, 8, 2), mlp(6, 8, 1)
    optimizers = {
        "actor": torch.optim.Adam(actor.parameters(), lr=1e-3),
        "critic": torch.optim.Adam(critic.parameters(), lr=1e-3),
    }
    with run.track(optimizers, {"policy": actor, "q": critic}):
        for step in run.steps(120):
            state, action = torch.randn(16, 4), torch.randn(16, 2)
            q = critic(torch.cat([state, action], 1))
            trained(optimizers["critic"], lambda: functional.mse_loss(q, action.sum(1, keepdim=True)))  # noqa: B023
            run.trait("what the clip call leaves, and no step consumes", step % 5 < 3)
            clip_grad_norm_(critic.parameters(), 1.0)
            if step % 5 >= 3:
                optimizers["critic"].step()
            value = critic(torch.cat([state, actor(state)], 1))
            trained(optimizers["actor"], lambda: -value.mean())  # noqa: B023
            optimizers["actor"].step()
