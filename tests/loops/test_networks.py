"""Networks of many kinds, and gradients of every type and layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_, parametrizations

from tests.loops.models import loss_of, mlp
from tests.loops.run import Clip, Run, conformance


def clipped_steps(
    run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], limit: float = 0.5
) -> None:
    """Six steps of the usual kind."""
    for _ in range(6):
        optimizer.zero_grad()
        loss().backward()
        run.before()
        norm = clip_grad_norm_(model.parameters(), limit)
        run.after("optimizer", Clip(limit, norm))
        optimizer.step()


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
        clipped_steps(run, model, optimizer, loss)


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
        clipped_steps(run, model, optimizer, model.loss)


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

        clipped_steps(run, both, optimizer, loss)


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
        clipped_steps(run, model, optimizer, model.loss)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@conformance
def test_convolutions(run: Run, memory: torch.memory_format) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    model = model.to(memory_format=memory)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with run.track(optimizer, model):
        clipped_steps(
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
        clipped_steps(run, model, optimizer, lambda: loss_of(model))


class Bag(nn.Module):
    """An embedding with sparse gradients; repeated tokens leave them uncoalesced."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 4, sparse=True)
        self.out = nn.Linear(4, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens).sum(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("passes", [1, 2])
@conformance
def test_sparse_gradients_of_repeated_tokens(run: Run, passes: int) -> None:
    """With two passes torch adds up the sparse gradients by appending one to the other."""
    model = Bag()
    optimizers = {
        "sparse": torch.optim.SparseAdam(model.embed.parameters(), lr=0.01),
        "dense": torch.optim.Adam(model.out.parameters(), lr=0.01),
    }
    with run.track(optimizers, model):
        for _ in range(6):
            model.zero_grad()
            for _ in range(passes):
                tokens = torch.randint(12, (3, 5))
                tokens[:, 1] = tokens[:, 0]
                (model(tokens) - 1).square().mean().mul(10).backward()
            run.before("dense")
            norm = clip_grad_norm_(model.out.parameters(), 0.5)
            run.after("sparse", passes=passes)
            optimizers["sparse"].step()
            run.after("dense", Clip(0.5, norm), passes=passes)
            optimizers["dense"].step()


@pytest.mark.parametrize("change", ["coalesced", "scaled", "values scaled in place", "made dense"])
@conformance
def test_sparse_gradients_changed_by_own_code(run: Run, change: str) -> None:
    model = Bag()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def changed(gradient: Tensor) -> Tensor:
        if change == "coalesced":
            return gradient.coalesce()
        if change == "scaled":
            return gradient * 0.5
        if change == "made dense":
            return gradient.to_dense()
        gradient._values().mul_(0.25)
        return gradient

    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            tokens = torch.randint(12, (3, 5))
            tokens[:, 1] = tokens[:, 0]
            (model(tokens) - 1).square().mean().mul(10).backward()
            run.before()
            model.embed.weight.grad = changed(model.embed.weight.grad)  # type: ignore[arg-type]
            run.after()
            optimizer.step()


@conformance
def test_sparse_and_then_dense_gradients_of_one_parameter(run: Run) -> None:
    """A layer switched from sparse to dense while it is trained."""
    model = Bag()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(6):
            model.embed.sparse = step < 3
            optimizer.zero_grad()
            model(torch.randint(12, (3, 5))).square().mean().backward()
            run.after()
            optimizer.step()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@conformance
def test_other_types_of_number(run: Run, dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        clipped_steps(run, model, optimizer, lambda: model(torch.randn(6, 4, dtype=dtype)).square().mean())


@conformance
def test_mixed_types_of_number(run: Run) -> None:
    """The head in float32, the trunk in bfloat16, one scalar in float64: one norm over all."""
    trunk, head = nn.Linear(4, 8).bfloat16(), nn.Linear(8, 1)
    scalar = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    model = nn.ModuleDict({"trunk": trunk, "head": head})
    model.register_parameter("scalar", scalar)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (head(trunk(torch.randn(6, 4).bfloat16()).float()).square().mean() * scalar).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


class Rotation(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.randn(3, 4, dtype=dtype))
        self.out = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.phase @ x.to(self.phase.dtype)).abs().float().T)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@conformance
def test_complex_parameters(run: Run, dtype: torch.dtype) -> None:
    model = Rotation(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(4, 5)).square().mean().mul(10).backward()
            run.before()
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


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
        clipped_steps(run, model, optimizer, lambda: loss_of(model))


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


@pytest.mark.parametrize("magnitude", [1e-44, 1e-30, 1e-23, 1e19, 1e30])
@conformance
def test_magnitudes_at_which_torchs_norm_fails(run: Run, magnitude: float) -> None:
    """Finite gradients whose squares are not: torch's norm is 0 or Inf, and clipping does what it then does."""
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (model(torch.randn(3)) * magnitude).sum().backward()
            run.before()
            norm = clip_grad_norm_(model.parameters(), 1.0)
            run.after("optimizer", Clip(1.0, norm))
            optimizer.step()


@pytest.mark.parametrize("magnitude", [1e-300, 1e-170, 1e160, 1e300])
@conformance
def test_magnitudes_at_which_float64_fails(run: Run, magnitude: float) -> None:
    model = nn.Linear(3, 2, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (model(torch.randn(3).double()) * magnitude).sum().backward()
            run.before()
            model.weight.grad.mul_(0.5)  # type: ignore[union-attr]
            run.after()
            optimizer.step()


@conformance
def test_nan_and_inf_without_a_scaler(run: Run) -> None:
    """Nobody skips the step: the optimizer consumes what there is."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with run.track(optimizer, model):
        for step in range(6):
            optimizer.zero_grad()
            loss_of(model).backward()
            run.before()
            if step >= 4:
                model[3].bias.grad = torch.tensor([float("inf" if step == 4 else "nan")])
            run.after()
            optimizer.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.nan_to_num_(0.0, 0.0, 0.0)


@conformance
def test_a_lazy_module_and_expanded_gradients(run: Run) -> None:
    """The gradient of a bare sum is an expanded scalar: stride 0, until it is accumulated."""
    model = nn.Sequential(nn.LazyLinear(3), nn.Tanh())
    model(torch.ones(1, 4))
    free = nn.Parameter(torch.randn(3, 5))
    optimizer = torch.optim.SGD([*model.parameters(), free], lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            optimizer.zero_grad()
            (model(torch.randn(2, 4)).sum() + free.sum()).backward()
            run.before()
            for parameter in (*model.parameters(), free):
                parameter.grad = parameter.grad * 0.5  # type: ignore[operator]
            run.after()
            optimizer.step()


@conformance
def test_gradients_that_are_views(run: Run) -> None:
    """Flat gradient buffers, as fused and sharded trainers keep them: every ``.grad`` is a slice of one tensor."""
    model = mlp()
    parameters = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters))
    for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = piece.view_as(parameter)
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    with run.track(optimizer, model):
        for _ in range(6):
            flat.zero_()
            loss_of(model).backward()
            run.before()
            flat.mul_(0.5)
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
