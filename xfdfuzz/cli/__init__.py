"""The command line.  It reads arguments and wires; what happens is in the engines, what is printed in the reports.

One module a command, and what they share.  Imports are made where they are needed: `--help` does not load the model,
and `replay` does not load Hypothesis.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor

from xfdfuzz.cli import (
    baseline,
    bisect,
    completion,
    conform,
    corpus,
    diff,
    doctor,
    explain,
    explore,
    export,
    field,
    fuzz,
    help,
    listing,
    live,
    matrix,
    new,
    replay,
    report,
    review,
    streams,
    vmm,
    warnings,
)
from xfdfuzz.cli.arguments import Formatter, Parser, Version
from xfdfuzz.cli.exits import BAD_INPUT, NOT_JUDGED, BadInput, NotModelled, complain, reason
from xfdfuzz.cli.output import skip
from xfdfuzz.cli.profiles import with_profile

#: The modules of the commands, in the order of the help.
COMMANDS = (
    review,
    fuzz,
    explore,
    replay,
    report,
    export,
    matrix,
    bisect,
    diff,
    field,
    warnings,
    vmm,
    conform,
    live,
    corpus,
    baseline,
    listing,
    explain,
    new,
    doctor,
    completion,
    help,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    from xfdfuzz.engines.processes.interrupt import sigterm_as_ctrl_c

    try:
        streams.prepare()
        with sigterm_as_ctrl_c():
            code = _run(argv)
            sys.stdout.flush()
    except BaseException as error:  # sys.exit() in a user's file is no verdict
        return complain("interrupted", NOT_JUDGED) if _comes_of_ctrl_c(error) else _failed(error)
    return code


def _comes_of_ctrl_c(error: BaseException | None) -> bool:
    """Python makes other errors of a KeyboardInterrupt in some places, such as __set_name__()."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _failed(error: BaseException) -> int:
    """Tell what ended the command; its exit code."""
    if isinstance(error, BadInput):
        return complain(str(error), BAD_INPUT)
    if isinstance(error, OSError):
        streams.drop(sys.stdout)
        # a reader that went away, such as head, has what it wanted
        return NOT_JUDGED if isinstance(error, BrokenPipeError) else complain(reason(error), NOT_JUDGED)
    if isinstance(error, BrokenExecutor):
        return complain(f"{error}, and so did all that took its place", NOT_JUDGED)
    from xfdfuzz.engines.processes.cluster import NoClusterError
    from xfdfuzz.engines.processes.workers import place_in_users_files
    from xfdfuzz.invariants.vocabulary import InvariantError
    from xfdfuzz.revisions import RevisionError

    if isinstance(error, InvariantError | RevisionError):
        return complain(str(error), BAD_INPUT)
    if isinstance(error, NoClusterError):
        return complain(str(error), NOT_JUDGED)
    place = place_in_users_files(error)
    if place:
        return complain(f"{place}: {type(error).__name__}: {error}", BAD_INPUT)
    traceback.print_exception(error)
    return complain(f"internal error: {type(error).__name__}", NOT_JUDGED)


def _run(argv: Sequence[str] | None) -> int:
    try:
        parser = build_parser()
        args = parser.parse_args(with_profile(parser, list(sys.argv[1:] if argv is None else argv)))
    except SystemExit as stop:  # --help, --version, or a usage error that was printed
        return int(stop.code or 0)
    from xfdfuzz.engines.processes.answering import answers_within
    from xfdfuzz.invariants.vocabulary import NoAnswer

    try:
        with answers_within(args.step_timeout):
            code: int = args.command(args)
            return code
    except NotModelled as error:
        return skip(args, error.mail, str(error))
    except NoAnswer as error:
        raise BadInput(str(error)) from None


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="xfdfuzz",
        usage="xfdfuzz",
        description="Fuzz and check an executable model of Linux' KVM and FPU code under XFD and AMX.",
        epilog="xfdfuzz COMMAND --help has what is used most, xfdfuzz help COMMAND all of it\n"
        "exit codes: 0 clean, 1 violation, 2 bad input, 3 could not judge, 4 skipped\n"
        "            (xfdfuzz help exit-codes)",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="xfdfuzz", required=True)
    for module in COMMANDS:
        module.add(commands)
    return parser
