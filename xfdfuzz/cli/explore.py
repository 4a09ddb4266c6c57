"""`xfdfuzz explore`: try all that a scope allows, save and print what is found, or say that nothing can happen."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import (
    Commands,
    add_also,
    add_command,
    add_detail,
    add_known,
    add_profile,
    add_revisions,
    directory,
    positive,
    seconds,
)
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, VIOLATION, BadInput, complain
from xfdfuzz.cli.inputs import known_on, load_invariants, read_baseline, resolve_revisions
from xfdfuzz.cli.output import add_output, close, closed_on_error, is_public, listeners, outputs, text_stream
from xfdfuzz.cli.saving import Reporting, Saver, check_output, open_saver, tell_doubts
from xfdfuzz.cli.shares import TimeShares

if TYPE_CHECKING:
    from rich.console import Console

    from xfdfuzz.baseline.entries import Baseline
    from xfdfuzz.engines.explore.exploration import Exploration
    from xfdfuzz.engines.explore.search import Search
    from xfdfuzz.engines.judge.finding import Finding
    from xfdfuzz.report.formats.base import Format
    from xfdfuzz.revisions import Revision

_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def add(commands: Commands) -> None:
    """Add the command."""
    summary = "try everything in a small scope: shortest programs, or a proof that there are none"
    command = add_command(commands, "explore", _explore, summary)
    add_profile(command)
    add_revisions(command, "default: amx-v1")
    add_also(command)
    add = command.add_argument
    add("--scope", metavar="NAME", help="what may happen (default: tiny; see xfdfuzz list scopes)")
    add("--depth", type=positive, metavar="N", help="stop when every program of N ops is covered")
    add("--workers", type=positive, default=1, metavar="N", help="processes (default: 1); results do not depend on it")
    add("--time", type=seconds, metavar="SECONDS", help="stop after that time in all; 90, 10m, 2h (default: none)")
    add("--memory", type=size, metavar="SIZE", help="stop when the searching process has used that much; 500m, 4g")
    add("--no-reduction", action="store_true", help="tell states apart that cannot make a difference")
    add("--coverage", action="store_true", help="show which results each op of the scope came to")
    add("--graph", type=Path, metavar="FILE", help="write the state graph for Graphviz")
    add("--resume", type=Path, metavar="FILE", help="go on from the frontier that a stopped exploration saved")
    add("--save", type=directory, default=Path("findings"), metavar="DIR", help="where results go (default: findings)")
    add_known(command)
    add_detail(command, "no progress", "findings with their traces")
    add_output(command)


def size(text: str) -> int:
    """An amount of memory, in bytes: 500m, 4g."""
    match = re.fullmatch(r"(\d{1,12})([kmg]?)", text.lower())
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"expected an amount of memory such as 500m or 4g, got {text!r}")
    return int(match[1]) * _SIZES[match[2]]


def _explore(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.explore.search import INTERRUPTED
    from xfdfuzz.engines.processes.interrupt import PatientInterrupt
    from xfdfuzz.report.console import console

    revisions = resolve_revisions([*args.revision, *args.also] or ["amx-v1"], args.apply, args.revert)
    load_invariants(args.invariants)
    saver: Saver[Finding] = open_saver(args)
    if args.graph:
        check_output(args.graph)
    err = console(sys.stderr, quiet=args.quiet)
    known = read_baseline(args.known, err)
    reports = outputs(args)
    # one after the other: each has an engine of its own
    searches = iter([_resumed(args)]) if args.resume else (_begun(args, revision) for revision in revisions)
    code = CLEAN
    shares = TimeShares(args.time, 1 if args.resume else len(revisions))
    with PatientInterrupt(everywhere=True) as ctrl_c:
        with closed_on_error(reports):
            for search in searches:
                if ctrl_c.pressed:
                    code = complain("interrupted", NOT_JUDGED)
                    break
                args.time = shares.next()
                report = _run(args, search, known, saver, reports, err)
                code = max(code, _told(args, search, report))
                if report.stopped == INTERRUPTED:
                    break
        return max(code, close(reports))


def _begun(args: argparse.Namespace, revision: Revision) -> Search:
    from xfdfuzz.engines.explore.exploration import begin
    from xfdfuzz.strategies.scopes import SCOPES

    name = args.scope or "tiny"
    if name not in SCOPES:
        raise BadInput(f"unknown scope {name!r}: expected one of {', '.join(SCOPES)}")
    return begin(revision, name, reduced=not args.no_reduction, graph=args.graph is not None)


def _resumed(args: argparse.Namespace) -> Search:
    from xfdfuzz.engines.explore import frontier
    from xfdfuzz.engines.explore.exploration import new_session
    from xfdfuzz.revisions import RevisionError

    for given in ("revision", "also", "apply", "revert", "scope", "no_reduction"):
        if getattr(args, given):
            raise BadInput(f"--{given.replace('_', '-')} is what {args.resume} says: leave it out beside --resume")
    try:
        search = frontier.read(args.resume, new_session())
    except OSError as error:
        raise BadInput(f"{args.resume}: {error.strerror}") from None
    except (frontier.FrontierError, RevisionError) as error:
        raise BadInput(f"{args.resume}: {error}") from None
    if args.graph and not search.question.graph:
        raise BadInput(f"{args.resume}: its arcs were not kept, so there is no graph; begin with --graph")
    return search


def _run(
    args: argparse.Namespace,
    search: Search,
    known: Baseline,
    saver: Saver[Finding],
    reports: Sequence[Format],
    err: Console,
) -> Exploration:
    """Explore; every finding is saved before anything is said about it."""
    from xfdfuzz.engines.explore.exploration import explore
    from xfdfuzz.engines.explore.search import Limits
    from xfdfuzz.engines.processes.workers import users_errors_named, workers
    from xfdfuzz.report.progress import Progress, of_exploration
    from xfdfuzz.revisions import resolve

    revision = resolve(search.question.revision)
    limits = Limits(args.depth, None if args.time is None else search.seconds + args.time, args.memory)
    here = known_on(known, revision, err)
    with (
        Progress(err, of_exploration) as progress,
        users_errors_named(),
        workers(args.workers, here_if_one=True, step_timeout=args.step_timeout) as pool,
    ):
        reporting = Reporting(saver, listeners(args, reports, progress.take, place=saver.hidden))
        explore(search, pool, limits, known=here, tell=reporting)
    result: Exploration = reporting.result
    return result


def _told(args: argparse.Namespace, search: Search, report: Exploration) -> int:
    """Print the report, write what was asked for; the exit code."""
    from xfdfuzz.report import exploration
    from xfdfuzz.report.console import console, line, write
    from xfdfuzz.report.files import command, save_bytes
    from xfdfuzz.report.privacy import may_be_vulnerable

    if not report.exhausted:
        report = replace(report, file=_save_frontier(args.save, search, report))
    code = _judgement(report)
    if is_public(args):
        report = report.without(may_be_vulnerable)
    if args.format == "json":
        write(exploration.as_object(report), text_stream(args))
    else:
        out = console(text_stream(args))
        exploration.terminal(out, report, args.invariants, args.coverage, args.verbose)
        if report.file:
            line(out, f"go on: {command('explore', '--resume', str(report.file))}")
    if args.graph:
        dot = exploration.graph(search, report).encode()
        save_bytes(args.graph.name, lambda stream: stream.write(dot), args.graph.parent)
    tell_doubts(report.doubts)
    return code


def _save_frontier(directory: Path, search: Search, report: Exploration) -> Path | None:
    from xfdfuzz.engines.explore import frontier
    from xfdfuzz.report.files import save_bytes

    name = f"{report.revision.label}-{report.scope.name}.frontier"
    try:
        return save_bytes(name, lambda stream: frontier.write(search, stream), directory)
    except OSError as error:
        complain(f"cannot save the frontier to {directory}: {error.strerror}", NOT_JUDGED)
        return None


def _judgement(report: Exploration) -> int:
    """The exit code of an exploration."""
    if report.stopped or report.doubts:
        return NOT_JUDGED
    found = [*report.findings, *(lasso.finding for lasso in report.lassos)]
    if any(finding.file is None for finding in found) or not (report.exhausted or report.file):
        return NOT_JUDGED
    return VIOLATION if found or report.known.expired else CLEAN
