"""Gradients that a clamp or a mask lets nothing of through."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from tests.zoo.nets import convolutions, filled, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


@fault(
    Verdict(
        "zero", "clamped", module="spread", optimizer="actor", where=("ClampBackward1",), evidence=("share_below",)
    )
)
def spread_of_a_policy_below_its_limit(run: Run) -> None:
    """SAC: the logarithm of the deviation starts below the clamp at -5, and can never come back."""
    body, centre, spread = nn.Linear(4, 8), nn.Linear(8, 2), filled(nn.Linear(8, 2), bias=-30.0)
    modules = {"body": body, "centre": centre, "spread": spread}
    actor = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    with run.track({"actor": actor}, modules):
        for _ in run.steps(25):
            state, noise = torch.randn(8, 4), torch.randn(8, 2)
            hidden = torch.tanh(body(state))
            raw = spread(hidden)
            logarithm = raw.clamp(-5.0, 2.0)
            action = torch.tanh(centre(hidden) + logarithm.exp() * noise)
            trained(actor, lambda: (action - 0.5).square().mean() - 0.01 * logarithm.mean())  # noqa: B023
            run.fault(all(v < -5 for v in raw.flatten().tolist()) and silent(spread), share_below=1.0)
            actor.step()


@fault(
    Verdict("zero", "clamped", module="policy", where=("ClampBackward1", "MinimumBackward0")),
)
def every_ratio_of_ppo_clipped(run: Run) -> None:
    """Old log-probabilities of another policy: each ratio is outside 0.8 ... 1.2 on the side that is clipped."""
    policy = mlp(4, 8, 3)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    with run.track(optimizer, {"policy": policy}):
        for _ in run.steps(25):
            state, action = torch.randn(8, 4), torch.randint(3, (8,))
            logarithm = torch.log_softmax(policy(state), -1).gather(1, action[:, None])[:, 0]
            old, advantage = logarithm.detach() - 2.0, torch.rand(8) + 0.1
            ratio = (logarithm - old).exp()
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            trained(optimizer, lambda: -surrogate.mean())  # noqa: B023
            run.fault(all(r > 1.2 for r in ratio.tolist()) and silent(policy))
            optimizer.step()


@fault(
    Verdict("zero", "clamped", module="net", where=("limit", "HardtanhBackward0")),
)
def relu6_beyond_its_upper_end(run: Run) -> None:
    net, limit, head = convolutions(outputs=8), nn.ReLU6(), nn.Linear(8, 2)
    filled(net[3], bias=90.0)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=1e-4)
    with run.track(optimizer, {"net": net, "head": head}):
        for _ in run.steps(25):
            images = torch.randn(4, 1, 6, 6)
            before = net(images)
            trained(optimizer, lambda: (head(limit(before)) - 1).square().mean())  # noqa: B023
            run.fault(all(v > 6 for v in before.flatten().tolist()) and silent(net) and norm(head) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "masked", module="words", where=("words",)),
)
def every_token_is_padding(run: Run) -> None:
    """The tokenizer's index of unknown words is that of the padding, and all words are unknown to it."""
    words, bias, head = nn.Embedding(12, 6, padding_idx=0), nn.Parameter(torch.ones(6)), nn.Linear(6, 3)
    optimizer = torch.optim.Adam([*words.parameters(), bias, *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"words": words, "head": head}):
        for _ in run.steps(25):
            tokens, labels = torch.zeros(4, 5, dtype=torch.long), torch.randint(3, (4,))
            trained(optimizer, lambda: functional.cross_entropy(head((words(tokens) + bias).mean(1)), labels))  # noqa: B023
            run.fault(not tokens.any() and silent(words) and norm([bias]) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "masked", module="states", where=("MaskedFillBackward0",)),
)
def mask_with_the_wrong_sign(run: Run) -> None:
    """Variable lengths: what is valid is masked, and what is padding would be kept; there is none in this data."""
    states, head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 1)
    optimizer = torch.optim.RMSprop([*states.parameters(), *head.parameters()], lr=1e-3)
    valid = torch.ones(4, 5, 1, dtype=torch.bool)
    with run.track(optimizer, {"states": states, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(4, 5, 3)
            trained(optimizer, lambda: (head(states(x)[0].masked_fill(valid, 0.0).mean(1)) - 1).square().mean())  # noqa: B023
            run.fault(bool(valid.all()) and silent(states) and norm(head) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "masked", module="body.0", where=("drop",)),
    Verdict("zero", "masked", module="body.2", where=("drop",)),
)
def dropout_of_everything(run: Run) -> None:
    """``keep_prob=1.0`` of another framework became ``p=1.0`` here."""
    body, drop, head = mlp(6, 8, 8), nn.Dropout(1.0), nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, nn.ModuleDict({"body": body, "drop": drop, "head": head})):
        for _ in run.steps(25):
            kept = drop(body(torch.randn(8, 6)))
            trained(optimizer, lambda: (head(kept) - 1).square().mean())  # noqa: B023
            run.fault(not kept.any() and silent(body))
            optimizer.step()


@fault(
    Verdict("zero", "masked", module="layer", where=("layer", "MulBackward0")),
)
def layer_pruned_to_nothing(run: Run) -> None:
    """Pruning by a share that was meant in percent: the mask of the weight is all zero, and it has no bias."""
    layer, head = nn.Linear(6, 6, bias=False), nn.Linear(6, 1)
    prune.ln_structured(layer, "weight", amount=1.0, n=2, dim=0)
    optimizer = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.01)
    with run.track(optimizer, {"layer": layer, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: (head(x + layer(x)) - 1).square().mean())  # noqa: B023
            run.fault(not layer.weight_mask.any() and silent(layer) and norm(head) > 0)
            optimizer.step()


@fault(
    Verdict("zero", "masked", module="student", where=("WhereBackward0",)),
)
def where_takes_the_other_branch(run: Run) -> None:
    """A mixture of two experts whose gate was computed once, in evaluation mode, and is always True."""
    teacher, student, head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1)
    modules = {"teacher": teacher, "student": student, "head": head}
    optimizer = torch.optim.AdamW([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    gate = torch.ones(8, 1, dtype=torch.bool)
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            x = torch.randn(8, 6)
            trained(optimizer, lambda: head(torch.where(gate, teacher(x), student(x))).square().mean())  # noqa: B023
            run.fault(bool(gate.all()) and silent(student) and norm(teacher) > 0)
            optimizer.step()


def switched_off(gradient: Tensor) -> Tensor:
    return gradient * 0.0


@fault(
    Verdict("zero", "masked", module="body"),
)
def gradient_hook_left_from_an_experiment(run: Run) -> None:
    """A tensor hook that was to scale the gradient of the features scales it by 0."""
    body, head = convolutions(), nn.Linear(6, 2)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"body": body, "head": head}):
        for _ in run.steps(25):
            features = body(torch.randn(4, 1, 6, 6))
            features.register_hook(switched_off)
            trained(optimizer, lambda: head(features).square().mean())  # noqa: B023
            run.fault(silent(body) and norm(head) > 0)
            optimizer.step()
