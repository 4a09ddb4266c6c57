"""`xfdfuzz help`: all that a command takes, and the table of exit codes."""

from __future__ import annotations

import argparse

from xfdfuzz.cli.arguments import Commands, Parser, add_command
from xfdfuzz.cli.exits import CLEAN, table

#: What is no command.
EXIT_CODES = "exit-codes"


def add(commands: Commands) -> None:
    """Add the command: its topics are the commands that there are by then."""
    command = add_command(commands, "help", _help, "say all that a command takes, or what exit codes mean", ("rich",))
    topics = [*commands.choices, EXIT_CODES]
    command.add_argument("topic", nargs="?", choices=topics, metavar="COMMAND", help=f"a command, or {EXIT_CODES}")
    command.set_defaults(commands=commands.choices)


def _help(args: argparse.Namespace) -> int:
    from xfdfuzz.cli import build_parser

    if args.topic == EXIT_CODES:
        print(table(), end="")
    elif args.topic:
        parser: Parser = args.commands[args.topic]
        print(parser.format_help(whole=True), end="")
    else:
        build_parser().print_help()
    return CLEAN
