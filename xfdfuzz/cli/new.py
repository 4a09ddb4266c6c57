"""`xfdfuzz new`: write a skeleton of a series or an invariant, with its test."""

from __future__ import annotations

import argparse
import keyword
import os
import re
import sys
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from string import Template

from xfdfuzz.cli.arguments import Commands, add_command, directory
from xfdfuzz.cli.exits import CLEAN, BadInput
from xfdfuzz.cli.inputs import load_invariants, resolve_revisions

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "new", _new, "write the skeleton of a series or of an invariant, with its test")
    command.add_argument("kind", choices=("revision", "invariant"))
    command.add_argument("name", metavar="NAME", help="lower-case words joined by -, such as my-series-v2")
    command.add_argument("--from", dest="base", metavar="R", help="what a series stands on (mainline)")
    command.add_argument(
        "--directory", type=directory, default=Path(), metavar="DIR", help="where it goes (default: here)"
    )
    command.add_argument("--tests", type=directory, metavar="DIR", help="where the test goes (default: beside it)")


def _new(args: argparse.Namespace) -> int:
    from xfdfuzz.report.console import write

    load_invariants(args.invariants)
    if not _NAME.fullmatch(args.name) or keyword.iskeyword(args.name):
        raise BadInput(f"{args.name}: expected lower-case words joined by -, such as my-series-v2")
    function = args.name.replace("-", "_")
    file = args.directory / f"{function}.py"
    test = (args.tests or args.directory) / f"test_{function}.py"
    words = {"name": args.name, "function": function, "file": os.path.relpath(file, test.parent)}
    words |= {"base": _base(args)} if args.kind == "revision" else _check_invariant(args)
    _write({file: f"{args.kind}.py.template", test: f"test_{args.kind}.py.template"}, words)
    if args.format == "json":
        write({"file": str(file), "test": str(test)}, sys.stdout)
    else:
        print(f"wrote {file} and {test}\nnow: python -m pytest {test}")
        print(*_next(args.kind, file, words), sep="\n")
    return CLEAN


def _base(args: argparse.Namespace) -> str:
    """The revision that a series stands on, as a file can name it."""
    from xfdfuzz.revisions import ALIASES, names

    (base,) = resolve_revisions([args.base or ALIASES["mainline"]], [], [])  # whose name nobody has said
    if args.name in names():
        raise BadInput(f"revision {args.name} exists already: see xfdfuzz list revisions")
    return base.address


def _check_invariant(args: argparse.Namespace) -> dict[str, str]:
    from xfdfuzz.invariants.vocabulary import INVARIANTS

    if args.base:
        raise BadInput("--from is for a revision: an invariant says itself where it applies")
    if args.name in INVARIANTS:
        raise BadInput(f"invariant {args.name} exists already: see xfdfuzz list invariants")
    return {}


def _write(templates: dict[Path, str], words: dict[str, str]) -> None:
    """Write all of them or, if one exists already, none."""
    for path in templates:
        if path.exists():
            raise BadInput(f"{path}: exists already")
    skeletons = resources.files("xfdfuzz.cli") / "skeletons"
    with ExitStack() as undo:
        for path, template in templates.items():
            text = Template((skeletons / template).read_text(encoding="utf-8")).substitute(words)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("x", encoding="utf-8") as file:
                    undo.callback(path.unlink)
                    file.write(text)
            except OSError as error:
                raise BadInput(f"{path}: {error.strerror}") from None
        undo.pop_all()


def _next(kind: str, file: Path, words: dict[str, str]) -> list[str]:
    if kind == "revision":
        commands = f"review {file}", f"diff {words['base']} {file}", f"fuzz --revision {file}"
        return [f"     xfdfuzz {command}" for command in commands]
    return [f"     xfdfuzz fuzz --revision mainline --invariants {file}"]
