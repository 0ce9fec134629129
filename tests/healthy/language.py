"""A small GPT learns English, letter by letter, from the language reference that comes with Python."""

from __future__ import annotations

from pydoc_data.topics import topics

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, get_cosine_schedule_with_warmup

from tests.healthy.run import Run

__all__ = ["gpt"]

LENGTH, BATCH, WARM_UP = 32, 16, 200


def gpt(
    run: Run,
    *,
    rate: float = 1e-3,
    limit: float | None = 1.0,
    accumulated: int = 1,
    precision: torch.dtype = torch.float32,
) -> None:
    text, letters = encoded("\n".join(topics.values()))
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=letters,
            n_positions=LENGTH,
            n_embd=32,
            n_layer=2,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    model.loss_type = "ForCausalLM"  # which it is anyway, and says so at the first loss
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(WARM_UP, run.steps // 10), run.steps)
    with run.track(optimizer, model):
        for _ in range(run.steps):
            losses = []
            for _ in range(accumulated):
                batch = drawn(text)
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                    loss = model(input_ids=batch, labels=batch).loss
                (loss / accumulated).backward()
                losses.append(loss.item())
            if limit is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            run.reached.append(sum(losses) / accumulated)


def encoded(text: str) -> tuple[Tensor, int]:
    """The text as numbers of letters, and how many letters there are."""
    number = {letter: i for i, letter in enumerate(sorted(set(text)))}
    return torch.tensor([number[letter] for letter in text]), len(number)


def drawn(text: Tensor) -> Tensor:
    starts = torch.randint(len(text) - LENGTH, (BATCH, 1))
    return text[starts + torch.arange(LENGTH)]
