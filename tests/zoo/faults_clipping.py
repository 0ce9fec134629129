"""Clipping that is asked for and not done, or that hides what it clips."""

from __future__ import annotations

import math
from statistics import median

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from tests.zoo.nets import convolutions, mlp, norm, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


@fault(Verdict("clip-broken"))
def clipped_after_the_step(run: Run) -> None:
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(30):
            trained(optimizer, lambda: 10 * (net(torch.randn(8, 6)) - 1).square().mean())
            run.fault(norm(net) > 0.1 * 1.01, step=run.step)
            optimizer.step()
            clip_grad_norm_(net.parameters(), 0.1)


@fault(Verdict("clip-broken"))
def clipped_before_the_backward(run: Run) -> None:
    """After ``zero_grad`` and before ``backward``: there is nothing to clip."""
    words, head = nn.Embedding(10, 6), nn.Linear(6, 10)
    parts = nn.ModuleDict({"words": words, "head": head})
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.01)
    with run.track(optimizer, dict(parts.items())):
        for _ in run.steps(30):
            tokens = torch.randint(10, (16,))
            loss = functional.cross_entropy(head(words(tokens)), tokens)
            optimizer.zero_grad(set_to_none=False)
            clip_grad_norm_(parts.parameters(), 0.05)
            loss.backward()
            run.fault(norm(parts) > 0.05 * 1.01)
            optimizer.step()


@fault(Verdict("clip-broken"))
def clipped_the_target_network(run: Run) -> None:
    """The parameters of the target network, which never have gradients, are clipped instead of the critic's."""
    critic, target = mlp(6, 8, 1), mlp(6, 8, 1).requires_grad_(False)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    with run.track(optimizer, {"critic": critic}):
        for _ in run.steps(30):
            x, following = torch.randn(8, 6), torch.randn(8, 6)
            trained(optimizer, lambda: functional.mse_loss(critic(x), 5 + 0.9 * target(following)))  # noqa: B023
            clip_grad_norm_(target.parameters(), 0.5)
            run.fault(norm(critic) > 0.5 * 1.01)
            optimizer.step()


@fault(Verdict("clip-broken", optimizer="actor"))
def clipped_the_critic_for_the_actor(run: Run) -> None:
    """A line that was copied: before the actor's step the critic is clipped once more, whose gradient is zeroed next."""
    actor, critic = mlp(4, 8, 2), mlp(6, 8, 1)
    optimizers = {
        "actor": torch.optim.Adam(actor.parameters(), lr=1e-3),
        "critic": torch.optim.Adam(critic.parameters(), lr=1e-3),
    }
    with run.track(optimizers, {"policy": actor, "q": critic}):
        for _ in run.steps(30):
            state, action = torch.randn(16, 4), torch.randn(16, 2)
            q = critic(torch.cat([state, action], 1))
            trained(optimizers["critic"], lambda: functional.mse_loss(q, action.sum(1, keepdim=True)))  # noqa: B023
            clip_grad_norm_(critic.parameters(), 0.01)
            optimizers["critic"].step()
            value = critic(torch.cat([state, actor(state)], 1))
            trained(optimizers["actor"], lambda: -value.mean())  # noqa: B023
            clip_grad_norm_(critic.parameters(), 0.01)
            run.fault(norm(actor) > 0.01 * 1.01)
            optimizers["actor"].step()


@fault(Verdict("clip-broken"))
def parameters_in_a_spent_generator(run: Run) -> None:
    """``filter`` was made once: the first call of clipping spends it, and all others get nothing."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    trainable = filter(lambda p: p.requires_grad, net.parameters())
    with run.track(optimizer, net):
        for _ in run.steps(30):
            trained(optimizer, lambda: 10 * (net(torch.randn(8, 6)) - 1).square().mean())
            clip_grad_norm_(trainable, 0.5)
            run.fault(norm(net) > 0.5 * 1.01)
            optimizer.step()


@fault(Verdict("clip-broken"))
def clipped_on_each_micro_batch(run: Run) -> None:
    """Accumulation: each of 4 micro-batches is clipped by itself, and the sum is not."""
    net = convolutions(outputs=2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(30):
            optimizer.zero_grad()
            for _ in range(4):
                (10 * (net(torch.randn(4, 1, 6, 6)) - 1).square().mean() / 4).backward()
                clip_grad_norm_(net.parameters(), 0.1)
                kept = norm(net)
                if run.step > 1:
                    assert kept <= 0.1 * 1.01
            run.fault(True)
            optimizer.step()


@fault(Verdict("clip-broken"))
def clipped_before_the_last_micro_batch(run: Run) -> None:
    """An off-by-one: clipping runs when all but the last micro-batch have been added."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(30):
            optimizer.zero_grad()
            for part in range(3):
                (10 * (net(torch.randn(8, 6)) - 1).square().mean() / 3).backward()
                if part == 1:
                    clip_grad_norm_(net.parameters(), 0.5)
            run.fault(norm(net) > 0.5 * 1.01)
            optimizer.step()


