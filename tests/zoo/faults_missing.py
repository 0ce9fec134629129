"""Parameters that no gradient is made for: frozen, left out, not called, cut off, or never asked."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.nets import convolutions, mlp, norm, silent, trained
from tests.zoo.registry import Verdict, fault
from tests.zoo.run import Run


@fault(Verdict("zero", "frozen", module="backbone", where=("backbone",), severity="warning"))
def fine_tuning_that_never_thaws(run: Run) -> None:
    """The backbone should be thawed after some steps; the line that does it is missing."""
    backbone, head = convolutions(), nn.Linear(6, 3)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-3)
    backbone.requires_grad_(False)
    with run.track(optimizer, {"backbone": backbone, "head": head}):
        for _ in run.steps(25):
            images, labels = torch.randn(4, 1, 6, 6), torch.randint(3, (4,))
            trained(optimizer, lambda: functional.cross_entropy(head(backbone(images)), labels))  # noqa: B023
            run.fault(not any(p.requires_grad for p in backbone.parameters()) and silent(backbone))
            optimizer.step()


class LowRank(nn.Module):
    """A frozen layer with a trained correction of low rank."""

    def __init__(self, size: int = 6, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(size, size).requires_grad_(False)
        self.down = nn.Linear(size, rank, bias=False)
        self.up = nn.Linear(rank, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@fault(Verdict("zero", "frozen", module="adapter", where=("adapter",), severity="warning"))
def low_rank_adapter_frozen_with_its_base(run: Run) -> None:
    """``requires_grad_(False)`` was called on the whole model after the adapters had been put in."""
    adapter, head = LowRank(), nn.Linear(6, 1)
    adapter.requires_grad_(False)
    trainable = [*adapter.down.parameters(), *adapter.up.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3)
    with run.track(optimizer, {"adapter": adapter, "head": head}):
        for _ in run.steps(25):
            x = torch.randn(4, 6)
            trained(optimizer, lambda: head(torch.tanh(adapter(x))).square().mean())  # noqa: B023
            run.fault(not adapter.up.weight.requires_grad and silent(adapter))
            optimizer.step()


@fault(Verdict("zero", "no-backward", module="discriminator", optimizer="d"))
def adversarial_net_whose_discriminator_has_no_backward(run: Run) -> None:
    generator, discriminator = mlp(4, 8, 3), mlp(3, 8, 1)
    optimizers = {
        "g": torch.optim.Adam(generator.parameters(), lr=1e-3),
        "d": torch.optim.Adam(discriminator.parameters(), lr=1e-3),
    }
    with run.track(optimizers, {"generator": generator, "discriminator": discriminator}):
        for _ in run.steps(25):
            made = generator(torch.randn(8, 4))
            discriminator.requires_grad_(False)
            trained(optimizers["g"], lambda: functional.softplus(-discriminator(made)).mean())  # noqa: B023
            optimizers["g"].step()
            discriminator.requires_grad_(True)
            optimizers["d"].zero_grad()
            real = discriminator(torch.randn(8, 3)), discriminator(made.detach())
            loss = functional.softplus(-real[0]).mean() + functional.softplus(real[1]).mean()
            # loss.backward() is what is missing here
            run.fault(loss.requires_grad and all(p.grad is None for p in discriminator.parameters()))
            optimizers["d"].step()


@fault(Verdict("zero", "no-backward", module="policy", optimizer="actor"))
def actor_whose_loss_is_only_computed(run: Run) -> None:
    policy, critic = mlp(4, 8, 2), mlp(6, 8, 1)
    actor = torch.optim.Adam(policy.parameters(), lr=1e-3)
    learner = torch.optim.Adam(critic.parameters(), lr=1e-3)
    with run.track({"actor": actor, "critic": learner}, {"policy": policy, "q": critic}):
        for _ in run.steps(25):
            state, action, value = torch.randn(8, 4), torch.randn(8, 2), torch.randn(8, 1)
            at = torch.cat([state, action], 1)
            trained(learner, lambda: functional.mse_loss(critic(at), value))  # noqa: B023
            learner.step()
            actor.zero_grad(set_to_none=False)
            loss = -critic(torch.cat([state, policy(state)], 1)).mean()
            run.fault(loss.requires_grad and silent(policy))
            actor.step()


@fault(Verdict("zero", "no-backward", module="0"), Verdict("zero", "no-backward", module="2"))
def closure_that_does_not_call_backward(run: Run) -> None:
    net = mlp()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=2)
    calls = []
    with run.track(optimizer, net):
        for _ in run.steps(12):
            x = torch.randn(8, 6)

            def closure() -> Tensor:
                optimizer.zero_grad(set_to_none=False)
                calls.append(1)
                return net(x).square().mean()  # noqa: B023

            run.fault(silent(net))
            optimizer.step(closure)
    assert len(calls) >= 12


class TwoHeads(nn.Module):
    """A body with two heads, of which the second is made and never called."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.body(x))
        return self.first(hidden)  # type: ignore[no-any-return]


