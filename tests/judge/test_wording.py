"""How many times as large something is, in digits that are read at once."""

from __future__ import annotations

import pytest

from gradwatch.judge.wording import times


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (12.5, "12.5"),
        (999.4, "999"),
        (999.6, "1,000"),
        (20_712.0, "20,700"),
        (9.996e6, "1e+07"),
        (1.234e8, "1.23e+08"),
    ],
)
def test_three_digits_are_told_without_a_power_of_ten_as_long_as_they_can_be(ratio: float, said: str) -> None:
    assert times(ratio) == said
