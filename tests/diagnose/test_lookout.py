"""What is seen of a backward pass as it begins, without anything being armed."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from gradwatch.diagnose import Diagnosis, Lookout
from gradwatch.diagnose.look.engine import runs
from tests.zoo.nets import batch


class Watched:
    """A linear layer, and a lookout that counts how often it is asked for a diagnosis."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Linear(4, 2)
        self.looks = 0
        self.wanted = True
        self.lookout = Lookout(self._diagnosis, lambda: self.wanted)

    def _diagnosis(self) -> Diagnosis:
        self.looks += 1
        return Diagnosis({"net": self.net})

    def found(self) -> dict[str, str]:
        parameters = {f"net.{name}": p for name, p in self.net.named_parameters()}
        return {name: cause.kind for name, cause in self.lookout.found(parameters).items()}

    def evidence(self, name: str = "net.weight") -> dict[str, float | int | str]:
        parameters = {f"net.{name}": p for name, p in self.net.named_parameters()}
        return dict(self.lookout.found(parameters)[name].evidence)


@pytest.fixture
def watched() -> Iterator[Watched]:
    one = Watched()
    runs.listen(one.lookout)
    yield one
    runs.stop_listening(one.lookout)


def test_a_finite_loss_is_not_looked_at(watched: Watched) -> None:
    watched.net(batch(3, 4)).square().mean().backward()
    assert watched.looks == 0
    assert watched.found() == {}


def test_a_loss_that_is_not_finite_is_looked_at_while_its_graph_is_whole(watched: Watched) -> None:
    torch.log(watched.net(batch(3, 4)) * torch.tensor([0.0, 1.0])).mean().backward()
    assert watched.looks == 1
    assert watched.found()["net.weight"] == "nonfinite-op"
    assert watched.evidence()["operation"] == "LogBackward0"


@pytest.mark.parametrize("scale", [1000, torch.tensor(1000), 1000.0])
def test_what_came_in_is_bounded_whatever_the_type_of_a_factor(watched: Watched, scale: object) -> None:
    before = watched.net(batch(3, 4)).square() * scale
    before.exp().mean().backward()
    assert watched.evidence()["operation"] == "ExpBackward0"
    assert watched.evidence()["input_at_most"] >= before.detach().max()


def test_a_softmax_over_nothing_but_masked_scores_makes_nan(watched: Watched) -> None:
    scores = watched.net(batch(3, 4)) + torch.full((3, 2), -math.inf)
    (scores.softmax(1) * torch.tensor([1.0, 2.0])).sum().backward()
    assert watched.evidence()["operation"] == "SoftmaxBackward0"
    assert watched.evidence()["reason"] == "a constant was put into its input, as a mask is: look at that"


@pytest.mark.parametrize("of", [torch.sigmoid, torch.tanh, torch.exp, torch.cos])
def test_what_cannot_make_nan_is_not_blamed_for_one_that_was_written_unseen(
    watched: Watched, of: Callable[[Tensor], Tensor]
) -> None:
    out = watched.net(batch(3, 4))
    out.data[0] = math.nan
    of(out).mean().backward()
    assert watched.found()["net.weight"] == "nonfinite-loss"


def test_it_looks_once_until_it_is_told_to_forget(watched: Watched) -> None:
    for _ in range(2):
        (watched.net(batch(3, 4)).sum() * math.inf).backward()
    assert watched.looks == 1
    watched.lookout.forget()
    assert watched.found() == {}
    (watched.net(batch(3, 4)).sum() * math.inf).backward()
    assert watched.looks == 2


def test_it_does_not_look_where_nobody_wants_to_know(watched: Watched) -> None:
    watched.wanted = False
    (watched.net(batch(3, 4)).sum() * math.inf).backward()
    assert watched.looks == 0


@pytest.mark.parametrize(
    ("loss", "operation"),
    [
        (lambda out: (out * 0).square().sum().sqrt(), "SqrtBackward0"),
        (lambda out: (out * 0).square().sum().pow(0.5), "PowBackward0"),
        (lambda out: (out * 0).square().sum().pow(torch.tensor(0.5)), "PowBackward1"),
        (lambda out: torch.acos((out * 0 + 1).mean()), "AcosBackward0"),
    ],
)
def test_behind_a_finite_loss_the_only_operation_that_can_is_named(
    watched: Watched, loss: Callable[[Tensor], Tensor], operation: str
) -> None:
    loss(watched.net(batch(3, 4))).backward()
    assert watched.looks == 0
    assert watched.found() == {"net.weight": "nonfinite-op", "net.bias": "nonfinite-op"}
    assert watched.evidence()["operation"] == operation


def test_where_two_could_have_done_it_the_one_that_saved_the_proof_is_blamed(watched: Watched) -> None:
    out = watched.net(batch(3, 4))
    (torch.acos(out.sigmoid()).sum() + (out.sum() * 0).sqrt()).backward()
    assert set(watched.found().values()) == {"nonfinite-op"}
    assert watched.evidence()["operation"] == "SqrtBackward0"
    assert watched.evidence()["saved_result"] == 0.0


def test_nan_in_the_targets_that_a_where_keeps_from_the_loss(watched: Watched) -> None:
    target = torch.tensor([[1.0, math.nan]])
    off = (watched.net(batch(3, 4)) - target).pow(2)
    torch.where(target.isnan(), torch.zeros(()), off).sum().backward()
    assert watched.found()["net.weight"] == "nonfinite-op"
    assert watched.evidence()["operation"] == "PowBackward0"
    assert watched.evidence()["hidden_by"] == "WhereBackward0"
    assert "came in with data" in str(watched.evidence()["reason"])


