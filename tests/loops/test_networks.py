"""Networks of many kinds: recurrent, attentive, convolutional, with shared and odd parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_, parametrizations

from tests.loops.models import loss_of
from tests.loops.run import Clip, Run, conformance
from tests.loops.usual import usual_steps


class Tagger(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = kind(6, 5, num_layers=2, dropout=0.1, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(tokens))[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@conformance
def test_recurrent(run: Run, kind: type[nn.RNNBase]) -> None:
    model = Tagger(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss() -> Tensor:
        tokens = torch.randint(11, (2, 7))
        return functional.cross_entropy(model(tokens).flatten(0, 1), (tokens % 3).flatten()) * 10

    with run.track(optimizer, model):
        usual_steps(run, model, optimizer, loss)


class Decoder(nn.Module):
    """A small GPT: one block, the output tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(13, 8)
        self.place = nn.Parameter(torch.randn(5, 8) * 0.02)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 13, bias=False)
        self.head.weight = self.embed.weight

    def loss(self) -> Tensor:
        tokens = torch.randint(13, (2, 6))
        mask = nn.Transformer.generate_square_subsequent_mask(5)
        hidden = self.block(self.embed(tokens[:, :-1]) + self.place, src_mask=mask, is_causal=True)
        return functional.cross_entropy(self.head(hidden).flatten(0, 1), tokens[:, 1:].flatten())


@conformance
def test_transformer_with_tied_embedding_and_weight_decay_groups(run: Run) -> None:
    """The shared tensor counts in both of its modules, and once in the whole."""
    model = Decoder()
    named = dict(model.named_parameters())
    decayed = [p for p in named.values() if p.dim() >= 2]
    plain = [p for p in named.values() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain}], lr=0.01)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer, model.loss)


@conformance
def test_two_modules_share_one_tensor(run: Run) -> None:
    encoder, decoder = nn.Linear(4, 6), nn.Linear(4, 6)
    decoder.weight = encoder.weight
    both = nn.ModuleList([encoder, decoder])
    optimizer = torch.optim.SGD(both.parameters(), lr=0.05)
    with run.track(optimizer, {"encoder": encoder, "decoder": decoder}):

        def loss() -> Tensor:
            x = torch.randn(6, 4)
            return (encoder(x) * decoder(x)).square().mean() * 10

        usual_steps(run, both, optimizer, loss)


@conformance
def test_a_tied_parameter_clipped_twice(run: Run) -> None:
    """A list that names it twice counts it twice in torch's norm, and scales it twice. The truth is what is left."""
    model = Decoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    twice = [*model.parameters(), model.head.weight]
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            model.loss().backward()
            run.before()
            norm = clip_grad_norm_(twice, 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()


@conformance
def test_modules_that_overlap_and_nest(run: Run) -> None:
    """Each entry is one line: a network, a part of it, and a part of that part."""
    model = Decoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    lines = {"all": model, "block": model.block, "attention": model.block.self_attn, "embed": model.embed}
    with run.track(optimizer, lines):
        usual_steps(run, model, optimizer, model.loss)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@conformance
def test_convolutions(run: Run, memory: torch.memory_format) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    model = model.to(memory_format=memory)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with run.track(optimizer, model):
        usual_steps(
            run, model, optimizer, lambda: model(torch.randn(2, 3, 5, 5).to(memory_format=memory)).square().sum()
        )


@conformance
def test_reparametrized_layers(run: Run) -> None:
    """Weight and spectral normalization: the parameters are not the weights that the layers use."""
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 8)), nn.Tanh(), parametrizations.spectral_norm(nn.Linear(8, 1))
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer, lambda: loss_of(model))


class Odd(nn.Module):
    """A scalar, an empty tensor, a parameter that is never used, and one that needs no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.nothing = nn.Parameter(torch.zeros(0, 3))
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale + self.nothing.sum()  # type: ignore[no-any-return]


@conformance
def test_scalars_empty_unused_and_frozen_parameters(run: Run) -> None:
    model = Odd()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        usual_steps(run, model, optimizer, lambda: loss_of(model))


@conformance
def test_nothing_but_empty_parameters(run: Run) -> None:
    """There are gradients, and they are nothing: a norm of 0, and no parameter missing."""
    model = nn.Module()
    model.register_parameter("nothing", nn.Parameter(torch.zeros(0, 3)))
    model.register_parameter("neither", nn.Parameter(torch.zeros(2, 0)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (model.nothing.sum() + model.neither.sum()).backward()
            run.after()
            optimizer.step()


@conformance
def test_gradients_with_a_graph_of_their_own(run: Run) -> None:
    """``create_graph=True`` leaves gradients that require gradients."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            gradients: Any = torch.autograd.grad(loss_of(model), list(model.parameters()), create_graph=True)
            penalty = sum(g.square().sum() for g in gradients)
            penalty.backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 0.5)
            run.after("optimizer", Clip(0.5, norm))
            optimizer.step()
