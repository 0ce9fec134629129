"""Numbers that their type cannot hold: too small, infinite, or none at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


@fault(
    Verdict("zero", "underflow", module="body"),
)
def half_precision_without_a_scaler(run: Run) -> None:
    """float16 autocast, a small loss and no GradScaler: what flows back is below 6e-8."""
    body, head = mlp(6, 8, 8), nn.Linear(8, 1)
    offset = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters(), offset], lr=1e-4)
    with run.track(optimizer, {"body": body}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)

            def loss() -> Tensor:
                with torch.autocast("cpu", dtype=torch.float16):
                    out = head(body(x))  # noqa: B023
                return 1e-8 * out.float().mean() + (offset - 1).square().sum()

            trained(optimizer, loss)
            slope = 1e-8 / 8  # of the loss towards each output, in float32
            run.fault(0 < slope < 2.0**-25 and float(torch.tensor(slope).half()) == 0 and silent(body))
            optimizer.step()


# Most of the layers behind it are silent too, or nearly so.
@fault(Verdict("zero", "underflow", module="first"), also=("zero", "vanishing"))
def chain_of_sigmoids(run: Run) -> None:
    """Forty sigmoid layers of width 4: each takes a factor of 0.05 or so, and float32 ends at 1e-45."""
    first = nn.Linear(4, 4)
    deep = nn.Sequential(*(layer for _ in range(60) for layer in (nn.Sigmoid(), nn.Linear(4, 4))))
    with torch.no_grad():
        for layer in deep:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(0.3)
    optimizer = torch.optim.SGD([*first.parameters(), *deep.parameters()], lr=0.01)
    exact = nn.Sequential(
        nn.Linear(4, 4),
        nn.Sequential(*(type(m)() if isinstance(m, nn.Sigmoid) else nn.Linear(4, 4) for m in deep)),
    ).double()
    with run.track(optimizer, {"first": first, "deep": deep}):
        for _ in run.steps(15):
            x = torch.randn(4, 4)
            trained(optimizer, lambda: deep(first(x)).square().mean())  # noqa: B023
            exact[0].load_state_dict(first.state_dict())
            exact[1].load_state_dict(deep.state_dict())
            exact.zero_grad()
            exact[1](exact[0](x.double())).square().mean().backward()
            run.fault(0 < norm(exact[0]) < 1e-45 and silent(first) and norm(deep) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "underflow", module="words"),
)
def loss_divided_twice_by_too_much(run: Run) -> None:
    """The loss is divided by the tokens of the whole data set, per token, and again in float16."""
    words, head = nn.Embedding(12, 6), nn.Linear(6, 12).half()
    bias = nn.Parameter(torch.zeros(12))
    optimizer = torch.optim.SGD([*words.parameters(), *head.parameters(), bias], lr=0.01)
    with run.track(optimizer, {"words": words}):
        for _ in run.steps(25):
            tokens = torch.randint(12, (16,))
            logits = head(words(tokens).half()).float()
            per_token = functional.cross_entropy(logits, tokens, reduction="none") / 1e9
            trained(optimizer, lambda: per_token.mean() + functional.cross_entropy(bias.expand(16, 12), tokens))  # noqa: B023
            largest = 1.0 / 1e9 / 16  # of the slopes of the loss towards a logit
            run.fault(float(torch.tensor(largest).half()) == 0 and silent(words) and norm([bias]) > 0)
            optimizer.step()
