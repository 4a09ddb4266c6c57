"""Which open findings a violation is: those whose proposed cures take it away."""

from __future__ import annotations

from functools import cached_property

from xfdfuzz.engines.compare.procedures import REFUSED, Answer, Fact
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.vocabulary import VMM
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import PROPOSED, Revision, RevisionError, findings_of, resolve


class OpenFindings:
    """The open findings of a revision, as its cures tell them."""

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        self._buckets: dict[tuple[str, Program], frozenset[str]] = {}

    def of_fact(self, one: Answer, fact: Fact) -> tuple[int, ...]:
        """Those that some orders of a procedure come to."""
        return self._of(one.procedure.program(fact.example), fact.kind, fact.what)

    def of_other(self, one: Answer, way: str, kind: str, what: str) -> tuple[int, ...]:
        """Those that the usual order comes to, done in another way."""
        return self._of(one.procedure.program(tuple(one.procedure.calls), way), kind, what)

    def _of(self, program: Program, kind: str, bucket: str) -> tuple[int, ...]:
        """With all cures the program does not break it, and without those of these findings it does."""
        if kind in (REFUSED, VMM):
            return ()
        cured = self._with(self._cures)
        if cured is None or bucket in self._broken(cured, program):
            return ()
        found: set[int] = set()
        for cure, without in self._without.items():
            if bucket in self._broken(without, program):
                found.update(findings_of(cure))
        return tuple(sorted(found))

    @cached_property
    def _cures(self) -> tuple[str, ...]:
        """Those that apply to it and that it lacks."""
        return tuple(cure for cure in PROPOSED if self._with((cure,)))

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

    def _broken(self, revision: Revision, program: Program) -> frozenset[str]:
        key = (revision.label, program)
        if key not in self._buckets:
            self._buckets[key] = frozenset(judge(program, revision, expectations=False).buckets)
        return self._buckets[key]
