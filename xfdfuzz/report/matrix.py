"""A matrix of programs and revisions.

Of one program a row is a revision; of several a row is a program, and letters stand for the invariants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from xfdfuzz.engines.compare.matrix import CLEAN, IDLE, NOT_APPLICABLE, PANICS, VIOLATES, Cell, Row
from xfdfuzz.engines.judge import windows
from xfdfuzz.engines.stream.events import ProgramJudged
from xfdfuzz.invariants.vocabulary import INVARIANTS, SEVERITIES
from xfdfuzz.report import headline
from xfdfuzz.report.console import hanging, line, markdown_table

#: A clean cell of which some ops could not happen, or asked for what did not.
PARTLY = "partly"
#: Signs of the cells of several programs, and what they mean; letters are told apart below.
SIGNS = {
    CLEAN: (".", "clean"),
    PARTLY: ("~", "clean as far as it went: some ops could not happen, or hit nothing"),
    PANICS: ("*", "the host dies"),
    IDLE: ("-", "no op could happen"),
    NOT_APPLICABLE: ("n/a", "the revision cannot have the program's patches"),
}
_UNEXPECTED = ("?", "not what the program's expect: lines say")
_STYLES = {CLEAN: "green", PARTLY: "green", VIOLATES: "red", PANICS: "bold red", IDLE: "dim", NOT_APPLICABLE: "dim"}

#: A cell's text and style.
Styled = tuple[str, str]


class Grid:
    """The same text for every format: header, rows of styled cells, and what the signs mean."""

    def __init__(self, rows: Sequence[Row], revisions: Sequence[str]) -> None:
        self.legend: list[tuple[str, str]] = []
        if len(rows) == 1:
            self.header = ["revision", "verdict"]
            self.rows = [[(label, ""), _sentence(rows[0], nr)] for nr, label in enumerate(revisions)]
            return
        names = dict.fromkeys(name for row in rows for cell in row.cells for name in cell.violations)
        letters = dict(zip(names, _letters(), strict=False))
        folder = _folder([row.file for row in rows])
        self.header = [f"in {folder}" if folder else "program", *revisions]
        self.rows = [
            [(row.file.removeprefix(folder), ""), *(_signs(row, nr, letters) for nr in range(len(revisions)))]
            for row in rows
        ]
        used = {_state(cell) for row in rows for cell in row.cells}
        self.legend += [SIGNS[state] for state in SIGNS if state in used]
        if any(cell.expected is False for row in rows for cell in row.cells):
            self.legend.append(_UNEXPECTED)
        self.legend += [(letter, name) for name, letter in letters.items()]


def _folder(files: Sequence[str]) -> str:
    """Where all of them are, with a stroke at its end: that stands above the column once."""
    first, *others = (Path(file).parents for file in files)
    common = next((folder for folder in first if all(folder in parents for parents in others)), Path())
    return "" if common == Path() else f"{str(common).rstrip('/')}/"


def _letters() -> Iterator[str]:
    """A to Z, then A1 to Z1 and so on."""
    number = 0
    while True:
        yield from (f"{chr(letter)}{number or ''}" for letter in range(ord("A"), ord("Z") + 1))
        number += 1


def _sentence(row: Row, nr: int) -> Styled:
    cell = row.cells[nr]
    words = {CLEAN: "clean", IDLE: "not-enabled: no op could happen", NOT_APPLICABLE: f"n/a: {cell.reason}"}
    names = ", ".join(cell.violations)
    text = words.get(cell.state) or (f"panic: {names}" if cell.state == PANICS else names)
    if cell.left_out and cell.state != IDLE:
        text += f"; {cell.left_out} of {len(row.program.ops)} ops could not happen"
    if cell.differs and cell.state != IDLE:
        text += f"; {cell.differs}"
    if cell.missed:
        text += f"; {windows.told(cell.missed)}"
    return text + (" (not what is expected)" if cell.expected is False else ""), _STYLES[cell.state]


def _state(cell: Cell) -> str:
    return PARTLY if cell.state == CLEAN and (cell.left_out or cell.missed) else cell.state


def _signs(row: Row, nr: int, letters: dict[str, str]) -> Styled:
    cell = row.cells[nr]
    sign = SIGNS[_state(cell)][0] if _state(cell) in SIGNS else ""
    text = sign + ",".join(letters[name] for name in cell.violations)
    return text + (_UNEXPECTED[0] if cell.expected is False else ""), _STYLES[cell.state]


def terminal(out: Console, rows: Sequence[Row], revisions: Sequence[str]) -> None:
    """Columns without a box; on a terminal as many side by side as fit, piped all of them."""
    grid = Grid(rows, revisions)
    table = [[(title, "bold") for title in grid.header], *grid.rows]
    widths = [max(len(row[nr][0]) for row in table) for nr in range(len(grid.header))]
    for block in _blocks(widths, out.width if out.is_terminal else None):
        for row in table:
            cells = [(f"{row[nr][0]:{widths[nr]}}  ", row[nr][1]) for nr in (0, *block[:-1])]
            line(out, *cells, row[block[-1]])
        line(out)
    for sign, meaning in grid.legend:
        line(out, (f"{sign:3}  ", "bold"), meaning)
    if len(rows) == 1:
        headline.terminal(out, rows[0].program, _outcomes(rows[0], revisions))
        _about_known(out, rows[0], revisions)


def _about_known(out: Console, row: Row, revisions: Sequence[str]) -> None:
    """How to learn whether what is broken is known, on the last of those kernels; of a program that expects nothing."""
    broken = [name for name, cell in zip(revisions, row.cells, strict=True) if cell.violations]
    if broken and not row.program.expect:
        asked = f"xfdfuzz replay {row.file} --revision {broken[-1]}"
        hanging(out, 2, (f"whether that is known on {broken[-1]}: {asked}", "dim"))


def _outcomes(row: Row, revisions: Sequence[str]) -> list[headline.Outcome]:
    """Of the kernels that can have the program's patches."""
    return [
        headline.Outcome(name, cell.buckets, not cell.left_out)
        for name, cell in zip(revisions, row.cells, strict=True)
        if cell.state != NOT_APPLICABLE
    ]


