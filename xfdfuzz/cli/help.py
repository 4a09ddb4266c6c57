"""`xfdfuzz help`: all that a command takes, the table of exit codes, and the notation of traces."""

from __future__ import annotations

import argparse
import sys

from xfdfuzz.cli.arguments import Commands, Parser, add_command
from xfdfuzz.cli.exits import CLEAN, table

#: What is no command.
EXIT_CODES, NOTATION = "exit-codes", "notation"


def add(commands: Commands) -> None:
    """Add the command: its topics are the commands that there are by then."""
    command = add_command(
        commands, "help", _help, "say all that a command takes, or what signs and exit codes mean", ("rich",)
    )
    topics = [*commands.choices, EXIT_CODES, NOTATION]
    command.add_argument(
        "topic", nargs="?", choices=topics, metavar="COMMAND", help=f"a command, {EXIT_CODES} or {NOTATION}"
    )
    command.set_defaults(commands=commands.choices)


def _help(args: argparse.Namespace) -> int:
    from xfdfuzz.cli import build_parser

    if args.topic == EXIT_CODES:
        print(table(), end="")
    elif args.topic == NOTATION:
        from xfdfuzz.report import notation
        from xfdfuzz.report.console import console

        notation.terminal(console(sys.stdout))
    elif args.topic:
        parser: Parser = args.commands[args.topic]
        print(parser.format_help(whole=True), end="")
    else:
        build_parser().print_help()
    return CLEAN
