"""Mixtures of experts, adapters and prompts, each with its repaired twin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import filled, mlp, norm, optimized, silent
from tests.zoo.registry import Verdict, fault_and_repair
from tests.zoo.run import Run


class Experts(nn.Module):
    """Tokens are sent to the expert that a router prefers, weighed by its probability."""

    def __init__(self, weigh: str = "probability", experts: int = 3, size: int = 8) -> None:
        super().__init__()
        self.router, self.head = nn.Linear(size, experts), nn.Linear(size, 1)
        self.experts = nn.ModuleList(nn.Linear(size, size) for _ in range(experts))
        self.weigh = weigh

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        best, chosen = logits.topk(1, dim=-1)
        weight = {
            "probability": lambda: logits.softmax(-1).gather(1, chosen),
            "renormalised": lambda: best.softmax(-1),  # of the k that were chosen, and k is 1
            "one": lambda: torch.ones_like(best),
        }[self.weigh]()
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = (chosen[:, 0] == number).nonzero()[:, 0]
            if len(mine):
                out = out.index_add(0, mine, weight[mine] * expert(x[mine]))
        return self.head(x + out)  # type: ignore[no-any-return]


def routed(run: Run, net: Experts, ill: object, tokens: int = 64) -> None:
    def loss() -> Tensor:
        x = torch.randn(tokens, 8)
        return functional.mse_loss(net(x), x.square().sum(1, keepdim=True))

    parts = {"router": net.router, "head": net.head} | {f"expert{i}": e for i, e in enumerate(net.experts)}
    optimized(run, parts, loss, ill)  # type: ignore[arg-type]


@fault_and_repair(Verdict("zero", "unused", module="expert1"), Verdict("zero", "unused", module="expert2"))
def router_that_collapsed(run: Run, fixed: bool) -> None:
    """The first expert is preferred for every token: the others are never called."""
    net = Experts()
    if not fixed:
        nn.init.zeros_(net.router.weight)
        with torch.no_grad():
            net.router.bias.copy_(torch.tensor([4.0, 0.0, 0.0]))
    routed(run, net, lambda: silent(net.experts[1]) and silent(net.experts[2]))


@fault_and_repair(Verdict("zero", "constant", module="router", remedy=("softmax|one",)), also=("vanishing",))
def router_renormalised_over_one(run: Run, fixed: bool) -> None:
    """The weights of the k best are normalised to 1, and k is 1: the weight is 1 whatever the router says."""
    net = Experts("probability" if fixed else "renormalised")
    routed(run, net, lambda: silent(net.router))


@fault_and_repair(Verdict("zero", "detached", module="router"))
def router_whose_choice_is_all_that_counts(run: Run, fixed: bool) -> None:
    """The expert's output is not weighed by its probability: an arg max has no gradient."""
    net = Experts("probability" if fixed else "one")
    routed(run, net, lambda: silent(net.router))


@fault_and_repair(
    Verdict("zero", "masked|zero-factor", module="experts"), Verdict("zero", "masked|zero-factor", module="router")
)
def capacity_of_no_token(run: Run, fixed: bool) -> None:
    """Tokens beyond the capacity are masked; ``tokens // (experts * 64)`` is 0 for a small batch."""
    experts, router, head = nn.Linear(8, 24), nn.Linear(8, 3), nn.Linear(8, 1)
    capacity = 16 // 3 if fixed else 16 // (3 * 64)

    def loss() -> Tensor:
        x = torch.randn(16, 8)
        gates = router(x).softmax(-1)
        chosen = functional.one_hot(gates.argmax(-1), 3)
        kept = gates * chosen * (chosen.cumsum(0) <= capacity)
        out = torch.einsum("te,teh->th", kept, experts(x).view(16, 3, 8))
        return functional.mse_loss(head(x + out), x.sum(1, keepdim=True))

    parts: dict[str, nn.Module] = {"experts": experts, "router": router, "head": head}
    optimized(run, parts, loss, lambda: silent(experts) and silent(router) and norm(head) > 0)


