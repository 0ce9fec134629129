"""The highest module that is ill as a whole."""

from __future__ import annotations

import pytest

from gradwatch.paths import highest

BLOCKS = [f"net.h.{block}.{part}" for block in range(2) for part in ("attn", "mlp.fc", "mlp.out")]
NET = ["net.wte", *BLOCKS, "net.head"]


@pytest.mark.parametrize(
    ("ill", "told"),
    [
        ([], []),
        (["net.wte"], ["net.wte"]),
        (["net.h.0.mlp.fc"], ["net.h.0.mlp.fc"]),
        (["net.h.0.mlp.fc", "net.h.0.mlp.out"], ["net.h.0.mlp"]),
        (BLOCKS[:3], ["net.h.0"]),
        (BLOCKS, ["net.h"]),
        ([*BLOCKS, "net.head"], ["net.h", "net.head"]),
        (["net.head", *BLOCKS[1:3]], ["net.head", "net.h.0.mlp"]),
        (NET, ["net"]),
    ],
)
def test_in_one_line(ill: list[str], told: list[str]) -> None:
    assert highest(ill, NET, ["net"]) == told


def test_a_chain_is_told_at_its_top() -> None:
    owners = ["net.outer.inner.layer", "net.head"]
    assert highest(owners[:1], owners, ["net"]) == ["net.outer"]


def test_never_above_a_line() -> None:
    lines = ["net.wte", "net.h.0", "net.h.1", "net.head"]
    assert highest(NET, NET, lines) == lines
    assert highest(BLOCKS, NET, lines) == ["net.h.0", "net.h.1"]


def test_what_a_module_owns_itself() -> None:
    owners = ["net.attn", "net.attn.out", "net.head"]
    assert highest(["net.attn"], owners, ["net"]) == ["net.attn"]
    assert highest(["net.attn.out"], owners, ["net"]) == ["net.attn.out"]
    assert highest(["net.attn", "net.attn.out"], owners, ["net"]) == ["net.attn"]


def test_the_parts_of_a_lone_model() -> None:
    owners = ["(root)", "body.0", "body.1", "head"]
    assert highest(owners, owners, ["(root)", "body", "head"]) == ["(root)", "body", "head"]


def test_lines_whose_names_have_dots_or_begin_alike() -> None:
    owners = ["a.b", "a.b.0", "a.bc.0"]
    assert highest(["a.b", "a.b.0"], owners, ["a.b", "a.bc"]) == ["a.b"]
    assert highest(["a.bc.0"], owners, ["a.b", "a.bc"]) == ["a.bc"]


def test_lines_that_overlap() -> None:
    owners = ["net.0", "net.1", "inner"]
    assert highest(["net.0", "inner"], owners, ["net", "inner"]) == ["net.0", "inner"]
