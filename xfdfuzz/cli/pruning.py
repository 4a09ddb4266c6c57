"""`fuzz --mode prune`: fewer and plainer programs in the directory of the findings, and in the databases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.baseline import check
from xfdfuzz.cli.databases import open_databases
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, complain, reason
from xfdfuzz.cli.inputs import read_baseline, read_program
from xfdfuzz.cli.output import close, is_public, listeners, outputs, text_stream
from xfdfuzz.cli.saving import PRIVATE, saved_in
from xfdfuzz.cli.shares import TimeShares

if TYPE_CHECKING:
    from xfdfuzz.engines.judge.finding import Finding
    from xfdfuzz.engines.search.database import Database
    from xfdfuzz.engines.search.plan import Budget
    from xfdfuzz.engines.search.prune import Pruned
    from xfdfuzz.engines.stream.events import Event, Listener
    from xfdfuzz.report.formats.base import Format
    from xfdfuzz.report.pruning import Result
    from xfdfuzz.revisions import Revision


def prune(args: argparse.Namespace, revisions: Sequence[Revision]) -> int:
    """Prune what was saved and kept of each revision; the exit code says whether it could be done."""
    from xfdfuzz.report import pruning
    from xfdfuzz.report.console import console, write

    databases = open_databases(args)
    baseline = read_baseline(args.known, console(sys.stderr, quiet=args.quiet))
    reports = outputs(args)
    shares = TimeShares(args.time, len(revisions))
    code = CLEAN
    for revision in revisions:
        result, done = _pruned(args, revision, databases, reports, shares.next())
        code = max(code, CLEAN if done else NOT_JUDGED)
        if args.format == "json":
            write(pruning.as_object(result), text_stream(args))
        else:
            pruning.terminal(console(text_stream(args)), result)
    return max(code, check(args, baseline, []), close(reports))


def _pruned(
    args: argparse.Namespace,
    revision: Revision,
    databases: Sequence[Database],
    reports: Sequence[Format],
    seconds: float | None,
) -> tuple[Result, bool]:
    """Prune each directory for itself, so that nothing private leaves its own; whether all could be written."""
    from xfdfuzz.engines.search.plan import Budget
    from xfdfuzz.engines.stream.events import Began, Ended, Found
    from xfdfuzz.report.pruning import Result

    label, budget, done = revision.label, Budget(seconds), True
    heard = listeners(args, reports, place=str(args.save / PRIVATE))
    _tell(heard, Began(label, (revision,), {}))
    result = Result(label)
    for directory in saved_in(args.save):
        pruned = _found_again(directory, revision, budget)
        tidied = _tidied(pruned, directory)
        kept, removed = tidied or (pruned.kept, ())
        done &= tidied is not None
        for finding in kept:
            _tell(heard, Found(label, finding))
        part = Result(label, kept, removed, pruned.silent)
        result = result.joined(part.counted() if directory.name == PRIVATE and is_public(args) else part)
    _tell(heard, Ended(label, None, interrupted=False))
    return _drop_needless(databases, revision, result), done


def _tell(heard: Sequence[Listener], event: Event) -> None:
    for listener in heard:
        listener(event)


def _found_again(directory: Path, revision: Revision, budget: Budget) -> Pruned[Path]:
    from xfdfuzz.engines.search.prune import Saved, prune
    from xfdfuzz.report.files import invariant_in_name

    saved = {}
    for file in sorted(directory.glob("*.xfd")):
        invariant = invariant_in_name(file.name, revision)
        if invariant:
            saved[file] = Saved(read_program(file), invariant)
    return prune(saved, revision, budget.in_time)


def _tidied(pruned: Pruned[Path], directory: Path) -> tuple[list[Finding], list[Path]] | None:
    """The findings with their files, and what was removed; None where it cannot be done, which is told."""
    from xfdfuzz.report.directory import put_in_place

    if not pruned.kept:
        return [], []  # the directory need not be there
    try:
        return put_in_place(pruned.kept, pruned.needless, directory)
    except OSError as error:
        complain(f"cannot prune {directory}: {reason(error)}", NOT_JUDGED)
        return None


def _drop_needless(databases: Sequence[Database], revision: Revision, result: Result) -> Result:
    """Drop from the databases what adds nothing or should not be there, and count it in the result."""
    from xfdfuzz.engines.search.database import Kept
    from xfdfuzz.engines.search.prune import needless

    def lost(reason: str) -> None:
        print(f"lost a database: {reason}", file=sys.stderr)

    kept = Kept(databases, [revision], lost)
    programs = kept.programs()
    misplaced = kept.misplaced()
    dropped = [*misplaced, *needless((one for one in programs if one not in misplaced), revision)]
    for program in dropped:
        kept.drop(program)
    return result._replace(programs=len(programs), dropped=len(dropped))
