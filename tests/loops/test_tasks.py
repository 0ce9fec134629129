"""Networks that train against each other, or share a part: adversarial nets, many tasks, meta-learning."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance


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
