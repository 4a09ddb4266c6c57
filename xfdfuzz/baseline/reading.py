"""Reading baselines: a TOML file with a table for each entry, or programs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from xfdfuzz.baseline.entries import Baseline, BaselineError, Entry, LooseProgram
from xfdfuzz.extensions import read_file
from xfdfuzz.invariants.vocabulary import INVARIANTS, invariant_of
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import RevisionError, names, selects

#: The name of the tables, and their keys.
TABLE = "known"
TEXTS, DATES = ("bucket", "revisions", "program", "reason"), ("first-seen", "last-seen", "expires")
REQUIRED = ("bucket", "revisions", "program")

#: Gives the program of a file, or of a text from that place; raises what says why there is none.
Reader = Callable[[Path], Program]
TextReader = Callable[[str, str], Program]


def read(path: Path, programs: Sequence[Path], program: Reader, text: TextReader) -> Baseline:
    """The baseline at ``path``: a TOML file, or what a directory or a program is, whose ``programs`` are given.

    What does not exist is an empty one, a program excepted.  Raises BaselineError and OSError, and what the readers do.
    """
    if not path.exists() and path.suffix != ".xfd":
        return Baseline((), (str(path),), (f"{path} does not exist yet",))
    if path.is_file() and path.suffix == ".toml":
        return Baseline(tuple(_entries(path, program, text)), (str(path),))
    loose = tuple(_loose(file, program(file)) for file in programs)
    return Baseline(loose, (str(path),), () if loose else (f"{path} has no *.xfd file",))


def _loose(file: Path, program: Program) -> Entry:
    return LooseProgram(str(file), program, "", reason=program.title)


def _entries(path: Path, program: Reader, text: TextReader) -> list[Entry]:
    try:
        content = read_file(path).decode()
        tables = tomllib.loads(content)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BaselineError(f"{path}: not a TOML file: {error}") from None
    found = tables.pop(TABLE, [])
    unknown = next(iter(tables), None)
    if unknown is not None or not (isinstance(found, list) and all(isinstance(one, dict) for one in found)):
        raise BaselineError(f"{path}: expected [[{TABLE}]] tables{f', got {unknown}' if unknown else ''}")
    places = [f"{path}:{line}" for line in headers(content)]
    if len(places) != len(found):  # inline tables have no lines of their own
        places = [f"{path}: entry {number}" for number in range(1, len(found) + 1)]
    return [_entry(table, place, path, program, text) for table, place in zip(found, places, strict=True)]


def headers(content: str) -> list[int]:
    """The lines on which entries begin."""
    return [
        number for number, line in enumerate(content.splitlines(), 1) if re.match(rf"\s*\[\[\s*{TABLE}\s*\]\]", line)
    ]


def _entry(table: dict[str, Any], place: str, path: Path, program: Reader, text: TextReader) -> Entry:
    _check(table, place)
    written = table["program"]
    shown = text(written, f"{place}: program") if "\n" in written else program(path.parent / written)
    dates = {name.replace("-", "_"): table[name] for name in DATES if name in table}
    return Entry(place, shown, table["bucket"], table["revisions"], table.get("reason", ""), **dates)


def _check(table: dict[str, Any], place: str) -> None:
    for name in REQUIRED:
        if not table.get(name):
            raise BaselineError(f"{place}: expected {name}")
    for name, value in table.items():
        if name not in (*TEXTS, *DATES):
            raise BaselineError(f"{place}: unknown key {name}: expected one of {', '.join((*TEXTS, *DATES))}")
        if name in TEXTS and not isinstance(value, str):
            raise BaselineError(f"{place}: {name}: expected a text")
        if name in DATES and (not isinstance(value, date) or isinstance(value, datetime)):
            raise BaselineError(f"{place}: {name}: expected a date such as 2027-01-31, without quotes")
    if invariant_of(table["bucket"]) not in INVARIANTS:
        raise BaselineError(f"{place}: bucket: unknown invariant in {table['bucket']!r}: see xfdfuzz list invariants")
    try:
        selects(table["revisions"], names()[0])
    except RevisionError as error:
        raise BaselineError(f"{place}: revisions: {error}") from None
