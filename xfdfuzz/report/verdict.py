"""The verdicts on a program: what it did on each revision, and whether that was expected."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from xfdfuzz.engines.judge import windows
from xfdfuzz.engines.judge.verdict import Verdict
from xfdfuzz.engines.stream.events import ProgramJudged
from xfdfuzz.invariants.vocabulary import SEVERITIES
from xfdfuzz.program.program import Program
from xfdfuzz.report import because, headline, sources, trace
from xfdfuzz.report.console import console, counted, hanging, line
from xfdfuzz.revisions import Revision, find
from xfdfuzz.revisions.sources import Sources

#: How many calls that failed are named.
_FEW = 5
#: How many things that are not as expected are told: what comes behind an op that could not happen follows from it.
_FIRST = 3


def terminal(out: Console, file: str, program: Program, verdict: Verdict, notes: trace.Notes | None) -> None:
    """One of them in a line; with ``notes`` the annotated trace above it, or just the results."""
    if notes is not None and notes.results:
        trace.results(out, program, verdict.trace)
    elif notes is not None:
        line(out)
        hanging(out, 2, (program.title or file, "bold"), f" on {verdict.revision.label}")
        meaning(out, verdict.revision)
        told = notes._replace(
            because=because.explain(program, verdict), about=headline.bucket(program, _outcome(verdict))
        )
        trace.terminal(out, program, verdict.trace, told)
        line(out)
    state = Text("ok  ", "bold green") if verdict.ok else Text("FAIL", "bold red")
    hanging(out, 6, state, f"  {file}  {verdict.revision.label}  {conclusion(verdict)}")


def meaning(out: Console, revision: Revision) -> None:
    """What the patches are that a label such as ``v6.12+b45f72177594`` names."""
    for word, commits in (("with", revision.applied), ("without", revision.reverted)):
        for commit in commits:
            hanging(out, 4, (f"  {word} {commit}: {find(commit).title}", "dim"))


def where(out: Console, program: Program, verdicts: Sequence[Verdict]) -> None:
    """On which of the kernels the finding is that the program is of."""
    headline.terminal(out, program, [*map(_outcome, verdicts)])


def _outcome(verdict: Verdict) -> headline.Outcome:
    return headline.Outcome(verdict.revision.name, verdict.buckets, not verdict.left_out)


def known(out: Console, program: Program, verdict: Verdict) -> None:
    """What of the violations is a bug that is known of that kernel, which this program shows by running once more."""
    from xfdfuzz.engines.compare.known import Fixes, OpenFindings

    findings, fixes, told = OpenFindings(verdict.revision), Fixes(verdict.revision), set[str]()
    for violation in verdict.violations:
        if violation.bucket in told:
            continue
        told.add(violation.bucket)
        commits = fixes.of_violation(program, violation)
        what = [f"{commit} cures it ({find(commit).title})" for commit in commits]
        numbers = () if commits else findings.of_violation(program, violation)
        what += [f"open {'findings' if len(numbers) > 1 else 'finding'} {', '.join(map(str, numbers))}"] * bool(numbers)
        if what:
            hanging(out, 2, (f"known: {violation.bucket}: {'; '.join(what)}", "dim"))


def unnamed(out: Console, file: str, verdicts: Sequence[Verdict]) -> None:
    """On what a program was judged that names no revision, as the user did not."""
    labels = ", ".join(one.revision.label for one in verdicts)
    hanging(out, 2, (f"no expect: line and no --revision, so judged on {labels}; on all: xfdfuzz matrix {file}", "dim"))


def in_a_line(out: Console, file: str, verdicts: Sequence[Verdict]) -> None:
    """A program that is as expected on all of several revisions."""
    line(out, ("ok  ", "bold green"), f"  {file}  {counted(len(verdicts), 'revision')}")


def total(
    out: Console, programs: int, verdicts: int, failures: int, failed: Sequence[tuple[str, Verdict]] = ()
) -> None:
    """The sum of several programs, below what ``failed``, once more, so that nobody has to look for it."""
    line(out)
    for file, verdict in failed:
        line(out, ("FAIL", "bold red"), f"  {file}  {verdict.revision.label}  {conclusion(verdict)}")
    judged = f"{counted(programs, 'program')}, {counted(verdicts, 'verdict')}: "
    line(out, judged, (f"{verdicts - failures} ok, {failures} FAIL", "bold red" if failures else "bold green"))


def conclusion(verdict: Verdict) -> str:
    """What came out, and how much of the program that speaks for."""
    if verdict.failures:
        more = f"; {len(verdict.failures) - _FIRST} more" if len(verdict.failures) > _FIRST else ""
        text = "; ".join(verdict.failures[:_FIRST]) + more
    else:
        text = f"violates {', '.join(verdict.broken)}" if verdict.broken else _clean(verdict)
        if verdict.broken and verdict.ok:
            text += ", as expected"
    if missed := windows.missed(verdict.trace):
        text += f"; {windows.told(missed)}"
    if verdict.differs:
        text += f"; differs from {verdict.differs}"
    left_out = f"{verdict.left_out} of {len(verdict.results)} ops could not happen"
    if not verdict.happened:
        return f"nothing was executed: {left_out}"
    return f"{text}; {left_out}" if verdict.left_out else text


def _clean(verdict: Verdict) -> str:
    """``clean``, and what did not come to pass of what it seems to have tried: of many calls that failed the first."""
    if not verdict.refused:
        return "clean"
    calls = [f"op {step.number} = {trace.result(step)}" for step in verdict.refused]
    more = f" and {len(calls) - _FEW} more" if len(calls) > _FEW else ""
    return f"clean; calls that failed: {', '.join(calls[:_FEW])}{more}"


def as_event(file: str, program: Program, verdict: Verdict) -> ProgramJudged:
    """The verdict as all formats tell it; with the trace if something is wrong."""
    out = io.StringIO()
    if not verdict.ok:
        trace.terminal(console(out), program, verdict.trace, trace.Notes(because.explain(program, verdict)))
    severity = min((violation.severity for violation in verdict.violations), key=SEVERITIES.index, default="")
    return ProgramJudged(verdict.revision.label, file, verdict.ok, conclusion(verdict), out.getvalue(), severity)


def as_object(file: str, program: Program, verdicts: Iterable[Verdict], with_sources: bool = False) -> dict[str, Any]:
    """One program on every revision that it was judged on."""
    found = {verdict.revision.label: _verdict(program, verdict, with_sources) for verdict in verdicts}
    return {"file": file, "verdicts": found}


def _verdict(program: Program, verdict: Verdict, with_sources: bool) -> dict[str, Any]:
    value = {"violations": list(verdict.broken), "results": list(verdict.results), "expected": verdict.ok}
    value["hindrances"] = {
        str(one.step.number): one.step.hindrance for one in verdict.trace if one.step and one.step.hindrance
    }
    value["windows"] = {str(nr): [one.text for one in ones] for nr, ones in windows.said(verdict.trace).items()}
    value["differs"] = verdict.differs or None
    value["because"] = because.as_objects(program, verdict)
    if with_sources:
        value["sources"] = sources.as_object(trace.functions(verdict.trace), Sources(verdict.revision))
    return value
