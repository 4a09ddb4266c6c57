"""Which modelled kernel is nearest to a version."""

from __future__ import annotations

import re

from xfdfuzz.revisions.labels import resolve
from xfdfuzz.revisions.queue import PATCHES
from xfdfuzz.revisions.table import ALIASES, MAINLINE, names

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?!\d)")


def nearest(version: str) -> str | None:
    """The revision that models the kernel best: one of its own series, else mainline as of its last patch before.

    What stands behind the numbers, ``-rc7`` or a distribution's name for its build, does not count.  None for a kernel
    that is older than anything modelled.
    """
    found = _VERSION.match(version)
    if not found:
        return None
    known = {_numbers(name): ALIASES.get(name, name) for name in (*names(), *ALIASES) if _VERSION.fullmatch(name)}
    wanted = (int(found[1]), int(found[2]), int(found[3] or 0))
    release = _mainline((*wanted[:2], 0))
    if release and (*wanted[:2], 0) not in known:
        known[*wanted[:2], 0] = release
    series = [numbers for numbers in known if numbers[:2] == wanted[:2]]
    return known[min(series, key=lambda numbers: abs(numbers[2] - wanted[2]))] if series else None


def backported(version: str) -> tuple[str, ...]:
    """The patches that a stable kernel has beyond its nearest revision, as far as the queue tells.

    Where the queue only says that a series has a patch (``v6.18.y``), each of its kernels but the first is taken to.
    """
    name = nearest(version)
    found = _VERSION.match(version)
    if name is None or not found:
        return ()
    series, level = (int(found[1]), int(found[2])), int(found[3] or 0)
    has = {patch.commit for patch in resolve(name).patches}
    return tuple(
        commit
        for commit, patch in PATCHES.items()
        if commit not in has and any(_reaches(stable, series, level) for stable in patch.stable)
    )


def _reaches(stable: str, series: tuple[int, int], level: int) -> bool:
    """Whether a patch that is in this stable kernel is in the one with that number, too."""
    major, minor, first = stable.removeprefix("v").split(".")
    return (int(major), int(minor)) == series and (0 if first == "y" else int(first) - 1) < level


def _mainline(wanted: tuple[int, int, int]) -> str | None:
    """Mainline as of that version: the newest release with a name of its own, or the newest patch, if that is newer."""
    points = [(_numbers(name), name) for name in MAINLINE]
    points += [(_numbers(patch.version), commit) for commit, patch in PATCHES.items()]
    before = [point for point in points if point[0] <= wanted]
    newest = max((numbers for numbers, _ in before), default=None)
    of_newest = [name for numbers, name in before if numbers == newest]
    return next((name for name in of_newest if name in MAINLINE), of_newest[-1] if of_newest else None)


def _numbers(name: str) -> tuple[int, int, int]:
    found = _VERSION.match(name)
    assert found
    return int(found[1]), int(found[2]), int(found[3] or 0)
