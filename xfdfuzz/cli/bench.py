"""`xfdfuzz bench detection`: how long the fuzzer takes to find the known bugs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_engine, natural, positive, seconds
from xfdfuzz.cli.exits import CLEAN, VIOLATION, BadInput
from xfdfuzz.cli.inputs import CORPUS, find_programs, load_invariants, read_program
from xfdfuzz.engines import ENGINES, YARDSTICKS

if TYPE_CHECKING:
    from xfdfuzz.engines.detection import Subject


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "bench",
        _bench,
        "measure how long the fuzzer takes to find the known bugs",
        formats=("rich", "markdown", "json"),
    )
    command.add_argument("suite", choices=("detection",))
    command.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a commit, series or program; repeatable"
    )
    command.add_argument(
        "--corpus",
        type=Path,
        default=CORPUS / "bugs",
        metavar="FILE|DIR",
        help="the programs that stand for known bugs (default: bugs/ of the corpus that comes with xfdfuzz)",
    )
    yardsticks = "; a random walk and exploring, for comparison"
    add_engine(command, choices=(*ENGINES, *YARDSTICKS), also=yardsticks)
    command.add_argument("--seeds", type=positive, default=5, metavar="N", help="searches for each bug (default: 5)")
    command.add_argument(
        "--time", type=seconds, default=60.0, metavar="SECONDS", help="longest search, CPU time (default: 60)"
    )
    command.add_argument(
        "--control", type=natural, default=10, metavar="SECONDS", help="search the fixed kernel too (default: 10)"
    )
    command.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"
    )


def _bench(args: argparse.Namespace) -> int:
    """0 when every bug was found, 1 when one was not."""
    from xfdfuzz.engines.detection import Plan, Row, measure_all
    from xfdfuzz.engines.processes.workers import workers
    from xfdfuzz.report import detection, machine, terminal

    load_invariants(args.invariants)
    chosen = _subjects(args)
    # exploring draws nothing, so once is enough
    plan = Plan(args.engine, 1 if args.engine == "explore" else args.seeds, args.time, args.control)
    err = terminal.console(sys.stderr)

    def on_row(row: Row) -> None:
        terminal.line(err, detection.progress(row))
        if args.format == "json":
            machine.write(detection.as_object(row), sys.stdout)

    # a process even for one: in this one Ctrl-C could be lost in Hypothesis (engines/processes/interrupt.py)
    with workers(min(args.workers, len(chosen))) as executor:
        rows = measure_all(chosen, plan, executor, on_row)
    if args.format == "markdown":
        sys.stdout.write(detection.markdown(rows, plan))
    elif args.format == "rich":
        detection.terminal(terminal.console(sys.stdout), rows)
    return CLEAN if all(row.seconds is not None for row in rows) else VIOLATION


def _subjects(args: argparse.Namespace) -> list[Subject]:
    from xfdfuzz.engines.detection import subjects

    programs = [(file.stem, read_program(file)) for file in find_programs([args.corpus])]
    found = subjects(programs)
    names = {subject.name for subject in found}
    unknown = [name for name in args.only if name not in names]
    if unknown:
        raise BadInput(f"unknown bug {unknown[0]}: expected a commit of `xfdfuzz list patches`, a series or a program")
    return [subject for subject in found if not args.only or subject.name in args.only]
