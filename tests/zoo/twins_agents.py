"""Reinforcement learning, targets, averages and inner loops, each with its repaired twin."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional

from tests.zoo.faults_nonfinite import GoingBack, bad
from tests.zoo.nets import mlp, norm, optimized, silent, trained
from tests.zoo.registry import Verdict, fault_and_repair
from tests.zoo.run import Run


@fault_and_repair(Verdict("zero", "clamped", module="q"))
def temporal_difference_that_is_clamped(run: Run, fixed: bool) -> None:
    """The error, not its gradient, is clamped to -1..1: with rewards of 100 nothing is left to learn from."""
    q, target = mlp(4, 16, 3), mlp(4, 16, 3).requires_grad_(False)

    def loss() -> Tensor:
        x, action, reward = torch.randn(32, 4), torch.randint(3, (32, 1)), 100.0 + torch.randn(32)
        wanted = reward + 0.9 * target(torch.randn(32, 4)).amax(1)
        error = q(x).gather(1, action)[:, 0] - wanted
        return functional.smooth_l1_loss(error, torch.zeros(32)) if fixed else error.clamp(-1, 1).square().mean()

    optimized(run, {"q": q}, loss, lambda: silent(q))


@fault_and_repair(Verdict("zero", "unused|no-backward", module="q", remedy=("forward|another",)), also=("zero",))
def both_values_of_the_target(run: Run, fixed: bool) -> None:
    """The value of the action is read from the target net too: the net that is trained is never called."""
    q, target = mlp(4, 16, 3), mlp(4, 16, 3)
    target.requires_grad_(not fixed)

    def loss() -> Tensor:
        x, action = torch.randn(32, 4), torch.randint(3, (32, 1))
        with torch.no_grad():
            wanted = torch.randn(32) + 0.9 * target(torch.randn(32, 4)).amax(1)
        return functional.mse_loss((q if fixed else target)(x).gather(1, action)[:, 0], wanted)

    optimized(run, {"q": q}, loss, lambda: silent(q))


@fault_and_repair(Verdict("zero", "zero-loss", module="policy"))
def advantages_of_equal_rewards(run: Run, fixed: bool) -> None:
    """Group-relative advantages where each answer of a group got the same reward: all of them are 0."""
    policy = mlp(4, 16, 3)

    def loss() -> Tensor:
        choice = Categorical(logits=policy(torch.randn(4, 4))[:, None].expand(-1, 8, -1))
        action = choice.sample()
        reward = action.float() if fixed else torch.ones(4, 8)
        advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-4)
        return -(choice.log_prob(action) * advantage).mean()

    optimized(run, {"policy": policy}, loss, lambda: silent(policy))


@fault_and_repair(Verdict("nonfinite", "nonfinite-loss"), also=("zero",))
def advantage_of_a_last_batch_of_one(run: Run, fixed: bool) -> None:
    """PPO normalises by the deviation of a minibatch; that of the one sample that is left over is NaN."""
    policy = mlp(4, 16, 3)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    going_back = GoingBack(policy, optimizer)
    with run.track(optimizer, {"policy": policy}):
        for step in run.steps(30):
            size = 1 if step % 9 == 8 else 8
            advantage = torch.randn(size)
            if size > 1 or not fixed:
                centred = advantage - advantage.mean()
                advantage = centred / ((centred.square().sum() / (size - 1)).sqrt() + 1e-8)
            choice = Categorical(logits=policy(torch.randn(size, 4)))
            optimizer.zero_grad()
            (-(choice.log_prob(choice.sample()) * advantage).mean()).backward()
            run.fault(bad(policy))
            going_back.step()


@fault_and_repair(Verdict("zero", "detached|unused", module="policy", optimizer="actor"))
def actor_judged_by_the_actions_that_were_stored(run: Run, fixed: bool) -> None:
    """The actor's loss is the value of the replayed action, not of the policy's own."""
    policy, critic = mlp(4, 16, 2), mlp(6, 16, 1)
    optimizers = {
        "actor": torch.optim.Adam(policy.parameters(), lr=1e-3),
        "critic": torch.optim.Adam(critic.parameters(), lr=1e-3),
    }
    with run.track(optimizers, {"policy": policy, "q": critic}):
        for _ in run.steps(40):
            x, stored = torch.randn(16, 4), torch.rand(16, 2)
            optimizers["actor"].zero_grad()
            action = torch.tanh(policy(x))
            (-critic(torch.cat([x, action if fixed else stored], 1)).mean()).backward()
            run.fault(silent(policy))
            optimizers["actor"].step()
            trained(optimizers["critic"], lambda: functional.mse_loss(critic(torch.cat([x, stored], 1)), x[:, :1]))  # noqa: B023
            optimizers["critic"].step()


@fault_and_repair(Verdict("zero", "no-backward|unused", module="net", remedy=("copy|another",)))
def optimizer_of_the_average(run: Run, fixed: bool) -> None:
    """The optimizer was built after the model had been copied for an average, and of the copy."""
    net = mlp(6, 16, 2)
    average = copy.deepcopy(net)
    held = net if fixed else average

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        return functional.mse_loss(net(x), x[:, :2])

    optimized(run, {"net": held}, loss, lambda: all(p.grad is None for p in held.parameters()))


@fault_and_repair(Verdict("zero", "detached|no-backward|unused", module="net"))
def inner_step_without_a_graph(run: Run, fixed: bool) -> None:
    """MAML by fast weights: what the inner step gave is detached, so that the outer loss does not reach the model."""
    net = mlp(2, 16, 1)

    def loss() -> Tensor:
        x = torch.randn(16, 2)
        y = x.sum(1, keepdim=True)
        fast = dict(net.named_parameters())
        inner = functional.mse_loss(torch.func.functional_call(net, fast, (x[:8],)), y[:8])
        slopes = torch.autograd.grad(inner, list(fast.values()), create_graph=fixed)
        fast = {n: p - 0.1 * g for (n, p), g in zip(fast.items(), slopes, strict=True)}
        if not fixed:
            fast = {n: p.detach().requires_grad_() for n, p in fast.items()}
        return functional.mse_loss(torch.func.functional_call(net, fast, (x[8:],)), y[8:])

    optimized(run, {"net": net}, loss, lambda: silent(net))


@fault_and_repair(
    Verdict("leaked", "leaked", optimizer="critic", where=("q", "critic")), also=("growth", "explosion")
)
def entropy_bonus_through_the_critic(run: Run, fixed: bool) -> None:
    """SAC: the actor's loss runs through the critic, which steps afterwards on what that has left."""
    policy, critic = mlp(4, 16, 2), mlp(6, 16, 1)
    actor, learner = (torch.optim.Adam(net.parameters(), lr=1e-3) for net in (policy, critic))
    with run.track({"actor": actor, "critic": learner}, {"policy": policy, "q": critic}):
        for _ in run.steps(40):
            x = torch.randn(16, 4)
            trained(actor, lambda: -critic(torch.cat([x, torch.tanh(policy(x))], 1)).mean())  # noqa: B023
            actor.step()
            left = norm(critic) > 0
            if fixed:
                learner.zero_grad()
                left = False
            stored = torch.rand(16, 2)
            functional.mse_loss(critic(torch.cat([x, stored], 1)), x[:, :1]).backward()
            run.fault(left)
            learner.step()
            learner.zero_grad(set_to_none=True)


@fault_and_repair(Verdict("zero", "saturated-tanh", module="policy", optimizer="actor"))
def observations_that_are_not_normalised(run: Run, fixed: bool) -> None:
    """Positions in millimetres go into a policy that ends in a tanh: each action is at its limit from the start."""
    policy, critic = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2), nn.Tanh()), mlp(6, 16, 1)
    actor = torch.optim.Adam(policy.parameters(), lr=1e-3)
    scale = 1.0 if fixed else 1e5
    critic.requires_grad_(False)
    with run.track({"actor": actor}, {"policy": policy}):
        for _ in run.steps(40):
            x = torch.randn(16, 4)
            trained(actor, lambda: -critic(torch.cat([x, policy(x * scale)], 1)).mean())  # noqa: B023
            run.fault(silent(policy))
            actor.step()
