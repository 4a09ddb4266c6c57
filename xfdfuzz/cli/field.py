"""`xfdfuzz field`: who writes a field, how it lives, and what holds of it that nobody wrote down."""

from __future__ import annotations

import argparse
import random
import sys
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_revisions, common_options, seconds, seed
from xfdfuzz.cli.emit import add_emit, emit, wanted
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, BadInput, complain
from xfdfuzz.cli.inputs import load_invariants, resolve_revisions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xfdfuzz.engines.review.subjects import Subject
    from xfdfuzz.engines.search.plan import Plan


def add(commands: Commands) -> None:
    """Add the command."""
    summary = "say who writes a field, how it lives, and what holds of it that nobody wrote down"
    command = add_command(commands, "field", _field, summary)
    add = command.add_argument
    add("path", metavar="PATH", help="a field as reports name it: v.guest_fpu.perm, cpu0.xfd_state")
    add_revisions(command, "one; default: amx-v1")
    add("--against", metavar="R2", help="which relations hold on one of the two revisions alone, and what breaks them")
    add("--all", action="store_true", help="all relations, not a dozen")
    add_emit(command)
    add_trial(command, "scopes: the first is where relations are looked for (tiny), others where they are tried (all)")


def add_trial(command: argparse.ArgumentParser, scopes: str) -> None:
    """The options that say where what holds in one scope is tried, for how long, and who reads it."""
    add = command.add_argument
    add("--scope", action="append", default=[], metavar="NAME", help=f"{scopes}; repeatable")
    add("--time", type=seconds, default=20.0, metavar="SECONDS", help="how long it is tried elsewhere (default: 20)")
    more, any_seed = common_options(command), random.SystemRandom().randrange(1 << 32)
    more.add_argument("--seed", type=seed, metavar="N", default=any_seed, help="the fuzzer's seed")
    more.add_argument(
        "--private", action="store_true", help="leave out programs that may show a vulnerability of the newest kernel"
    )


def trial(args: argparse.Namespace) -> Plan:
    """What the options say of the fuzzer."""
    from xfdfuzz.engines.search.plan import Plan

    return Plan(seed=args.seed, engine="scout", seconds=args.time, step_timeout=args.step_timeout)


def scopes(args: argparse.Namespace) -> tuple[str, list[str] | None]:
    """The first scope, and the others, if any are named."""
    from xfdfuzz.strategies.scopes import SCOPES

    for name in args.scope:
        if name not in SCOPES:
            raise BadInput(f"unknown scope {name!r}: expected one of {', '.join(SCOPES)}")
    first, *others = args.scope or ["tiny"]
    return first, others or None


def one_revision(wanted: Sequence[str], args: argparse.Namespace, command: str) -> list[str]:
    """The one that is named, or amx-v1; raises BadInput for several."""
    if len(wanted) > 1:
        raise BadInput(f"{command} is about one revision: expected one --revision")
    return [*wanted] or ["amx-v1"]


def telling(args: argparse.Namespace) -> Callable[[str], None]:
    """What tells on standard error what is being done."""
    from xfdfuzz.report.console import console, line

    err = console(sys.stderr)
    return lambda what: line(err, (what, "dim"))


def _field(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.processes.workers import users_errors_named
    from xfdfuzz.engines.review.against import against
    from xfdfuzz.engines.review.biography import SHOWN, biography
    from xfdfuzz.engines.review.space import explored
    from xfdfuzz.report import biography as report
    from xfdfuzz.report.console import console, write
    from xfdfuzz.report.hiding import hide

    (revision,) = resolve_revisions(one_revision(args.revision, args, "field"), args.apply, args.revert)
    others = resolve_revisions([args.against], [], []) if args.against else []
    load_invariants(args.invariants)
    subject, place = _subject(args.path), wanted(args)
    first, elsewhere = scopes(args)
    with users_errors_named():
        tell, shown = telling(args), None if args.all else max(SHOWN, args.relation)
        spaces = []
        for one in (revision, *others):
            tell(f"exploring {first} on {one.label}")
            spaces.append(explored(one, first))
            if spaces[-1].interrupted:
                break
        here, *there = spaces
        compared = next((against(subject, here, other, shown) for other in there if not other.interrupted), None)
        found = biography(subject, here, trial(args), elsewhere=elsewhere, shown=shown, tell=tell)
    if found.interrupted:
        place = None
    if place is not None:
        tell(f"looking for what would break relation {args.relation}")
        emit(place, found, here, args.relation)
    if args.private:
        found, compared = hide(found, (revision, *others)), hide(compared, (revision, *others))
    if args.format == "json":
        files = None if place is None else {"file": str(place.file), "test": str(place.test)}
        write(report.as_object(found, compared, files), sys.stdout)
        return complain("interrupted", NOT_JUDGED) if found.interrupted else CLEAN
    out = console(sys.stdout)
    report.terminal(out, found)
    if compared:
        report.comparison(out, compared)
    if place is not None:
        print(place.told(), f"     xfdfuzz fuzz --revision {revision.address} --invariants {place.file}", sep="\n")
    return complain("interrupted", NOT_JUDGED) if found.interrupted else CLEAN


def _subject(path: str) -> Subject:
    from xfdfuzz.engines.review.subjects import UnknownFieldError, subject

    try:
        return subject(path)
    except UnknownFieldError as error:
        raise BadInput(str(error)) from None
