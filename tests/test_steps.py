"""Steps of several blocks: their records are made once, for whom reads them."""

import numpy as np
import pytest

from gradwatch.blocks import Block, Facts, Layout, StepRow, Steps
from gradwatch.records import StepRecord
from tests.made_up import record


def block(optimizer="actor", begins=1, length=3, columns=2):
    names = tuple(f"w{place}" for place in range(columns))
    layout = Layout(optimizer, names, {"mlp": np.arange(columns)}, {"mlp": np.arange(columns)}, np.zeros(columns))
    rows = [StepRow(step, float(step), Facts.usual(columns)) for step in range(begins, begins + length)]
    norms = np.arange(1.0, 1.0 + length * columns).reshape(length, columns)
    return Block(layout, rows, norms, norms / 2)


@pytest.fixture
def made(monkeypatch):
    """The steps whose records have been made."""
    seen = []
    original = Block._record
    monkeypatch.setattr(
        Block, "_record", lambda self, index: seen.append(self.rows[index].step) or original(self, index)
    )
    return seen


def both():
    one, other = block(), block("critic", length=2)
    return Steps([(one, 0), (other, 0), (one, 1), (other, 1), (one, 2)])


def test_steps_come_in_the_order_of_the_pairs():
    steps = both()
    assert [(r.optimizer, r.step) for r in steps] == [
        ("actor", 1),
        ("critic", 1),
        ("actor", 2),
        ("critic", 2),
        ("actor", 3),
    ]
    assert len(steps) == 5
    assert (steps[0].step, steps[-1].step) == (1, 3)
    assert isinstance(steps[0], StepRecord)


def test_no_record_is_made_before_it_is_read_and_none_twice(made):
    steps = Steps.joined([both(), Steps.of(block(begins=4))])
    assert len(steps) == 8
    assert list(steps.newest()) == ["actor", "critic"]
    assert made == []
    assert steps[1] is steps[1]
    assert made == [1]
    assert list(map(id, steps)) == list(map(id, steps))
    assert len(made) == 8


def test_an_index_beyond_the_end_is_refused():
    with pytest.raises(IndexError):
        both()[5]


def test_a_slice_is_of_the_same_kind_and_makes_nothing(made):
    last = both()[-2:]
    assert isinstance(last, Steps)
    assert made == []
    assert [r.step for r in last] == [2, 3]


def test_the_newest_of_each_optimizer_is_found_in_blocks_and_in_records():
    steps = Steps.joined([both(), Steps.of([record(7, optimizer="critic")])])
    assert {name: held[place].step for name, (held, place) in steps.newest().items()} == {"actor": 3, "critic": 7}


def test_a_record_holds_the_norms_of_its_own_step_alone():
    one = block()[1]
    assert dict(one.parameters) == {"w0": (3.0, 1.5), "w1": (4.0, 2.0)}
    assert one.modules == one.owners == {"mlp": (5.0, 2.5)}
    assert len(one.parameters._before) == 2
