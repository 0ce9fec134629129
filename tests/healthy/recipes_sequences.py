"""Usual recipes over sequences, small: Markov chains, copying backwards, and what is to be remembered."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ExponentialLR

from tests.healthy.fitted import fitted, warmed
from tests.healthy.run import Run

__all__ = ["bert", "decoder", "experts", "gru_packed", "lstm", "t5", "word2vec"]

WORDS, LENGTH = 24, 16


class Chains:
    """Sequences of a Markov chain in which each word is followed by few others."""

    def __init__(self) -> None:
        self.next = (3 * torch.randn(WORDS, WORDS)).softmax(1)

    def __call__(self, count: int, length: int = LENGTH) -> Tensor:
        words = [torch.randint(WORDS, (count,))]
        for _ in range(length - 1):
            words.append(self.next[words[-1]].multinomial(1)[:, 0])
        return torch.stack(words, 1)


class Decoder(nn.Module):
    """A small GPT-2: tied words, learned places, norms first."""

    def __init__(self, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places.weight[: tokens.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.blocks(x, mask=mask, is_causal=True) @ self.words.weight.T  # type: ignore[no-any-return]


def decoder(run: Run, *, rate: float = 1e-3, warm_up: int = 100, restarts: bool = False) -> None:
    model, chains = Decoder(), Chains()
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.1)
    if restarts:
        schedule = CosineAnnealingWarmRestarts(optimizer, max(1, run.steps // 7), 2)
    else:
        schedule = warmed(optimizer, warm_up, lambda step: 0.5 * (1 + math.cos(math.pi * step / run.steps)))  # type: ignore[assignment]

    def loss() -> Tensor:
        tokens = chains(16)
        return functional.cross_entropy(model(tokens[:, :-1]).mT, tokens[:, 1:])

    fitted(run, model, loss, optimizer, schedule=schedule, limit=1.0)


def bert(run: Run, *, warm_up: int = 100) -> None:
    """A masked language model with its norms last."""
    width = 32
    words, places = nn.Embedding(WORDS + 1, width), nn.Embedding(LENGTH, width)
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = nn.ModuleDict({"words": words, "places": places, "encoder": encoder, "head": nn.Linear(width, WORDS)})
    chains = Chains()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)

    def loss() -> Tensor:
        tokens = chains(16)
        hidden = torch.rand(tokens.shape) < 0.15
        x = words(tokens.masked_fill(hidden, WORDS)) + places.weight
        labels = tokens.masked_fill(~hidden, -100)
        return functional.cross_entropy(model["head"](encoder(x)).mT, labels)

    schedule = warmed(optimizer, warm_up, lambda step: 1 - step / (run.steps + 1))
    fitted(run, model, loss, optimizer, schedule=schedule, limit=1.0)


class T5(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS + 1, width), nn.Parameter(0.1 * torch.randn(9, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, 1, nn.LayerNorm(width), enable_nested_tensor=False)
        self.body = nn.Transformer(
            width, 4, 1, 1, 2 * width, 0.0, custom_encoder=encoder, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, WORDS, bias=False)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        one, other = (self.words(t) + self.places[: t.shape[1]] for t in (source, target))
        return self.head(self.body(one, other, tgt_mask=mask, tgt_is_causal=True))  # type: ignore[no-any-return]


def t5(run: Run, *, rate: float = 1e-2) -> None:
    """A sequence is given back in reverse: Adafactor, and a rate of one over the root of the step."""
    model = T5()
    optimizer = torch.optim.Adafactor(model.parameters(), rate)
    schedule = warmed(optimizer, 50, lambda step: math.sqrt(50 / max(50, step)))

    def loss() -> Tensor:
        source = torch.randint(WORDS, (16, 8))
        target = source.flip(1)
        begun = torch.cat([torch.full((16, 1), WORDS), target[:, :-1]], 1)
        return functional.cross_entropy(model(source, begun).mT, target)

    fitted(run, model, loss, optimizer, schedule=schedule)


class Recurrent(nn.Module):
    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.lstm, self.head = nn.LSTM(width, width, 2, dropout=0.2, batch_first=True), nn.Linear(width, WORDS)


def lstm(run: Run, *, rate: float = 10.0, limit: float = 0.25) -> None:
    """A word model as of old: plain SGD at a large rate, clipped hard, its state handed on from batch to batch."""
    model, chains = Recurrent(), Chains()
    text = chains(8, LENGTH * 64)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    state: list[tuple[Tensor, Tensor] | None] = [None]
    place = [0]

    def loss() -> Tensor:
        if place[0] + LENGTH + 1 > text.shape[1]:
            place[0], state[0] = 0, None
        part = text[:, place[0] : place[0] + LENGTH + 1]
        place[0] += LENGTH
        out, last = model.lstm(model.words(part[:, :-1]), state[0])
        state[0] = (last[0].detach(), last[1].detach())
        return functional.cross_entropy(model.head(out).mT, part[:, 1:])

    schedule = ExponentialLR(optimizer, 0.1 ** (1 / run.steps))
    fitted(run, model, loss, optimizer, schedule=schedule, limit=limit)


def gru_packed(run: Run) -> None:
    """Is the first word the last one as well? Sequences of all lengths, packed."""
    words, gru, head = nn.Embedding(WORDS, 16), nn.GRU(16, 32, batch_first=True), nn.Linear(32, 2)
    model = nn.ModuleDict({"words": words, "gru": gru, "head": head})

    def loss() -> Tensor:
        tokens, lengths = torch.randint(WORDS, (32, 10)), torch.randint(3, 11, (32,))
        labels = tokens[:, 0] % 2
        packed = pack_padded_sequence(words(tokens), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(gru(packed)[0], batch_first=True)
        return functional.cross_entropy(head(out[torch.arange(32), lengths - 1]), labels)

    fitted(run, model, loss, torch.optim.RMSprop(model.parameters(), 2e-3), limit=1.0)


def word2vec(run: Run) -> None:
    """Skip-grams with negative samples, sparse gradients and SparseAdam."""
    centre, around, chains = nn.Embedding(WORDS, 8, sparse=True), nn.Embedding(WORDS, 8, sparse=True), Chains()
    model = nn.ModuleDict({"centre": centre, "around": around})

    def loss() -> Tensor:
        text = chains(32, 4)
        one, other, not_it = text[:, :-1].flatten(), text[:, 1:].flatten(), torch.randint(WORDS, (96, 4))
        near = (centre(one) * around(other)).sum(-1)
        far = (centre(one)[:, None] * around(not_it)).sum(-1)
        return functional.softplus(-near).mean() + functional.softplus(far).sum(1).mean()

    fitted(run, model, loss, torch.optim.SparseAdam(list(model.parameters()), 1e-2))


class Experts(nn.Module):
    """Two of four experts for each word, and a loss that balances them (Shazeer et al. 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words, self.router, self.head = (
            nn.Embedding(WORDS, width),
            nn.Linear(width, 4),
            nn.Linear(width, WORDS),
        )
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)) for _ in range(4)
        )

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.words(tokens).flatten(0, 1)
        shares = self.router(x).softmax(-1)
        weights, chosen = shares.topk(2)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, which = (chosen == number).nonzero(as_tuple=True)
            out = out.index_add(0, rows, weights[rows, which, None] * expert(x[rows]))
        used = functional.one_hot(chosen, 4).float().sum(1).mean(0)
        return self.head(x + out), 4 * (used * shares.mean(0)).sum()


def experts(run: Run) -> None:
    model, chains = Experts(), Chains()

    def loss() -> Tensor:
        tokens = chains(16)
        logits, balance = model(tokens[:, :-1])
        return functional.cross_entropy(logits, tokens[:, 1:].flatten()) + 0.01 * balance

    fitted(run, model, loss, torch.optim.AdamW(model.parameters(), 2e-3), limit=1.0)
