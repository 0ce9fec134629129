"""Recurrent nets, packing, embeddings that are tied or resized, and losses over sequences, with repaired twins."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.zoo.faults_nonfinite import GoingBack, bad
from tests.zoo.nets import norm, optimized, silent
from tests.zoo.registry import Verdict, fault_and_repair
from tests.zoo.run import Run


@fault_and_repair(Verdict("zero", "masked", module="lstm"), Verdict("zero", "masked", module="words"))
def last_step_of_a_padded_sequence(run: Run, fixed: bool) -> None:
    """``output[:, -1]`` of sequences that are all shorter than ``total_length``: nothing but padding."""
    words, lstm, head = nn.Embedding(12, 6), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 2)

    def loss() -> Tensor:
        tokens, lengths = torch.randint(12, (8, 6)), torch.randint(2, 6, (8,))
        packed = pack_padded_sequence(words(tokens), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=7)
        last = out[torch.arange(8), lengths - 1] if fixed else out[:, -1]
        return functional.cross_entropy(head(last), tokens[:, 0] % 2)

    parts: dict[str, nn.Module] = {"words": words, "lstm": lstm, "head": head}
    optimized(run, parts, loss, lambda: silent(lstm) and norm(head) > 0)


@fault_and_repair(Verdict("zero", "detached", module="encoder"), Verdict("zero", "detached", module="source"))
def state_of_the_encoder_not_handed_on(run: Run, fixed: bool) -> None:
    """Sequence to sequence: the encoder is called, and the decoder starts from nothing all the same."""
    source, encoder = nn.Embedding(10, 6), nn.GRU(6, 8, batch_first=True)
    target, decoder, head = nn.Embedding(10, 6), nn.GRU(6, 8, batch_first=True), nn.Linear(8, 10)

    def loss() -> Tensor:
        tokens = torch.randint(10, (8, 5))
        _, state = encoder(source(tokens))
        out, _ = decoder(target(tokens[:, :-1]), state if fixed else None)
        return functional.cross_entropy(head(out).mT, tokens[:, 1:])

    parts = {"source": source, "encoder": encoder, "target": target, "decoder": decoder, "head": head}
    optimized(run, parts, loss, lambda: silent(encoder) and norm(decoder) > 0)  # type: ignore[arg-type]


@fault_and_repair(
    Verdict("zero", "saturated-sigmoid", module="lstm"), Verdict("zero", "saturated-sigmoid", module="words")
)
def gates_shut_by_a_chrono_bias(run: Run, fixed: bool) -> None:
    """A bias meant for the forget gate was set on the output gate, and with the wrong sign."""
    words, lstm, head = nn.Embedding(12, 6), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 2)
    with torch.no_grad():
        if fixed:
            lstm.bias_ih_l0[8:16] = 3.0
        else:
            lstm.bias_ih_l0[24:] = -300.0

    def loss() -> Tensor:
        tokens = torch.randint(12, (8, 6))
        return functional.cross_entropy(head(lstm(words(tokens))[0][:, -1]), tokens[:, 0] % 2)

    parts: dict[str, nn.Module] = {"words": words, "lstm": lstm, "head": head}
    optimized(run, parts, loss, lambda: silent(lstm) and norm(head) > 0)


class Tied(nn.Module):
    """A language model whose last layer is its embedding."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words, self.body = nn.Embedding(words, 8), nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.words(tokens))[0])  # type: ignore[no-any-return]

    def resize(self, words: int) -> None:
        old = self.words.weight.data
        self.words = nn.Embedding(words, 8)
        self.words.weight.data[: len(old)] = old
        self.head.weight = self.words.weight


@fault_and_repair(Verdict("zero", "not-in-optimizer", module="words", severity="warning"), also=("zero",))
def embedding_resized_after_the_optimizer_was_made(run: Run, fixed: bool) -> None:
    """New tokens were added: the optimizer still holds the old embedding, which is that of the head as well."""
    net = Tied(10)
    if fixed:
        net.resize(12)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    if not fixed:
        net.resize(12)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}

    def loss() -> Tensor:
        tokens = torch.randint(12, (8, 6))
        return functional.cross_entropy(net(tokens[:, :-1]).mT, tokens[:, 1:])

    parts: dict[str, nn.Module] = {"words": net.words, "body": net.body} if fixed else dict(net.named_children())
    if not fixed:
        del parts["head"]
    with run.track(optimizer, nn.ModuleDict(parts)):
        for _ in run.steps(40):
            optimizer.zero_grad()
            loss().backward()
            run.fault(id(net.words.weight) not in held and norm(net.words) > 0)
            optimizer.step()


@fault_and_repair(Verdict("zero", "detached", module="positions", where=("positions",)))
def positions_kept_as_numbers(run: Run, fixed: bool) -> None:
    """A table of positions is cached at the first call, without its graph."""
    words, positions, head = nn.Embedding(12, 6), nn.Embedding(5, 6), nn.Linear(6, 12)
    cache: list[Tensor] = []

    def loss() -> Tensor:
        tokens, where = torch.randint(12, (8, 5)), positions(torch.arange(5))
        if not fixed:
            cache[:] = cache or [where.detach()]
            where = cache[0]
        return functional.cross_entropy(head(torch.tanh(words(tokens) + where)).mT, tokens.roll(1, 1))

    parts: dict[str, nn.Module] = {"words": words, "positions": positions, "head": head}
    optimized(run, parts, loss, lambda: silent(positions) and norm(words) > 0)


@fault_and_repair(
    Verdict("nonfinite", "nonfinite-op", where=("CtcLossBackward0",), remedy=("zero_infinity", "length")),
    also=("zero",),
)
def alignment_of_more_labels_than_frames(run: Run, fixed: bool) -> None:
    """CTC: after two strides a short recording has fewer frames than its transcript has letters."""
    net = nn.Linear(6, 5)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    going_back = GoingBack(net, optimizer)
    with run.track(optimizer, {"net": net}):
        for step in run.steps(30):
            frames = torch.randn(8, 4, 6)
            labels, lengths = torch.randint(1, 5, (4, 5)), torch.tensor([3, 3, 2, 5 if step % 8 == 7 else 2])
            optimizer.zero_grad()
            log_probabilities = net(frames).log_softmax(-1)
            given = torch.tensor([8, 8, 8, 3 if step % 8 == 7 else 8])
            functional.ctc_loss(log_probabilities, labels, given, lengths, zero_infinity=fixed).backward()
            run.fault(bad(net))
            going_back.step()


@fault_and_repair(Verdict("nonfinite", "nonfinite-op", where=("DivBackward0",)), also=("zero",))
def cross_entropy_of_a_batch_that_is_all_ignored(run: Run, fixed: bool) -> None:
    """Its mean over no label is 0 / 0: one batch in nine holds prompts only, and no label counts."""
    words, head = nn.Embedding(12, 8), nn.Linear(8, 12)
    net = nn.Sequential(words, nn.Tanh(), head)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    going_back = GoingBack(net, optimizer)
    with run.track(optimizer, net):
        for step in run.steps(30):
            tokens = torch.randint(12, (4, 5))
            counts = (torch.zeros if step % 9 == 8 else torch.ones)(4, 5)
            optimizer.zero_grad()
            each = functional.cross_entropy(net(tokens).mT, tokens, reduction="none")
            ((each * counts).sum() / counts.sum().clamp(min=float(fixed))).backward()
            run.fault(bad(net))
            going_back.step()
