"""`xfdfuzz fuzz`: search revisions for violations, save and print what is found."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_engine, add_revisions, add_search, search_options
from xfdfuzz.cli.exits import CLEAN, BadInput
from xfdfuzz.cli.inputs import find_programs, load_invariants, read_program, resolve_revisions
from xfdfuzz.cli.saving import Saver, judgement

if TYPE_CHECKING:
    from rich.console import Console

    from xfdfuzz.engines.fuzz import Finding, Report
    from xfdfuzz.program.program import Program
    from xfdfuzz.revisions import Revision


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "fuzz", _fuzz, "search revisions for violations, shrink and save what is found")
    add_revisions(command, "default: amx-v1")
    add_search(command, save="findings")
    add_engine(command)
    command.add_argument(
        "--known",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="FILE|DIR",
        help="what these programs violate is known: only other violations count; repeatable",
    )


def _fuzz(args: argparse.Namespace) -> int:
    from xfdfuzz.report import machine, terminal
    from xfdfuzz.report.findings import save

    # before the invariants, which may speak of a series from outside
    revisions = resolve_revisions(args.revision or ["amx-v1"], args.apply, args.revert)
    load_invariants(args.invariants)
    saver: Saver[Finding] = Saver(args.save, save)
    known = [read_program(file) for file in find_programs(args.known)]
    if args.known and not known:
        raise BadInput(f"no *.xfd file below {', '.join(map(str, args.known))}")
    out, err = terminal.console(sys.stdout), terminal.console(sys.stderr)
    code = CLEAN
    for revision in revisions:
        report = _campaign(args, revision, known, saver, err)
        if args.format == "json":
            machine.write(machine.campaign(report), sys.stdout)
        else:
            terminal.campaign(out, report, _repeat_command(args, revision), args.invariants)
        code = max(code, judgement(report, report.findings))
        if report.interrupted:
            break
    return code


def _known_buckets(programs: Sequence[Program], revision: Revision, err: Console) -> set[str]:
    """What the known programs violate on the revision under test, just as it is."""
    from xfdfuzz.engines.replay import judge
    from xfdfuzz.report import terminal

    buckets = {bucket for p in programs for bucket in judge(p, revision, expectations=False).buckets}
    if programs:
        counts = f"{len(buckets)} known bucket{'' if len(buckets) == 1 else 's'} of {len(programs)} programs"
        terminal.line(err, f"{revision.label}: {counts}")
    return buckets


def _campaign(
    args: argparse.Namespace, revision: Revision, known: Sequence[Program], saver: Saver[Finding], err: Console
) -> Report:
    """Fuzz one revision; every finding is saved before anything is said about it."""
    from xfdfuzz.engines.fuzz import fuzz
    from xfdfuzz.report import terminal
    from xfdfuzz.report.progress import Progress

    saved: dict[str, Finding] = {}
    terminal.line(err, f"{revision.label}: seed {args.seed}; repeat: {_repeat_command(args, revision)}")
    buckets = _known_buckets(known, revision, err)
    with Progress(err, revision.label) as progress:

        def on_finding(finding: Finding) -> None:
            saved[finding.violation.bucket] = saver.save(finding)
            progress.found(saved[finding.violation.bucket])

        report = fuzz(
            revision,
            engine=args.engine,
            seed=args.seed,
            seconds=None if args.examples else args.time,
            examples=args.examples,
            steps=args.steps,
            known=buckets,
            on_progress=progress.update,
            on_finding=on_finding,
        )
    # Ctrl-C may have come between the finding and its file
    findings = [saved.get(f.violation.bucket) or saver.save(f) for f in report.findings]
    return replace(report, findings=tuple(findings))


def _repeat_command(args: argparse.Namespace, revision: Revision) -> str:
    from xfdfuzz.report.findings import revision_options

    # the option once for each: a file name can then not be taken for the end of the list
    known = [word for path in args.known for word in ("--known", str(path))]
    return shlex.join(
        ["xfdfuzz", "fuzz", *revision_options(revision), *search_options(args), "--engine", args.engine, *known]
    )
