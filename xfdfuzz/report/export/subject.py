"""Which kernels a reproducer speaks of: one that is asked for, one that is right, and those that it endangers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xfdfuzz.engines.judge.verdict import Verdict, judge, revisions_for
from xfdfuzz.program.program import Program
from xfdfuzz.report.privacy import for_everybody
from xfdfuzz.revisions import Revision, family, names, resolve

#: What a program can do to a host that its owner has to agree to.
DANGEROUS = ("panic", "corruption")


@dataclass(frozen=True)
class Subject:
    """``revision``: whose results stand in comments; ``good``: a kernel on which nothing is broken, None without one.

    ``broken`` are the buckets that show on ``revision``; ``dangers`` says in a line each on which kernels the program
    may do what to the host.  ``private``: it may be a vulnerability of a current kernel (SECURITY.md).
    """

    program: Program
    revision: Revision
    good: Revision | None
    broken: tuple[str, ...]
    dangers: tuple[str, ...]
    private: bool = False


#: Kernels that may be right, in the order in which they are tried.
_CANDIDATES = ("v7.3", "v7.3-cured", "v5.16-cured")


def subject_of(program: Program, revision: Revision | None) -> Subject:
    """What ``program`` is about, on ``revision``; by default on the newest mainline kernel on which it breaks
    something, else on the newest one.

    Kernels that ran somewhere, mainline's and stable ones, are asked for dangers, with the program's own patches and
    without.  Raises RevisionError for patches that do not fit.
    """
    verdicts = dict(_verdicts(program))
    mainline = [name for name in names() if family(name) == "mainline"]
    if revision is None:
        broken = [name for name in mainline if verdicts[name].violations]
        revision = verdicts[(broken or mainline)[-1]].revision
    shown = judge(program, revision, expectations=False)
    good = next((r for r in map(resolve, _CANDIDATES) if _clean(program, r)), None)
    dangers = tuple(_dangers({**verdicts, "": shown}))
    return Subject(program, revision, good, shown.buckets, dangers, not for_everybody(program, [revision]))


def _verdicts(program: Program) -> Iterator[tuple[str, Verdict]]:
    for name in names():
        if family(name) in ("mainline", "stable"):
            (patched,) = revisions_for(program, [name])
            yield name, judge(program, patched, expectations=False)


def _clean(program: Program, revision: Revision) -> bool:
    verdict = judge(program, revision, expectations=False)
    return verdict.happened and not verdict.violations


def _dangers(verdicts: dict[str, Verdict]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for verdict in verdicts.values():
        for violation in verdict.violations:
            if violation.severity in DANGEROUS and verdict.revision.label not in found.get(violation.severity, ()):
                found.setdefault(violation.severity, []).append(verdict.revision.label)
    words = {"panic": "the host may die", "corruption": "the host may lose or corrupt what other tasks have"}
    for severity in DANGEROUS:
        if severity in found:
            yield f"{words[severity]} (model: {', '.join(found[severity])})"
