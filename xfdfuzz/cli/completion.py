"""`xfdfuzz completion`: a script for the shell that completes commands, options and the names of what there is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from xfdfuzz.cli.arguments import Commands, add_command, directory
from xfdfuzz.cli.exits import CLEAN, BadInput
from xfdfuzz.cli.inputs import load_invariants

SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "completion", _completion, "print a script that completes command lines in a shell")
    command.add_argument("shell", choices=SHELLS)


def _completion(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise BadInput("completion needs shtab: pip install 'xfdfuzz[completion]'") from None
    from xfdfuzz.cli import build_parser

    load_invariants(args.invariants)
    parser = build_parser()
    for action in _actions(parser):
        if action.dest in _NAMES:
            # the parser is for this only, so nothing is refused that is no choice
            action.choices = _NAMES[action.dest]()
        elif action.type is directory:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return CLEAN


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options and arguments of all commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _revisions() -> list[str]:
    from xfdfuzz.revisions import ALIASES, load_entries, names

    load_entries()
    return [*names(), *ALIASES]


def _patches() -> list[str]:
    from xfdfuzz.revisions import in_order

    return [p.commit for p in in_order()]


def _invariants() -> list[str]:
    from xfdfuzz.invariants.vocabulary import INVARIANTS

    return [*INVARIANTS]


def _scopes() -> list[str]:
    from xfdfuzz.strategies.scopes import SCOPES

    return [*SCOPES]


def _subjects() -> list[str]:
    from xfdfuzz.report.explanation import known_names

    return sorted({*known_names()})


#: By the name of an argument: what can stand there.
_NAMES: Mapping[str, Callable[[], list[str]]] = {
    **dict.fromkeys(("revision", "first", "last", "second", "base"), _revisions),
    **dict.fromkeys(("apply", "revert"), _patches),
    "invariant": _invariants,
    "scope": _scopes,
    "subject": _subjects,
}
