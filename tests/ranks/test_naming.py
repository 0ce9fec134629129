"""A model that is trained by many processes is told of as if there were one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ranks.launch import RECENT, run_ranks
from tests.ranks.naming import NAMING, plain


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    names = [name for name in NAMING if RECENT or name != "in_parts"]
    returned = run_ranks(1, [f"tests.ranks.naming:{name}" for name in names])
    return {name.partition(":")[2]: by_rank[0] for name, by_rank in returned.items()}


@pytest.mark.parametrize("name", [name for name in NAMING if name != "in_one"])
def test_as_if_it_were_not_wrapped(told: dict[str, Any], name: str) -> None:
    if name not in told:
        pytest.skip("torch 2.6 itself cannot do this on a CPU")
    seen, unwrapped = told[name], plain()
    assert not isinstance(seen, str), seen
    seen["lines"] = {line: kind.removeprefix("FSDP") for line, kind in seen["lines"].items()}
    assert seen == unwrapped


def test_parameters_in_one_are_those_of_what_was_wrapped(told: dict[str, Any]) -> None:
    assert told["in_one"] == {
        "names": ["_flat_param", "wide._flat_param"],
        "lines": {"(root)": "Net", "wide": "Linear"},
        "owners": ["(root)", "wide"],
    }