class Adapter(nn.Module):
    """A correction of low rank, without the layer that it corrects."""

    def __init__(self, size: int = 6, rank: int = 2, scale: float = 1.0) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, rank, bias=False), nn.Linear(rank, size, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(self.down(x))  # type: ignore[no-any-return]


def adapted(run: Run, adapter: Adapter, ill: object, **parts: nn.Module) -> None:
    base = nn.Linear(6, 6).requires_grad_(False)
    head = nn.Linear(6, 1)

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        return functional.mse_loss(head(torch.tanh(base(x) + adapter(x))), x[:, :1])

    optimized(run, {**(parts or {"adapter": adapter}), "head": head}, loss, ill)  # type: ignore[arg-type]


@fault_and_repair(
    Verdict("zero", "zero-weight", module="down", where=("up",)),
    Verdict("zero", "zero-input", module="up", where=("up",)),
)
def adapter_of_two_zeros(run: Run, fixed: bool) -> None:
    """Both matrices of a low-rank adapter start from zero: neither can ever move."""
    adapter = Adapter()
    if not fixed:
        nn.init.zeros_(adapter.down.weight)
    adapted(run, adapter, lambda: silent(adapter), down=adapter.down, up=adapter.up)


@fault_and_repair(Verdict("zero", "zero-factor", module="adapter", remedy=("factor|zero|0",)))
def adapter_scaled_by_a_whole_number(run: Run, fixed: bool) -> None:
    """``alpha // rank`` in place of ``alpha / rank``: the scale is 0."""
    alpha, rank = 1, 2
    adapter = Adapter(scale=alpha / rank if fixed else alpha // rank)
    adapted(run, adapter, lambda: silent(adapter))


class Merged(Adapter):
    """The merged weight is made anew for each forward pass, of ``.data``."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.up.weight.data @ self.down.weight.data)


@fault_and_repair(Verdict("zero", "unused|detached", module="adapter"))
def adapter_merged_by_its_data(run: Run, fixed: bool) -> None:
    adapter = Adapter() if fixed else Merged()
    adapted(run, adapter, lambda: silent(adapter))


@fault_and_repair(Verdict("zero", "frozen", module="net", severity="critical"))
def nothing_left_to_train(run: Run, fixed: bool) -> None:
    """All but what is called "lora" is frozen; the adapters are called "adapter" here, and so nothing can learn."""
    net = nn.ModuleDict({"base": nn.Linear(6, 6), "adapter": Adapter()})
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(("adapter" if fixed else "lora") in name)
    head = nn.Linear(6, 1).requires_grad_(False)
    bias = torch.zeros(1, requires_grad=True)  # what keeps the loss differentiable: an input, as in a saliency map
    wanted = [p for p in net.parameters() if p.requires_grad] if fixed else list(net.parameters())

    def loss() -> Tensor:
        x = torch.randn(16, 6) + bias
        return functional.mse_loss(head(torch.tanh(net["base"](x) + net["adapter"](x))), x[:, :1])

    optimizer = torch.optim.AdamW(wanted, lr=1e-3)
    optimized(run, {"net": net}, loss, lambda: not any(p.requires_grad for p in net.parameters()), optimizer)


class Prompted(nn.Module):
    """Vectors that are learned stand before the tokens; the attention mask is that of tokens and prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt, self.words = nn.Linear(3, 8), nn.Embedding(20, 8)
        self.query, self.value, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        prompt = self.prompt(torch.eye(3)).expand(len(tokens), 3, 8)
        x = torch.cat([prompt, self.words(tokens)], 1)
        scores = (self.query(x[:, 3:]) @ x.mT).masked_fill(~seen[:, None], float("-inf"))
        return self.head((scores.softmax(-1) @ self.value(x)).mean(1))  # type: ignore[no-any-return]


@fault_and_repair(Verdict("zero", "masked", module="prompt"))
def prompt_that_the_mask_hides(run: Run, fixed: bool) -> None:
    """The mask was extended by zeros for the prompt, where it should have been ones."""
    net = Prompted()

    def loss() -> Tensor:
        tokens = torch.randint(20, (8, 5))
        seen = torch.cat([torch.full((8, 3), fixed), torch.ones(8, 5, dtype=torch.bool)], 1)
        return functional.cross_entropy(net(tokens, seen), tokens[:, 0] % 4)

    optimized(run, net, loss, lambda: silent(net.prompt) and norm(net.words) > 0)


@fault_and_repair(Verdict("zero", "zero-weight", module="control", where=("MmBackward0",)))
def control_net_behind_a_frozen_zero(run: Run, fixed: bool) -> None:
    """ControlNet starts its last layer from zero; here that layer is frozen with the rest."""
    control, merge, body = mlp(6, 8, 6), nn.Linear(6, 6, bias=False), mlp(6, 8, 1)
    held = [*control.parameters(), *body.parameters(), *(merge.parameters() if fixed else ())]
    if not fixed:
        filled(merge, weight=0.0).requires_grad_(False)

    def loss() -> Tensor:
        x = torch.randn(16, 6)
        return functional.mse_loss(body(x + merge(control(x))), x[:, :1])

    parts: dict[str, nn.Module] = {"control": control, "body": body} | ({"merge": merge} if fixed else {})
    optimized(run, parts, loss, lambda: silent(control) and norm(body) > 0, torch.optim.Adam(held, lr=1e-3))
