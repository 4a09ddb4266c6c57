"""The known bugs: for each a kernel that has it and the same without it.

A fix reverted and applied, the cure of an open finding left out, a posted series and what it became, a program of the
corpus on a revision that it breaks and one that it does not.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from xfdfuzz.engines.judge.verdict import judge, revisions_for
from xfdfuzz.invariants.loading import load
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import PATCHES, PROPOSED, Patch, Revision, RevisionError, lines, names, resolve, selects

#: The newest mainline point, on which a fix is reverted unless a later patch hides that.
NEWEST = "mainline"
#: The newest point without any bug that is known.
CURED = "v7.3-cured"
#: What a posted series is held against: the first version with the permission fix that every posting lacks.
MERGED = "v5.18"
PERMISSION_FIX = "063452fd94d1"


@dataclass(frozen=True)
class Subject:
    """A bug.  ``broken`` is the label of a kernel that has it, ``sound`` of one that has not.

    ``buckets`` are the violations that count (empty: any).
    """

    kind: str
    name: str
    title: str
    broken: str
    sound: str
    buckets: frozenset[str] = frozenset()

    def seeds(self, count: int) -> range:
        """Seeds of its own: if all had the same ones, a lucky one would count for many of them."""
        first = zlib.crc32(f"{self.kind} {self.name}".encode())
        return range(first, first + count)


def fixes() -> Iterator[Subject]:
    """Every patch of the queue that mends something, reverted."""
    for p in PATCHES.values():
        if not p.neutral:
            broken, sound = _around(p)
            yield Subject("fix", p.commit, p.title, broken, sound)


def _around(p: Patch) -> tuple[str, str]:
    """Mainline without and with the patch: the newest, or as of the last patch that does not hide the revert."""
    later = list(PATCHES)[list(PATCHES).index(p.commit) :]
    for sound in (NEWEST, *reversed(later)):
        with suppress(RevisionError):
            return resolve(sound, revert=[p.commit]).label, sound
    raise AssertionError(p.commit)  # as of itself a patch can be reverted


def open_findings() -> Iterator[Subject]:
    """Every cure that the project proposes, left out."""
    for p in PROPOSED.values():
        yield Subject("open", p.commit, p.title, resolve(CURED, revert=[p.commit]).label, CURED)


def series() -> Iterator[Subject]:
    """Every posted series: those before the merge with the fix of the permission bug that all of them have."""
    for name in names()[: names().index(lines()[1][0])]:
        revision = resolve(name)
        if PERMISSION_FIX in (p.commit for p in revision.patches):
            yield Subject("series", name, revision.title, name, NEWEST)
        else:
            yield Subject("series", name, revision.title, f"{name}+{PERMISSION_FIX}", MERGED)


def known_bugs(programs: Iterable[tuple[str, Program]]) -> Iterator[Subject]:
    """Every (name, program) of the corpus, on the newest revision that it breaks as the newest of all does not; of
    those with ops that no search draws none."""
    for name, program in programs:
        if not all(op.DRAWN for op in program.ops):
            continue
        (sound,) = revisions_for(program, [NEWEST])
        remaining = _buckets(program, sound)
        for broken in reversed(_every_revision(program)):
            if wanted := _expected(program, broken) - remaining:
                yield Subject("bug", name, program.title, broken.label, sound.label, wanted)
                break


def _every_revision(program: Program) -> list[Revision]:
    """What stands in no line, the series, then mainline, each with what the program's header applies and reverts."""
    ordered = [name for line in lines() for name in line]
    rest = [name for name in names() if name not in ordered]
    return [r for name in (*rest, *ordered) for r in revisions_for(program, [name])]


def _expected(program: Program, revision: Revision) -> frozenset[str]:
    """The buckets of the invariants that its `expect:` lines name for the revision."""
    selected = (e for e in program.expect if selects(e.revisions, revision.name))
    named = {name for expectation in selected for name in expectation.invariants}
    return frozenset(b for b in _buckets(program, revision) if b.partition("@")[0] in named)


def _buckets(program: Program, revision: Revision) -> frozenset[str]:
    return frozenset(judge(program, revision, expectations=False).buckets)


def subjects(programs: Iterable[tuple[str, Program]]) -> list[Subject]:
    """All of them."""
    load()
    return [*fixes(), *open_findings(), *series(), *known_bugs(programs)]
