"""Products with a zero factor, losses that teach nothing, masks, and what is too small for its type."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.diagnose.planted import Loop, batch, fault, filled


@fault("zero-weight", at="0", where="2", share_of_zeros=1.0)
def last_layer_from_zero() -> Loop:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), filled(nn.Linear(8, 2), weight=0.0))
    x = batch(3, 4)
    return Loop(net, lambda: (net(x) - 1).square().mean().backward(), lambda: not net[2].weight.any())


@fault("zero-weight", at="0", where="2")
def convolution_from_zero() -> Loop:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.LeakyReLU(), filled(nn.Conv2d(3, 2, 3), weight=0.0))
    x = batch(2, 1, 7, 7)
    return Loop(net, lambda: (net(x) - 1).square().mean().backward(), lambda: not net[2].weight.any())


@fault("zero-weight", at="conv", where="norm")
def residual_norm_from_zero() -> Loop:
    """ResNet's zero_init_residual: the branch is silent at the first step."""
    conv, norm = nn.Conv2d(3, 3, 3, padding=1), filled(nn.BatchNorm2d(3), weight=0.0)
    x = batch(2, 3, 5, 5)
    return Loop(
        {"conv": conv, "norm": norm},
        lambda: (x + norm(conv(x))).square().mean().backward(),
        lambda: not norm.weight.any(),
    )


