"""Which tags belong together: before and after of one thing, a whole and its parts. Only names tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from gradwatch.audit.curves import EXACT, TORCH, Curve, Log, Norms, Parts, Precision, Side
from gradwatch.audit.events import Run
from gradwatch.audit.tags import Tag, is_about_gradients, read

__all__ = ["log_of"]

# What gradwatch has written into TensorBoard is exact but for the float32 there.
_OWN = Precision(relative=EXACT.relative + TORCH.written, absolute=TORCH.absolute, written=TORCH.written)

_WHEN: Mapping[Side, str] = {"before": "before", "after": "after", "": "(when is not said)"}

# Parts that are named in the sentence about their whole.
_MOST_PARTS = 6


@dataclass
class _Thing:
    """What is said of one thing, by role; a role that two tags claim is left to the first."""

    name: str
    sides: dict[Side, tuple[Tag, Curve]] = field(default_factory=dict)
    ratio: tuple[Tag, Curve] | None = None
    limit: tuple[Tag, Curve] | None = None
    sums: dict[Side, tuple[Tag, Curve]] = field(default_factory=dict)

    def take(self, tag: Tag, curve: Curve) -> bool:
        """Whether its place was free."""
        if tag.role in ("norm", "sum"):
            held = self.sides if tag.role == "norm" else self.sums
            return held.setdefault(tag.side, (tag, curve))[0] is tag
        if getattr(self, tag.role) is not None:
            return False
        setattr(self, tag.role, (tag, curve))
        return True

    @property
    def tags(self) -> list[Tag]:
        held = [*self.sides.values(), *self.sums.values(), *filter(None, (self.ratio, self.limit))]
        return [tag for tag, _ in held]

    @property
    def is_clipped(self) -> bool:
        """Whether it is what a clip was given: no part of something else."""
        return self.ratio is not None or self.limit is not None

    def may_be_whole_of(self, part: _Thing) -> bool:
        """By their names: ``actor`` of ``actor_cnn`` where actor is clipped or total, ``net`` of ``net.0``."""
        if part is self or part.is_clipped or not self.sides:
            return False
        pairs = [(mine, theirs) for mine in self.tags for theirs in part.tags]
        if any(mine.leads and _goes_on(mine.phrase, theirs.tag) for mine, theirs in pairs):
            return len(self.name) < len(part.name)
        if not self.name or not part.name.startswith(self.name):
            return False
        own = any(tag.own for tag in self.tags)
        beside = any(mine.phrase and mine.phrase == theirs.phrase for mine, theirs in pairs)
        is_whole = any(tag.total for tag in self.tags) or self.is_clipped
        separator = part.name[len(self.name) : len(self.name) + 1]
        if separator == "_":
            return is_whole and not own
        return separator in ("/", ".") and (own or beside or is_whole)


def _goes_on(phrase: str, tag: str) -> bool:
    """``grad_norm`` and ``grad_norm/layer``: what follows the words for the norm is a part's name."""
    return tag.startswith(phrase) and bool(phrase) and tag[len(phrase) : len(phrase) + 1] in ("/", ".")


def log_of(run: Run, name: str) -> Log:
    """The norms in a run, as far as its tags are understood."""
    things: dict[str, _Thing] = {}
    unread: list[str] = []
    others: list[str] = []
    for tag, curve in run.curves.items():
        said = read(tag)
        if said is None or not things.setdefault(said.name, _Thing(said.name)).take(said, curve):
            (unread if is_about_gradients(tag) else others).append(tag)
    unread += [tag for thing in things.values() for tag in _settled(thing)]
    things = {name: thing for name, thing in things.items() if thing.tags}
    children = _children(things)
    held = {part.name for parts in children.values() for part in parts}
    tops = [thing for thing in things.values() if thing.name not in held]
    norms = [_norms(thing, children, run.own) for thing in tops]
    log = Log(name, "TensorBoard", norms, _OWN if run.own else TORCH, unread=unread, others=others, own=run.own)
    log.understood = [_understood(thing, children) for thing in tops]
    log.remarks = [f"{file} is torn: what comes after that place is not read." for file in run.torn]
    return log


