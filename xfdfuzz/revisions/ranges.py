"""Ranges of revisions: ``v5.17..v6.6``, within the posted series or within mainline."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from xfdfuzz.revisions.labels import Revision, canonical
from xfdfuzz.revisions.queue import Patch, RevisionError
from xfdfuzz.revisions.table import MAINLINE, SERIES, named


def lines() -> tuple[list[str], list[str]]:
    """The posted series in the order of posting, and mainline: within each, a revision comes before another."""
    return list(SERIES), list(MAINLINE)


def posted_between(first: str, last: str) -> list[str]:
    """The posted series from one to the other, both among them; empty if they are not two series in this order."""
    line, _ = lines()
    return line[line.index(first) : line.index(last) + 1] if first in line and last in line else []


def queue_between(first: Revision, last: Revision) -> list[Patch]:
    """What ``last`` has on top of ``first``, in order; RevisionError if that is not a queue of patches."""
    more = [p for p in last.patches if p not in first.patches]
    one_base = named(first.name).base == named(last.name).base
    if not more or len(more) + len(first.patches) > len(last.patches) or not one_base:
        raise RevisionError(
            f"no queue of patches leads from {first.label} to {last.label}: "
            "expected two points of mainline, the earlier one first, or two posted series"
        )
    return more


def concerns(spec: str, name: str) -> bool:
    """Whether what is said of the revisions ``spec`` holds for the revision ``name``.

    As :func:`selects`; and what holds for a revision holds for a series from outside, or cures, that stand on it.
    """
    below = named(canonical(name)).on
    return selects(spec, name) or (bool(below) and concerns(spec, below))


def selects(spec: str, name: str) -> bool:
    """Whether the revisions part of an `expect:` line, ``spec``, selects the revision ``name``.

    A name selects itself, ``*`` everything; ``A..B``, ``A..`` and ``..B`` select within the line that A or B belongs
    to: the posted series, or mainline (stable and cured kernels, and amx-px25, are named one by one).
    """
    name = canonical(name)
    if spec == "*":
        return True
    if ".." not in spec:
        return canonical(spec) == name
    first, last = spec.split("..", 1)
    ends = [canonical(end) for end in (first, last) if end]
    for line in lines():
        if ends and all(end in line for end in ends):
            low = line.index(canonical(first)) if first else 0
            high = line.index(canonical(last)) if last else len(line) - 1
            return name in line[low : high + 1]
    raise RevisionError(f"{spec}: expected a range within the posted series or within mainline")


def in_ranges(names: Iterable[str]) -> list[str]:
    """The names, three or more that follow each other in a line as one: ``amx-v2 to amx-v6``; the others one by one."""
    left = list(dict.fromkeys(names))
    found: list[str] = []
    while left:
        line = next((line for line in lines() if left[0] in line), [left[0]])
        run = [*takewhile(left.__contains__, line[line.index(left[0]) :])]
        found += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else run
        left = [name for name in left if name not in run]
    return found
