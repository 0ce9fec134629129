"""Blocks of steps that no training loop made, with everything in them that a step can have."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradwatch.blocks import Block, Facts, Layout, NotedClip, StepRow

NAMES = ("mlp.weight", 'odd %s "name"\n', "net.\ud800", "head")

_norms = st.sampled_from([0.0, 1.0, 0.1, 5e-324, 1e-200, 1e300, float("inf"), float("nan")]) | st.floats(0, 1e6)
_optional = st.none() | st.floats()


@st.composite
def layouts(draw: Any, optimizer: str = "actor") -> Layout:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    everything = np.arange(len(names))
    lines = {"mlp": everything[:1], "100 %": everything, **draw(st.sampled_from([{}, {"last": everything[-1:]}]))}
    owners = {name: everything[place : place + 1] for place, name in enumerate(names)}
    return Layout(optimizer, names, lines, owners, np.full(len(names), 1e-7))


def _facts(columns: int) -> Any:
    flags = st.lists(st.booleans(), min_size=columns, max_size=columns).map(np.array)
    odd = st.builds(Facts, *[flags] * 8)
    return st.just(Facts.usual(columns)) | odd


def _clips(columns: int) -> Any:
    which = st.sampled_from([np.arange(columns), np.arange(1), np.arange(0)])
    repeated = st.sampled_from([(), (0,)])
    function = st.sampled_from(["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_"])
    return st.builds(NotedClip, function, st.floats(0), _optional, _optional, which, repeated)


@st.composite
def blocks(draw: Any, optimizer: str = "actor") -> Block:
    layout = draw(layouts(optimizer))
    columns = len(layout.names)
    rows = []
    for step in range(1, 1 + draw(st.integers(1, 4))):
        rows.append(
            StepRow(
                step,
                1_700_000_000.0 + draw(st.floats(0, 200)),
                draw(_facts(columns)),
                draw(st.integers(0, 3)),
                tuple(draw(st.lists(_clips(columns), max_size=2))),
                draw(st.booleans()),
                draw(st.none() | st.integers(0, 1 << 40)),
                draw(_optional),
                draw(st.sampled_from([None, {"mlp": ("a", "b")}])),
                draw(st.sampled_from([None, "critic"])),
            )
        )
    numbers = st.lists(_norms, min_size=len(rows) * columns, max_size=len(rows) * columns)
    before, after = (np.array(draw(numbers)).reshape(len(rows), columns) for _ in range(2))
    return Block(layout, rows, before, after)
