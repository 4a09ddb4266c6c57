"""`xfdfuzz diff`: what a user sees differ between two revisions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_detail, add_profile, add_search, plan, search_options
from xfdfuzz.cli.databases import open_databases
from xfdfuzz.cli.inputs import load_invariants, resolve_revisions
from xfdfuzz.cli.output import add_output, close, closed_on_error, listeners, outputs, text_stream
from xfdfuzz.cli.saving import Reporting, Saver, judgement, open_saver, tell_doubts

if TYPE_CHECKING:
    from xfdfuzz.engines.judge.finding import Discrepancy
    from xfdfuzz.engines.judge.lockstep import Pair
    from xfdfuzz.engines.search.report import Report
    from xfdfuzz.engines.stream.events import Event
    from xfdfuzz.report.formats.base import Format


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "diff", _diff, "search two revisions for what a user sees differ")
    command.add_argument("first", metavar="R1", help="a revision: a name, a label, a file *.py")
    command.add_argument("second", metavar="R2", help="the one to hold against it")
    add_profile(command)
    add_search(command, save="differences")
    add_detail(command, "no progress", "differences with their programs")
    add_output(command)


def _diff(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.judge.lockstep import Pair
    from xfdfuzz.engines.processes.interrupt import PatientInterrupt
    from xfdfuzz.report.files import command

    first, second = (resolve_revisions([name], [], [])[0] for name in (args.first, args.second))
    load_invariants(args.invariants)
    pair = Pair(first, second)
    saver: Saver[Discrepancy] = open_saver(args)
    both = [first.address, second.address]
    repeat = command("diff", *both, *search_options(args))
    reports = outputs(args)
    with PatientInterrupt(everywhere=True):
        with closed_on_error(reports):
            code = judgement(_search(args, pair, saver, reports, repeat))
        return max(code, close(reports))


def _search(
    args: argparse.Namespace, pair: Pair, saver: Saver[Discrepancy], reports: Sequence[Format], repeat: str
) -> Report[Discrepancy]:
    """Search; every difference is saved before anything is said about it."""
    from xfdfuzz.engines.search.differences import diff
    from xfdfuzz.report.console import console, line
    from xfdfuzz.report.progress import Progress, of_search

    err = console(sys.stderr, quiet=args.quiet)
    line(err, f"{pair.first.label} | {pair.second.label}: seed {args.seed}; repeat: {repeat}")
    with Progress(err, partial(of_search, noun="difference")) as progress:
        printing = (progress.take, partial(_print, args, repeat))
        reporting = Reporting(saver, listeners(args, reports, *printing, place=saver.hidden))
        diff(pair, plan(args), tell=reporting, databases=open_databases(args))
    result: Report[Discrepancy] = reporting.result
    return result


def _print(args: argparse.Namespace, repeat: str, event: Event) -> None:
    """What the search came to, on standard output."""
    from xfdfuzz.engines.stream.events import Ended
    from xfdfuzz.report import differences
    from xfdfuzz.report.console import console, write

    if not isinstance(event, Ended):
        return
    report: Report[Discrepancy] = event.result
    if args.format == "json":
        write(differences.as_object(report), text_stream(args))
    else:
        differences.terminal(console(text_stream(args)), report, repeat, args.verbose)
    tell_doubts(report.doubts)
