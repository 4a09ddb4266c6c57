"""What all reports are written with: lines, prose and tables for people, JSON lines for programs, Markdown for pages.

No boxes and no non-ASCII characters of our own, so the same text goes into a mail.  Programs contain square brackets,
hence rich's markup is off everywhere.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.text import Text

#: Prose is not set wider than this: long lines are hard to read.
_PROSE = 100
#: The style of each severity.
SEVERITY: Mapping[str, str] = {
    "panic": "bold red",
    "corruption": "red",
    "leak": "red",
    "warn": "yellow",
    "abi": "yellow",
    "vmm": "yellow",
}


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor alone: whoever is killed could not show it again."""
        return False

    def on_broken_pipe(self) -> None:
        """Let the caller decide the exit code; rich would exit with 1, which says that there was a violation."""
        raise BrokenPipeError


def console(stream: TextIO, quiet: bool = False) -> Console:
    """A console that writes colours and bold letters on a terminal only, without NO_COLOR, and never alters what it
    prints; if ``quiet``, it prints nothing."""
    # rich's own NO_COLOR leaves bold and dim
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return _Console(file=stream, color_system=colours, markup=False, highlight=False, emoji=False, quiet=quiet)


def line(out: Console, *parts: str | tuple[str, str] | Text) -> None:
    """Print one line, a (text, style) pair at a time; long ones are left to the terminal, so they can be searched."""
    out.print(Text.assemble(*parts), soft_wrap=True)


def hanging(out: Console, indent: int, *parts: str | tuple[str, str] | Text) -> None:
    """Print one line as :func:`line` does; what a terminal is too narrow for stands below, so far in."""
    text = Text.assemble(*parts)
    if not out.is_terminal:
        out.print(text, soft_wrap=True)
        return
    for nr, row in enumerate(text.divide(_breaks(text.plain, out.width, indent))):
        row.rstrip()  # in place
        out.print(Text.assemble(" " * indent if nr else "", row), soft_wrap=True)


def _breaks(text: str, width: int, indent: int) -> list[int]:
    """Where to break a line between words; one that is longer than a row is left whole."""
    found: list[int] = []
    start, room = 0, width
    for word in re.finditer(r"\S+", text):
        if word.end() - start > room and word.start() > max(start, indent):
            found.append(word.start())
            start, room = word.start(), width - indent
    return found


def counted(count: int, noun: str) -> str:
    """``1 example``, ``2 examples``; thousands are left as they are, for grep."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def prose(out: Console, text: str, indent: str = "  ", style: str = "") -> None:
    """Print a sentence or two, wrapped."""
    width = min(out.width, _PROSE)
    for row in textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False):
        line(out, (row, style))


def table(out: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns without a box.  The last one is wrapped on a terminal; piped, a row is a line, for grep."""
    every = [tuple(header), *rows] if header else list(rows)
    if not every:
        return
    widths = [max(map(len, column)) for column in list(zip(*every, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    for nr, row in enumerate(every):
        start = "".join(f"{cell:{width}}  " for cell, width in zip(row, widths, strict=False))
        wide = max(out.width - indent, 20)
        last = (textwrap.wrap(row[-1], wide, break_on_hyphens=False) or [""]) if out.is_terminal else [row[-1]]
        for part_nr, part in enumerate(last):
            head = start if part_nr == 0 else " " * indent
            line(out, (f"{head}{part}", "bold" if header and nr == 0 else ""))


def write(value: Mapping[str, Any], stream: TextIO) -> None:
    """One object, one line of JSON; flushed, so that whoever reads a pipe has it now."""
    print(json.dumps(value), file=stream, flush=True)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A line a row, whatever stands in the cells."""
    return "\n".join(_markdown_row(cells) for cells in (header, ["---"] * len(header), *rows))


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
