"""Changing a baseline's TOML file, line by line: comments, order and whatever else a person wrote stay as they are."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

from xfdfuzz.baseline.entries import BaselineError, Entry
from xfdfuzz.baseline.reading import TABLE, headers
from xfdfuzz.extensions import read_file
from xfdfuzz.program.text import format_program

_HEAD = "# What is known to be broken, so that only other violations are news; docs/baseline.md of xfdfuzz says more.\n"
_SEEN = re.compile(r"(\s*last-seen\s*=\s*)\d{4}-\d\d-\d\d")


class Document:
    """The file; one that does not exist begins with nothing.  Entries are numbered from 0, in their order."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, and BaselineError for a file whose entries do not stand on lines of their own."""
        self._path = path
        self._before = read_file(path).decode() if path.exists() else ""
        self._head, self._blocks = _split(self._before or _HEAD)
        if len(self._blocks) != len(_tables(self._before)):
            raise BaselineError(
                f"{path}: expected every entry below a line [[{TABLE}]] of its own, and nothing else so"
            )
        self._expected = _tables(self._before)
        self._removed: set[int] = set()

    def seen(self, number: int, today: date) -> None:
        """An entry still shows."""
        if self._expected[number].get("last-seen") == today:
            return
        self._expected[number]["last-seen"] = today
        block = self._blocks[number]
        at = next((nr for nr, line in enumerate(block) if _SEEN.match(line)), None)
        if at is None:
            header = next(nr for nr, line in enumerate(block) if headers(line))
            block.insert(header + 1, f"last-seen = {today}\n")
        else:
            block[at] = _SEEN.sub(rf"\g<1>{today}", block[at], count=1)

    def add(self, entry: Entry) -> None:
        """Append an entry."""
        last = self._blocks[-1] if self._blocks else self._head
        if last and not last[-1].endswith("\n"):
            last[-1] += "\n"
        text = "".join(_written(entry))
        self._blocks.append(["\n", *text.splitlines(keepends=True)])
        self._expected += _tables(text)

    def remove(self, number: int) -> None:
        """Take an entry out, with the comments right above it."""
        self._removed.add(number)

    def changed(self) -> str | None:
        """The new text; None if nothing has changed.

        Raises BaselineError where the lines would not say what they are to say.
        """
        kept = [block for number, block in enumerate(self._blocks) if number not in self._removed]
        text = "".join(line for lines in (self._head, *kept) for line in lines)
        expected = [table for number, table in enumerate(self._expected) if number not in self._removed]
        if _tables(text) != expected:
            raise BaselineError(f"{self._path}: cannot be changed without damage: edit it by hand")
        return None if text == self._before or not (expected or self._before) else text


def _tables(text: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = tomllib.loads(text).get(TABLE, [])
    return found


def _split(text: str) -> tuple[list[str], list[list[str]]]:
    """The lines before the first entry, and those of each: the comments right above its header are its own."""
    lines = text.splitlines(keepends=True)
    places = [*(_above(lines, number - 1) for number in headers(text)), len(lines)]
    return lines[: places[0]], [lines[begin:end] for begin, end in pairwise(places)]


def _above(lines: list[str], header: int) -> int:
    """Where what belongs to the header begins.  What stands at the top of a file belongs to all of it."""
    begin = header
    while begin and lines[begin - 1].lstrip().startswith("#"):
        begin -= 1
    return begin if begin else header


def _written(entry: Entry) -> Iterator[str]:
    yield f"[[{TABLE}]]\n"
    yield f"bucket = {_string(entry.bucket)}\n"
    yield f"revisions = {_string(entry.revisions)}\n"
    for name, day in (("first-seen", entry.first_seen), ("last-seen", entry.last_seen)):
        yield f"{name} = {day}\n"
    program = format_program(entry.program)
    # as it stands, where that can be written
    yield f"program = '''\n{program}'''\n" if "'''" not in program else f"program = {_string(program)}\n"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
