"""Which known bugs a violation is: the open findings whose proposed cures take it away, the fixes that would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from types import CodeType, FrameType, FunctionType
from typing import NamedTuple

from xfdfuzz.engines.compare.procedures import REFUSED, UNPROMISED, Answer, Fact
from xfdfuzz.engines.judge.verdict import DEFAULT_REVISION, judge
from xfdfuzz.invariants.vocabulary import VMM, Violation
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import PATCHES, PROPOSED, Revision, RevisionError, findings_of, resolve


class _Run(NamedTuple):
    """What a program broke, and the code that it came to."""

    buckets: frozenset[str]
    executed: frozenset[CodeType]


class _Broken:
    """The buckets that programs break on revisions, of which each is asked for again and again."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, Program], frozenset[str]] = {}

    def __call__(self, revision: Revision, program: Program) -> frozenset[str]:
        key = (revision.label, program)
        if key not in self._buckets:
            self._buckets[key] = frozenset(judge(program, revision, expectations=False).buckets)
        return self._buckets[key]


class OpenFindings:
    """The open findings of a revision, as its cures tell them."""

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self._runs: dict[Program, _Run] = {}
        self._broken = _Broken()

    def of_fact(self, one: Answer, fact: Fact) -> tuple[int, ...]:
        """Those that some orders of a procedure come to."""
        return self._of(one.procedure.program(fact.example), fact.kind, fact.what)

    def of_other(self, one: Answer, way: str, kind: str, what: str) -> tuple[int, ...]:
        """Those that the usual order comes to, done in another way."""
        return self._of(one.procedure.program(tuple(one.procedure.calls), way), kind, what)

    def of_violation(self, program: Program, violation: Violation) -> tuple[int, ...]:
        """Those that any program comes to."""
        return self._of(program, violation.severity, violation.bucket)

    def _of(self, program: Program, kind: str, bucket: str) -> tuple[int, ...]:
        """With all cures the program does not break it, and without those of these findings it does."""
        if kind in (REFUSED, VMM, UNPROMISED):
            return ()
        run = self._cured(program)
        if run is None or bucket in run.buckets:
            return ()
        found: set[int] = set()
        for cure, without in self._without.items():
            # one that was not come to is not missed
            if run.executed & _code_of(cure) and bucket in self._broken(without, program):
                found.update(findings_of(cure))
        return tuple(sorted(found))

    @cached_property
    def _cures(self) -> tuple[str, ...]:
        """Those that apply to it and that it lacks."""
        return tuple(cure for cure in PROPOSED if self._with((cure,)))

    @cached_property
    def _all(self) -> Revision | None:
        """The revision with all of them."""
        return self._with(self._cures)

    @cached_property
    def _without(self) -> dict[str, Revision]:
        """By each of them the revision with all the others."""
        others = {cure: self._with(tuple(other for other in self._cures if other != cure)) for cure in self._cures}
        return {cure: revision for cure, revision in others.items() if revision}

    def _with(self, cures: tuple[str, ...]) -> Revision | None:
        try:
            return resolve(self._revision.address, apply=cures)
        except RevisionError:
            return None

    def _cured(self, program: Program) -> _Run | None:
        """With all cures; None if they do not go together."""
        cured = self._all
        if cured and program not in self._runs:
            with _executing() as executed:
                buckets = frozenset(judge(program, cured, expectations=False).buckets)
            self._runs[program] = _Run(buckets, frozenset(executed))
        return self._runs.get(program)


class Fixes:
    """The fixes of mainline that a revision lacks, one by one."""

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self._broken = _Broken()

    def of_violation(self, program: Program, violation: Violation) -> tuple[str, ...]:
        """The commits each of which takes it away; none where the newest kernel breaks it too, as none of them has."""
        if violation.bucket in self._broken(resolve(DEFAULT_REVISION), program):
            return ()
        return tuple(
            commit for commit, fixed in self._with.items() if violation.bucket not in self._broken(fixed, program)
        )

    @cached_property
    def _with(self) -> dict[str, Revision]:
        """The revision with each that it lacks and that applies to it alone."""
        has = {one.commit for one in self._revision.patches}
        found: dict[str, Revision] = {}
        for commit in (commit for commit in PATCHES if commit not in has):
            with suppress(RevisionError):
                found[commit] = resolve(self._revision.address, apply=(commit,))
        return found


def _code_of(cure: str) -> set[CodeType]:
    """The functions that a cure replaces, as it has them."""
    return {one.__code__ for one in vars(PROPOSED[cure].cls).values() if isinstance(one, FunctionType)}


@contextmanager
def _executing() -> Iterator[set[CodeType]]:
    """The code of all functions that are called meanwhile."""
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(before)