class Tied(nn.Module):
    """A language model whose last layer has the weight of its first."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(12, 6)
        self.last = nn.Linear(6, 12, bias=False)
        self.last.weight = self.words.weight


@fault(Verdict("clip-broken"), also=("clip-saturated",))
def tied_weight_clipped_twice(run: Run) -> None:
    net = Tied()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(30):
            tokens = torch.randint(12, (16,))
            trained(optimizer, lambda: functional.cross_entropy(net.last(net.words(tokens)), tokens))  # noqa: B023
            true = norm(net)
            torchs = clip_grad_norm_([*net.words.parameters(), *net.last.parameters()], 0.1)
            twice = math.isclose(float(torchs), math.sqrt(2) * true, rel_tol=1e-5)
            run.fault(twice and norm(net) < 0.1 * 0.9)
            optimizer.step()


@fault(Verdict("clip-broken"))
def clipped_while_still_scaled(run: Run) -> None:
    """AMP: no ``scaler.unscale_`` before clipping, so the scaled norm is held to the limit."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with run.track(optimizer, net):
        for _ in run.steps(30):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = (net(torch.randn(8, 6)) - 1).float().square().mean()
            scaler.scale(loss).backward()
            scaled = norm(net)
            clip_grad_norm_(net.parameters(), 1.0)
            run.fault(scaled > 100 and norm(net) / 1024.0 < 0.002)
            scaler.step(optimizer)
            scaler.update()
    run.keep(scaler=scaler)


@fault(Verdict("clip-broken"))
def weight_decay_added_to_what_was_clipped(run: Run) -> None:
    """Own L2 penalty, written into the gradients after they have been clipped."""
    net = mlp(6, 32)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(30):
            trained(optimizer, lambda: 10 * (net(torch.randn(8, 6)) - 1).square().mean())
            clip_grad_norm_(net.parameters(), 0.1)
            clipped = norm(net)
            for parameter in net.parameters():
                parameter.grad.add_(parameter.detach(), alpha=0.5)  # type: ignore[union-attr]
            run.fault(clipped < 0.1 * 1.001 and norm(net) > 0.1 * 1.01)
            optimizer.step()


def saturated(ratios: list[float]) -> bool:
    """In force in more than 95 % of the last 100 steps (of 45 at the start), with a median ratio under 1 %."""
    recent = ratios[-100:] if len(ratios) >= 100 else ratios[-45:]
    return len(recent) >= 45 and sum(r < 1 for r in recent) > 0.95 * len(recent) and median(recent) < 0.01


@fault(Verdict("clip-saturated"))
def clipping_hides_a_loss_in_cents(run: Run) -> None:
    """The loss is 10,000 times too large, in a unit that nobody looked at: every step is of length lr x 1."""
    net = convolutions(outputs=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    ratios = []
    with run.track(optimizer, net):
        for _ in run.steps(70):
            trained(optimizer, lambda: (100 * (net(torch.randn(4, 1, 6, 6)) - 5)).square().mean())
            before = norm(net)
            clip_grad_norm_(net.parameters(), 1.0)
            ratios.append(norm(net) / before)
            run.fault(saturated(ratios))
            optimizer.step()


@fault(Verdict("clip-saturated"))
def recurrent_net_clipped_to_almost_nothing(run: Run) -> None:
    lstm, head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 1)
    parameters = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    ratios = []
    with run.track(optimizer, {"lstm": lstm, "head": head}):
        for _ in run.steps(70):
            trained(optimizer, lambda: (head(lstm(torch.randn(4, 6, 3))[0]) - 3).square().sum())
            before = norm(parameters)
            clip_grad_norm_(parameters, 0.05)
            ratios.append(norm(parameters) / before)
            run.fault(saturated(ratios))
            optimizer.step()
