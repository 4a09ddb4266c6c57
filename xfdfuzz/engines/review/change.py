"""What a series changes: functions by the patches that bring them, and the fields that its code writes."""

from __future__ import annotations

import dis
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType
from typing import NamedTuple

from xfdfuzz.engines.review.sites import Site, executable
from xfdfuzz.engines.review.subjects import Subject, every
from xfdfuzz.engines.review.writers import member_of, writing
from xfdfuzz.kernel.base import SEAMS, kernel_name
from xfdfuzz.revisions import Revision
from xfdfuzz.revisions.differing import Differing, differing
from xfdfuzz.revisions.sources import Sources


class Written(NamedTuple):
    """Fields that a series' code assigns to: those to which the base's never does, and other ones.

    Those come first that the base does not even read, then those that the series uses in most places.
    """

    anew: tuple[Subject, ...]
    otherwise: tuple[Subject, ...]


class Change:
    """What differs between a revision and the one that it is reviewed against."""

    def __init__(self, base: Revision, revision: Revision) -> None:
        self._base, self._revision = base, revision
        self._differing = differing(base.kernel, revision.kernel)

    def replaced(self) -> Mapping[str, Sequence[str]]:
        """The kernel functions that differ, by what last brought a part of each: a commit, a patch, a Message-Id."""
        sources, found = Sources(self._revision), dict[str, list[str]]()
        names = {kernel_name(one.name) for one in self._shown() if one.second}
        for name in sorted(names & set(sources)):
            found.setdefault(sources[name].origin[-1], []).append(name)
        order = [patch.commit for patch in self._revision.patches]
        return dict(sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else -1))

    def gone(self) -> Sequence[str]:
        """The kernel functions that the revision has no more."""
        left = {kernel_name(one.name) for one in self._shown() if one.second}
        return sorted({kernel_name(one.name) for one in self._shown() if not one.second} - left)

    def unread(self) -> Sequence[str]:
        """The functions that differ of which nobody has read the source: what the model does there was inferred."""
        sources = Sources(self._revision)
        names = {kernel_name(one.name) for one in self._shown() if one.second}
        return sorted(name for name in names & set(sources) if sources[name].inferred)

    def written(self) -> Written:
        """The fields."""
        assigned = writing([self._base, self._revision])
        by_series = assigned[self._revision.label] - assigned[self._base.label]
        codes = [one.__code__ for each in self._differing for one in each.added]
        own, uses = frozenset(_used(codes, "STORE_ATTR")), Counter(_used(codes, "STORE_ATTR", "LOAD_ATTR"))
        read = frozenset(_used([one.__code__ for one in executable(self._base.kernel)], "LOAD_ATTR"))
        fields = [(member_of(one.column.field), one) for one in every()]
        anew = [(member in read, -uses[member], nr) for nr, (member, _) in enumerate(fields) if member in by_series]
        otherwise = [one for member, one in fields if member in own and member not in by_series]
        return Written(tuple(fields[nr][1] for *_, nr in sorted(anew)), tuple(otherwise))

    def touches(self, site: Site) -> bool:
        """Whether a place at which the kernel warns stands in a function that differs."""
        return site.function in {kernel_name(one.name) for one in self._differing if one.second}

    def _shown(self) -> Iterator[Differing]:
        return (one for one in self._differing if one.name not in SEAMS)


def _used(codes: Sequence[CodeType], *instructions: str) -> Iterator[str]:
    """The names of members that code loads or stores, that of the functions inside it too."""
    for code in codes:
        yield from (one.argval for one in dis.get_instructions(code) if one.opname in instructions)
        yield from _used([constant for constant in code.co_consts if isinstance(constant, CodeType)], *instructions)