def _settled(thing: _Thing) -> Iterator[str]:
    """Tags that mean nothing here: a limit that changes may be a maximum, and a ratio needs both sides."""
    if thing.limit is not None and np.ptp(thing.limit[1].values) != 0.0:
        yield thing.limit[0].tag
        thing.limit = None
    if thing.limit is not None and "after" not in thing.sides:
        yield thing.limit[0].tag
        thing.limit = None
    pair = [tag.own for side, (tag, _) in thing.sides.items() if side]
    # A ``clip_ratio`` alone may be that of PPO.
    if thing.ratio is not None and (len(pair) < len(("before", "after")) or thing.ratio[0].own != all(pair)):
        yield thing.ratio[0].tag
        thing.ratio = None


def _children(things: Mapping[str, _Thing]) -> Mapping[str, list[_Thing]]:
    """The parts of each by its name: those of no smaller whole."""
    children: dict[str, list[_Thing]] = {}
    for part in things.values():
        wholes = (things[name] for name in _beginnings(part.name) if name in things)
        nearest = next((whole for whole in wholes if whole.may_be_whole_of(part)), None)
        if nearest is not None:
            children.setdefault(nearest.name, []).append(part)
    return children


def _beginnings(name: str) -> Iterator[str]:
    """What of a name stands before one of its separators, the longest first, and nothing."""
    for at in range(len(name) - 1, 0, -1):
        if name[at] in "/._":
            yield name[:at]
    if name:
        yield ""


def _norms(thing: _Thing, children: Mapping[str, list[_Thing]], own: bool) -> Norms:
    parts = tuple(_norms(part, children, own) for part in children.get(thing.name, ()))
    sides = {side: curve for side, (_, curve) in thing.sides.items()}
    clips = not own and any(tag.clip for tag in thing.tags)
    # Lines of gradwatch's own report may overlap; of others' names one may be a part of the next.
    names = {part.name for part in parts}
    nested = any(beginning in names for name in names for beginning in _beginnings(name))
    disjoint = not own and not nested and not any(tag.own for tag in thing.tags)
    return Norms(
        thing.name,
        sides,
        ratio=thing.ratio[1] if thing.ratio else None,
        limit=thing.limit[1] if thing.limit else None,
        clipping=_always(sides["before"]) if clips and "before" in sides else None,
        parts=(Parts(parts, disjoint),) if parts else (),
        sums={side: curve for side, (_, curve) in thing.sums.items()},
    )


def _always(curve: Curve) -> Curve:
    return Curve(curve.name, curve.steps, np.ones_like(curve.values))


def _understood(thing: _Thing, children: Mapping[str, list[_Thing]]) -> str:
    said = f"{thing.name or 'the whole'}: {', '.join(_roles(thing))}"
    parts = list(_below(thing, children))
    shown = [_with_sides(part) for part in parts[:_MOST_PARTS]]
    more = f" and {len(parts) - len(shown)} more" if len(parts) > len(shown) else ""
    return f"{said}; parts of it, by their names: {', '.join(shown)}{more}" if parts else said


def _with_sides(part: _Thing) -> str:
    said = ", ".join(_WHEN[side] for side in part.sides if side)
    return f"{part.name} ({said})" if said else part.name


def _below(thing: _Thing, children: Mapping[str, list[_Thing]]) -> Iterator[_Thing]:
    for part in children.get(thing.name, ()):
        yield part
        yield from _below(part, children)


def _roles(thing: _Thing) -> Iterator[str]:
    for side, (tag, _) in thing.sides.items():
        yield f"{tag.tag} is its norm {_WHEN[side]}{' clipping' if side and tag.clip else ''}"
    if thing.ratio:
        yield f"{thing.ratio[0].tag} is after over before"
    if thing.limit:
        yield f"{thing.limit[0].tag} is the limit of its norm"
    for tag, _ in thing.sums.values():
        yield f"{tag.tag} is a sum of norms"
