"""What there is: revisions, patches, ops, invariants, goals and scopes, as rows that the terminal and JSON share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.text import format_op, synopsis
from xfdfuzz.report.console import table
from xfdfuzz.revisions import ALIASES, Revision, in_order, names, resolve
from xfdfuzz.strategies.scopes import SCOPES

#: A row of a list: column -> text, or several texts.
Row = dict[str, str | list[str]]


def revisions(only: Revision | None) -> list[Row]:
    """Every named revision, or the one asked for with its patches."""
    chosen = [resolve(name) for name in names()] if only is None else [only]
    return [
        {
            "name": r.label,
            "title": r.title,
            "source": r.source,
            "aliases": [alias for alias, name in ALIASES.items() if name == r.label],
            "patches": [p.commit for p in r.patches],
        }
        for r in chosen
    ]


def patches(only: Revision | None) -> list[Row]:
    """The queue in its order and what is proposed; with a revision, ``in`` says which that one has, and its own come
    last."""
    return [
        {
            **({} if only is None else {"in": "yes" if p in only.patches else "no"}),
            "commit": p.commit,
            "version": p.version,
            "title": p.title,
            "fixes": list(p.fixes),
            "stable": list(p.stable),
            "doc": inspect.cleandoc(p.doc),
        }
        for p in in_order(only.patches if only else ())
    ]


def ops(only: Revision | None) -> list[Row]:
    """Every op and its line in a program; they are the same on every revision."""
    return [{"name": name, "line": synopsis(cls), "doc": inspect.getdoc(cls) or ""} for name, cls in OPS.items()]


def invariants(only: Revision | None) -> list[Row]:
    """Every invariant, or those that are checked on one revision."""
    return [
        {
            "name": inv.name,
            "severity": inv.severity,
            "doc": inv.doc,
            "revisions": list(inv.revisions),
            "excluded": list(inv.excluded),
            "references": list(inv.references),
        }
        for inv in INVARIANTS.values()
        if only is None or inv.applies_to(only.name)
    ]


def goals(only: Revision | None) -> list[Row]:
    """Every goal; they are the same on every revision."""
    return [
        {
            "name": goal.name,
            "area": goal.area,
            "doc": goal.doc,
            "ops": [cls.__name__ for cls in goal.ops],
            "needs": [cls.__name__ for cls in goal.needs],
        }
        for goal in GOALS.values()
    ]


def scopes(only: Revision | None) -> list[Row]:
    """Every scope of the exhaustive engine; they are the same on every revision."""
    return [
        {
            "name": scope.name,
            "summary": scope.summary,
            "leaves out": scope.leaves_out,
            "ops": [format_op(op) for op in scope.ops],
        }
        for scope in SCOPES.values()
    ]


KINDS: Mapping[str, Callable[[Revision | None], list[Row]]] = {
    "revisions": revisions,
    "patches": patches,
    "ops": ops,
    "invariants": invariants,
    "goals": goals,
    "scopes": scopes,
}


#: The columns that the terminal shows; the last one takes the room that is left.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "revisions": ("name", "title"),
    "patches": ("in", "commit", "version", "title"),
    "ops": ("name", "line"),
    "invariants": ("name", "severity", "doc"),
    "goals": ("name", "area", "doc"),
    "scopes": ("name", "summary"),
    "profiles": ("name", "command", "file", "options"),
}


def terminal(out: Console, kind: str, rows: Sequence[Row]) -> None:
    """The columns that fit a terminal."""
    columns = [column for column in COLUMNS[kind] if rows and column in rows[0]]
    table(out, columns, [tuple(_cell(row, column) for column in columns) for row in rows])


def _cell(row: Row, column: str) -> str:
    """What is shown of a column; behind the text of an invariant stand its references, behind a title other names."""
    value = row[column]
    text = value if isinstance(value, str) else " ".join(value)
    more, prefix = {"doc": ("references", ""), "title": ("aliases", "also ")}.get(column, ("", ""))
    behind = row.get(more)
    return f"{text} ({prefix}{', '.join(behind)})" if behind else text


def as_object(row: Row) -> dict[str, Any]:
    """One row with all its columns."""
    return dict(row)
