"""Healthy loops whose norms rise, fall, jump or are large, as they should."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from tests.zoo.nets import convolutions, mlp, norm, silent, trained
from tests.zoo.registry import healthy
from tests.zoo.run import Run


@healthy()
def spikes_while_warming_up(run: Run) -> None:
    """A transformer whose first steps have norms of ten times the later ones."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    words, head = nn.Embedding(20, 8), nn.Linear(8, 20)
    with torch.no_grad():
        head.weight.mul_(8.0)
    modules = {"words": words, "layer": layer, "head": head}
    optimizer = torch.optim.AdamW([p for m in modules.values() for p in m.parameters()], lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30))
    norms: list[float] = []
    with run.track(optimizer, modules):
        for _ in run.steps(150):
            tokens = torch.randint(20, (8, 6))
            trained(optimizer, lambda: functional.cross_entropy(head(layer(words(tokens))).mT, tokens))  # noqa: B023
            norms.append(norm([p for group in optimizer.param_groups for p in group["params"]]))
            run.trait("begins at 5 times what it comes to", norms[0] > 5 * norms[-1])
            optimizer.step()
            schedule.step()


@healthy()
def large_and_steady(run: Run) -> None:
    """A loss in large units, unclipped: the norm is a million and stays there."""
    net = mlp(6, 16, 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-5)
    with run.track(optimizer, net):
        for _ in run.steps(150):
            x = torch.randn(16, 6)
            trained(optimizer, lambda: 1e6 * (net(x) - 3).square().mean())  # noqa: B023
            run.trait("a norm above 1e6", norm(net) > 1e6)
            optimizer.step()


@healthy()
def clipped_in_every_step_to_a_fifth(run: Run) -> None:
    """Clipping is always in force and leaves a fifth: normalised steps, which many choose on purpose."""
    lstm, head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 1)
    parameters = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    with run.track(optimizer, {"lstm": lstm, "head": head}):
        for _ in run.steps(200):
            x = torch.randn(4, 5, 3)
            trained(optimizer, lambda: (head(lstm(x)[0]) - 3).square().mean())  # noqa: B023
            before = norm(parameters)
            clip_grad_norm_(parameters, 1.0)
            run.trait("0.05 ... 0.5 of the norm left", 0.05 < 1.0 / before < 0.5)
            optimizer.step()


@healthy()
def restarts_of_the_learning_rate(run: Run) -> None:
    net = convolutions(outputs=3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=40)
    images, labels = torch.randn(32, 1, 6, 6), torch.randint(3, (32,))
    with run.track(optimizer, net):
        for step in run.steps(200):
            pick = torch.randint(32, (16,))
            trained(optimizer, lambda: functional.cross_entropy(net(images[pick]), labels[pick]))  # noqa: B023
            run.trait("the rate jumps by a factor of 20", step > 40 and optimizer.param_groups[0]["lr"] > 0.09)
            optimizer.step()
            schedule.step()


@healthy()
def converging_to_nothing(run: Run) -> None:
    """A problem that has an exact solution: the loss falls to 1e-7 and below, and every norm with it."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=0.02)
    x = torch.randn(16, 4)
    loss = math.inf
    with run.track(optimizer, {"first": first, "second": second}):
        for _ in run.steps(500):
            loss = trained(optimizer, lambda: (second(first(x)) - x.sum(1, keepdim=True)).square().mean()).item()
            run.trait("a loss below 1e-7", loss < 1e-7)
            optimizer.step()


@healthy()
def hinge_that_most_samples_meet(run: Run) -> None:
    """A perceptron on data with a few wrong labels: one sample a step, and five in a row are without any loss."""
    net = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    row = longest = 0
    with run.track(optimizer, {"net": net}):
        for _ in run.steps(300):
            x = torch.randn(1, 4)
            side = torch.sign(x[:, :1]) * torch.sign(torch.rand(1, 1) - 0.1)
            trained(optimizer, lambda: torch.relu(0.3 - side * net(x)).mean())  # noqa: B023
            row = row + 1 if silent(net) else 0
            longest = max(longest, row)
            run.trait("five samples in a row without a loss", longest >= 5)
            optimizer.step()


@healthy()
def hinge_that_is_met_by_every_second_batch(run: Run) -> None:
    """Every second batch or so is satisfied, throughout: its gradient is exactly 0, and the next one's is not."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    zeros = 0
    with run.track(optimizer, net):
        for step in run.steps(150):
            x, margin = torch.randn(4, 4), 3.0 if step % 2 else -10.0
            trained(optimizer, lambda: torch.relu(margin - net(x)).mean())  # noqa: B023
            zeros += silent(net)
            run.trait("70 batches without a gradient", zeros >= 70)
            optimizer.step()


