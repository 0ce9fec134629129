"""Values of the vocabulary as JSON, byte for byte what ``json.dumps`` writes of them, without its detours.

Numbers that JSON lacks become strings. What is the same in every line, the names, is written down once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

__all__ = ["BLANK", "encoded", "line"]


class _Blank:
    """Stands for a number that is filled in later."""


# Written as a character that JSON text cannot hold.
BLANK = _Blank()

_NO_JSON_NUMBER = {math.inf: '"Infinity"', -math.inf: '"-Infinity"'}

# Fields of a record that say again, by finer modules, what its parameters say.
_REPEATING = ("owners", "missing_owners")


def line(kind: str, value: Any, **further: Any) -> str:
    """The line of a run, a record or an alert: an object with its kind before its fields, further ones behind."""
    behind = "".join(f", {_quoted(name)}: {encoded(entry)}" for name, entry in further.items())
    return f'{{"kind": "{kind}", {_fields_of(value)}{behind}}}\n'


def encoded(value: Any) -> str:
    """The JSON of a value; what is no number at all is kept in words rather than lost with its line."""
    return _ENCODERS.get(type(value), _of_another_type)(value)


# Names come again and again; what an alert says is said once.
_LONGEST_NAME = 64


def _quoted(text: str) -> str:
    return _quoted_name(text) if len(text) <= _LONGEST_NAME else json.dumps(text)


@lru_cache(maxsize=1024)
def _quoted_name(text: str) -> str:
    # Escaped to ASCII, a name cannot hold what a reader takes for the end of a line, or what UTF-8 lacks.
    return json.dumps(text)


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else _NO_JSON_NUMBER.get(value, '"NaN"')


def _list(values: Sequence[Any]) -> str:
    return f"[{', '.join(map(encoded, values))}]" if values else "[]"


def _mapping(values: Mapping[Any, Any]) -> str:
    return f"{{{', '.join(f'{_quoted(str(name))}: {encoded(value)}' for name, value in values.items())}}}"


class _Form(NamedTuple):
    """The fields of a class, to be filled in."""

    words: str
    read: Callable[[Any], tuple[Any, ...]]


@lru_cache(maxsize=64)
def _form(kind: Any) -> _Form:
    names = [field.name for field in fields(kind) if field.name not in _REPEATING]
    return _Form(", ".join(f"{_in_a_form(name)}: %s" for name in names), attrgetter(*names))


def _fields_of(value: Any) -> str:
    words, read = _form(value.__class__)
    # What ``encoded`` does, without a call of its own for each field.
    return words % tuple([_ENCODERS.get(type(entry), _of_another_type)(entry) for entry in read(value)])


def _in_a_form(name: str) -> str:
    return _quoted(name).replace("%", "%%")


def _of_another_type(value: Any) -> str:
    if isinstance(value, (str, int)):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return _mapping(value)
    if hasattr(value, "_asdict"):
        return _mapping(value._asdict())
    if isinstance(value, (tuple, list)):
        return _list(value)
    if hasattr(value, "__dataclass_fields__"):
        return f"{{{_fields_of(value)}}}"
    try:
        # A number of numpy, say.
        return _number(float(value))
    except (TypeError, ValueError):
        return json.dumps(str(value))


_ENCODERS: Mapping[type, Callable[[Any], str]] = {
    float: _number,
    str: _quoted,
    int: repr,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    tuple: _list,
    list: _list,
    dict: _mapping,
    _Blank: lambda _: "\0",
}
