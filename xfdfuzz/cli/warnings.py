"""`xfdfuzz warnings`: can this WARN fire? For every one of a revision."""

from __future__ import annotations

import argparse
import sys

from xfdfuzz.cli.arguments import Commands, add_command
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, complain
from xfdfuzz.cli.field import add_trial, scopes, telling, trial
from xfdfuzz.cli.inputs import load_invariants, resolve_revisions


def add(commands: Commands) -> None:
    """Add the command."""
    summary = "say of each WARN_ON, KVM_BUG_ON and BUG of a revision whether it can fire"
    command = add_command(commands, "warnings", _warnings, summary)
    command.add_argument("revision", metavar="R", help="a revision: a name, a label, a file *.py")
    add_trial(command, "scopes: the first is exhausted whatever that takes (tiny), others as far as time allows (all)")


def _warnings(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.processes.workers import users_errors_named
    from xfdfuzz.engines.review.warnings import warnings
    from xfdfuzz.report import warnings as report
    from xfdfuzz.report.console import console, write
    from xfdfuzz.report.hiding import hide

    (revision,) = resolve_revisions([args.revision], [], [])
    load_invariants(args.invariants)
    first, elsewhere = scopes(args)
    with users_errors_named():
        found = warnings(revision, trial(args), first, elsewhere=elsewhere, tell=telling(args))
    if args.private:
        found = hide(found, (revision,))
    if args.format == "json":
        write(report.as_object(found), sys.stdout)
    else:
        report.terminal(console(sys.stdout), found)
    return complain("interrupted", NOT_JUDGED) if found.interrupted else CLEAN
