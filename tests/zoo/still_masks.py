"""What a mask, a slice, an assignment or a hook leaves nothing of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import batch
from tests.zoo.still import Loop, still
from tests.zoo.still_gates import Attention


@still("masked", at="second")
def mask_over_one_branch() -> Loop:
    first, second, head, x = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 1), batch(3, 4)
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(3, 4)
    step = lambda: head(torch.cat([first(x), second(x)], dim=1) * mask).sum().backward()  # noqa: E731
    return Loop({"first": first, "second": second, "head": head}, step, lambda: not mask[:, 2:].any())


@still("masked", at="body", where="(mask)")
def activations_times_mask() -> Loop:
    class Mask(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.zeros(x.shape[-1])

    body, mask, head, x = nn.Linear(4, 4), Mask(), nn.Linear(4, 1), batch(3, 4)
    net = nn.ModuleDict({"body": body, "(mask)": mask, "head": head})
    step = lambda: head(mask(body(x))).sum().backward()  # noqa: E731
    return Loop(net, step, lambda: not mask(body(x)).any())


@still("masked", at="0", where="1")
def dropout_of_everything() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Dropout(1.0), nn.Linear(4, 1)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[:2](x).any())


class Filled(nn.Module):
    """masked_fill over all of it."""

    def __init__(self, how: object) -> None:
        super().__init__()
        self.body, self.head, self.how = nn.Linear(4, 4), nn.Linear(4, 1), how

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.how(self.body(x)))


@still("masked", at="body", where="SliceBackward0", elements=12, reason="a slice leaves it out")
def sliced_off_after_cat() -> Loop:
    """The features are joined with constants, and cut off again."""
    body, head, x = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4)
    step = lambda: head(torch.cat([body(x), x], -1)[..., -4:]).sum().backward()  # noqa: E731
    return Loop({"body": body, "head": head}, step, lambda: torch.cat([body(x), x], -1)[..., -4:].equal(x))


@still("masked", at="body", where="SliceBackward0", elements=12, reason="a slice leaves it out")
def sliced_off_behind_a_slice_of_all() -> Loop:
    """Some torch makes a slice of each colon, also of one that leaves out nothing."""
    body, head, x = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4)
    kept = lambda: torch.ops.aten.slice(torch.cat([body(x), x], -1), 0, 0, 3)[..., -4:]  # noqa: E731
    return Loop({"body": body, "head": head}, lambda: head(kept()).sum().backward(), lambda: kept().equal(x))


@still("masked", at="body", where="(root)", share_masked=1.0)
def masked_fill() -> Loop:
    mask = torch.ones(3, 4, dtype=torch.bool)
    net, x = Filled(lambda h: h.masked_fill(mask, 0.5)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool(mask.all()))


@still("masked", at="body", where="(root)")
def where_takes_the_other() -> Loop:
    condition = torch.zeros(3, 4, dtype=torch.bool)
    net, x = Filled(lambda h: torch.where(condition, h, torch.ones(()))), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not condition.any())


@still("masked", at="body", where="(root)")
def assigned_over() -> Loop:
    def overwrite(h: Tensor) -> Tensor:
        h = h.clone()
        h[:] = 1.0
        return h

    net, x = Filled(overwrite), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((overwrite(net.body(x)) == 1).all()))


@still("masked", at="body", where="(root)")
def assigned_by_mask() -> Loop:
    def overwrite(h: Tensor) -> Tensor:
        h = h.clone()
        h[h > -1e9] = 1.0
        return h

    net, x = Filled(overwrite), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((overwrite(net.body(x)) == 1).all()))


@still("masked", at="net", where="MulBackward0")
def output_times_mask_outside() -> Loop:
    net, x, mask = nn.Linear(4, 2), batch(3, 4), torch.zeros(3, 2)
    return Loop({"net": net}, lambda: (net(x) * mask).sum().backward(), lambda: not mask.any())


@still("zero-factor", at="body", where="MulBackward0")
def times_zero_between_modules() -> Loop:
    body, head, x, switch = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4), 0.0
    step = lambda: head(body(x) * switch).sum().backward()  # noqa: E731
    return Loop({"body": body, "head": head}, step, lambda: switch == 0.0)


@still("masked", at="body", where="(root)")
def scattered_over() -> Loop:
    net, x = Filled(lambda h: h.scatter(1, torch.arange(4).expand(3, 4), 1.0)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net.how(net.body(x)) == 1).all()))


@still("masked", at="body", where="(root)")
def nothing_below_the_diagonal() -> Loop:
    net, x = Filled(lambda h: h.tril(-9)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net.how(net.body(x)).any())


@still("masked", at="body", where="(root)")
def filled_in_place() -> Loop:
    net, x = Filled(lambda h: (h * 2).fill_(1.0)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net.how(net.body(x)) == 1).all()))


@still("masked", at="experts.0")
def expert_without_samples() -> Loop:
    """The router sends no sample to it: it is called with an empty batch."""
    experts, x = nn.ModuleList(nn.Linear(4, 4) for _ in range(2)), batch(3, 4)
    chosen = torch.ones(3, dtype=torch.long)

    def step() -> None:
        out = torch.zeros(3, 4)
        for number, expert in enumerate(experts):
            out = out.index_put((chosen == number,), expert(x[chosen == number]))
        torch.tanh(out).square().sum().backward()

    return Loop({"experts": experts}, step, lambda: not (chosen == 0).any())


@still("masked", at="net")
def nothing_selected_for_the_loss() -> Loop:
    net, x, wanted, mask = nn.Linear(4, 2), batch(3, 4), batch(3, 2), torch.zeros(3, 2, dtype=torch.bool)
    step = lambda: functional.mse_loss(net(x)[mask], wanted[mask], reduction="sum").backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not mask.any())


@still("masked", at="words")
def every_token_is_padding() -> Loop:
    words, head, tokens = nn.Embedding(6, 4, padding_idx=0), nn.Linear(4, 1), torch.zeros(2, 3, dtype=torch.long)
    return Loop(
        {"words": words, "head": head}, lambda: head(words(tokens)).sum().backward(), lambda: not tokens.any()
    )


@still("masked", at="0.weight_orig")
def pruned_away() -> Loop:
    from torch.nn.utils import prune

    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), batch(3, 4)
    prune.custom_from_mask(net[0], "weight", torch.zeros(4, 4))
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[0].weight.any())


@still("masked", at="query")
def only_itself_to_attend_to() -> Loop:
    net, x, mask = Attention(0.5), batch(2, 4, 4), ~torch.eye(4, dtype=torch.bool)
    return Loop(net, lambda: net(x, mask).square().sum().backward(), lambda: bool((~mask).sum(-1).eq(1).all()))


@still("masked", at="net.0")
def hook_sets_gradients_to_zero() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), batch(3, 4)
    seen: list[Tensor] = []
    for parameter in net[0].parameters():
        parameter.register_hook(lambda g: (seen.append(g), g * 0)[1])
    step = lambda: net(x).sum().backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: bool(seen) and all(bool(g.any()) for g in seen))
