"""What a kernel is known to break."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision, concerns


def known_violations(programs: Iterable[Program], revision: Revision) -> frozenset[str]:
    """The buckets of the invariants that `expect:` lines of the programs name for the revision, as those programs
    break them there; the revision is taken as it is, whatever their `apply:` and `revert:` lines say."""
    telling = [(program, names) for program in programs if (names := _named(program, revision))]
    named = {name for _, names in telling for name in names}
    return frozenset(
        violation.bucket
        for program, _ in telling
        for violation in judge(program, revision, expectations=False).violations
        if violation.invariant in named
    )


def _named(program: Program, revision: Revision) -> Sequence[str]:
    """The invariants that the program is expected to break on the revision, or on the one that it stands on."""
    return [name for e in program.expect if concerns(e.revisions, revision.name) for name in e.invariants]
