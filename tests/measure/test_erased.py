"""What is told of passes whose gradients were erased before the step: lines of passes, and what must be lost.

``01`` is a pass that writes the columns 0 and 1, ``b01`` one that was called from another line, ``01+7`` one that writes
the column 7 of another optimizer too. ``-0`` erases column 0, ``move`` changes the weights.
"""

from __future__ import annotations

import pytest
import torch

from gradwatch.measure.erased import ErasedPasses

OWN, OTHER = 1, 2


def lost(line: str, first: bool = False) -> tuple[int, str]:
    passes, weights = ErasedPasses(), [torch.zeros(3)]
    if not first:
        passes.next_step()
    for word in line.split():
        if word == "move":
            weights[0].add_(1.0)
        elif word.startswith("-"):
            passes.erased(columns(word[1:]), weights)
        else:
            own, _, other = word.removeprefix("b").partition("+")
            everything = {(OWN, columns(own))} | ({(OTHER, columns(other))} if other else set())
            passes.wrote(word.startswith("b"), columns(own), frozenset(everything), weights)
    number, erased = passes.lost
    return number, "".join(map(str, erased))


def columns(digits: str) -> frozenset[int]:
    return frozenset(map(int, digits))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("01 -01 01", (1, "")),
        ("01 -01 01 -01 01 -01 01", (3, "")),
        # Those after the last that is erased are accumulated.
        ("01 01 -01 01 01", (2, "")),
        # One part is zeroed in each micro-batch.
        ("01 -0 01 -0 01", (2, "0")),
        # Of tasks that are accumulated over micro-batches, each head is zeroed before each of its passes.
        ("01 02 -1 01 -2 02", (2, "12")),
        # All is zeroed before each task, or what they share alone.
        ("01 -01 02", (1, "0")),
        ("01 -0 02 -0 03", (2, "0")),
        # Two optimizers of one net.
        ("01+7 -01 01+7", (1, "")),
        ("0+1 -0 0+2 -0 0+3", (2, "")),
    ],
)  # fmt: skip
def test_what_a_later_pass_of_the_same_sort_has_replaced_is_lost(line: str, told: tuple[int, str]) -> None:
    assert lost(line) == told


@pytest.mark.parametrize(
    "line",
    [
        "01 01 01",
        # A generator's loss runs through the discriminator, which then gets its own; with one optimizer or two.
        "01 -1 1",
        "1+7 -1 1",
        # Of it the features alone, or two generators, each behind a zero_grad().
        "01 -1 12",
        "02 -2 12 -2 2",
        # From another line, with other weights, or not written anew.
        "01 -0 b01",
        "01 move -0 01",
        "01 move -0 01 -0 01",
        "01 -0 1",
        "01 -01 2",
    ],
)
def test_what_the_loop_may_mean_is_not_lost(line: str) -> None:
    assert lost(line) == (0, "")


def test_of_the_step_in_which_it_is_made_nothing_is_known() -> None:
    assert lost("01 -01 01", first=True) == (0, "")


def test_it_says_whether_anything_was_erased() -> None:
    passes, weights = ErasedPasses(), [torch.zeros(3)]
    assert passes.next_step()
    assert not passes.next_step()
    passes.wrote(0, (0,), None, weights)
    passes.erased((1,), weights)
    assert not passes.next_step()
    passes.wrote(0, (0,), None, weights)
    passes.erased((0,), weights)
    assert passes.next_step()