@fault("zero-weight", at="0", where="1")
def layer_norm_from_zero() -> Loop:
    net = nn.Sequential(nn.Linear(4, 8), filled(nn.LayerNorm(8), weight=0.0), nn.Linear(8, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[1].weight.any())


class Block(nn.Module):
    """x + gate * f(x), as LayerScale and ReZero have it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.inner(x)


@fault("zero-weight", at="block.inner", where="block")
def rezero_gate() -> Loop:
    block, x = Block(), batch(3, 4)
    return Loop({"block": block}, lambda: block(x).square().sum().backward(), lambda: not block.gate.any())


@fault("zero-weight", at="inner")
def adaptive_gate_from_zero() -> Loop:
    """AdaLN-zero: the gate is computed by a layer that starts from zero."""

    class Adaptive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.to_gate = filled(nn.Linear(4, 4), weight=0.0, bias=0.0)

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return x + self.to_gate(condition) * self.inner(x)

    net, x, condition = Adaptive(), batch(3, 4), batch(3, 4)
    return Loop(net, lambda: net(x, condition).square().sum().backward(), lambda: not net.to_gate(condition).any())


@fault("zero-weight", at="down", where="up")
def low_rank_adapter() -> Loop:
    """LoRA: B starts from zero, so A gets nothing at the first step."""
    down, up, x = nn.Linear(6, 2, bias=False), filled(nn.Linear(2, 6, bias=False), weight=0.0), batch(3, 6)
    return Loop(
        {"down": down, "up": up}, lambda: (x + up(down(x))).square().sum().backward(), lambda: not up.weight.any()
    )


@fault("zero-weight", at="policy", where="q")
def critic_that_ignores_the_action() -> Loop:
    """The weights for a part of what was joined are zero: the others get their gradient through the same layer."""
    policy, encoder, q, x = nn.Linear(4, 2), nn.Linear(4, 3), nn.Linear(5, 1), batch(3, 4)
    with torch.no_grad():
        q.weight[:, 3:] = 0.0
    step = lambda: q(torch.cat([encoder(x), policy(x)], dim=1)).mean().backward()  # noqa: E731
    return Loop({"policy": policy, "encoder": encoder, "q": q}, step, lambda: not q.weight[:, 3:].any())


@fault("zero-weight", at="policy", where="q")
def square_critic_over_time() -> Loop:
    """The same with as many outputs as inputs, and with a dimension of time that the layer flattens."""
    policy, encoder, q, x = nn.Linear(4, 2), nn.Linear(4, 3), nn.Linear(5, 5), batch(3, 6, 4)
    with torch.no_grad():
        q.weight[:, 3:] = 0.0
    step = lambda: q(torch.cat([encoder(x), policy(x)], dim=-1)).square().mean().backward()  # noqa: E731
    return Loop({"policy": policy, "encoder": encoder, "q": q}, step, lambda: not q.weight[:, 3:].any())


@fault("masked", at="second")
def mask_over_one_branch() -> Loop:
    first, second, head, x = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 1), batch(3, 4)
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(3, 4)
    step = lambda: head(torch.cat([first(x), second(x)], dim=1) * mask).sum().backward()  # noqa: E731
    return Loop({"first": first, "second": second, "head": head}, step, lambda: not mask[:, 2:].any())


@fault("zero-weight", at="0.parametrizations.weight.original1")
def weight_norm_of_zero() -> Loop:
    net, x = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 1)), batch(3, 4)
    with torch.no_grad():
        net[0].parametrizations.weight.original0.zero_()
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[0].weight.any())


@fault("zero-input", at="0.weight", where="0")
def inputs_never_filled() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), torch.zeros(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not x.any())


@fault("zero-input", at="0.weight", where="0")
def black_pictures() -> Loop:
    net, x = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(27, 1)), torch.zeros(2, 1, 5, 5)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not x.any())


@fault("zero-input", at="2.weight", where="2")
def above_a_dead_relu() -> Loop:
    net = nn.Sequential(filled(nn.Linear(4, 8), bias=-70.0), nn.ReLU(), nn.Linear(8, 1))
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[:2](x).any())


@fault("zero-input", at="token_types.weight")
def scale_of_zeros() -> Loop:
    net = nn.Module()
    net.token_types = nn.Linear(3, 4, bias=False)
    net.words = nn.Linear(3, 4)
    x, types = batch(2, 5, 3), torch.zeros(2, 5, 3)
    return Loop(
        net, lambda: (net.words(x) + net.token_types(types)).square().sum().backward(), lambda: not types.any()
    )


@fault("zero-loss", at="0")
def weight_of_zero() -> Loop:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    x, weight = batch(3, 4), 0.0
    return Loop(net, lambda: (net(x).square().mean() * weight).backward(), lambda: weight == 0.0)


@fault("zero-loss", at="second_head")
def multi_task_weight() -> Loop:
    body, first, second = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)
    x, weights = batch(3, 4), torch.tensor([1.0, 0.0])

    def step() -> None:
        features = torch.tanh(body(x))
        losses = torch.stack([first(features).square().mean(), second(features).square().mean()])
        (losses * weights).sum().backward()

    return Loop({"body": body, "first_head": first, "second_head": second}, step, lambda: weights[1] == 0)


@fault("zero-loss", at="head", where="MseLossBackward0", largest_difference=0.0)
def satisfied_exactly() -> Loop:
    head, x = nn.Linear(4, 2), batch(3, 4)
    wanted = head(x).detach()
    return Loop(
        {"head": head},
        lambda: functional.mse_loss(head(x), wanted).backward(),
        lambda: torch.equal(head(x), wanted),
    )


@fault("zero-loss", at="head")
def l1_satisfied_exactly() -> Loop:
    head, x = nn.Linear(4, 2), batch(3, 4)
    wanted, loss = head(x).detach(), nn.L1Loss()
    return Loop({"head": head}, lambda: loss(head(x), wanted).backward(), lambda: torch.equal(head(x), wanted))


@fault("zero-loss", at="head")
def squares_by_hand() -> Loop:
    head, x = nn.Linear(4, 2), batch(3, 4)
    wanted = head(x).detach()
    return Loop(
        {"head": head}, lambda: ((head(x) - wanted) ** 2).mean().backward(), lambda: torch.equal(head(x), wanted)
    )


@fault("zero-loss", at="net")
def hinge_kept() -> Loop:
    net, x = filled(nn.Linear(4, 1), bias=50.0), batch(3, 4)
    return Loop({"net": net}, lambda: torch.relu(1 - net(x)).mean().backward(), lambda: bool((net(x) > 1).all()))


@fault("zero-loss", at="net")
def margin_kept() -> Loop:
    net, x = filled(nn.Linear(4, 1), bias=50.0), batch(3, 4)
    loss = nn.MarginRankingLoss(margin=1.0)
    step = lambda: loss(net(x), torch.zeros(3, 1), torch.ones(3, 1)).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: bool((net(x) > 1).all()))


@fault("zero-loss", at="net")
def triplet_kept() -> Loop:
    net, x = nn.Linear(4, 4), batch(3, 4)
    far = batch(3, 4) * 100
    step = lambda: functional.triplet_margin_loss(net(x), net(x + 1e-3), far).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: functional.triplet_margin_loss(net(x), net(x + 1e-3), far).item() == 0)


@fault("zero-loss", at="net")
def empty_mask() -> Loop:
    net, x, wanted, mask = nn.Linear(4, 2), batch(3, 4), batch(3, 2), torch.zeros(3, 2)

    def step() -> None:
        each = functional.mse_loss(net(x), wanted, reduction="none")
        ((each * mask).sum() / mask.sum().clamp(min=1)).backward()

    return Loop({"net": net}, step, lambda: not mask.any())


@fault("zero-loss", at="net")
def advantages_of_zero() -> Loop:
    net, x, action, advantage = nn.Linear(4, 3), batch(6, 4), torch.randint(3, (6,)), torch.zeros(6)

    def step() -> None:
        chosen = net(x).log_softmax(-1).gather(1, action[:, None]).squeeze(1)
        (-(chosen * advantage).mean()).backward()

    return Loop({"net": net}, step, lambda: not advantage.any())


@fault("zero-loss", at="net", share_ignored=1.0)
def every_label_ignored() -> Loop:
    net, x, labels = nn.Linear(4, 3), batch(6, 4), torch.full((6,), -100)
    step = lambda: functional.cross_entropy(net(x), labels, reduction="sum").backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: bool((labels == -100).all()))


@fault("zero-loss", at="net")
def sure_of_every_label() -> Loop:
    net, x, labels = nn.Linear(4, 3), batch(6, 4), torch.ones(6, dtype=torch.long)
    with torch.no_grad():
        net.bias[1] = 900.0
    return Loop(
        {"net": net},
        lambda: functional.cross_entropy(net(x), labels).backward(),
        lambda: functional.cross_entropy(net(x), labels) == 0,
    )


@fault("zero-loss", at="net")
def initial_gradient_of_zero() -> Loop:
    net, x, initial = nn.Linear(4, 3), batch(6, 4), torch.zeros(6, 3)
    return Loop({"net": net}, lambda: net(x).backward(initial), lambda: not initial.any())


@fault("masked", at="body", where="(mask)")
def activations_times_mask() -> Loop:
    class Mask(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.zeros(x.shape[-1])

    body, mask, head, x = nn.Linear(4, 4), Mask(), nn.Linear(4, 1), batch(3, 4)
    step = lambda: head(mask(body(x))).sum().backward()  # noqa: E731
    return Loop({"body": body, "(mask)": mask, "head": head}, step, lambda: not mask(body(x)).any())


@fault("masked", at="0", where="1")
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


@fault("masked", at="body", where="SliceBackward0", elements=12, reason="a slice leaves it out")
def sliced_off_after_cat() -> Loop:
    """The features are joined with constants, and cut off again."""
    body, head, x = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4)
    step = lambda: head(torch.cat([body(x), x], -1)[..., -4:]).sum().backward()  # noqa: E731
    return Loop({"body": body, "head": head}, step, lambda: torch.cat([body(x), x], -1)[..., -4:].equal(x))


@fault("masked", at="body", where="SliceBackward0", elements=12, reason="a slice leaves it out")
def sliced_off_behind_a_slice_of_all() -> Loop:
    """Some torch makes a slice of each colon, also of one that leaves out nothing."""
    body, head, x = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4)
    kept = lambda: torch.ops.aten.slice(torch.cat([body(x), x], -1), 0, 0, 3)[..., -4:]  # noqa: E731
    return Loop({"body": body, "head": head}, lambda: head(kept()).sum().backward(), lambda: kept().equal(x))


@fault("masked", at="body", where="(root)", share_masked=1.0)
def masked_fill() -> Loop:
    mask = torch.ones(3, 4, dtype=torch.bool)
    net, x = Filled(lambda h: h.masked_fill(mask, 0.5)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool(mask.all()))


@fault("masked", at="body", where="(root)")
def where_takes_the_other() -> Loop:
    condition = torch.zeros(3, 4, dtype=torch.bool)
    net, x = Filled(lambda h: torch.where(condition, h, torch.ones(()))), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not condition.any())


@fault("masked", at="body", where="(root)")
def assigned_over() -> Loop:
    def overwrite(h: Tensor) -> Tensor:
        h = h.clone()
        h[:] = 1.0
        return h

    net, x = Filled(overwrite), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((overwrite(net.body(x)) == 1).all()))


@fault("masked", at="body", where="(root)")
def assigned_by_mask() -> Loop:
    def overwrite(h: Tensor) -> Tensor:
        h = h.clone()
        h[h > -1e9] = 1.0
        return h

    net, x = Filled(overwrite), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((overwrite(net.body(x)) == 1).all()))


@fault("masked", at="net", where="MulBackward0")
def output_times_mask_outside() -> Loop:
    net, x, mask = nn.Linear(4, 2), batch(3, 4), torch.zeros(3, 2)
    return Loop({"net": net}, lambda: (net(x) * mask).sum().backward(), lambda: not mask.any())


@fault("zero-factor", at="body", where="MulBackward0", factor="the number 0")
def times_zero_between_modules() -> Loop:
    body, head, x, switch = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4), 0.0
    step = lambda: head(body(x) * switch).sum().backward()  # noqa: E731
    return Loop({"body": body, "head": head}, step, lambda: switch == 0.0)


@fault("masked", at="body", where="(root)")
def scattered_over() -> Loop:
    net, x = Filled(lambda h: h.scatter(1, torch.arange(4).expand(3, 4), 1.0)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net.how(net.body(x)) == 1).all()))


@fault("masked", at="body", where="(root)")
def nothing_below_the_diagonal() -> Loop:
    net, x = Filled(lambda h: h.tril(-9)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net.how(net.body(x)).any())


@fault("masked", at="body", where="(root)")
def filled_in_place() -> Loop:
    net, x = Filled(lambda h: (h * 2).fill_(1.0)), batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net.how(net.body(x)) == 1).all()))


@fault("masked", at="experts.0")
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


@fault("masked", at="net")
def nothing_selected_for_the_loss() -> Loop:
    net, x, wanted, mask = nn.Linear(4, 2), batch(3, 4), batch(3, 2), torch.zeros(3, 2, dtype=torch.bool)
    step = lambda: functional.mse_loss(net(x)[mask], wanted[mask], reduction="sum").backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not mask.any())


class WithLoss(nn.Module):
    """A network whose forward pass computes the loss as well."""

    def __init__(self, weigh: object) -> None:
        super().__init__()
        self.layer, self.weigh = nn.Linear(4, 3), weigh

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.weigh(functional.cross_entropy(self.layer(x), labels, reduction="none"))


@fault("zero-loss", at="layer", where="(root)")
def masked_loss_inside_forward() -> Loop:
    net, x, labels, mask = (
        WithLoss(lambda each: (each * torch.zeros(6)).mean()),
        batch(6, 4),
        torch.arange(6) % 3,
        torch.zeros(6),
    )
    return Loop(net, lambda: net(x, labels).backward(), lambda: not mask.any() and net(x, labels) == 0)


@fault("zero-loss", at="layer", where="(root)")
def loss_weight_inside_forward() -> Loop:
    net, x, labels = WithLoss(lambda each: each.mean() * 0.0), batch(6, 4), torch.arange(6) % 3
    return Loop(net, lambda: net(x, labels).backward(), lambda: net(x, labels) == 0)


@fault("masked", at="words")
def every_token_is_padding() -> Loop:
    words, head, tokens = nn.Embedding(6, 4, padding_idx=0), nn.Linear(4, 1), torch.zeros(2, 3, dtype=torch.long)
    return Loop(
        {"words": words, "head": head}, lambda: head(words(tokens)).sum().backward(), lambda: not tokens.any()
    )


@fault("masked", at="0.weight_orig")
def pruned_away() -> Loop:
    from torch.nn.utils import prune

    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), batch(3, 4)
    prune.custom_from_mask(net[0], "weight", torch.zeros(4, 4))
    return Loop(net, lambda: net(x).sum().backward(), lambda: not net[0].weight.any())


@fault("masked", at="query")
def only_itself_to_attend_to() -> Loop:
    from tests.diagnose.faults_slopes import Attention

    net, x, mask = Attention(0.5), batch(2, 4, 4), ~torch.eye(4, dtype=torch.bool)
    return Loop(net, lambda: net(x, mask).square().sum().backward(), lambda: bool((~mask).sum(-1).eq(1).all()))


@fault("masked", at="net.0")
def hook_sets_gradients_to_zero() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), batch(3, 4)
    seen: list[Tensor] = []
    for parameter in net[0].parameters():
        parameter.register_hook(lambda g: (seen.append(g), g * 0)[1])
    step = lambda: net(x).sum().backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: bool(seen) and all(bool(g.any()) for g in seen))


@fault("underflow", at="0", dtype="float16")
def half_precision_cast() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), batch(3, 4)

    def step() -> None:
        features = net[0](x).half().float()
        (net[1](features).mean() * 1e-9).backward()

    return Loop(net, step, lambda: (torch.tensor(1e-9).half() == 0).item())


@fault("underflow", at="0")
def half_precision_network() -> Loop:
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)).half(), batch(3, 4).half()
    with torch.no_grad():
        net[2].weight.mul_(1e-4)
    step = lambda: (net(x).float().mean() * 1e-3).backward()  # noqa: E731
    return Loop(net, step, lambda: bool(((net[2].weight.double() * 1e-3 / 3).half() == 0).all()))


@fault("underflow", at="net")
def scaled_away() -> Loop:
    net, x = nn.Linear(4, 1), batch(3, 4)
    step = lambda: (net(x).mean() * 1e-30 * 1e-30).backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: torch.tensor(1e-30) * torch.tensor(1e-30) == 0)


@fault("underflow", at="net")
def exponential_of_much() -> Loop:
    net, x = filled(nn.Linear(4, 1), bias=-300.0), batch(3, 4)
    return Loop({"net": net}, lambda: net(x).exp().sum().backward(), lambda: not net(x).exp().any())


@fault("underflow", at="0")
def convolution_of_tiny_weights() -> Loop:
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), filled(nn.Conv2d(2, 1, 3), weight=1e-30)), batch(2, 1, 6, 6)
    step = lambda: (net(x).mean() * 1e-20).backward()  # noqa: E731
    return Loop(net, step, lambda: bool(net[1].weight.any()))


@fault("underflow", at="0", where="1", operation="TanhBackward0")
def tanh_that_is_only_nearly_flat() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=5.0), nn.Tanh()), batch(3, 4)
    step = lambda: (net(x).sum() * 1e-30 * 1e-13).backward()  # noqa: E731
    return Loop(net, step, lambda: bool((net(x) < 1).all()))


@fault("underflow", at="0", where="1", operation="SigmoidBackward0")
def sigmoid_that_is_only_nearly_flat() -> Loop:
    net, x = nn.Sequential(filled(nn.Linear(4, 4), bias=-12.0), nn.Sigmoid()), batch(3, 4)
    step = lambda: (net(x).sum() * 1e-30 * 1e-13).backward()  # noqa: E731
    return Loop(net, step, lambda: bool((net(x) > 0).all()))


@fault("underflow", at="0")
def deep_chain_of_sigmoids() -> Loop:
    """Each layer shrinks the gradient: after sixty of them nothing that float32 can hold is left."""
    net = nn.Sequential(*(layer for _ in range(60) for layer in (nn.Linear(4, 4), nn.Sigmoid())))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.3)
    x = batch(3, 4)

    def present() -> bool:
        wide = copy.deepcopy(net).double()
        wide(x.double()).sum().backward()
        size = float(wide[0].weight.grad.abs().max())
        return 0 < size < 1e-45 and bool((net[:2](x) > 0.1).all())

    return Loop(net, lambda: net(x).sum().backward(), present)


@fault("underflow", at="0")
def deep_chain_of_tanhs() -> Loop:
    net = nn.Sequential(*(layer for _ in range(40) for layer in (nn.Linear(4, 4), nn.Tanh())))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.1)
    x = batch(3, 4)
    return Loop(net, lambda: net(x).sum().backward(), lambda: bool((net[:2](x).abs() < 0.9).all()))


@fault("zero-weight", at="body", where="last", share_of_zeros=1.0)
def frozen_layer_of_zeros() -> Loop:
    """Its weight asks for no gradient, so that it is no node of the graph: a constant, and a weight all the same."""
    body, last, x = nn.Linear(4, 4), filled(nn.Linear(4, 2), weight=0.0), batch(3, 4)
    last.weight.requires_grad_(False)
    step = lambda: (last(body(x)) - 1).square().mean().backward()  # noqa: E731
    return Loop({"body": body, "last": last}, step, lambda: not last.weight.any())
