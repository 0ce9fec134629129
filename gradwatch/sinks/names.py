"""Names in as many cells as there are, so that two that differ are still told apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile

from gradwatch.printing import printable

__all__ = ["fitted", "shortened"]

# With what separates it from the next.
_PART = re.compile(r"[^._/]+[._/]*|[._/]+")


def shortened(text: str, width: int, gap: str = "…") -> str:
    """What fits into some cells: of what is longer the beginning and, at twice that length, the end."""
    from rich.cells import cell_len, chop_cells, set_cell_size

    # A row is one line, and what a user has called a module is no command to the terminal.
    text = printable(text).replace("\n", "\\n")
    if cell_len(text) <= width:
        return text
    kept = max(width - cell_len(gap), 0)
    head = set_cell_size(text, kept // 3)
    tail = ""
    for character in reversed(text):
        if cell_len(character + tail) > kept - kept // 3:
            break
        tail = character + tail
    return chop_cells(f"{head}{gap}{tail}", width)[0] if width else ""


# A screen is drawn several times a second, of the same names.
@lru_cache(maxsize=64)
def fitted(names: tuple[str, ...], room: int, gap: str = "…") -> Mapping[str, str]:
    """Each as it is shown in so many cells.

    Where one is too long, the parts that it and all of its kin begin and end with are left out; then the longest
    parts are cut. What is alike after that is numbered.
    """
    cut = {name: _cut(short, room, gap) for name, short in _without_common(names, room, gap).items()}
    alike = Counter(cut.values())
    told = Counter[str]()
    for name, text in cut.items():
        if alike[text] > 1:
            told[text] += 1
            mark = f"{gap}{told[text]}"
            cut[name] = shortened(text, max(room - len(mark), 0), gap) + mark
    return cut


def _without_common(names: tuple[str, ...], room: int, gap: str) -> dict[str, str]:
    from rich.cells import cell_len

    paths = {name: _PART.findall(name) for name in names}
    # The kin of a name that is too long begin as it does.
    firsts = {path[0] for name, path in paths.items() if cell_len(name) > room}
    kin = {name: path for name, path in paths.items() if firsts.intersection(path[:1])}
    if len(kin) < 2:
        return {name: name for name in names}
    least = min(map(len, kin.values())) - 1
    begin = _in_common(list(kin.values()), least)
    end = _in_common([path[::-1] for path in kin.values()], least - begin)
    bare = {
        name: (gap if begin else "") + "".join(path[begin : len(path) - end]).strip("._/") + (gap if end else "")
        for name, path in kin.items()
    }
    return {name: bare.get(name, name) for name in names}


def _in_common(paths: Sequence[Sequence[str]], most: int) -> int:
    """How many parts all begin with."""
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return min(sum(1 for _ in alike), most)


def _cut(name: str, room: int, gap: str) -> str:
    """Its parts cut in the middle, the longest most, as long as something is left of each."""
    from rich.cells import cell_len

    name = shortened(name, cell_len(printable(name)) * 2, gap)
    parts = name.split(".")
    for most in range(max(map(cell_len, parts)), len(gap) + 1, -1):
        short = ".".join(shortened(part, most, gap) for part in parts)
        if cell_len(short) <= room:
            return short
    return shortened(name, room, gap)
