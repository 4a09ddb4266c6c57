"""`xfdfuzz new`: write a skeleton of a series or an invariant, with its test."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xfdfuzz.cli.arguments import Commands, add_command
from xfdfuzz.cli.exits import CLEAN, BadInput
from xfdfuzz.cli.inputs import load_invariants, resolve_revisions
from xfdfuzz.cli.skeleton import Place, add_places, check_invariant


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "new", _new, "write the skeleton of a series or of an invariant, with its test")
    command.add_argument("kind", choices=("revision", "invariant"))
    command.add_argument("name", metavar="NAME", help="lower-case words joined by -, such as my-series-v2")
    command.add_argument("--from", dest="base", metavar="R", help="what a series stands on (mainline)")
    add_places(command)


def _new(args: argparse.Namespace) -> int:
    from xfdfuzz.report.console import write

    load_invariants(args.invariants)
    place = Place.of(args, args.name)
    words = {"base": _base(args)} if args.kind == "revision" else _check_invariant(args)
    place.write(args.kind, words)
    if args.format == "json":
        write({"file": str(place.file), "test": str(place.test)}, sys.stdout)
    else:
        print(place.told(), *_next(args.kind, place.file, words), sep="\n")
    return CLEAN


def _base(args: argparse.Namespace) -> str:
    """The revision that a series stands on, as a file can name it."""
    from xfdfuzz.revisions import ALIASES, names

    (base,) = resolve_revisions([args.base or ALIASES["mainline"]], [], [])  # whose name nobody has said
    if args.name in names():
        raise BadInput(f"revision {args.name} exists already: see xfdfuzz list revisions")
    return base.address


def _check_invariant(args: argparse.Namespace) -> dict[str, str]:
    if args.base:
        raise BadInput("--from is for a revision: an invariant says itself where it applies")
    check_invariant(args.name)
    return {}


def _next(kind: str, file: Path, words: dict[str, str]) -> list[str]:
    if kind == "revision":
        commands = f"review {file}", f"diff {words['base']} {file}", f"fuzz --revision {file}"
        return [f"     xfdfuzz {command}" for command in commands]
    return [f"     xfdfuzz fuzz --revision mainline --invariants {file}"]