@healthy(nonfinite="one step was skipped since the loss scale started too high: that is how a GradScaler finds it")
def one_skip_at_the_start(run: Run) -> None:
    net = mlp(6, 16, 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17, growth_interval=1000)
    skips = 0
    with run.track(optimizer, net):
        for _ in run.steps(100):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = (net(torch.randn(16, 6)) - 1).square().mean()
            scaler.scale(loss).backward()
            skips += not all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)
            run.trait("a skipped step", 1 <= skips <= 3)
            scaler.step(optimizer)
            scaler.update()
    assert skips <= 3
    run.keep(scaler=scaler)


@healthy()
def dropout_of_nearly_everything(run: Run) -> None:
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.9), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    norms: list[float] = []
    with run.track(optimizer, net):
        for _ in run.steps(200):
            x = torch.randn(4, 6)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            norms.append(norm(net))
            run.trait("swings by a factor of 10", max(norms) > 10 * min(norms))
            optimizer.step()


@healthy()
def accumulation_of_uneven_passes(run: Run) -> None:
    """Between 1 and 5 backward passes a step, as the batches come."""
    net = nn.LSTM(3, 6, batch_first=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, {"net": net}):
        for step in run.steps(120):
            optimizer.zero_grad()
            passes = 1 + step * 7 % 5
            for _ in range(passes):
                ((net(torch.randn(4, 4, 3))[0] - 0.5).square().mean() / passes).backward()
            run.trait("five passes", passes == 5)
            clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()


@healthy()
def rates_that_decay_by_layer(run: Run) -> None:
    """A small rate for the first layer, ten times as much for each next one, and no decay for the biases."""
    net = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 1))
    groups = [{"params": net[i].parameters(), "lr": 1e-5 * 10**n} for n, i in enumerate((0, 2, 4))]
    optimizer = torch.optim.AdamW(groups)
    with run.track(optimizer, net):
        for _ in run.steps(150):
            x = torch.randn(16, 6)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            run.trait("three groups", len(optimizer.param_groups) == 3)
            optimizer.step()


@healthy()
def measured_at_each_third_step(run: Run) -> None:
    body, head = convolutions(), nn.Linear(6, 2)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.01)
    with run.track(optimizer, {"body": body, "head": head}, every=3):
        for step in run.steps(200):
            images = torch.randn(4, 1, 6, 6)
            trained(optimizer, lambda: (head(body(images)) - 1).square().mean())  # noqa: B023
            clip_grad_norm_([*body.parameters(), *head.parameters()], 1.0)
            run.trait("a spike that is not measured", step % 3 != 0)
            optimizer.step()


@healthy()
def norm_that_rises_as_it_learns(run: Run) -> None:
    """It starts on a plateau, where the gradient is small, and leaves it: twice and four times, and then it falls."""
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(0.5)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    norms: list[float] = []
    with run.track(optimizer, net):
        for _ in run.steps(300):
            x = torch.randn(64, 4)
            trained(optimizer, lambda: (net(x) - x[:, :1] * x[:, 1:2]).square().mean())  # noqa: B023
            norms.append(norm(net))
            run.trait("rises by a factor of 3", max(norms) > 3 * min(norms[:20]))
            optimizer.step()


@healthy()
def second_order_optimizer(run: Run) -> None:
    """LBFGS with a line search: many evaluations a step, and gradients that fall by orders of magnitude."""
    net = mlp(4, 8, 1)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    x = torch.randn(32, 4)
    evaluations = 0
    with run.track(optimizer, net):
        for step in run.steps(40):

            def closure() -> Tensor:
                nonlocal evaluations
                evaluations += 1
                return trained(optimizer, lambda: (net(x) - torch.sin(x[:, :1])).square().mean())

            optimizer.step(closure)
            run.trait("several evaluations a step", evaluations > 2 * step)


@healthy()
def pause_for_evaluation(run: Run) -> None:
    """Every tenth iteration evaluates, without gradients and in evaluation mode, and steps nothing."""
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with run.track(optimizer, net):
        for step in run.steps(150):
            x, labels = torch.randn(16, 6), torch.randint(3, (16,))
            if step % 10 == 0:
                net.eval()
                with torch.no_grad():
                    net(x)
                net.train()
                run.trait("an iteration without a step", True)
                continue
            trained(optimizer, lambda: functional.cross_entropy(net(x), labels))  # noqa: B023
            optimizer.step()
