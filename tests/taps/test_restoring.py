"""What others have put in the place of torch's functions while a tracker was active stays there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import gradwatch


def tracker() -> gradwatch.Watch:
    return gradwatch.track(torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1))


def passing_on(inner: Any) -> Any:
    def other(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    return other


@pytest.mark.parametrize(
    ("owner", "name"), [(torch.autograd, "_engine_run_backward"), (torch.amp.GradScaler, "_maybe_opt_step")]
)
def test_a_function_that_another_has_replaced_since(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, getattr(owner, name))  # puts torch's own back at the end
    with tracker():
        other = passing_on(getattr(owner, name))
        setattr(owner, name, other)
    assert getattr(owner, name) is other


def test_a_closure_that_another_has_changed_since() -> None:
    code: Any = clip_grad_norm_
    cell = code.__closure__[code.__code__.co_freevars.index("func")]
    torchs = cell.cell_contents
    try:
        with tracker():
            other = cell.cell_contents = passing_on(cell.cell_contents)
        assert cell.cell_contents is other
        weight = nn.Parameter(torch.ones(4))
        weight.grad = torch.ones(4)
        assert float(clip_grad_norm_([weight], 1.0)) == 2.0
    finally:
        cell.cell_contents = torchs
