"""`xfdfuzz list`: what there is."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command
from xfdfuzz.cli.exits import CLEAN, BadInput
from xfdfuzz.cli.explain import tell
from xfdfuzz.cli.inputs import load_invariants, resolve_revisions

if TYPE_CHECKING:
    from xfdfuzz.report.listing import Row

_KINDS = ("revisions", "patches", "ops", "invariants", "goals", "scopes", "fields", "warnings", "profiles")


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands, "list", _list, "list revisions, patches, ops, invariants, goals, scopes, fields, warnings or profiles"
    )
    command.add_argument("kind", choices=_KINDS)
    command.add_argument("name", nargs="?", metavar="NAME", help="explain this one of them, as xfdfuzz explain does")
    command.add_argument(
        "--revision",
        metavar="R",
        help="what this revision has, and of the patches what it has not, or writes, of fields; all else is the same "
        "on all",
    )
    command.add_argument(
        "--left-out", action="store_true", help="of patches, those that the model leaves out on purpose, and why"
    )


def _list(args: argparse.Namespace) -> int:
    from xfdfuzz.report import listing
    from xfdfuzz.report.console import console, write
    from xfdfuzz.report.explanation import EXPLAINED
    from xfdfuzz.revisions import load_entries

    if args.left_out:
        return _left_out(args)
    load_entries()
    only = resolve_revisions([args.revision], [], [])[0] if args.revision else None
    load_invariants(args.invariants)
    if args.name and args.kind in EXPLAINED:
        return tell(args, args.name, args.kind.removesuffix("s").replace("patche", "patch"))
    rows = _profiles() if args.kind == "profiles" else listing.KINDS[args.kind](only)
    if args.name:
        rows = [row for row in rows if args.name in (row.get("name"), row.get("function"))]
        if not rows:
            raise BadInput(f"unknown {args.kind.removesuffix('s')} {args.name}: see xfdfuzz list {args.kind}")
    if args.format == "rich":
        listing.terminal(console(sys.stdout), args.kind, rows)
        return CLEAN
    for row in rows:
        write(listing.as_object(row), sys.stdout)
    return CLEAN


def _left_out(args: argparse.Namespace) -> int:
    from xfdfuzz.report import listing
    from xfdfuzz.report.console import console, write
    from xfdfuzz.revisions.commits import is_meant

    if args.kind != "patches" or args.revision:
        raise BadInput("--left-out: expected xfdfuzz list patches --left-out")
    rows = [row for row in listing.left_out() if not args.name or is_meant(str(row["commit"]), args.name)]
    if not rows:
        raise BadInput(f"unknown patch {args.name}: see xfdfuzz list patches --left-out")
    if args.format == "rich":
        listing.terminal(console(sys.stdout), "left out", rows)
        return CLEAN
    for row in rows:
        write(listing.as_object(row), sys.stdout)
    return CLEAN


def _profiles() -> list[Row]:
    """The options in them are held against the commands'."""
    from xfdfuzz.cli import build_parser
    from xfdfuzz.cli.profiles import rows

    return rows(build_parser())
