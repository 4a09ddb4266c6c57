"""`fuzz --mode prune`: fewer and plainer programs in the directory of the findings, and in the databases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.databases import open_databases
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, complain, reason
from xfdfuzz.cli.inputs import read_program
from xfdfuzz.cli.output import close, outputs, tell, text_stream
from xfdfuzz.cli.saving import Saver
from xfdfuzz.cli.shares import TimeShares

if TYPE_CHECKING:
    from xfdfuzz.engines.judge.finding import Finding
    from xfdfuzz.engines.search.database import Database
    from xfdfuzz.engines.search.prune import Pruned
    from xfdfuzz.revisions import Revision


def prune(args: argparse.Namespace, revisions: Sequence[Revision]) -> int:
    """Prune what was saved and kept of each revision; the exit code says whether it could be done."""
    from xfdfuzz.engines.processes.answering import answers_within
    from xfdfuzz.engines.stream.events import Began, Ended, Found
    from xfdfuzz.report import pruning
    from xfdfuzz.report.console import console, write

    saver: Saver[Finding] = Saver(args.save)
    databases = open_databases(args.database)
    reports = outputs(args)
    shares = TimeShares(args.time, len(revisions))
    code = CLEAN
    for revision in revisions:
        with answers_within(args.step_timeout):
            pruned = _pruned(args.save, revision, shares.next())
            dropped = _drop_needless(databases, revision)
        tell(reports, Began(revision.label, (revision,), {}))
        kept = [saver.save(finding) for finding in pruned.kept]
        for finding in kept:
            tell(reports, Found(revision.label, finding))
        removed = _remove(pruned.needless, kept)
        code = max(code, CLEAN if removed is not None else NOT_JUDGED)
        tell(reports, Ended(revision.label, None, interrupted=False))
        result = pruning.Result(revision.label, kept, removed or [], list(pruned.silent), *dropped)
        if args.format == "json":
            write(pruning.as_object(result), text_stream(args))
        else:
            pruning.terminal(console(text_stream(args)), result)
    return max(code, close(reports))


def _pruned(directory: Path, revision: Revision, seconds: float | None) -> Pruned[Path]:
    from xfdfuzz.engines.search.plan import Budget
    from xfdfuzz.engines.search.prune import Saved, prune
    from xfdfuzz.report.files import invariant_in_name

    saved = {}
    for file in sorted(directory.glob("*.xfd")):
        invariant = invariant_in_name(file.name, revision)
        if invariant:
            saved[file] = Saved(read_program(file), invariant)
    return prune(saved, revision, Budget(seconds).in_time)


def _remove(files: Sequence[Path], kept: Sequence[Finding]) -> list[Path] | None:
    """Remove files but for those that are kept, if each of these has one; None where that cannot be done."""
    if any(finding.file is None for finding in kept):
        return None  # it was told why
    needed = {finding.file for finding in kept}
    gone = [file for file in files if file not in needed]
    try:
        for file in gone:
            file.unlink(missing_ok=True)
    except OSError as error:
        complain(f"cannot remove {reason(error)}", NOT_JUDGED)
        return None
    return gone


def _drop_needless(databases: Sequence[Database], revision: Revision) -> tuple[int, int]:
    """How many programs the databases had, and how many of them were dropped."""
    from xfdfuzz.engines.search.database import Kept
    from xfdfuzz.engines.search.prune import needless

    def lost(reason: str) -> None:
        print(f"lost a database: {reason}", file=sys.stderr)

    kept = Kept(databases, revision.label, lost)
    programs = kept.programs()
    dropped = needless(programs, revision)
    for program in dropped:
        kept.drop(program)
    return len(programs), len(dropped)
