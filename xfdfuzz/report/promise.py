"""A relation as an invariant and its test: the words of their skeletons."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from xfdfuzz.engines.review.promise import Mistake, Promise
from xfdfuzz.engines.review.survival import Checked
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program
from xfdfuzz.report import checked
from xfdfuzz.report.biography import relation_text
from xfdfuzz.report.python import Body, constant, object_of, pointed_to

_WIDTH = 110


def words(made: Promise, held: Iterable[Checked]) -> Mapping[str, str]:
    """What stands in the two files: the relation, what it was held against, and its mistake as code."""
    relation, column = made.mined.relation, made.subject.column
    body = Body(relation, made.subject.of, column, made.mined.other).text()
    wrong = _wrong(made.mistake, made.subject.of)
    text = relation_text(made.mined, column.kind, few=len(OPS))
    seen = f"Observed, not written from a contract: it holds on {made.revision.label} in {checked.text(held)}."
    return {
        "field": made.subject.path,
        "relation": _filled(f"{text}."),
        "seen": _filled(seen),
        "imports": _imports(relation.points, body),
        "when": f"ops={_tuple(relation.points)}" if relation.points else "state=True",
        "body": textwrap.indent(body, "    "),
        "revision": made.revision.address,
        "speaks": _program(made.speaks),
        "breaks": _program(made.breaks),
        "method": made.mistake.method,
        "mistake": _filled(_said(made)),
        "wrong": textwrap.indent(wrong, " " * 8),
        "test_imports": _imports((), wrong),
    }


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(names)}{',' * (len(names) == 1)})"


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _imports(points: Iterable[str], body: str) -> str:
    """The imports that not every invariant has, in their order."""
    lines: dict[str, list[str]] = {}
    for point in points:
        lines.setdefault(OPS[point].__module__, []).append(point)
    found = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(lines.items())]
    if "about(" in body:
        found.insert(0, "from xfdfuzz.program.about import about")
    if "st." in body:
        found.insert(0, "from xfdfuzz.kernel import state as st")
    return "".join(f"{line}\n" for line in found)


def _program(program: Program) -> str:
    return format_program(replace(program, results=())).strip()


def _said(made: Promise) -> str:
    mistake, path = made.mistake, made.mistake.column.path
    does = f"leaves {path} as it was" if mistake.value is None else f"writes {_value(mistake)} to {path}"
    return f"A kernel whose {mistake.method}() {does}."


def _value(mistake: Mistake) -> str:
    assert mistake.value is not None
    return constant(mistake.column.kind, mistake.value)


def _wrong(mistake: Mistake, of: str) -> str:
    """The body of the method, with the mistake in its last line but one."""
    owner, via = object_of(of, mistake.nr, "self"), mistake.column.via
    if via is not None:
        owner = pointed_to(mistake.column, of, owner, "self")
    path, _, name = mistake.column.field.member.rpartition(".")
    lines = [f"owner = {owner}{'.' if path else ''}{path}"]
    if mistake.value is None:
        lines.append(f"before = owner.{name}")
    lines.append(f"result = super().{mistake.method}(*arguments)")
    lines.append(f"owner.{name} = {'before' if mistake.value is None else _value(mistake)}")
    return "\n".join([*lines, "return result"])
