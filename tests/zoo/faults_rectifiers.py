"""ReLUs that died, and their kin: every unit is off for every sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import filled, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


def all_off(before: Tensor) -> bool:
    """Every pre-activation is negative, looked at one by one."""
    return all(value < 0 for value in before.detach().flatten().tolist())


@fault(
    Verdict("zero", "dead-relu", module="0", where=("1",), evidence=("dead_units", "units")), also=("explosion",)
)
def killed_by_one_huge_step(run: Run) -> None:
    """One step with a learning rate of 300 pushes every hidden unit below zero, for good."""
    net = mlp(6, 16, 2, nn.ReLU)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with run.track(optimizer, net):
        for step in run.steps(40):
            x = torch.rand(8, 6)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            before = functional.linear(x, net[0].weight, net[0].bias)
            present = all_off(before) and silent(net[0]) and norm(net[2]) > 0
            run.fault(present, dead_units=int((before < 0).all(0).sum()), units=16)
            if step == 12:
                with torch.no_grad():  # what such a step does to the biases
                    net[0].bias.sub_(300.0)
            optimizer.step()


@fault(Verdict("zero", "dead-relu", module="encoder", where=("encoder.2",), evidence=("dead_units",)))
def dead_feature_maps_behind_batch_norm(run: Run) -> None:
    """A batch norm whose bias was loaded from a checkpoint of another scale."""
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), filled(nn.BatchNorm2d(4), bias=-40.0), nn.ReLU())
    head = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"encoder": encoder, "head": head}):
        for _ in run.steps(25):
            images = torch.randn(6, 1, 6, 6)
            trained(optimizer, lambda: (head(encoder(images)) - 1).square().mean())  # noqa: B023
            maps = functional.conv2d(images, encoder[0].weight, encoder[0].bias)
            scaled = functional.batch_norm(maps, None, None, encoder[1].weight, encoder[1].bias, training=True)
            run.fault(all_off(scaled) and silent(encoder), dead_units=4)
            optimizer.step()


# It is told of by the name that it has in the block, too.
@fault(Verdict("zero", "dead-relu", module="feed_forward", where=("block",)), also=("zero",))
def dead_feed_forward_of_a_transformer(run: Run) -> None:
    """Only the feed-forward part is dead: the residual path goes on learning."""
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    filled(block.linear1, bias=-60.0)
    head = nn.Linear(8, 3)
    optimizer = torch.optim.AdamW([*block.parameters(), *head.parameters()], lr=1e-4)
    modules = {"block": block, "feed_forward": block.linear1, "head": head}
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            labels = torch.randint(3, (4, 5))
            seen: list[Tensor] = []
            hook = block.norm1.register_forward_hook(lambda _m, _i, out: seen.append(out))  # noqa: B023
            trained(optimizer, lambda: functional.cross_entropy(head(block(torch.randn(4, 5, 8))).mT, labels))  # noqa: B023
            hook.remove()
            before = functional.linear(seen[0], block.linear1.weight, block.linear1.bias)
            run.fault(all_off(before) and silent(block.linear1) and norm(block) > 0)
            optimizer.step()


class Scores(nn.Module):
    """A GRU whose last states are scored by a GELU layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.wide, self.last = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 12), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.gelu(self.wide(self.gru(x)[0][:, -1])))  # type: ignore[no-any-return]


@fault(
    Verdict("zero", "dead-relu", module="gru", where=("(root)",)),
    Verdict("zero", "dead-relu", module="wide", where=("(root)",)),
)
def gelu_far_on_the_left(run: Run) -> None:
    net = Scores()
    filled(net.wide, bias=-70.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            x = torch.randn(4, 5, 3)
            trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023
            before = functional.linear(net.gru(x)[0][:, -1], net.wide.weight, net.wide.bias)
            run.fault(bool((before < -20).all()) and silent(net.gru) and silent(net.wide))
            optimizer.step()


@fault(
    Verdict("zero", "dead-relu", module="words", where=("hidden.1",)),
    Verdict("zero", "dead-relu", module="hidden", where=("hidden.1",)),
)
def dead_under_bfloat16_autocast_and_accumulation(run: Run) -> None:
    words = nn.Embedding(20, 6)
    hidden = nn.Sequential(filled(nn.Linear(6, 12), bias=-30.0), nn.ReLU())
    head = nn.Linear(12, 20)
    modules = {"words": words, "hidden": hidden, "head": head}
    optimizer = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            optimizer.zero_grad()
            off = True
            for _ in range(3):
                tokens = torch.randint(20, (8,))
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = functional.cross_entropy(head(hidden(words(tokens))), tokens) / 3
                loss.backward()
                off &= all_off(functional.linear(words(tokens), hidden[0].weight, hidden[0].bias))
            run.fault(off and silent(words) and silent(hidden) and norm(head) > 0)
            optimizer.step()


@fault(Verdict("zero", "dead-relu", module="0", where=("1",)))
def dead_inside_an_lbfgs_closure(run: Run) -> None:
    net = mlp(6, 8, 1, nn.ReLU)
    filled(net[0], bias=-25.0)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.05, max_iter=2)
    with run.track(optimizer, net):
        for _ in run.steps(15):
            x = torch.randn(8, 6)

            def closure() -> Tensor:
                return trained(optimizer, lambda: (net(x) - 1).square().mean())  # noqa: B023

            run.fault(all_off(functional.linear(x, net[0].weight, net[0].bias)))
            optimizer.step(closure)
