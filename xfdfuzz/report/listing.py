"""What there is: revisions, ops, invariants, fields and so on, as rows that the terminal and JSON share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.results import RESULTS
from xfdfuzz.program.text import format_op, synopsis
from xfdfuzz.report.console import hanging, line, table
from xfdfuzz.revisions import ALIASES, Revision, in_order, names, resolve
from xfdfuzz.revisions.left_out import LEFT_OUT
from xfdfuzz.strategies.scopes import SCOPES

#: A row of a list: column -> text, or several texts.
Row = dict[str, str | list[str]]
#: So many labels fit into a cell.
_FEW = 4


def revisions(only: Revision | None) -> list[Row]:
    """Every named revision, or the one asked for with its patches."""
    return [
        {
            "name": r.label,
            "title": r.title,
            "source": r.source,
            "aliases": [alias for alias, name in ALIASES.items() if name == r.label],
            "patches": [p.commit for p in r.patches],
        }
        for r in _chosen(only)
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


def left_out() -> list[Row]:
    """Commits of mainline that are not in the queue on purpose."""
    return [
        {"commit": one.commit, "version": one.version, "title": one.title, "reason": one.reason} for one in LEFT_OUT
    ]


def ops(only: Revision | None) -> list[Row]:
    """Every op and its line in a program; they are the same on every revision."""
    return [
        {"name": name, "line": synopsis(cls), "doc": inspect.getdoc(cls) or "", "results": list(RESULTS[name])}
        for name, cls in OPS.items()
    ]


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


def fields(only: Revision | None) -> list[Row]:
    """Every field that can be asked about, with the revisions whose code assigns to it."""
    from xfdfuzz.engines.review.subjects import every
    from xfdfuzz.engines.review.writers import member_of, writing

    written = writing(_chosen(only))
    return [
        {
            "name": subject.path,
            "kind": str(subject.column.kind),
            "struct": subject.column.field.struct.__name__,
            "written by": [label for label, members in written.items() if member_of(subject.column.field) in members],
        }
        for subject in every()
    ]


def warnings(only: Revision | None) -> list[Row]:
    """Every WARN_ON(), KVM_BUG_ON() and BUG, with the revisions that have it."""
    from xfdfuzz.engines.review.sites import sites, sources

    found: dict[str, Row] = {}
    has: dict[str, list[str]] = {}
    for revision in _chosen(only):
        every = sites(revision)
        where = sources(revision, every)
        for site in every:
            file = where[site].file if site in where else None
            found[str(site)] = {"what": site.what, "function": site.function, "file": file or "?"}
            found[str(site)]["condition"] = site.condition
            has.setdefault(str(site), []).append(revision.label)
    return [row | {"revisions": has[name]} for name, row in sorted(found.items(), key=lambda one: one[1]["function"])]


def _chosen(only: Revision | None) -> list[Revision]:
    return [resolve(name) for name in names()] if only is None else [only]


KINDS: Mapping[str, Callable[[Revision | None], list[Row]]] = {
    "revisions": revisions,
    "patches": patches,
    "ops": ops,
    "invariants": invariants,
    "goals": goals,
    "scopes": scopes,
    "fields": fields,
    "warnings": warnings,
}


#: The columns that the terminal shows; the last one takes the room that is left.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "revisions": ("name", "title"),
    "patches": ("in", "commit", "version", "title"),
    "left out": ("commit", "version", "title", "reason"),
    "ops": ("name", "line"),
    "invariants": ("name", "severity", "doc"),
    "goals": ("name", "area", "doc"),
    "scopes": ("name", "summary"),
    "fields": ("name", "kind", "struct", "written by"),
    "warnings": ("what", "function", "file", "condition"),
    "profiles": ("name", "command", "file", "options"),
}


#: What is told below a list.
BELOW: Mapping[str, Sequence[str]] = {
    "ops": (
        "A program begins with two processes, each of one thread: t0 executes user code on cpu0, t1 is on no CPU.",
        "Other CPUs run their kernel threads; /dev/kvm is open, no VM or vCPU exists, and all registers are initial.",
        "Numbers are given in order: the first VM is vm0, the first vCPU v0, the first task that clone() makes t2.",
        "All of it: docs/program-format.md.",
    )
}


def terminal(out: Console, kind: str, rows: Sequence[Row]) -> None:
    """The columns that fit a terminal."""
    columns = [column for column in COLUMNS[kind] if rows and column in rows[0]]
    table(out, columns, [tuple(_cell(row, column) for column in columns) for row in rows])
    for nr, text in enumerate(BELOW.get(kind, ())):
        if nr == 0:
            line(out)
        hanging(out, 2, (text, "dim"))


def _cell(row: Row, column: str) -> str:
    """What is shown of a column; behind the text of an invariant stand its references, behind a title other names."""
    value = row[column]
    if column == "written by" and not isinstance(value, str):  # nearly all, or nearly none
        value = _briefly(value)
    text = value if isinstance(value, str) else " ".join(value)
    more, prefix = {"doc": ("references", ""), "title": ("aliases", "also ")}.get(column, ("", ""))
    behind = row.get(more)
    return f"{text} ({prefix}{', '.join(behind)})" if behind else text


def _briefly(labels: Sequence[str]) -> str:
    """``all`` revisions, ``none``, or how many of them and the first few."""
    every = len(names())
    if len(labels) in (0, every):
        return "all" if labels else "none"
    return ", ".join(labels) if len(labels) <= _FEW else f"{', '.join(labels[:_FEW])} and {len(labels) - _FEW} more"


def as_object(row: Row) -> dict[str, Any]:
    """One row with all its columns."""
    return dict(row)
