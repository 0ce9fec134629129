"""Modules that no backward pass reaches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.zoo.nets import batch
from tests.zoo.still import Loop, still


@still("unused", at="second", calls=0)
def head_not_called() -> Loop:
    first, second, x = nn.Linear(4, 1), nn.Linear(4, 1), batch(3, 4)
    called: list[int] = []
    second.register_forward_hook(lambda *_: called.append(1))
    return Loop({"first": first, "second": second}, lambda: first(x).sum().backward(), lambda: not called)


class Forgotten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@still("unused", at="scale")
def parameter_left_out_of_forward() -> Loop:
    net, x = Forgotten(), batch(3, 4)

    def present() -> bool:
        (gradient,) = torch.autograd.grad(net(x).sum(), [net.scale], allow_unused=True)
        return gradient is None

    return Loop(net, lambda: net(x).sum().backward(), present)


@still("unused", at="experts.2")
def expert_never_chosen() -> Loop:
    experts, x = nn.ModuleList(nn.Linear(4, 1) for _ in range(3)), batch(3, 4)
    called: list[int] = []
    experts[2].register_forward_hook(lambda *_: called.append(1))
    step = lambda: (experts[0](x) + experts[1](x)).sum().backward()  # noqa: E731
    return Loop({"experts": experts}, step, lambda: not called)


@still("detached", at="encoder", where="encoder", in_graph_of_loss=0)
def output_detached() -> Loop:
    encoder, head, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 1), batch(3, 4)
    step = lambda: head(encoder(x).detach()).sum().backward()  # noqa: E731
    return Loop({"encoder": encoder, "head": head}, step, lambda: encoder(x).requires_grad)


@still("detached", at="embed", where="second", in_graph_of_loss=0)
def cut_off_two_modules_further_on() -> Loop:
    embed, first, second, head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
    hidden = lambda: second(torch.tanh(first(embed(x))))  # noqa: E731
    parts, x = {"embed": embed, "first": first, "second": second, "head": head}, batch(3, 4)
    return Loop(parts, lambda: head(hidden().detach()).sum().backward(), lambda: hidden().requires_grad)


@still("detached", at="net.0", where="net.0")
def detached_inside() -> Loop:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 1)])

        def __getitem__(self, index: int) -> nn.Module:
            return self.layers[index]

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[1](self.layers[0](x).data)

    net, x = Inside(), batch(3, 4)
    return Loop(
        {"net": net.layers, "whole": net}, lambda: net(x).sum().backward(), lambda: net.layers[0](x).requires_grad
    )


@still("detached", at="encoder")
def through_numpy() -> Loop:
    encoder, head, x = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4)
    step = lambda: head(torch.from_numpy(encoder(x).detach().numpy())).sum().backward()  # noqa: E731
    return Loop({"encoder": encoder, "head": head}, step, lambda: encoder(x).requires_grad)


@still("detached", at="generator")
def gan_discriminator_loss_only() -> Loop:
    """The generator has an optimizer, but only the discriminator's loss was run, on detached samples."""
    generator, critic, noise = nn.Linear(2, 4), nn.Linear(4, 1), batch(5, 2)
    step = lambda: critic(generator(noise).detach()).mean().backward()  # noqa: E731
    return Loop({"generator": generator, "critic": critic}, step, lambda: generator(noise).requires_grad)


@still("detached", at="policy")
def arg_max_of_actions() -> Loop:
    policy, q, x = nn.Linear(4, 3), nn.Linear(7, 1), batch(5, 4)

    def step() -> None:
        action = nn.functional.one_hot(policy(x).argmax(-1), 3).float()
        q(torch.cat([x, action], dim=1)).mean().backward()

    return Loop({"policy": policy, "q": q}, step, lambda: not policy(x).argmax(-1).requires_grad)


@still("detached", at="attention")
def attention_detached() -> Loop:
    """The last layer of attention is not called by its parent, which hands its weight to a function."""
    attention, head, x = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 1), batch(2, 3, 4)
    step = lambda: head(attention(x, x, x)[0].detach()).sum().backward()  # noqa: E731
    return Loop({"attention": attention, "head": head}, step, lambda: attention(x, x, x)[0].requires_grad)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * 2


class EndsInCustomFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(self.layer(x))


@still("detached", at="encoder")
def custom_function_detached() -> Loop:
    encoder, head, x = EndsInCustomFunction(), nn.Linear(4, 1), batch(3, 4)
    step = lambda: head(encoder(x).detach()).sum().backward()  # noqa: E731
    return Loop({"encoder": encoder, "head": head}, step, lambda: encoder(x).requires_grad)


@still("no-grad", at="encoder", where="encoder", calls_in_grad_mode=0)
def called_under_no_grad() -> Loop:
    encoder, head, x = nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, 1), batch(3, 4)
    modes: list[bool] = []
    encoder.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))

    def step() -> None:
        with torch.no_grad():
            features = encoder(x)
        head(features).sum().backward()

    return Loop({"encoder": encoder, "head": head}, step, lambda: modes == [False])


@still("no-grad", at="net.encoder")
def decorated_with_no_grad() -> Loop:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    net = nn.ModuleDict({"encoder": Encoder(), "head": nn.Linear(4, 1)})
    x = batch(3, 4)
    step = lambda: net["head"](net["encoder"](x)).sum().backward()  # noqa: E731
    return Loop({"net": net}, step, lambda: not net["encoder"](x).requires_grad)


@still("no-grad", at="attention.out_proj")
def attention_under_no_grad() -> Loop:
    attention, head, x = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 1), batch(2, 3, 4)

    def step() -> None:
        with torch.no_grad():
            features = attention(x, x, x)[0]
        head(features).sum().backward()

    with torch.no_grad():
        silent = not attention(x, x, x)[0].requires_grad
    return Loop({"attention": attention, "head": head}, step, lambda: silent)


@still("no-grad", at="body")
def checkpoint_without_gradient_of_inputs() -> Loop:
    """Reentrant checkpointing of a segment whose input needs no gradient: torch warns, and trains nothing in it."""
    body, head, x = nn.Linear(4, 4), nn.Linear(4, 1), batch(3, 4)

    def step() -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            features = checkpoint(body, x, use_reentrant=True)
        head(features).sum().backward()

    return Loop({"body": body, "head": head}, step, lambda: not x.requires_grad)


@still("frozen", at="backbone.0")
def fine_tuning_with_frozen_backbone() -> Loop:
    backbone, head, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 1), batch(3, 4)
    backbone.requires_grad_(False)
    step = lambda: head(backbone(x)).sum().backward()  # noqa: E731
    return Loop({"backbone": backbone, "head": head}, step, lambda: not backbone[0].weight.requires_grad)
