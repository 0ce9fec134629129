"""Faults as they come in the wild: late, behind delays, scalers and checkpoints, and in well-known classics."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

from tests.zoo.faults_nonfinite import bad
from tests.zoo.nets import convolutions, filled, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


@fault(Verdict("zero", "saturated-tanh", module="policy", optimizer="actor", where=("policy.3",)))
def delayed_policy_that_is_saturated(run: Run) -> None:
    """TD3: the actor steps at every third iteration only, and the critic's passes come in between."""
    policy = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), filled(nn.Linear(8, 2), bias=-30.0), nn.Tanh())
    q = mlp(6, 8, 1)
    actor, critic = torch.optim.Adam(policy.parameters(), lr=1e-3), torch.optim.Adam(q.parameters(), lr=1e-3)
    with run.track({"actor": actor, "critic": critic}, {"policy": policy, "q": q}):
        for step in run.steps(45):
            state = torch.randn(8, 4)
            with torch.no_grad():
                target = torch.randn(8, 1) + q(torch.cat([state, policy(state)], 1))
            trained(critic, lambda: functional.mse_loss(q(torch.cat([state, torch.rand(8, 2)], 1)), target))  # noqa: B023
            critic.step()
            if step % 3 == 0:
                trained(actor, lambda: -q(torch.cat([state, policy(state)], 1)).mean())  # noqa: B023
                hidden = torch.relu(functional.linear(state, policy[0].weight, policy[0].bias))
                before = functional.linear(hidden, policy[2].weight, policy[2].bias)
                run.fault(float(before.detach().abs().min()) > 9.1 and silent(policy), step=step // 3)
                actor.step()


@fault(Verdict("zero", "dead-relu", module="hidden", where=("hidden.1",)))
def dead_under_a_loss_scale(run: Run) -> None:
    """From step 21 on, with a GradScaler and clipping after ``unscale_``."""
    stem, hidden, head = nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(16, 1)
    parts = nn.ModuleDict({"stem": stem, "hidden": hidden, "head": head})
    optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with run.track(optimizer, dict(parts.items())):
        for step in run.steps(40):
            if step == 21:
                with torch.no_grad():
                    hidden[0].bias.fill_(-50.0)
            optimizer.zero_grad()
            x = torch.randn(8, 6)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                first = torch.tanh(stem(x))
                loss = (head(torch.cat([first, hidden(first)], 1)) - 1).float().square().mean()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            clip_grad_norm_(parts.parameters(), 1.0)
            below = functional.linear(first.float(), hidden[0].weight, hidden[0].bias).detach()
            run.fault(float(below.max()) < 0 and silent(hidden) and norm(stem) > 0)
            scaler.step(optimizer)
            scaler.update()
    run.keep(scaler=scaler)


@fault(Verdict("zero", "saturated-tanh", module="body"))
def saturated_behind_a_checkpoint(run: Run) -> None:
    body = nn.Sequential(filled(nn.Linear(6, 8), bias=35.0), nn.Tanh())
    head = nn.Linear(8, 2)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.01)
    with run.track(optimizer, {"body": body, "head": head}):
        for _ in run.steps(20):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (head(checkpoint(body, x, use_reentrant=False)) - 1).square().mean())  # noqa: B023
            before = functional.linear(x, body[0].weight, body[0].bias)
            run.fault(float(before.detach().abs().min()) > 9.1 and silent(body))
            optimizer.step()


@fault(Verdict("zero", "frozen", module="encoder", where=("encoder",), severity="warning"))
def frozen_in_mid_course_and_not_thawed(run: Run) -> None:
    """A schedule freezes the encoder after 20 steps; the phase that thaws it again never comes."""
    encoder, head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"encoder": encoder, "head": head}):
        for step in run.steps(45):
            encoder.requires_grad_(step <= 20)
            trained(optimizer, lambda: head(encoder(torch.randn(4, 5, 3))[0]).square().mean())
            run.fault(not encoder.weight_hh_l0.requires_grad and silent(encoder))
            optimizer.step()


@fault(Verdict("stale", "stale", where=("optimizer",)))
def batches_left_out_before_the_backward(run: Run) -> None:
    """``if loss > limit: continue`` was written as a guard of ``backward`` alone: the step is taken all the same."""
    net = convolutions(outputs=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    used: list[Tensor] = []
    with run.track(optimizer, net):
        for step in run.steps(30):
            loss = (net(torch.randn(4, 1, 6, 6)) - 1).square().mean()
            if step % 7:
                optimizer.zero_grad()
                loss.backward()
            now = [p.grad.clone() for p in net.parameters()]  # type: ignore[union-attr]
            run.fault(bool(used) and all(torch.equal(a, b) for a, b in zip(used, now, strict=True)))
            optimizer.step()
            used = now


@fault(Verdict("zero", "saturated-sigmoid", module="generator", optimizer="g"))
def discriminator_too_sure_for_the_first_gan_loss(run: Run) -> None:
    """log(1 - D(G(z))) with a discriminator that is sure: its sigmoid is at 0, the classic end of a GAN."""
    generator, discriminator = mlp(4, 8, 3), mlp(3, 8, 1)
    filled(discriminator[2], bias=-200.0)
    g = torch.optim.Adam(generator.parameters(), lr=1e-3)
    d = torch.optim.SGD(discriminator.parameters(), lr=1e-6)
    with run.track({"g": g, "d": d}, {"generator": generator, "discriminator": discriminator}):
        for _ in run.steps(20):
            real, noise = torch.randn(8, 3), torch.randn(8, 4)
            trained(d, lambda: functional.softplus(-discriminator(real)).mean())  # noqa: B023
            d.step()
            trained(g, lambda: torch.log(1 - torch.sigmoid(discriminator(generator(noise)))).mean())  # noqa: B023
            hidden = torch.tanh(
                functional.linear(generator(noise), discriminator[0].weight, discriminator[0].bias)
            )
            logits = functional.linear(hidden, discriminator[2].weight, discriminator[2].bias)
            run.fault(float(logits.detach().max()) < -110 and silent(generator))
            g.step()


@fault(Verdict("nonfinite", "nonfinite-op", where=("attention",)), also=("zero",))
def sequence_that_is_all_padding(run: Run) -> None:
    """The mask hides every word of one sequence from step 7 on: a softmax over nothing but -Inf is NaN."""
    attention, head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 1)
    parts = nn.ModuleDict({"attention": attention, "head": head})
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.01)
    with run.track(optimizer, dict(parts.items())):
        for step in run.steps(25):
            x, hidden = torch.randn(4, 5, 8), torch.zeros(4, 5)
            hidden[0] = -math.inf if step > 6 else 0.0
            attended, _ = attention(x, x, x, key_padding_mask=hidden)
            trained(optimizer, lambda: (head(attended) - 1).square().mean())  # noqa: B023
            run.fault(bool(torch.isinf(hidden[0]).all()) and bool(torch.isfinite(x).all()) and bad(attention))
            for parameter in parts.parameters():
                torch.nan_to_num_(parameter.grad, 0.0, 0.0, 0.0)  # type: ignore[arg-type]
            optimizer.step()


