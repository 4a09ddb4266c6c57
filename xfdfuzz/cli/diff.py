"""`xfdfuzz diff`: what a user sees differ between two revisions."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_search, plan, search_options
from xfdfuzz.cli.inputs import load_invariants, resolve_revisions
from xfdfuzz.cli.saving import Reporting, Saver, judgement

if TYPE_CHECKING:
    from xfdfuzz.engines.judge.finding import Discrepancy
    from xfdfuzz.engines.judge.lockstep import Pair
    from xfdfuzz.engines.search.report import Report
    from xfdfuzz.engines.stream.events import Event


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "diff", _diff, "search two revisions for what a user sees differ")
    command.add_argument("first", metavar="R1", help="a revision: a name, a label, a file *.py")
    command.add_argument("second", metavar="R2", help="the one to hold against it")
    add_search(command, save="differences")


def _diff(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.judge.lockstep import Pair

    first, second = (resolve_revisions([name], [], [])[0] for name in (args.first, args.second))
    load_invariants(args.invariants)
    pair = Pair(first, second)
    saver: Saver[Discrepancy] = Saver(args.save)
    both = [first.address, second.address]
    repeat = shlex.join(["xfdfuzz", "diff", *both, *search_options(args)])
    return judgement(_search(args, pair, saver, repeat))


def _search(args: argparse.Namespace, pair: Pair, saver: Saver[Discrepancy], repeat: str) -> Report[Discrepancy]:
    """Search; every difference is saved before anything is said about it."""
    from xfdfuzz.engines.search.differences import diff
    from xfdfuzz.report.console import console, line
    from xfdfuzz.report.progress import Progress, of_search

    err = console(sys.stderr)
    line(err, f"{pair.first.label} | {pair.second.label}: seed {args.seed}; repeat: {repeat}")
    with Progress(err, partial(of_search, noun="difference")) as progress:
        reporting = Reporting(saver, [progress.take, partial(_print, args.format, repeat)])
        diff(pair, plan(args), tell=reporting)
    result: Report[Discrepancy] = reporting.result
    return result


def _print(form: str, repeat: str, event: Event) -> None:
    """What the search came to, on standard output."""
    from xfdfuzz.engines.stream.events import Ended
    from xfdfuzz.report import differences
    from xfdfuzz.report.console import console, write

    if not isinstance(event, Ended):
        return
    report: Report[Discrepancy] = event.result  # type: ignore[assignment]
    if form == "json":
        write(differences.as_object(report), sys.stdout)
    else:
        differences.terminal(console(sys.stdout), report, repeat)
