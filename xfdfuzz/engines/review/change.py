"""What a series changes: functions by the patches that bring them, and the fields that its code writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from xfdfuzz.engines.review.sites import Site
from xfdfuzz.engines.review.subjects import Subject, every
from xfdfuzz.engines.review.writers import assigned, member_of, writing
from xfdfuzz.kernel.base import SEAMS, kernel_name
from xfdfuzz.revisions import Revision, names, resolve
from xfdfuzz.revisions.differing import Differing, differing
from xfdfuzz.revisions.sources import Sources


class Written(NamedTuple):
    """Fields that a series' code assigns to: those to which the base's never does, and other ones.

    Those come first that the fewest of all kernels write.
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
        by_others = writing([resolve(name) for name in names()])
        those = writing([self._base, self._revision])
        by_series = those[self._revision.label] - those[self._base.label]
        own = frozenset(name for each in self._differing for one in each.added for name in assigned(one.__code__))
        fields = [(member_of(one.column.field), one) for one in every()]
        writers = Counter(member for members in by_others.values() for member in members)
        anew = [(writers[member], nr) for nr, (member, _) in enumerate(fields) if member in by_series]
        otherwise = [one for member, one in fields if member in own and member not in by_series]
        return Written(tuple(fields[nr][1] for _, nr in sorted(anew)), tuple(otherwise))

    def touches(self, site: Site) -> bool:
        """Whether a place at which the kernel warns stands in a function that differs."""
        return site.function in {kernel_name(one.name) for one in self._differing if one.second}

    def _shown(self) -> Iterator[Differing]:
        return (one for one in self._differing if one.name not in SEAMS)