@fault(Verdict("zero", "unused", module="second", where=("second", "second.weight", "second.bias")))
def second_head_never_called(run: Run) -> None:
    net = TwoHeads()
    called: list[int] = []
    net.second.register_forward_hook(lambda *_: called.append(1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            trained(optimizer, lambda: net(torch.randn(8, 6)).square().mean())
            run.fault(not called and silent(net.second))
            optimizer.step()


class SkipsItsBlock(nn.Module):
    """A residual block behind a flag that a config file sets wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.block, self.head = nn.Embedding(12, 8), mlp(8, 8, 8), nn.Linear(8, 12)
        self.use_block = False

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        return self.head(x + self.block(x) if self.use_block else x)  # type: ignore[no-any-return]


@fault(
    Verdict("zero", "unused", module="block.0", where=("block.0", "block.0.weight")),
    Verdict("zero", "unused", module="block.2", where=("block.2", "block.2.weight")),
)
def residual_block_switched_off(run: Run) -> None:
    net = SkipsItsBlock()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            tokens = torch.randint(12, (4, 5))
            trained(optimizer, lambda: functional.cross_entropy(net(tokens).mT, tokens))  # noqa: B023
            run.fault(not net.use_block and all(p.grad is None for p in net.block.parameters()))
            optimizer.step()


@fault(Verdict("zero", "detached", module="encoder", where=("encoder",)))
def features_detached_before_the_head(run: Run) -> None:
    encoder, head = convolutions(), nn.Linear(6, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"encoder": encoder, "head": head}):
        for _ in run.steps(25):
            optimizer.zero_grad()
            features = encoder(torch.randn(4, 1, 6, 6)).detach()
            head(features).square().mean().backward()
            run.fault(not features.requires_grad and silent(encoder) and norm(head) > 0)
            optimizer.step()


@fault(Verdict("zero", "detached", module="words", where=("words",)))
def recurrent_net_fed_through_numpy(run: Run) -> None:
    """A round trip through NumPy, from step 11 on, in what feeds a GRU."""
    words, gru, head = nn.Embedding(10, 4), nn.GRU(4, 8, batch_first=True), nn.Linear(8, 10)
    parts = nn.ModuleDict({"words": words, "gru": gru, "head": head})
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.01)
    with run.track(optimizer, dict(parts.items())):
        for step in run.steps(40):
            optimizer.zero_grad()
            tokens = torch.randint(10, (4, 5))
            x = words(tokens)
            if step > 10:
                x = torch.from_numpy(x.detach().numpy() * 1.0)
            functional.cross_entropy(head(gru(x)[0]).mT, tokens).backward()
            run.fault(not x.requires_grad and silent(words) and norm(gru) > 0)
            optimizer.step()


@fault(Verdict("zero", "detached", module="teacher", where=("teacher",)))
def two_losses_one_of_them_of_data(run: Run) -> None:
    """Multi-task: the second task's loss is rebuilt from a plain number before it is added."""
    body, first, second = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 1)
    modules = {"body": body, "first": first, "teacher": second}
    optimizer = torch.optim.Adam([p for m in modules.values() for p in m.parameters()], lr=1e-3)
    with run.track(optimizer, modules):
        for _ in run.steps(25):
            optimizer.zero_grad()
            hidden = torch.tanh(body(torch.randn(8, 6)))
            other = torch.tensor(second(hidden).square().mean().item())
            (first(hidden).square().mean() + other).backward()
            run.fault(not other.requires_grad and silent(second))
            optimizer.step()


@fault(Verdict("zero", "no-grad", module="encoder", where=("encoder",)))
def transformer_run_under_no_grad(run: Run) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    encoder, head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(8, 2)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
    with run.track(optimizer, {"encoder": encoder, "head": head}):
        for _ in run.steps(25):
            optimizer.zero_grad()
            with torch.no_grad():
                features = encoder(torch.randn(4, 5, 8))
            head(features).square().mean().backward()
            run.fault(features.grad_fn is None and silent(encoder))
            optimizer.step()


class Encodes(nn.Module):
    """Its encoder is called by a method that was written for inference."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 1)

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Tensor:
        return self.gru(x)[0][:, -1]  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encode(x).clone())  # type: ignore[no-any-return]


@fault(Verdict("zero", "no-grad", module="gru", where=("gru",)))
def encode_decorated_with_inference_mode(run: Run) -> None:
    net = Encodes()
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            x = torch.randn(4, 5, 4)
            trained(optimizer, lambda: net(x).square().mean())  # noqa: B023
            run.fault(net.encode(x).is_inference() and silent(net.gru))
            optimizer.step()


@fault(Verdict("zero", "not-in-optimizer", module="head", where=("head",), severity="warning"))
def head_replaced_after_the_optimizer_was_made(run: Run) -> None:
    """Fine-tuning on other classes: the optimizer still holds the head that was thrown away."""
    net = nn.ModuleDict({"body": convolutions(), "head": nn.Linear(6, 10)})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    net["head"] = nn.Linear(6, 3)
    with run.track(optimizer, net):
        for _ in run.steps(25):
            images, labels = torch.randn(4, 1, 6, 6), torch.randint(3, (4,))
            logits = net["head"](net["body"](images))
            trained(optimizer, lambda: functional.cross_entropy(logits, labels))  # noqa: B023
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            run.fault(id(net["head"].weight) not in held and norm(net["head"]) > 0)
            optimizer.step()


@fault(Verdict("zero", "not-in-optimizer", module="critic", where=("critic.1", "critic"), severity="warning"))
def twin_critic_left_out(run: Run) -> None:
    """Only the first of two critics was handed to the optimizer; both are in the loss."""
    critic = nn.ModuleList([mlp(5, 8, 1), mlp(5, 8, 1)])
    optimizer = torch.optim.Adam(critic[0].parameters(), lr=1e-3)
    with run.track(optimizer, {"critic": critic}):
        for _ in run.steps(25):
            x, value = torch.randn(8, 5), torch.randn(8, 1)
            trained(optimizer, lambda: sum(functional.mse_loss(q(x), value) for q in critic))  # noqa: B023
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            run.fault(not any(id(p) in held for p in critic[1].parameters()) and norm(critic[1]) > 0)
            optimizer.step()
