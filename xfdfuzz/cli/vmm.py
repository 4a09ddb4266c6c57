"""`xfdfuzz vmm`: which orders of KVM's calls are safe for a VMM that saves, loads or resets a vCPU."""

from __future__ import annotations

import argparse
import sys

from xfdfuzz.cli.arguments import Commands, add_command, add_revisions, directory
from xfdfuzz.cli.exits import CLEAN
from xfdfuzz.cli.inputs import load_invariants, resolve_names, revision_names


def add(commands: Commands) -> None:
    """Add the command."""
    summary = "say in which orders a VMM may save, load and reset a vCPU on a kernel"
    command = add_command(commands, "vmm", _vmm, summary, formats=("rich", "markdown", "json"))
    add_revisions(command, "default: mainline and stable")
    command.add_argument("--save", type=directory, metavar="DIR", help="write a program for each answer there")


def _vmm(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.compare.procedures import PROCEDURES, answer
    from xfdfuzz.engines.processes.workers import users_errors_named
    from xfdfuzz.report import vmm as report
    from xfdfuzz.report.console import console, counted, write
    from xfdfuzz.report.files import check_directory
    from xfdfuzz.revisions import family, names

    wanted = revision_names(args.revision) or [name for name in names() if family(name) in ("mainline", "stable")]
    revisions = resolve_names(wanted, args.apply, args.revert)
    load_invariants(args.invariants)
    if args.save is not None:
        check_directory(args.save)
    with users_errors_named():
        answers = {revision: [answer(procedure, revision) for procedure in PROCEDURES] for revision in revisions}
    if args.format == "json":
        for revision, found in answers.items():
            write(report.as_object(revision, found), sys.stdout)
    elif args.format == "markdown":
        report.markdown(sys.stdout, answers)
    else:
        report.terminal(console(sys.stdout), answers)
    if args.save is not None:
        print(f"saved {counted(len(report.save(answers, args.save)), 'program')} in {args.save}", file=sys.stderr)
    return CLEAN
