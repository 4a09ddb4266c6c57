"""A finding: what was broken, why that is bad, the shortest way there, where it is saved and how to see it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.console import Console

from xfdfuzz.engines.judge.because import Reasons
from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.report import because, files, search, trace
from xfdfuzz.report.console import SEVERITY, counted, line, prose


def terminal(out: Console, found: Finding, invariants: Sequence[Path] = ()) -> None:
    """All of it; ``invariants`` are the files that its command has to name."""
    explanation(out, found)
    saved(out, found, invariants)


class Group(NamedTuple):
    """A root and its consequences, the worst first, then the shortest."""

    root: Finding
    consequences: tuple[Finding, ...]

    @property
    def rank(self) -> tuple[int, int, str]:
        """Orders groups: the one with the worst finding first, then the one with the shortest root."""
        return min(one.rank[0] for one in (self.root, *self.consequences)), *self.root.rank[1:]


def groups(found: Sequence[Finding], roots: Mapping[Finding, Finding]) -> list[Group]:
    """The findings by their roots; one that has none is a root, whatever follows from it."""
    ranked = sorted(found, key=lambda one: one.rank)
    gathered = [
        Group(root, tuple(one for one in ranked if roots.get(one) == root)) for root in ranked if root not in roots
    ]
    return sorted(gathered, key=lambda group: group.rank)


def several(
    out: Console,
    found: Sequence[Finding],
    invariants: Sequence[Path] = (),
    verbose: bool = False,
    roots: Mapping[Finding, Finding] = MappingProxyType({}),
) -> None:
    """What a search found: a line for each, consequences under their ``roots``, the worst first, of them the shortest;
    one that is alone is told whole.

    So are those that no file has and, if ``verbose``, all.
    """
    for one in found:
        if verbose or len(found) == 1 or one.file is None:
            terminal(out, one, invariants)
    if len(found) == 1:
        return
    gathered = groups(found, roots)
    rows = [
        (one.violation.severity, str(len(one.program.ops)), f"{indent}{one.bucket}", _again(one, invariants))
        for group in gathered
        for one, indent in ((group.root, ""), *((one, "  ") for one in group.consequences))
    ]
    search.found(out, ("severity", "ops", "bucket", "see it again"), rows)
    if len(gathered) < len(found):
        line(out, f"{counted(len(gathered), 'root')}: what is indented shows only where the one above it has shown")
    saved_in = {one.file for one in found if one.file}
    if len(saved_in) < sum(one.file is not None for one in found):
        line(out, f"saved in {counted(len(saved_in), 'file')}: some programs show several of them")


def _again(found: Finding, invariants: Sequence[Path]) -> str:
    return files.replay_command(found, invariants) if found.file else "not saved; its program stands above"


def explanation(out: Console, found: Finding) -> None:
    """What was broken, why that is bad, and the way there."""
    violation = found.violation
    severity = (violation.severity, SEVERITY[violation.severity])
    line(out)
    line(out, (violation.invariant, "bold"), f" on {found.revision.label}: ", severity)
    prose(out, f"{violation.message}.")
    line(out, f"  bucket {violation.kind}")
    line(out, f"  found by {found.engine}")
    line(out)
    line(out, ("  Why this is bad", "bold"))
    prose(out, INVARIANTS[violation.invariant].doc)
    line(out)
    verdict = judge(found.program, found.revision, expectations=False)
    notes = trace.Notes(because.explain(found.program, verdict), full=False, about=found.bucket)
    trace.terminal(out, found.program, verdict.trace, notes)
    line(out)


def saved(out: Console, found: Finding | Discrepancy, invariants: Sequence[Path] = ()) -> None:
    """Where it is saved, and the command that shows it again."""
    if found.file is None:
        line(out, ("  not saved; its program:", "bold red"))
        line(out)
        line(out, files.text(found).rstrip())
        return
    line(out, "  saved   ", (str(found.file), "green"))
    line(out, "  replay  ", (files.replay_command(found, invariants), "green"))


def as_object(found: Finding) -> dict[str, Any]:
    """``steps`` is how many ops its program has, ``file`` null if it could not be saved."""
    return {
        "invariant": found.violation.invariant,
        "severity": found.violation.severity,
        "bucket": found.violation.bucket,
        "shape": found.violation.shape,
        "steps": len(found.program.ops),
        "engine": found.engine,
        "program": files.text(found),
        "because": because.as_object(_reasons(found)),
        "file": None if found.file is None else str(found.file),
    }


def _reasons(found: Finding) -> Reasons:
    """What it follows from, where its program shows it first."""
    verdict = judge(found.program, found.revision, expectations=False)
    return because.first(found.program, verdict, found.bucket)
