"""What was built anew, left out or selected away, and types and rectifiers seldom thought of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import filled, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


@fault(Verdict("zero", "not-in-optimizer", module="head", where=("head",), severity="warning"))
def head_for_new_classes_in_mid_course(run: Run) -> None:
    """From step 7 on the model has a head for more classes, and the optimizer holds the old one."""
    parts = nn.ModuleDict({"body": nn.Linear(4, 8), "head": nn.Linear(8, 3)})
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.01)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    with run.track(optimizer, parts):
        for step in run.steps(15):
            if step == 7:
                parts["head"] = nn.Linear(8, 5)
            labels = torch.randint(3, (6,))
            trained(
                optimizer,
                lambda: functional.cross_entropy(parts["head"](parts["body"](torch.randn(6, 4))), labels),  # noqa: B023
            )
            run.fault(not any(id(p) in held for p in parts["head"].parameters()) and norm(parts["head"]) > 0)
            optimizer.step()


@fault(Verdict("zero", "not-in-optimizer", module="block", where=("block.norm",), severity="warning"))
def norm_left_out_by_its_name(run: Run) -> None:
    """The parameters without weight decay were filtered out, and never added as a group of their own."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.first(x)))  # type: ignore[no-any-return]

    block = Block()
    chosen = [p for name, p in block.named_parameters() if "norm" not in name]
    optimizer = torch.optim.SGD(chosen, lr=0.01)
    before = block.norm.weight.detach().clone()
    with run.track(optimizer, {"block": block}):
        for _ in run.steps(15):
            optimizer.zero_grad()
            (block(torch.randn(8, 4)) - 1).square().mean().backward()
            run.fault(norm(block.norm) > 0 and torch.equal(before, block.norm.weight))
            optimizer.step()


@fault(Verdict("zero", "masked", module="rare", where=("SumBackward0",)))
def class_that_no_sample_has(run: Run) -> None:
    """Rows are picked by a boolean index that is False throughout: the sum runs over nothing."""
    common, rare = nn.Linear(4, 2), nn.Linear(4, 2)
    optimizer = torch.optim.SGD([*common.parameters(), *rare.parameters()], lr=0.01)
    with run.track(optimizer, {"common": common, "rare": rare}):
        for _ in run.steps(15):
            x, labels = torch.randn(6, 4), torch.zeros(6, dtype=torch.long)
            trained(optimizer, lambda: common(x).square().mean() + rare(x)[labels == 1].square().sum())  # noqa: B023
            run.fault(1 not in labels.tolist() and silent(rare))
            optimizer.step()


@fault(
    Verdict("zero", "underflow", module="first", where=("(root)",), evidence=("largest_incoming",)),
    Verdict("zero", "underflow", module="second", where=("(root)",)),
)
def sum_of_two_types(run: Run) -> None:
    """A float16 output plus a float32 bias: the gradient of 1e-9 is cast down by the sum, with no cast in sight."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.offset = nn.Parameter(torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x))) + self.offset  # type: ignore[no-any-return]

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with run.track(optimizer, net):
        for _ in run.steps(15):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                out = net(torch.randn(4, 8))
            ((out * 1e-9).sum() + (net.offset - 1).square().sum()).backward()
            present = out.dtype == torch.float32 and not torch.tensor(1e-9).half().any()
            run.fault(
                present and silent([*net.first.parameters(), *net.second.parameters()]), largest_incoming=1e-9
            )
            optimizer.step()


def dead(run: Run, act: nn.Module, bias: float, tail: Callable[[Tensor], Tensor]) -> None:
    """A net whose activation is flat for every unit, by its own formula."""
    net = mlp(4, 8, 1)
    net[1] = act
    filled(net[0], bias=bias)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with run.track(optimizer, net):
        for _ in run.steps(15):
            x = torch.rand(8, 4)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            slope = tail(functional.linear(x, net[0].weight, net[0].bias).detach())
            run.fault(not slope.any() and silent(net[0]) and norm(net[2]) > 0, dead_units=8)
            optimizer.step()


@fault(Verdict("zero", "dead-relu", module="0", where=("1",), evidence=("dead_units",)))
def elu_where_its_exponential_is_nothing(run: Run) -> None:
    """exp(-300) is 0: the unit says -1 whatever comes in. No loss scale would help."""
    dead(run, nn.ELU(), -300.0, torch.exp)


@fault(Verdict("zero", "dead-relu", module="0", where=("1",), evidence=("dead_units",)))
def softplus_where_its_slope_is_nothing(run: Run) -> None:
    """The slope of softplus is a sigmoid, of -300 here."""
    dead(run, nn.Softplus(), -300.0, torch.sigmoid)


@fault(Verdict("zero", "dead-relu", module="0", where=("1",), evidence=("dead_units",)))
def hard_swish_below_minus_three(run: Run) -> None:
    """It is 0 up to -3."""
    dead(run, nn.Hardswish(), -9.0, lambda before: (before > -3).float())
