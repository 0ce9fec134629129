"""What a tag says: of what it is the norm, and when it was measured. What no rule here reads is left alone.

A tag is read by its words, whatever their case:

- ``grad``, ``grads``, ``gradient`` or ``gradients``, then ``norm``: the norm of a gradient. What is left of the
  tag names what it is the norm of: ``actor_cnn`` of ``gradients/actor_cnn_norm``, nothing of ``grad_norm``.
- ``before``, ``pre_clip`` or ``unclipped``; ``after``, ``post_clip`` or ``clipped``: when it was measured.
- ``total``, ``global`` or ``overall``: of the whole.
- ``clip`` with ``ratio`` or ``coef``: the norm after clipping over the norm before it.
- ``max_norm``, ``max_grad_norm``, ``clip_limit`` or ``clip_threshold``: the limit.
- ``sum``, as in ``SUM_OF_NORMS``: a sum of norms.

``PREFIX/OPTIMIZER/norm_before`` and its like are gradwatch's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gradwatch.audit.curves import Side

__all__ = ["Tag", "is_about_gradients", "read"]

Role = Literal["norm", "ratio", "limit", "sum"]

_END = r"(?![^\W_])"
_START = r"(?<![^\W_])"
_GAP = r"[\s/._-]*"
_GRADIENT = rf"{_START}grad(?:ient)?s?"
_CLIP = "clip(?:ping|ped)?"
_TWO = rf"(?:(?:l2|l_2|2(?:\.0)?){_GAP})?"
_STATISTIC = (
    "mean|avg|average|std|var|variance|min|max|median|ema|smoothed|running|log|log10|hist|delta|count|squared"
)

_OWN = re.compile(r"^(?P<name>.+)/(?P<what>norm_before|norm_after|clip_ratio)$")
_NORM = re.compile(rf"{_GRADIENT}{_GAP}{_TWO}norms?{_END}")
# With a name in between: gradients/actor_cnn_norm.
_AROUND = re.compile(
    rf"^(?P<folder>.*?){_GRADIENT}[\s/._-](?P<name>.+?){_GAP}{_TWO}{_START}norms?(?P<rest>{_END}.*)$"
)
_OTHER_NORM = re.compile(
    rf"{_GRADIENT}{_GAP}(?!2(?:\.0+)?{_GAP}norm)\d+(?:\.\d+)?{_GAP}norm|{_START}(?:l?inf|l_?[013-9]){_GAP}norms?{_END}"
)
_OF_STEPS = re.compile(rf"{_START}(?:{_STATISTIC}|p\d+){_GAP}$")
_OF_STEPS_BEHIND = re.compile(rf"^{_GAP}(?:{_STATISTIC}|p\d+|ratio){_END}{_GAP}$")
_LIMIT = re.compile(
    rf"{_START}(?:max{_GAP}(?:grad(?:ient)?s?{_GAP})?norm|clip(?:ping)?{_GAP}(?:limit|threshold)){_END}"
)
_RATIO = re.compile(rf"{_GRADIENT}{_GAP}(?:norm{_GAP})?clip(?:ping)?{_GAP}(?:ratio|coef|coefficient){_END}")
_SUM = re.compile(rf"{_START}sum(?:{_GAP}of{_GAP}norms?)?{_END}")
_SIDES: tuple[tuple[Side, re.Pattern[str]], ...] = (
    ("before", re.compile(rf"{_START}(?:before(?:{_GAP}{_CLIP})?|pre{_GAP}{_CLIP}|unclipped){_END}")),
    ("after", re.compile(rf"{_START}(?:after(?:{_GAP}{_CLIP})?|post{_GAP}{_CLIP}|clipped){_END}")),
)
_TOTAL = re.compile(rf"{_START}(?:total|global|overall){_END}")


@dataclass(frozen=True)
class Tag:
    """What a tag says.

    Attributes:
        tag: itself.
        role: what the number is.
        name: of what; empty where the tag names nothing.
        side: when it was measured.
        total: whether it says that this is the whole.
        clip: whether it says that clipping is what lies between before and after.
        own: whether it is of the form that gradwatch writes.
        phrase: the tag up to its words for the norm; empty where the name stands between them.
        leads: whether all of the name stands before them, so that what may follow names parts.
    """

    tag: str
    role: Role
    name: str
    side: Side = ""
    total: bool = False
    clip: bool = False
    own: bool = False
    phrase: str = ""
    leads: bool = False


def is_about_gradients(tag: str) -> bool:
    """Whether a tag speaks of a gradient's norm or of clipping, so that a reader may look for it here."""
    lower = tag.lower()
    return bool(re.search(rf"grad.*norm|norm.*grad|{_START}{_CLIP}{_END}", lower) or _LIMIT.search(lower))


def read(tag: str) -> Tag | None:
    """What a tag says; None where it is not understood."""
    own = _OWN.match(tag)
    if own:
        what = own["what"]
        side: Side = "before" if what == "norm_before" else "after" if what == "norm_after" else ""
        return Tag(tag, "norm" if side else "ratio", own["name"], side, own=True)
    ratio, limit = _RATIO.search(tag.lower()), _LIMIT.search(tag.lower())
    if ratio:
        return _named(tag, "ratio", ratio.span())
    return _named(tag, "limit", limit.span()) if limit else _norm(tag)


def _norm(tag: str) -> Tag | None:
    lower = tag.lower()
    found = _NORM.search(lower)
    if _OTHER_NORM.search(lower):
        return None
    if found:
        before, behind = lower[: found.start()], lower[found.end() :]
        if _OF_STEPS.search(before) or _OF_STEPS_BEHIND.match(behind):
            return None
        return _named(tag, "norm", found.span())
    around = _AROUND.match(lower)
    if around is None or _OF_STEPS_BEHIND.match(around["rest"]) or _OF_STEPS.search(around["name"]):
        return None
    start, end = around.span("name")
    inside = tag[: around.end("folder")] + tag[start:end] + tag[around.start("rest") :]
    return _named(tag, "norm", (0, 0), inside)


def _named(tag: str, role: Role, phrase: tuple[int, int], text: str | None = None) -> Tag | None:
    """The rest of the tag, without the words that say when and of what kind."""
    start, end = phrase
    rest = f"{tag[:start]}\0{tag[end:]}" if text is None else text
    summed = False
    sides: list[Side] = []
    clip = "clip" in rest.lower()
    if role == "norm":
        rest, summed = _without(rest, _SUM)
        for side, pattern in _SIDES:
            rest, found = _without(rest, pattern)
            sides += [side] if found else []
    if len(sides) > 1:
        return None
    rest, total = _without(rest, _TOTAL)
    name = _tidied(rest)
    leads = tag.startswith(name) and len(name) <= start
    side = sides[0] if sides else ""
    return Tag(tag, "sum" if summed else role, name, side, total, clip, phrase=tag[:end], leads=leads)


def _without(text: str, pattern: re.Pattern[str]) -> tuple[str, bool]:
    found = pattern.search(text.lower())
    return (text, False) if found is None else (f"{text[: found.start()]}\0{text[found.end() :]}", True)


def _tidied(text: str) -> str:
    """What is left, where words were taken out of it, with one separator in their place."""
    text = re.sub(r"[\s/._-]*\0[\s/._\0-]*", "\0", text)
    parts = [part for part in text.split("\0") if part.strip(" /._-")]
    return "/".join(part.strip(" /._-") for part in parts)
