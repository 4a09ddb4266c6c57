"""Findings in groups: a root, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xfdfuzz.engines.judge.finding import Finding


class Group(NamedTuple):
    """A root and its consequences, the worst first, then the shortest."""

    root: Finding
    consequences: tuple[Finding, ...]


def groups(found: Sequence[Finding], roots: Mapping[Finding, Finding]) -> list[Group]:
    """The group with the worst finding in it first, then the one with the shortest root."""
    ranked = sorted(found, key=lambda one: one.rank)
    gathered = [
        Group(root, tuple(one for one in ranked if roots.get(one) == root)) for root in ranked if root not in roots
    ]
    return sorted(gathered, key=_rank)


def _rank(group: Group) -> tuple[int, int, str]:
    worst = min(one.rank[0] for one in (group.root, *group.consequences))
    return worst, len(group.root.program.ops), group.root.bucket
