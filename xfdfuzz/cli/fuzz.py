"""`xfdfuzz fuzz`: search revisions for violations, save and print what is found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from xfdfuzz.cli.arguments import (
    Commands,
    add_also,
    add_command,
    add_detail,
    add_known,
    add_profile,
    add_revisions,
    add_search,
    common_options,
    plan,
    search_options,
)
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, complain
from xfdfuzz.cli.inputs import known_on, load_invariants, read_baseline, resolve_revisions
from xfdfuzz.cli.modes import Search, add_mode, beginnings, mode_words, searches
from xfdfuzz.cli.output import add_output, close, closed_on_error, listeners, outputs, text_stream
from xfdfuzz.cli.pruning import prune
from xfdfuzz.cli.saving import Reporting, Saver, judgement, open_saver, tell_doubts
from xfdfuzz.cli.shares import Shard, TimeShares, shard

if TYPE_CHECKING:
    from rich.console import Console

    from xfdfuzz.baseline.entries import Baseline
    from xfdfuzz.engines.judge.finding import Finding
    from xfdfuzz.engines.search.database import Database
    from xfdfuzz.engines.search.report import Report
    from xfdfuzz.engines.stream.events import Event
    from xfdfuzz.report.formats.base import Format
    from xfdfuzz.revisions import Revision


class _Job(NamedTuple):
    """What all campaigns of a command share."""

    args: argparse.Namespace
    saver: Saver[Finding]
    databases: Sequence[Database]
    known: Baseline
    reports: Sequence[Format]
    err: Console


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "fuzz", _fuzz, "search revisions for violations, shrink and save what is found")
    add_profile(command)
    add_revisions(command, "default: amx-v1")
    add_also(command)
    add_search(command, save="findings")
    common_options(command).add_argument(
        "--shard",
        type=shard,
        default=Shard(1, 1),
        metavar="I/N",
        help="do the part of the I-th of N machines: its revisions, with a seed of its own",
    )
    add_mode(command)
    add_known(command)
    add_detail(command, "no progress", "findings with their traces, and the coverage")
    command.add_argument("--all", action="store_true", help="list consequences as their roots are")
    add_output(command)


def _fuzz(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.processes.interrupt import PatientInterrupt
    from xfdfuzz.report.console import console

    # before the invariants, which may speak of a series from outside
    wanted = [*args.revision, *args.also] or ["amx-v1"]
    revisions = args.shard.of(resolve_revisions(wanted, args.apply, args.revert))
    args.seed = args.shard.seed(args.seed)
    load_invariants(args.invariants)
    if args.mode == "prune":
        return prune(args, revisions)
    planned = searches(args.mode, revisions)
    err = console(sys.stderr, quiet=args.quiet)
    saver: Saver[Finding] = open_saver(args)
    job = _Job(args, saver, beginnings(args), read_baseline(args.known, err), outputs(args), err)
    code = CLEAN
    shares = TimeShares(None if args.examples else args.time, len(planned))
    with PatientInterrupt(everywhere=True) as ctrl_c:
        with closed_on_error(job.reports):
            for revision, search in planned:
                if ctrl_c.pressed:
                    code = complain("interrupted", NOT_JUDGED)
                    break
                args.time = shares.next()
                if args.time == 0:  # as where processes took longer to begin than they had
                    code = complain(f"{revision.label}: no time was left for it", NOT_JUDGED)
                    continue
                report = _campaign(job, revision, search)
                code = max(code, judgement(report))
                if report.interrupted:
                    break
        return max(code, close(job.reports))


def _campaign(job: _Job, revision: Revision, search: Search) -> Report[Finding]:
    """Fuzz one revision; every finding is saved before anything is said about it."""
    from xfdfuzz.report.console import line
    from xfdfuzz.report.progress import Progress, of_search

    args, err = job.args, job.err
    line(err, f"{revision.label}: seed {args.seed}; repeat: {_repeat_command(args, revision)}")
    here = known_on(job.known, revision, err)
    with Progress(err, of_search) as progress:
        printing = (progress.take, partial(_print, args, revision))
        reporting = Reporting(job.saver, listeners(args, job.reports, *printing, place=job.saver.hidden))
        search(plan(args), known=here, tell=reporting, databases=job.databases)
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
        repeat = _repeat_command(args, revision)
        campaign.terminal(console(text_stream(args)), report, repeat, args.invariants, args.verbose, args.all)
    tell_doubts(report.doubts)


def _repeat_command(args: argparse.Namespace, revision: Revision) -> str:
    from xfdfuzz.report.files import command, revision_options

    # the option once for each: a file name can then not be taken for the end of the list
    known = [word for path in args.known for word in ("--known", str(path))]
    return command("fuzz", *revision_options(revision), *mode_words(args), *search_options(args), *known)
