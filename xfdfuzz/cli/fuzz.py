"""`xfdfuzz fuzz`: search revisions for violations, save and print what is found."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_known, add_revisions, add_search, plan, search_options
from xfdfuzz.cli.databases import open_databases
from xfdfuzz.cli.exits import CLEAN
from xfdfuzz.cli.inputs import known_buckets, load_invariants, read_known, resolve_revisions
from xfdfuzz.cli.output import add_output, close, listeners, outputs, text_stream
from xfdfuzz.cli.saving import Reporting, Saver, judgement, open_saver, tell_doubts

if TYPE_CHECKING:
    from rich.console import Console

    from xfdfuzz.engines.judge.finding import Finding
    from xfdfuzz.engines.search.database import Database
    from xfdfuzz.engines.search.report import Report
    from xfdfuzz.engines.stream.events import Event
    from xfdfuzz.program.program import Program
    from xfdfuzz.report.formats.base import Format
    from xfdfuzz.revisions import Revision


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "fuzz", _fuzz, "search revisions for violations, shrink and save what is found")
    add_revisions(command, "default: amx-v1")
    add_search(command, save="findings")
    add_known(command)
    add_output(command)


def _fuzz(args: argparse.Namespace) -> int:
    from xfdfuzz.report.console import console

    # before the invariants, which may speak of a series from outside
    revisions = resolve_revisions(args.revision or ["amx-v1"], args.apply, args.revert)
    load_invariants(args.invariants)
    saver: Saver[Finding] = open_saver(args)
    databases = open_databases(args.database)
    known = read_known(args.known)
    reports = outputs(args)
    err = console(sys.stderr)
    code = CLEAN
    for revision in revisions:
        report = _campaign(args, revision, known, saver, databases, reports, err)
        code = max(code, judgement(report))
        if report.interrupted:
            break
    return max(code, close(reports))


def _campaign(
    args: argparse.Namespace,
    revision: Revision,
    known: Sequence[Program],
    saver: Saver[Finding],
    databases: Sequence[Database],
    reports: Sequence[Format],
    err: Console,
) -> Report[Finding]:
    """Fuzz one revision; every finding is saved before anything is said about it."""
    from xfdfuzz.engines.search.violations import fuzz
    from xfdfuzz.report.console import line
    from xfdfuzz.report.progress import Progress, of_search

    line(err, f"{revision.label}: seed {args.seed}; repeat: {_repeat_command(args, revision)}")
    buckets = known_buckets(known, revision, err)
    with Progress(err, of_search) as progress:
        printing = (progress.take, partial(_print, args, revision))
        reporting = Reporting(saver, listeners(args, reports, *printing, place=saver.hidden))
        fuzz(revision, plan(args), known=buckets, tell=reporting, databases=databases)
    result: Report[Finding] = reporting.result
    return result


def _print(args: argparse.Namespace, revision: Revision, event: Event) -> None:
    """What a campaign came to, on standard output."""
    from xfdfuzz.engines.stream.events import Ended
    from xfdfuzz.report import campaign
    from xfdfuzz.report.console import console, write

    if not isinstance(event, Ended):
        return
    report: Report[Finding] = event.result
    if args.format == "json":
        write(campaign.as_object(report), text_stream(args))
    else:
        campaign.terminal(console(text_stream(args)), report, _repeat_command(args, revision), args.invariants)
    tell_doubts(report.doubts)


def _repeat_command(args: argparse.Namespace, revision: Revision) -> str:
    from xfdfuzz.report.files import revision_options

    # the option once for each: a file name can then not be taken for the end of the list
    known = [word for path in args.known for word in ("--known", str(path))]
    return shlex.join(["xfdfuzz", "fuzz", *revision_options(revision), *search_options(args), *known])