def _blocks(widths: Sequence[int], wide: int | None) -> Iterator[list[int]]:
    """The numbers of the columns behind the first one, as many at a time as fit beside it."""
    block: list[int] = []
    for nr in range(1, len(widths)):
        if block and wide is not None and widths[0] + sum(widths[n] + 2 for n in (*block, nr)) > wide:
            yield block
            block = []
        block.append(nr)
    if block:
        yield block


def markdown(out: TextIO, rows: Sequence[Row], revisions: Sequence[str]) -> None:
    """A table, and a list of what the signs mean."""
    grid = Grid(rows, revisions)
    print(markdown_table(grid.header, [[text for text, _ in row] for row in grid.rows]), file=out)
    if grid.legend:
        print(file=out)
    for sign, meaning in grid.legend:
        print(f"* `{sign}` {meaning}", file=out)


def as_events(row: Row, revisions: Sequence[str]) -> Iterator[ProgramJudged]:
    """Each cell as all formats tell it; one that says nothing, and of which nothing is expected, was not judged."""
    for nr, label in enumerate(revisions):
        cell = row.cells[nr]
        silent = cell.state in (IDLE, NOT_APPLICABLE) and cell.expected is not False
        severity = min((INVARIANTS[name].severity for name in cell.violations), key=SEVERITIES.index, default="")
        ok = None if silent else cell.expected is not False
        yield ProgramJudged(label, row.file, ok, _sentence(row, nr)[0], severity=severity)


def as_object(row: Row, revisions: Sequence[str]) -> dict[str, Any]:
    """One program as an object."""
    verdicts = {
        label: {
            "state": cell.state,
            "violations": list(cell.violations),
            "left_out": cell.left_out,
            "differs": cell.differs or None,
            "missed": list(cell.missed),
            "expected": cell.expected,
        }
        for label, cell in zip(revisions, row.cells, strict=True)
    }
    return {"file": row.file, "verdicts": verdicts}
