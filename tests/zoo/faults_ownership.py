"""Steps that consume gradients that were not written for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import convolutions, mlp, norm, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


def gradients(of: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in of.parameters() if p.grad is not None]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@fault(Verdict("stale", "stale", where=("optimizer",)))
def two_steps_for_one_backward(run: Run) -> None:
    """``optimizer.step()`` in the training step and once more in a callback, from step 11 on."""
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    taken = 0
    with run.track(optimizer, net):
        for step in run.steps(25):
            trained(optimizer, lambda: net(torch.randn(8, 6)).square().mean())
            used = gradients(net)
            optimizer.step()
            taken += 1
            if step > 10:
                taken += 1
                run.fault(same(used, gradients(net)), step=taken)
                optimizer.step()


@fault(Verdict("stale", "stale", optimizer="critic", where=("q", "critic")))
def critic_stepped_without_its_loss(run: Run) -> None:
    """The critic's loss is computed at every second iteration, its optimizer steps in each."""
    policy, critic = mlp(4, 8, 2), mlp(6, 8, 1)
    actor = torch.optim.Adam(policy.parameters(), lr=1e-3)
    learner = torch.optim.Adam(critic.parameters(), lr=1e-3)
    used: list[Tensor] = []
    with run.track({"actor": actor, "critic": learner}, {"policy": policy, "q": critic}):
        for step in run.steps(30):
            state, action, value = torch.randn(8, 4), torch.randn(8, 2), torch.randn(8, 1)
            if step % 2 == 1:
                at = torch.cat([state, action], 1)
                trained(learner, lambda: functional.mse_loss(critic(at), value))  # noqa: B023
            run.fault(same(used, gradients(critic)))
            learner.step()
            used = gradients(critic)
            actor.zero_grad()
            critic.requires_grad_(False)
            (-critic(torch.cat([state, policy(state)], 1)).mean()).backward()
            critic.requires_grad_(True)
            actor.step()


@fault(Verdict("stale", "stale", where=("words",)))
def only_the_head_is_zeroed_and_the_body_cut_off(run: Run) -> None:
    """From step 8 on the embedding is cut off, and what its last backward left is used again and again."""
    words, head = nn.Embedding(10, 6), nn.Linear(6, 10)
    optimizer = torch.optim.SGD([*words.parameters(), *head.parameters()], lr=0.01)
    used: list[Tensor] = []
    with run.track(optimizer, {"words": words, "head": head}):
        for step in run.steps(30):
            tokens = torch.randint(10, (16,))
            x = words(tokens)
            if step > 7:
                x = x.detach()
            else:
                words.zero_grad()
            head.zero_grad()
            functional.cross_entropy(head(x), tokens).backward()
            run.fault(same(used, gradients(words)))
            optimizer.step()
            used = gradients(words)


@fault(Verdict("leaked", "leaked", where=("optimizer",)), also=("growth", "explosion"))
def never_zeroed(run: Run) -> None:
    net = convolutions(outputs=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    with run.track(optimizer, net):
        for step in run.steps(30):
            before = gradients(net)
            net(torch.randn(4, 1, 6, 6)).square().mean().backward()
            run.fault(step > 1 and any(bool(g.any()) for g in before))
            optimizer.step()


@fault(Verdict("leaked", "leaked", optimizer="critic", where=("q", "critic"), evidence=("norm",)))
def policy_loss_leaks_into_the_critic(run: Run) -> None:
    """The critic's gradients are zeroed first of all, and then the policy's loss runs through it."""
    policy, critic = mlp(4, 8, 2), mlp(6, 8, 1)
    actor = torch.optim.Adam(policy.parameters(), lr=1e-3)
    learner = torch.optim.Adam(critic.parameters(), lr=1e-3)
    with run.track({"actor": actor, "critic": learner}, {"policy": policy, "q": critic}):
        for _ in run.steps(30):
            state, action, value = torch.randn(8, 4), torch.randn(8, 2), torch.randn(8, 1)
            actor.zero_grad()
            learner.zero_grad()
            (-critic(torch.cat([state, policy(state)], 1)).mean()).backward()
            actor.step()
            left = norm(critic)
            functional.mse_loss(critic(torch.cat([state, action], 1)), value).backward()
            run.fault(left > 0, norm=norm(critic))
            learner.step()


@fault(Verdict("leaked", "leaked", optimizer="d", where=("discriminator", "d")))
def generator_loss_leaks_into_the_discriminator(run: Run) -> None:
    generator, discriminator = mlp(4, 8, 3), mlp(3, 8, 1)
    g = torch.optim.Adam(generator.parameters(), lr=1e-3)
    d = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    with run.track({"g": g, "d": d}, {"generator": generator, "discriminator": discriminator}):
        for _ in run.steps(30):
            trained(g, lambda: functional.softplus(-discriminator(generator(torch.randn(8, 4)))).mean())
            left = norm(discriminator)
            g.step()
            with torch.no_grad():
                made = generator(torch.randn(8, 4))
            real, faked = discriminator(torch.randn(8, 3)), discriminator(made)
            (functional.softplus(-real) + functional.softplus(faked)).mean().backward()
            run.fault(left > 0)
            d.step()
            d.zero_grad(set_to_none=False)


@fault(Verdict("leaked", "leaked", where=("encoder",)), also=("growth", "explosion"))
def only_one_of_two_parts_is_zeroed(run: Run) -> None:
    """``head.zero_grad()`` where ``optimizer.zero_grad()`` was meant, after a pretraining that froze the rest."""
    encoder, head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 1)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"encoder": encoder, "head": head}):
        for _ in run.steps(30):
            head.zero_grad()
            left = norm(encoder)
            head(encoder(torch.randn(4, 5, 3))[0]).square().mean().backward()
            run.fault(left > 0)
            optimizer.step()
