"""A rule of one's own: one class with one method.

Run it: ``python -m examples.own_rule``
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

import gradwatch
from gradwatch.records import Severity
from gradwatch.rules import Finding


class Unbalanced:
    """One module's gradient is far larger than another's."""

    id = "unbalanced"
    severity: Severity = "warning"
    fires_after = 3
    clears_after = 10

    def look(self, record: gradwatch.StepRecord) -> Iterator[Finding]:
        norms = {name: norms.norm_before for name, norms in record.modules.items()}
        largest, smallest = max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)
        if norms[largest] > 100 * norms[smallest] > 0:
            factor = norms[largest] / norms[smallest]
            yield Finding(largest, factor, 100, f"its gradient is {factor:.3g} times that of {smallest}")


def main() -> list[gradwatch.Alert]:
    torch.manual_seed(0)
    first, second = nn.Linear(8, 8), nn.Linear(8, 1)
    with torch.no_grad():
        second.weight.mul_(1e-3)  # little comes back through it
    model = nn.Sequential(first, second)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    rules = [*gradwatch.default_rules(), Unbalanced()]
    with gradwatch.track(optimizer, model, rules=rules, on_alert=print) as watch:
        for _ in range(10):
            optimizer.zero_grad()
            (model(torch.randn(16, 8)) - 1).square().mean().backward()
            optimizer.step()
    return watch.alerts


if __name__ == "__main__":
    main()
