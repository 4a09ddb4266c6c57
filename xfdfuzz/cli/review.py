"""`xfdfuzz review`: what a reviewer asks of a series, answered within a time."""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from xfdfuzz.cli.arguments import Commands, add_command, common_options, directory, seconds, seed
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, VIOLATION, BadInput
from xfdfuzz.cli.field import telling
from xfdfuzz.cli.inputs import load_invariants, resolve_revisions
from xfdfuzz.cli.saving import Reporting, Saver, check_output, tell_doubts

if TYPE_CHECKING:
    from xfdfuzz.engines.review.review import Review
    from xfdfuzz.engines.stream.events import Progressed
    from xfdfuzz.revisions import Revision


def add(commands: Commands) -> None:
    """Add the command."""
    summary = "say what a series changes, breaks and never does, as a reviewer asks"
    command = add_command(commands, "review", _review, summary, formats=("rich", "mail", "json"))
    add = command.add_argument
    add("revision", metavar="R|FILE.py", help="the series: a file, a name, a label, or - for that of a mail on stdin")
    add("--base", metavar="R0", help="what it is held against (default: what it stands on)")
    add("--time", type=seconds, default=600.0, metavar="SECONDS", help="how long in all; 90, 10m, 2h (default: 10m)")
    any_seed = random.SystemRandom().randrange(1 << 32)
    add("--seed", type=seed, metavar="N", default=any_seed, help="repeat with this seed (default: random)")
    add("-o", "--out", type=Path, metavar="FILE", help="write it there and not to standard output")
    more = common_options(command).add_argument
    more(
        "--save", type=directory, default=Path("findings"), metavar="DIR", help="where programs go (default: findings)"
    )
    add("-q", "--quiet", action="store_true", help="no progress")
    more("--i-have-reported-it", action="store_true", help="tell in the mail what may be a vulnerability (SECURITY.md)")


def _review(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.processes.workers import users_errors_named
    from xfdfuzz.engines.review.review import review
    from xfdfuzz.engines.search.plan import Plan
    from xfdfuzz.report.console import console
    from xfdfuzz.report.progress import Progress

    (revision,) = resolve_revisions([args.revision], [], [])
    base = _base(args, revision)
    load_invariants(args.invariants)
    if args.out is not None:
        check_output(args.out)
    saver = Saver[object](args.save)
    err = console(sys.stderr, quiet=args.quiet)
    plan = Plan(seed=args.seed, seconds=args.time, step_timeout=args.step_timeout)
    with users_errors_named(), Progress(err, _described) as progress:
        say = telling(args) if not args.quiet else lambda what: None
        found = review(revision, base, plan, tell=Reporting(saver, [progress.take]), say=say, keep=saver.save)
    _tell(args, found)
    return _judgement(found)


def _base(args: argparse.Namespace, revision: Revision) -> Revision:
    from xfdfuzz.revisions import RevisionError, base_of

    if args.base:
        return resolve_revisions([args.base], [], [])[0]
    try:
        return base_of(revision)
    except RevisionError as error:
        raise BadInput(f"{error}; or --base R0") from None


def _described(event: Progressed) -> str:
    from xfdfuzz.report.progress import of_exploration, of_search

    return of_exploration(event) if "depth" in event.counts else of_search(event, "discovery")


def _tell(args: argparse.Namespace, found: Review) -> None:
    """Print it, or write it to the file."""
    from xfdfuzz.report.files import save_bytes

    if args.out is None:
        _print(args, found, sys.stdout)
        return
    text = StringIO()
    _print(args, found, text)
    save_bytes(args.out.name, lambda stream: stream.write(text.getvalue().encode()), args.out.parent)


def _print(args: argparse.Namespace, found: Review, stream: TextIO) -> None:
    from xfdfuzz.report.console import console, write
    from xfdfuzz.report.files import command
    from xfdfuzz.report.review import mail, text

    if args.format == "json":
        write(text.as_object(found), stream)
    elif args.format == "mail":
        repeat = shlex.join(["xfdfuzz", *_repeat(args, found)])
        print(mail.text(found, repeat, reported=args.i_have_reported_it), end="", file=stream)
    else:
        text.terminal(console(stream), found, command(*_repeat(args, found)), args.invariants)


def _repeat(args: argparse.Namespace, found: Review) -> list[str]:
    """The command, without its first word, that does it again."""
    base = ["--base", found.base.address] if args.base else []
    files = [word for file in args.invariants for word in ("--invariants", str(file))]
    limit = ["--time", f"{args.time:g}", "--seed", str(args.seed)]
    return ["review", found.revision.address, *base, *limit, *files]


def _judgement(found: Review) -> int:
    """The exit code: differences are what a series is for."""
    reports = [one for one in (found.differences, found.findings) if one]
    for report in reports:
        tell_doubts(report.doubts)
    unsaved = any(one.file is None for report in reports for one in report.found)
    if found.interrupted or unsaved or any(report.doubts or not report.stats.steps for report in reports):
        return NOT_JUDGED
    return VIOLATION if found.new or found.fires else CLEAN
