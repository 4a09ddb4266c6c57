"""How long the fuzzer takes to find the known bugs: `python -m bench.detection`.

Prints a row for each; exit code 1 where one was not found by most of its searches.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.detection import table
from bench.detection.search import YARDSTICKS, Effort, Row, measure_all
from bench.detection.subjects import Subject, subjects
from xfdfuzz.cli.arguments import natural, positive, seconds
from xfdfuzz.cli.inputs import CORPUS, find_programs, read_program
from xfdfuzz.engines import ENGINES
from xfdfuzz.engines.processes.workers import workers
from xfdfuzz.invariants.loading import load
from xfdfuzz.report.console import console, line, write


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    load()
    every = subjects([(file.stem, read_program(file)) for file in find_programs([args.corpus])])
    unknown = set(args.only) - {subject.name for subject in every}
    if unknown:
        parser.error(f"unknown bug {min(unknown)}: expected a commit of `xfdfuzz list patches`, a series or a program")
    chosen = [subject for subject in every if not args.only or subject.name in args.only]
    # exploring draws nothing, so once is enough
    effort = Effort(args.engine, 1 if args.engine == "explore" else args.seeds, args.time, args.control)
    return _measured(chosen, effort, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.detection", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="NAME", help="a commit, series or program; repeatable")
    add("--corpus", type=Path, default=CORPUS / "bugs", metavar="DIR", help="the programs that stand for known bugs")
    add("--engine", choices=(*ENGINES, *YARDSTICKS), default="both", help="what searches (default: both)")
    add("--seeds", type=positive, default=5, metavar="N", help="searches for each bug (default: 5)")
    add("--time", type=seconds, default=60.0, metavar="SECONDS", help="longest search, CPU time (default: 60)")
    add("--control", type=natural, default=10, metavar="SECONDS", help="search the fixed kernel too (default: 10)")
    add("--workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)")
    add("--format", choices=("rich", "markdown", "json"), default="rich")
    return parser


def _measured(chosen: Sequence[Subject], effort: Effort, args: argparse.Namespace) -> int:
    """0 when every bug was found, 1 when one was not."""
    err = console(sys.stderr)

    def on_row(row: Row) -> None:
        line(err, table.progress(row))
        if args.format == "json":
            write(table.as_object(row), sys.stdout)

    # a process even for one: in this one Ctrl-C could be lost in Hypothesis (engines/processes/interrupt.py)
    with workers(min(args.workers, len(chosen))) as executor:
        rows = measure_all(chosen, effort, executor, on_row)
    if args.format == "markdown":
        sys.stdout.write(table.markdown(rows, effort))
    elif args.format == "rich":
        table.terminal(console(sys.stdout), rows)
    return 0 if all(row.seconds is not None for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
