"""The index of several pages: what is broken on which revision, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from urllib.parse import quote

from xfdfuzz.engines.search.precedence import Precedence, nearest_roots
from xfdfuzz.invariants.vocabulary import SEVERITIES, Violation
from xfdfuzz.report.console import counted
from xfdfuzz.report.page.assets import notice, policy, style, text
from xfdfuzz.report.page.runs import CLEAN, FAMILIES, IDLE, OTHERS, PARTLY, SIGNS, VIOLATES, Finding


@dataclass(frozen=True)
class Cell:
    """What a program shows of what it is about on one revision: a word, and the step at which to open its page."""

    state: str
    step: int


@dataclass(frozen=True)
class Entry:
    """A page, with what the index needs of it; ``main`` is what it is about, None if it breaks nothing.

    ``broken`` are for each run the buckets that its steps break, one step after another.
    """

    page: str
    file: str
    length: int
    main: Violation | None
    private: bool
    cells: dict[str, Cell]
    families: dict[str, str]
    broken: tuple[tuple[frozenset[str], ...], ...]


def entry(found: Finding, page: str) -> Entry:
    """What the index says of a finding whose page has that name."""
    cells = {run.name: Cell(found.state(run), found.opens(run)) for run in found.runs}
    families = {run.name: run.family for run in found.runs}
    broken = tuple(
        tuple(frozenset(one.bucket for one in judged.violations) for judged in run.verdict.trace if judged.violations)
        for run in found.runs
    )
    return Entry(page, str(found.file), len(found.program.ops), found.main, found.private, cells, families, broken)


def index(entries: Sequence[Entry], title: str) -> str:
    """The page that leads to the others."""
    revisions = {name: family for one in entries for name, family in one.families.items()}
    rows = _rows(entries)
    look = style("theme.css", "index.css")
    return Template(text("index.html")).substitute(
        title=escape(title),
        policy=policy(look),
        style=look,
        notice=notice(any(one.private for one in entries), "One of these"),
        columns="".join(_columns(revisions)),
        rows="".join(_row(row, revisions, follows) for row, follows in rows),
        clean=_clean([one for one in entries if one.main is None]),
    )


def _rows(entries: Sequence[Entry]) -> Iterator[tuple[list[Entry], bool]]:
    """The pages by what they are about, the plainest program first; and whether that shows in no run before what stands
    above it has shown.  The worst first, then the shortest, with what follows from the same."""
    found: dict[str, list[Entry]] = {}
    for one in sorted(entries, key=lambda one: (one.length, one.file)):
        if one.main is not None:
            found.setdefault(one.main.bucket, []).append(one)
    ranked = sorted(found, key=lambda bucket: _rank(found[bucket]))
    roots = nearest_roots(_precedence(entries).among(ranked), ranked)
    groups: dict[str, list[str]] = {}
    for bucket in ranked:
        groups.setdefault(roots.get(bucket, bucket), []).append(bucket)
    for root, buckets in groups.items():
        yield found[root], False
        yield from ((found[bucket], True) for bucket in buckets if bucket != root)


def _precedence(entries: Sequence[Entry]) -> Precedence:
    """In all runs of all pages."""
    seen = Precedence()
    for run in (run for one in entries for run in one.broken):
        before: set[str] = set()
        for broken in run:
            seen.note(broken, before)
            before |= broken
    return seen


def _rank(row: Sequence[Entry]) -> tuple[int, int]:
    return min(SEVERITIES.index(one.main.severity) for one in row if one.main), row[0].length


def _columns(revisions: dict[str, str]) -> Iterator[str]:
    for name, first in _separated(revisions):
        yield f'<th scope="col" class="revision{first}" title="{FAMILIES[revisions[name]]}">{escape(name)}</th>'


def _separated(revisions: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The revisions, with a mark on the first one of each kind of kernels."""
    told = ""
    for name, family in revisions.items():
        yield name, " first" if family != told else ""
        told = family


def _row(row: Sequence[Entry], revisions: dict[str, str], follows: bool) -> str:
    main = row[0].main
    assert main is not None
    what = f'{escape(main.invariant)} <span class="pill {main.severity}">{main.severity}</span>'
    where = f"<small>{escape(main.site)}</small>" if main.site else ""
    programs = "<br>".join(_link(one) for one in row)
    cells = "".join(_sign(row, name, main.severity, first) for name, first in _separated(revisions))
    below = ' follows" title="shows only where the one above it has shown' if follows else ""
    return f'<tr><td class="what{below}">{what}{where}</td><td class="programs">{programs}</td>{cells}</tr>\n'


def _link(one: Entry, where: str = "", words: str = "") -> str:
    return f'<a href="{escape(quote(one.page) + where)}">{escape(words or one.file)}</a>'


def _sign(row: Sequence[Entry], name: str, severity: str, first: str) -> str:
    """What the programs of a row come to on a revision, all in all."""
    shown = [(one, cell) for one in row if (cell := one.cells.get(name)) is not None]
    for state in (VIOLATES, CLEAN, OTHERS, PARTLY, IDLE):
        for one, cell in shown:
            if cell.state == state:
                link = _link(one, f"#{quote(name, safe='')}/{cell.step}", SIGNS[state])
                tone = severity if state == VIOLATES else ""
                return f'<td class="cell {state} {tone}{first}">{link}</td>'
    return f'<td class="cell{first}">{SIGNS[IDLE]}</td>'


def _clean(entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    items = "".join(f"<li>{_link(one)}</li>\n" for one in sorted(entries, key=lambda one: one.file))
    title = f"Nothing is broken by {counted(len(entries), 'program')}"
    return f'<section class="clean"><h2>{title}</h2><ul>\n{items}</ul></section>\n'