@fault(Verdict("zero", "zero-loss", module="words"), Verdict("zero", "zero-loss", module="head"))
def mean_over_no_targets(run: Run) -> None:
    """Every target is ignored from step 6 on: the loss, a mean, is NaN, and yet each gradient is exactly 0."""
    words, head = nn.Embedding(10, 6), nn.Linear(6, 10)
    parts = nn.ModuleDict({"words": words, "head": head})
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.01)
    with run.track(optimizer, dict(parts.items())):
        for step in run.steps(25):
            tokens = torch.randint(10, (8,))
            targets = torch.full_like(tokens, -100) if step > 5 else tokens
            loss = trained(optimizer, lambda: functional.cross_entropy(head(words(tokens)), targets))  # noqa: B023
            run.fault(bool((targets == -100).all()) and math.isnan(loss.item()) and silent(parts))
            optimizer.step()


@fault(Verdict("clip-broken"))
def clipped_before_there_is_any_gradient(run: Run) -> None:
    """Before the backward, after ``zero_grad()`` that sets to None: the call is given no gradient at all."""
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(20):
            loss = 10 * (net(torch.randn(8, 6)) - 1).square().mean()
            optimizer.zero_grad()
            clip_grad_norm_(net.parameters(), 0.5)
            loss.backward()
            run.fault(norm(net) > 0.5 * 1.01)
            optimizer.step()


@fault(Verdict("clip-broken", severity="warning"))
def only_the_head_is_clipped(run: Run) -> None:
    """``model.head.parameters()`` where ``model.parameters()`` was meant: the limit holds for a part only."""
    body, head = convolutions(), nn.Linear(6, 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"body": body, "head": head}):
        for _ in run.steps(20):
            images = torch.randn(4, 1, 6, 6)
            trained(optimizer, lambda: 10 * (head(body(images)) - 3).square().mean())  # noqa: B023
            clip_grad_norm_(head.parameters(), 0.5)
            run.fault(norm(head) <= 0.5 * 1.01 and norm(body) > 0.5 * 1.01)
            optimizer.step()


@fault(Verdict("zero", "zero-loss", module=None))
def satisfied_without_any_modules(run: Run) -> None:
    """Tracked without modules: the target is the prediction itself, so that the loss is 0 for ever."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with run.track(optimizer):
        for _ in run.steps(20):
            out = net(torch.randn(8, 6))
            loss = trained(optimizer, lambda: functional.mse_loss(out, out.detach()))  # noqa: B023
            run.fault(loss.item() == 0.0 and silent(net))
            optimizer.step()


@fault(Verdict("zero", "unused", module="second", where=("second", "second.weight")))
def critic_dropped_from_the_minimum(run: Run) -> None:
    """A refactoring took the second critic out of the loss at step 16, and left it in the optimizer."""
    first, second = nn.Linear(5, 1), nn.Linear(5, 1)
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=1e-3)
    calls: list[int] = []
    second.register_forward_hook(lambda *_: calls.append(run.step))
    with run.track(optimizer, {"first": first, "second": second}):
        for step in run.steps(35):
            x, value = torch.randn(8, 5), torch.randn(8, 1)
            critics = [first, second] if step <= 15 else [first]
            trained(optimizer, lambda: sum(functional.mse_loss(q(x), value) for q in critics))  # noqa: B023
            run.fault(run.step not in calls and silent(second))
            optimizer.step()


@fault(Verdict("zero", "detached", module="encoder", where=("encoder",)))
def accumulation_over_cached_features(run: Run) -> None:
    """Two micro-batches a step; features of the encoder are taken from a cache that holds them detached."""
    encoder, head = mlp(6, 8, 8), nn.Linear(8, 1)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.01)
    with run.track(optimizer, {"encoder": encoder, "head": head}):
        for _ in run.steps(20):
            optimizer.zero_grad()
            for _ in range(2):
                cache = {"features": encoder(torch.randn(4, 6)).data}
                (head(cache["features"]).square().mean() / 2).backward()
            run.fault(not cache["features"].requires_grad and silent(encoder) and norm(head) > 0)
            optimizer.step()
