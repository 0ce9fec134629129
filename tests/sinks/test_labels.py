from hypothesis import given
from hypothesis import strategies as st

from gradwatch.sinks.labels import LONGEST, label


def test_what_can_be_shown_stays_as_it_is():
    for name in ("", "mlp.0", "größe", 'a"b\\c\n', "x" * LONGEST):
        assert label(name) == name


def test_names_that_begin_alike_are_told_apart():
    assert label("x" * 2000 + "a") != label("x" * 2000 + "b")


@given(st.text(st.characters()))
def test_any_text_becomes_one_that_utf8_holds_and_a_terminal_takes_for_text(text):
    shown = label(text).encode().decode()
    assert all(character.isprintable() or character == "\n" for character in shown)
