"""What differs between two revisions: as a program to keep, on a terminal, and as JSON."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from xfdfuzz.engines.judge.finding import Discrepancy
from xfdfuzz.engines.judge.lockstep import Compared, Pair, run
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.report import Report
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.program.text import format_op, format_program
from xfdfuzz.report import machine
from xfdfuzz.report.findings import save_text
from xfdfuzz.report.terminal import line, total
from xfdfuzz.revisions import Revision


def save(found: Discrepancy, directory: Path) -> Path:
    """Save the program; raises OSError."""
    first, second = found.pair
    content = text(found)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return save_text(f"{first.label}-vs-{second.label}-{found.difference.op}-{digest}.xfd", content, directory)


def text(found: Discrepancy) -> str:
    """The program with what each revision makes of it.

    A revision with patches of its own cannot be named in an `expect:` line; there the comments alone say it.
    """
    first, second = found.pair
    difference = found.difference
    comments = [f"{first.label}: {difference.first}", f"{second.label}: {difference.second}"]
    same = (first.applied, first.reverted) == (second.applied, second.reverted)
    named = [r for r in found.pair if same or not (r.applied or r.reverted)]
    program = replace(
        found.program,
        title=difference.bucket,
        expect=tuple(expectation for r in named for expectation in _expectations(found.program, r)),
        apply=first.applied if same else (),
        revert=first.reverted if same else (),
        comments=(*comments, *(f"also: {other.what}" for other in found.also)),
    )
    return format_program(program)


def _expectations(program: Program, revision: Revision) -> Iterator[Expectation]:
    """What the program breaks on the revision, and the results that are not those in its lines."""
    verdict = judge(program, revision, expectations=False)
    yield Expectation(revision.name, "violates" if verdict.broken else "clean", verdict.broken)
    for number, (result, written) in enumerate(zip(verdict.results, program.results, strict=True), 1):
        if result != written:
            yield Expectation(revision.name, "result", op=number, result=result)


def report(out: Console, report: Report[Discrepancy], repeat: str) -> None:
    """Every difference with its program, and the sum of it last."""
    for found in report.found:
        _discrepancy(out, found)
    total(out, report, "difference")
    line(out, f"repeat: {repeat}")


def _discrepancy(out: Console, found: Discrepancy) -> None:
    first, second = found.pair
    line(out)
    line(out, (found.difference.bucket, "bold"))
    width = max(len(first.label), len(second.label))
    line(out, f"  {first.label:{width}}  {found.difference.first}")
    line(out, f"  {second.label:{width}}  {found.difference.second}")
    for other in found.also:
        line(out, f"  also: {other.what}")
    line(out)
    line(out, (" ".join(("  machine", *found.program.machine.words())), "dim"))
    for compared in run(found.program, found.pair):
        _step(out, compared)
    line(out)
    if found.file is None:
        line(out, ("  not saved", "bold red"))
        return
    line(out, "  saved   ", (str(found.file), "green"))
    line(out, "  replay  ", (replay_command(found), "green"))


def _step(out: Console, compared: Compared) -> None:
    first, second = (str(step.result) for step in (compared.first, compared.second))
    result = first if first == second else f"{first} | {second}"
    style = "bold red" if compared.differences else ""
    line(out, (f"{compared.first.number:4}  ", "dim"), (format_op(compared.first.op), "bold"), " = ", (result, style))


def replay_command(found: Discrepancy) -> str:
    """The command that shows both sides step by step."""
    return shlex.join(["xfdfuzz", "replay", str(found.file), *revision_options(found.pair)])


def revision_options(pair: Pair) -> list[str]:
    """Both revisions as options of the command line."""
    return [word for revision in pair for word in ("--revision", revision.address)]


def as_object(report: Report[Discrepancy]) -> dict[str, Any]:
    """The whole search as one object."""
    return {
        "revisions": [revision.label for revision in report.revisions],
        **machine.search(report),
        "differences": [_difference(found) for found in report.found],
    }


def _difference(found: Discrepancy) -> dict[str, Any]:
    return {
        "bucket": found.difference.bucket,
        "op": found.difference.op,
        "what": found.difference.what,
        "first": found.difference.first,
        "second": found.difference.second,
        "also": [other.what for other in found.also],
        "program": text(found),
        "file": None if found.file is None else str(found.file),
    }
