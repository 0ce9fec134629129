"""A small BERT that leaves its plateau while its rate is warmed up: by layers, length of the warm-up, and clipping."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from tests.healthy.run import Run, Workload

__all__ = ["WARM_UPS"]

STEPS = 500


def _train(run: Run, *, layers: int, warm_up: int, limit: float | None) -> None:
    """From its own initialisation it is to tell four topics apart."""
    from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

    config = BertConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
        num_labels=4,
    )
    model = BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = get_linear_schedule_with_warmup(optimizer, warm_up, STEPS)
    data = _batches(run.seed)
    with run.track(optimizer, model):
        for _ in range(run.steps):
            optimizer.zero_grad()
            loss = model(**next(data)).loss
            loss.backward()
            if limit is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            schedule.step()
            run.reached.append(loss.item())


def _batches(seed: int) -> Iterator[dict[str, Tensor]]:
    """Sentences of 6 to 16 words, half of them of the topic's own 25, the others of all 100."""
    chance = torch.Generator().manual_seed(100 + seed)
    while True:
        topics = torch.randint(0, 4, (16,), generator=chance)
        words = torch.randint(1, 25, (16, 16), generator=chance) + 25 * topics[:, None]
        own = torch.rand(16, 16, generator=chance) < 0.5
        words = torch.where(own, torch.randint(1, 100, (16, 16), generator=chance), words)
        mask = (torch.arange(16)[None] < torch.randint(6, 17, (16,), generator=chance)[:, None]).long()
        yield {"input_ids": words * mask, "attention_mask": mask, "labels": topics}


WARM_UPS = [
    Workload(
        f"bert-{layers}-warm-up-{warm_up}{'' if limit else '-unclipped'}",
        STEPS,
        partial(_train, layers=layers, warm_up=warm_up, limit=limit),
        "loss",
    )
    for layers in (4, 6)
    for warm_up in (50, 100, 200, 400)
    for limit in (1.0, None)
]