def test_it_happens_in_a_later_pass_of_the_same_sort(watched: Watched) -> None:
    for scale in (1.0, 0.0):
        watched.lookout.forget()
        (watched.net(batch(3, 4)) * scale).square().sum().sqrt().backward()
    assert watched.evidence()["operation"] == "SqrtBackward0"


def test_of_a_graph_without_such_an_operation_nothing_is_kept(watched: Watched) -> None:
    watched.net(batch(3, 4)).square().mean().backward()
    watched.net(batch(3, 4)).exp().mean().backward()
    assert watched.lookout._witness._handles == []


def test_what_is_kept_is_let_go(watched: Watched) -> None:
    before = watched.net(batch(3, 4)).square().sum()
    held = weakref.ref(before)
    before.sqrt().backward()
    del before
    assert watched.lookout._witness._kept
    watched.lookout.forget()
    assert watched.lookout._witness._kept == []
    assert held() is None


def test_what_is_kept_off_zero_is_no_suspect(watched: Watched) -> None:
    out = watched.net(batch(3, 4))
    safe = out / out.square().sum(1, keepdim=True).clamp(min=1e-6)
    (safe * 0).square().sum().sqrt().backward()
    assert watched.evidence()["operation"] == "SqrtBackward0"


@pytest.mark.parametrize(
    "loss",
    [
        lambda out: (out - 1).square().mean().sqrt(),
        lambda out: (out - 1).std() * 2,
        lambda out: (out / (out.detach().abs() + 1)).sum(),
        lambda out: (out.square() + 1).log().mean(),
        lambda out: out.square().sum() / (out.abs().sum() + 1),
    ],
)
def test_what_the_loss_shows_to_be_innocent_is_not_blamed_for_a_hook(
    watched: Watched, loss: Callable[[Tensor], Tensor]
) -> None:
    out = watched.net(batch(3, 4))
    out.register_hook(lambda gradient: gradient * math.inf)
    loss(out).backward()
    assert watched.found()["net.weight"] == "unknown"
    assert watched.evidence()["suspects"] == "an overflow, or a hook"


def test_of_several_passes_one_that_began_with_zero_clears_nobody(watched: Watched) -> None:
    for scale in (1.0, 0.0, 1.0):
        (watched.net(batch(3, 4)) * scale).square().mean().sqrt().backward()
    assert watched.evidence()["operation"] == "SqrtBackward0"


def test_what_may_hide_its_infinity_from_the_loss_stays_the_suspect(watched: Watched) -> None:
    out = (watched.net(batch(3, 4)) * 0).sum()
    torch.where(out > 0, out.log(), out + 1).backward()
    assert watched.evidence()["operation"] == "LogBackward0"


def test_a_product_that_overflowed_in_half_precision_is_not_blamed_on_a_root(watched: Watched) -> None:
    with torch.autocast("cpu", torch.float16):
        out = watched.net(batch(3, 4))
    ((out.float() - 1).square().sum(1, keepdim=True).sqrt().tanh().sum() * 1e9).backward()
    assert watched.found()["net.weight"] == "unknown"
    assert watched.evidence()["suspects"] == "an overflow, or a hook"


class Log(torch.autograd.Function):
    """Not torch's: its slope is Inf for all that comes in."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * math.inf


def test_a_function_of_the_users_own_is_not_cleared_by_the_name_it_has(watched: Watched) -> None:
    Log.apply(watched.net(batch(3, 4)).abs().clamp(min=1e-9)).sum().backward()  # type: ignore[no-untyped-call]
    assert watched.found()["net.weight"] == "nonfinite-op"
    assert watched.evidence()["operation"] == "LogBackward"


def test_an_overflow_is_not_blamed_on_an_innocent_root(watched: Watched) -> None:
    """The loss is finite and immense: products may have overflowed on the way down."""
    with torch.no_grad():
        watched.net.weight.fill_(1e-12)
        watched.net.bias.zero_()
    loss = watched.net(torch.full((3, 4), 1e30)).square().sum().sqrt() * 1e12
    loss.backward()
    assert math.isfinite(loss.item())
    assert watched.found()["net.weight"] == "unknown"


def test_told_to_forget_it_holds_no_graph(watched: Watched) -> None:
    graph = weakref.ref(_backward_through_own_function(watched.net))
    assert graph() is not None
    watched.lookout.forget()
    assert graph() is None


class Own(torch.autograd.Function):
    """Python's own functions can be referred to weakly."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x.sum()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient.expand(3, 2)


def _backward_through_own_function(net: nn.Module) -> object:
    loss = Own.apply(net(batch(3, 4)))  # type: ignore[no-untyped-call]
    loss.backward()
    return loss.grad_fn


@pytest.mark.parametrize("passes", [1, 2])
def test_a_loss_of_ones_own_function_may_be_gone_by_the_step(watched: Watched, passes: int) -> None:
    torch.nn.init.zeros_(watched.net.weight)
    torch.nn.init.zeros_(watched.net.bias)
    for _ in range(passes):
        Own.apply(watched.net(batch(3, 4)).abs().sqrt()).backward()  # type: ignore[no-untyped-call]
    assert watched.found()["net.weight"] == "nonfinite-op"
    assert watched.evidence()["operation"] == "SqrtBackward0"


def test_what_is_transformed_or_many_numbers_is_left_alone(watched: Watched) -> None:
    torch.func.grad(lambda w: (w * math.inf).sum())(torch.ones(3))
    out = watched.net(batch(3, 4))
    (out * math.inf).backward(torch.ones(3, 2))
    assert watched.looks == 0
    assert watched.found() == {}
