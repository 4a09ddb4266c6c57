"""`xfdfuzz bisect`: which patch introduces or cures a violation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xfdfuzz.cli.arguments import Commands, add_command
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, BadInput, complain
from xfdfuzz.cli.inputs import load_invariants, read_program, resolve_names, revision_names


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "bisect", _bisect, "find the patch that introduces or cures a violation")
    command.add_argument("file", type=Path, metavar="FILE", help="the program that shows the violation")
    command.add_argument("--from", dest="first", default="v5.17", metavar="R", help="the older revision (v5.17)")
    command.add_argument("--to", dest="last", default="v7.3", metavar="R", help="the newer revision (v7.3)")
    command.add_argument("--invariant", default="", metavar="NAME", help="only where this one changes (default: all)")


def _bisect(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.compare.bisect import bisect, line_between
    from xfdfuzz.invariants.vocabulary import INVARIANTS
    from xfdfuzz.report import bisection
    from xfdfuzz.report.console import console, write

    args.first, args.last = revision_names([args.first, args.last])
    resolve_names([args.first, args.last], [], [])
    load_invariants(args.invariants)
    if args.invariant and args.invariant not in INVARIANTS:
        raise BadInput(f"unknown invariant {args.invariant}: see xfdfuzz list invariants")
    line = line_between(read_program(args.file, [args.first, args.last]), args.first, args.last)
    found = bisect(line, args.invariant)
    if args.format == "json":
        write(bisection.as_object(str(args.file), line, found), sys.stdout)
    else:
        bisection.terminal(console(sys.stdout), line, found)
    if not found:
        what = ", ".join(sorted(line.ends[0].broken)) or "nothing"
        return complain(f"{args.file}: breaks the same on {line.first.label} and {line.last.label}: {what}", NOT_JUDGED)
    return CLEAN if all(one.verified for one in found) else NOT_JUDGED
