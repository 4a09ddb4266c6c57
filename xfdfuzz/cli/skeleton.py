"""Files that are written for somebody to go on with: a skeleton and its test, never over what is there."""

from __future__ import annotations

import argparse
import keyword
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

from xfdfuzz.cli.arguments import directory
from xfdfuzz.cli.exits import BadInput

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def add_places(command: argparse._ActionsContainer) -> None:
    """The options that say where the files go."""
    add = command.add_argument
    add("--directory", type=directory, default=Path(), metavar="DIR", help="where it goes (default: here)")
    add("--tests", type=directory, metavar="DIR", help="where the test goes (default: beside it)")


def check_invariant(name: str) -> None:
    """Raises BadInput for the name of an invariant that there is."""
    from xfdfuzz.invariants.vocabulary import INVARIANTS

    if name in INVARIANTS:
        raise BadInput(f"invariant {name} exists already: see xfdfuzz list invariants")


class Place(NamedTuple):
    """The file of what is called ``name``, and its test."""

    name: str
    file: Path
    test: Path

    @classmethod
    def of(cls, args: argparse.Namespace, name: str) -> Place:
        """As the options say; raises BadInput for a name that cannot be, and for a file that is there."""
        if not _NAME.fullmatch(name) or keyword.iskeyword(name):
            raise BadInput(f"{name}: expected lower-case words joined by -, such as my-series-v2")
        module = name.replace("-", "_")
        tests = args.tests or args.directory
        place = cls(name, args.directory / f"{module}.py", tests / f"test_{module}.py")
        for path in (place.file, place.test):
            if path.exists():
                raise BadInput(f"{path}: exists already")
        return place

    def write(self, skeleton: str, words: Mapping[str, str]) -> None:
        """Write both files or none; ``skeleton`` is the name of their templates."""
        about = {"name": self.name, "function": self.file.stem, "file": os.path.relpath(self.file, self.test.parent)}
        templates = resources.files("xfdfuzz.cli") / "skeletons"
        with ExitStack() as undo:
            for path, template in ((self.file, skeleton), (self.test, f"test_{skeleton}")):
                text = (templates / f"{template}.py.template").read_text(encoding="utf-8")
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("x", encoding="utf-8") as file:
                        undo.callback(path.unlink)
                        file.write(Template(text).substitute(about, **words))
                except OSError as error:
                    raise BadInput(f"{path}: {error.strerror}") from None
            undo.pop_all()

    def told(self) -> str:
        """What was written, and what to do with it."""
        return f"wrote {self.file} and {self.test}\nnow: python -m pytest {self.test}"
