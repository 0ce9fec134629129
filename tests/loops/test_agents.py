"""Several networks that train each other: reinforcement learning, adversarial nets, many tasks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.loops.models import loss_of, mlp
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


@conformance
def test_adversarial_nets(run: Run) -> None:
    """Alternating; the generator's loss writes into the discriminator, which zeroes before its own."""
    generator, discriminator = mlp(2, 4), mlp(4)
    optimizers = {
        "g": torch.optim.Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.9)),
        "d": torch.optim.Adam(discriminator.parameters(), lr=0.01, betas=(0.5, 0.9)),
    }
    with run.track(optimizers, {"generator": generator, "discriminator": discriminator}):
        for step in range(6):
            fake = generator(torch.randn(6, 2))
            optimizers["d"].zero_grad()
            functional.softplus(-discriminator(torch.randn(6, 4))).mean().backward()
            functional.softplus(discriminator(fake.detach())).mean().backward()
            run.before("d")
            norm = clip_grad_norm_(discriminator.parameters(), 0.3)
            run.after("d", Clip(0.3, norm), passes=2 + (step > 0))
            optimizers["d"].step()
            optimizers["g"].zero_grad()
            functional.softplus(-discriminator(fake)).mean().backward()
            run.after("g")
            optimizers["g"].step()


@conformance
def test_wasserstein_with_gradient_penalty(run: Run) -> None:
    """Five critic steps for one of the generator, the penalty by a second derivative."""
    generator, critic = mlp(2, 4), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizers = {
        "g": torch.optim.Adam(generator.parameters(), lr=0.01),
        "c": torch.optim.Adam(critic.parameters(), lr=0.01),
    }
    with run.track(optimizers, {"generator": generator, "critic": critic}):
        for batch in range(15):
            real = torch.randn(6, 4)
            with torch.no_grad():
                fake = generator(torch.randn(6, 2))
            between = torch.lerp(real, fake, torch.rand(6, 1)).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
            optimizers["c"].zero_grad()
            (critic(fake).mean() - critic(real).mean() + penalty).backward()
            run.before("c")
            norm = clip_grad_norm_(critic.parameters(), 2.0)
            run.after("c", Clip(2.0, norm))
            optimizers["c"].step()
            if batch % 5 == 4:
                optimizers["g"].zero_grad()
                critic.requires_grad_(False)
                (-critic(generator(torch.randn(6, 2))).mean()).backward()
                critic.requires_grad_(True)
                run.after("g")
                optimizers["g"].step()


@conformance
def test_one_backward_for_generator_and_discriminator_by_gradient_reversal(run: Run) -> None:
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return -gradient

    features, label, domain = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 2)
    everything = nn.ModuleDict({"features": features, "label": label, "domain": domain})
    optimizers = {
        "task": torch.optim.SGD([*features.parameters(), *label.parameters()], lr=0.05),
        "domain": torch.optim.SGD(domain.parameters(), lr=0.05),
    }
    with run.track(optimizers, everything):
        for _ in range(6):
            everything.zero_grad()
            hidden = features(torch.randn(6, 4)).tanh()
            loss = label(hidden).square().mean() + domain(Reverse.apply(hidden)).square().mean()
            loss.backward()
            for name in optimizers:
                run.before(name)
            norm = clip_grad_norm_(everything.parameters(), 0.2)
            for name, optimizer in optimizers.items():
                run.after(name, Clip(0.2, norm))
                optimizer.step()


@conformance
def test_many_tasks_with_heads_in_turn(run: Run) -> None:
    """The head whose turn it is not has no gradient: it is missing, and its line says so."""
    trunk = nn.Linear(4, 8)
    heads = nn.ModuleList([nn.Linear(8, 1) for _ in range(3)])
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=0.01)
    lines = {"trunk": trunk, **{f"head {i}": head for i, head in enumerate(heads)}}
    with run.track(optimizer, lines):
        for step in range(9):
            optimizer.zero_grad()
            heads[step % 3](trunk(torch.randn(6, 4)).tanh()).square().mean().mul(10).backward()
            run.before()
            norm = clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()


@conformance
def test_an_optimizer_for_each_task_over_a_shared_trunk(run: Run) -> None:
    """Both hold the trunk; each step consumes what its own loss wrote, and the trunk is measured for each."""
    trunk, one, other = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)
    optimizers = {
        "one": torch.optim.SGD([*trunk.parameters(), *one.parameters()], lr=0.02),
        "other": torch.optim.SGD([*trunk.parameters(), *other.parameters()], lr=0.02),
    }
    with run.track(optimizers, {"trunk": trunk, "one head": one, "other head": other}):
        touched: list[Clip] = []
        for _ in range(6):
            for name, head in (("one", one), ("other", other)):
                optimizers[name].zero_grad()
                head(trunk(torch.randn(6, 4)).tanh()).square().mean().mul(10).backward()
                run.before(name)
                parameters = [p for group in optimizers[name].param_groups for p in group["params"]]
                norm = clip_grad_norm_(parameters, 0.5)
                # The other's pass and clip call have touched the trunk, since this one's last step.
                clip = Clip(0.5, norm)
                run.after(name, *touched, clip, passes=1 + len(touched))
                optimizers[name].step()
                touched = [clip]


@conformance
def test_two_optimizers_step_on_the_same_gradients(run: Run) -> None:
    """One backward, the second optimizer after the first, the gradients halved in between."""
    model = mlp()
    optimizers = {
        "first": torch.optim.SGD(model.parameters(), lr=0.01),
        "second": torch.optim.Adam(model.parameters(), lr=0.001),
    }
    with run.track(optimizers, model):
        for _ in range(6):
            model.zero_grad()
            loss_of(model).backward()
            run.before("first")
            run.before("second")
            run.after("first")
            optimizers["first"].step()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after("second")
            optimizers["second"].step()


@conformance
def test_meta_learning_with_an_inner_loop(run: Run) -> None:
    """First-order MAML: a copy is adapted by an optimizer that nobody tracks, its gradients handed back."""
    model = mlp()
    outer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(outer, model):
        for _ in range(6):
            outer.zero_grad()
            for _ in range(2):
                learner = copy.deepcopy(model)
                inner = torch.optim.SGD(learner.parameters(), lr=0.1)
                for _ in range(2):
                    inner.zero_grad()
                    loss_of(learner).backward()
                    inner.step()
                for parameter, adapted in zip(model.parameters(), learner.parameters(), strict=True):
                    gradient = adapted.grad.clone()  # type: ignore[union-attr]
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm), passes=0)
            outer.step()
