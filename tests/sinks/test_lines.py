"""The lines of a block are those of its records."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.blocks import Block
from gradwatch.sinks.encoding import line
from gradwatch.sinks.lines import BlockLines
from tests import odd_blocks
from tests.blocks import made_up_blocks


def of_records(block):
    return [line("step", record) for record in block]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=60)
@given(st.lists(odd_blocks.blocks(), min_size=1, max_size=3))
def test_of_any_blocks(blocks):
    lines = BlockLines()
    for block in blocks:
        assert lines.of(block) == of_records(block)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("most", [0, 3, 64])
def test_of_runs_in_which_everything_happens_however_many_forms_there_is_room_for(seed, most, monkeypatch):
    monkeypatch.setattr(BlockLines, "MOST_FORMS", most)
    lines = BlockLines()
    for block in made_up_blocks(seed, 200):
        assert lines.of(block) == of_records(block)


def test_no_record_is_made_of_what_is_as_it_was(monkeypatch):
    blocks = [block for block in made_up_blocks(3, 400) if all(row.facts.as_usual for row in block.rows)]
    lines, made = BlockLines(), []
    for block in blocks:
        lines.of(block)
    original = Block._record
    monkeypatch.setattr(Block, "_record", lambda self, index: made.append(index) or original(self, index))
    for block in blocks:
        lines.of(block)
    by_record = [
        bool(bad) or row.compared is not None
        for block in blocks
        for bad, row in zip(block.nonfinite, block.rows, strict=True)
    ]
    assert len(made) == sum(by_record) < len(by_record) / 4
