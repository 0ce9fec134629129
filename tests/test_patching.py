"""A name or a closure is replaced while somebody listens, and is itself again afterwards."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from gradwatch.patching import Patch, Replacement, not_counted, replace_in_cell, replace_name, untraced


def original() -> str:
    return "original"


def shim() -> str:
    return "shim"


def other() -> str:
    return "other"


class Place:
    """A name that can be replaced, and how often that was done."""

    def __init__(self) -> None:
        self.owner = SimpleNamespace(name=original, another=original)
        self.installed = 0
        self.patch: Patch[str] = Patch(self._install)

    def _install(self) -> Iterable[Replacement]:
        self.installed += 1
        yield replace_name(self.owner, "name", shim)
        yield replace_name(self.owner, "another", shim)

    @property
    def now(self) -> list[str]:
        return [self.owner.name(), self.owner.another()]


def test_the_first_listener_installs_and_the_last_one_restores() -> None:
    place = Place()
    place.patch.listen("a")
    place.patch.listen("b")
    assert (place.patch.listeners, place.now, place.installed) == (("a", "b"), ["shim"] * 2, 1)
    place.patch.stop_listening("a")
    assert place.now == ["shim"] * 2
    place.patch.stop_listening("b")
    assert (place.patch.listeners, place.now) == ((), ["original"] * 2)
    place.patch.listen("c")
    assert (place.now, place.installed) == (["shim"] * 2, 2)


def test_who_does_not_listen_can_stop() -> None:
    place = Place()
    place.patch.stop_listening("a")
    place.patch.listen("a")
    place.patch.stop_listening("b")
    assert place.now == ["shim"] * 2


def test_a_shim_may_walk_the_listeners_while_others_come_and_go() -> None:
    place = Place()
    place.patch.listen("a")
    place.patch.listen("b")
    seen = []
    for listener in place.patch.listeners:
        place.patch.stop_listening("b")
        seen.append(listener)
    assert seen == ["a", "b"]


def test_equal_listeners_are_told_apart() -> None:
    class Alike:
        def __eq__(self, _: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    patch: Patch[Any] = Patch(tuple)
    one, twin = Alike(), Alike()
    patch.listen(one)
    patch.listen(twin)
    patch.stop_listening(twin)
    assert [listener is one for listener in patch.listeners] == [True]


def test_what_another_has_replaced_since_stays() -> None:
    place = Place()
    place.patch.listen("a")
    place.owner.name = other
    place.patch.stop_listening("a")
    assert place.now == ["other", "original"]


def test_what_another_has_removed_since_stays_away() -> None:
    place = Place()
    place.patch.listen("a")
    del place.owner.name
    place.patch.stop_listening("a")
    assert not hasattr(place.owner, "name")


def test_a_name_that_is_only_inherited_is_not_replaced() -> None:
    class Base:
        def name(self) -> str:
            return "base"

    class Derived(Base):
        pass

    with pytest.raises(KeyError):
        replace_name(Derived, "name", shim)


def test_what_a_closure_holds_is_replaced_for_every_alias_and_put_back() -> None:
    def closed(held: Any) -> Any:
        return lambda: held()

    alias = function = closed(original)
    cell = function.__closure__[0]
    replacement = replace_in_cell(cell, shim)
    replacement.take_back()
    assert alias() == "original"
    replacement.put()
    assert alias() == "shim"
    replacement.take_back()
    replacement.take_back()
    assert alias() == "original"
    replacement.put()
    cell.cell_contents = other
    replacement.take_back()
    assert alias() == "other"


def test_threads_come_and_go_and_nothing_is_left() -> None:
    place = Place()

    def work(name: str) -> None:
        for _ in range(200):
            place.patch.listen(name)
            assert name in place.patch.listeners
            place.patch.stop_listening(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (place.patch.listeners, place.now) == ((), ["original"] * 2)


def test_what_is_untraced_works_as_before() -> None:
    def double(number: int) -> int:
        return number * 2

    assert untraced(double)(4) == 8


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is counted no more")
def test_what_is_not_counted_is_in_no_stack_level() -> None:
    @not_counted
    def between() -> None:
        warnings.warn("of the caller", stacklevel=2)

    def caller() -> int:
        between()
        return sys._getframe().f_lineno - 1

    with pytest.warns(UserWarning, match="of the caller") as seen:
        line = caller()
    assert (seen[0].filename, seen[0].lineno) == (__file__, line)


def test_what_is_called_a_thousand_times_leaves_none_as_many_references() -> None:
    function = untraced(lambda: None)
    function()
    before = sys.getrefcount(None)
    for _ in range(1000):
        function()
    assert abs(sys.getrefcount(None) - before) < 100
