"""`xfdfuzz matrix`: programs x revisions."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_revisions, positive
from xfdfuzz.cli.exits import BAD_INPUT, CLEAN, NOT_JUDGED, VIOLATION, BadInput, complain
from xfdfuzz.cli.inputs import CORPUS, find_programs, load_invariants, read_program, resolve_names, revision_names
from xfdfuzz.cli.output import Judgements, add_output, text_stream

if TYPE_CHECKING:
    from xfdfuzz.program.program import Program


def add(commands: Commands) -> None:
    """Add the command."""
    summary = "judge programs on many revisions, a verdict per cell"
    command = add_command(commands, "matrix", _matrix, summary, formats=("rich", "markdown", "json"))
    command.add_argument("paths", nargs="*", type=Path, metavar="FILE|DIR", help="a program, or every *.xfd below DIR")
    command.add_argument("--corpus", action="store_true", help="the corpus that comes with xfdfuzz")
    add_revisions(command, "default: all")
    command.add_argument("--workers", type=positive, metavar="N", help="processes (default: one for each CPU)")
    add_output(command)


def _matrix(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.compare.matrix import IDLE, NOT_APPLICABLE, Row, matrix
    from xfdfuzz.engines.processes.workers import workers
    from xfdfuzz.engines.stream.events import Progressed
    from xfdfuzz.report import matrix as report
    from xfdfuzz.report.console import console, write
    from xfdfuzz.report.progress import Progress, of_matrix
    from xfdfuzz.revisions import names

    revisions = resolve_names(revision_names(args.revision) or names(), args.apply, args.revert)
    load_invariants(args.invariants)
    paths = [*args.paths, *([CORPUS] if args.corpus else [])]
    if not paths:
        raise BadInput("expected FILE, DIR or --corpus (see xfdfuzz matrix --help)")
    files = find_programs(paths)
    if not files:
        return complain(f"no *.xfd file below {', '.join(map(str, paths))}", NOT_JUDGED)
    programs, refused = _read(files, args.revision)
    labels = [revision.label for revision in revisions]
    out = text_stream(args)
    rows: list[Row] = []
    start = time.monotonic()
    count = max(1, min(args.workers or os.cpu_count() or 1, len(programs)))
    with (
        Progress(console(sys.stderr), of_matrix) as progress,
        Judgements(args) as reports,
        workers(count, here_if_one=True, step_timeout=args.step_timeout) as executor,
    ):
        for file, reason in refused:
            reports.refuse(file, reason)
        for row in matrix(programs, revisions, executor, _lost):
            rows.append(row)
            counts = {"done": len(rows), "programs": len(programs)}
            progress.take(Progressed("matrix", time.monotonic() - start, counts, 0))
            for revision, event in zip(revisions, report.as_events(row, labels), strict=True):
                reports.tell(revision, event)
            if args.format == "json":
                write(report.as_object(row, labels), out)
    if args.format == "rich" and rows:
        report.terminal(console(out), rows, labels)
    elif args.format == "markdown" and rows:
        report.markdown(out, rows, labels)
    idle = [row.file for row in rows if all(cell.state in (IDLE, NOT_APPLICABLE) for cell in row.cells)]
    if idle:
        return complain(f"nothing was executed of {', '.join(idle)}", NOT_JUDGED)
    code = VIOLATION if any(cell.expected is False for row in rows for cell in row.cells) else CLEAN
    return max(code, BAD_INPUT if refused else CLEAN, reports.code)


def _read(files: Sequence[Path], asked: Sequence[str]) -> tuple[list[tuple[str, Program]], list[tuple[str, str]]]:
    """The programs by their names, and of each file that is none its name and what is wrong, which is said: one of
    many does not keep the others from being judged."""
    programs, refused = [], []
    for file in files:
        try:
            programs.append((_name(file), read_program(file, asked)))
        except BadInput as error:
            refused.append((_name(file), str(error)))
            complain(str(error), BAD_INPUT)
    return programs, refused


def _lost(reason: str) -> None:
    print(f"lost a worker ({reason}): its work is done again; another one has its place", file=sys.stderr, flush=True)


def _name(file: Path) -> str:
    """As the user named it; a program of the corpus that comes along by its place in there."""
    return str(Path("corpus", file.relative_to(CORPUS)) if file.is_relative_to(CORPUS) else file)
