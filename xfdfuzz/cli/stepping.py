"""`xfdfuzz replay --step`: walk through a program in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, BadInput, complain
from xfdfuzz.cli.inputs import find_programs, read_program

#: What is about a text that is printed; here there is none.
_PRINTED = ("output", "private", "publish", "quiet", "verbose", "full", "sources")


def step(args: argparse.Namespace) -> int:
    """Walk until somebody quits; what was wanted is known to be there: ``args.revision``, ``args.invariants``."""
    _check(args)
    try:
        import textual
    except ImportError:
        raise BadInput("--step needs textual: pip install 'xfdfuzz[tui]'") from None
    del textual
    files = find_programs(args.paths)
    if len(files) != 1:
        raise BadInput(f"expected one program for --step, got {len(files)}")
    streams = (sys.stdin, sys.stdout, sys.__stderr__)
    if not all(stream and stream.isatty() for stream in streams) or os.environ.get("TERM", "dumb") == "dumb":
        raise BadInput("--step needs a terminal, for input and output; without it the trace is printed")
    return _walk(args, files[0])


def _check(args: argparse.Namespace) -> None:
    for name in _PRINTED:
        if getattr(args, name):
            raise BadInput(f"--step prints nothing, so --{name} says nothing of it")
    if args.format != "rich":
        raise BadInput(f"--step prints nothing, so --format {args.format} says nothing of it")


def _walk(args: argparse.Namespace, file: Path) -> int:
    from xfdfuzz.engines.judge.verdict import revisions_for
    from xfdfuzz.report.page.runs import finding, run_on
    from xfdfuzz.report.stepping.app import Stepping
    from xfdfuzz.report.stepping.walk import Walk
    from xfdfuzz.revisions import RevisionError, names

    program = read_program(file, args.revision)
    patches = (args.apply, args.revert)
    try:
        if args.revision:  # of the others, those that cannot have the patches are left out
            revisions_for(program, args.revision, *patches)
    except RevisionError as error:
        raise BadInput(f"{file}: {error}") from None
    runs = [*run_on(program, [*args.revision, *names()], *patches)]
    if not any(run.verdict.happened for run in runs):
        return complain(f"{file}: nothing was executed", NOT_JUDGED)
    found = finding(file, program, runs)
    if args.revision:
        found = replace(found, chosen=runs[0])
    Stepping(Walk(found)).run()
    return CLEAN
