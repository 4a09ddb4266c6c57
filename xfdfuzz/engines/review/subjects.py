"""The fields that can be asked about, by their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from xfdfuzz.engines.review.rows import POOLS, Column, Rows
from xfdfuzz.kernel.fields import fpstate_name
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.kernel.state import FIRST_EMBEDDED, FIRST_VALLOC


class UnknownFieldError(Exception):
    """A name that no field has; as text it is one line with the nearest ones."""


class Subject(NamedTuple):
    """A field that is asked about: of the objects that go by the name ``of`` (:data:`~.rows.POOLS`)."""

    of: str
    column: Column

    @property
    def path(self) -> str:
        """Its name, without the number of an object."""
        return self.column.path


def every() -> list[Subject]:
    """All fields, each once: what a pointer leads to is a field of what is there."""
    found = [Subject(of, column) for of in POOLS for column in Rows(of, MAX_CPUS).columns if not column.via]
    return sorted(found, key=lambda subject: list(POOLS).index(subject.of))


def subject(name: str) -> Subject:
    """The field with that name, with the number of an object or without; raises UnknownFieldError."""
    wanted = without_number(name)
    for of in POOLS:
        for column in Rows(of, MAX_CPUS).columns:
            if column.path == wanted and not column.compared:
                return Subject(of, column)
    raise UnknownFieldError(_unknown(name, wanted))


def without_number(name: str) -> str:
    """``v.xcr0`` for ``v0.xcr0``; a buffer of any name is an ``fpstate``."""
    for nr in range(FIRST_EMBEDDED, FIRST_VALLOC):
        embedded = f"{fpstate_name(nr)}."
        if name.startswith(embedded):
            return f"fpstate.{name.removeprefix(embedded)}"
    if name.startswith("init_fpstate."):
        return f"fpstate.{name.partition('.')[2]}"
    head, dot, rest = name.partition(".")
    head = re.sub(r"^(?:fpstate#|([a-z]+))\d+$", lambda match: match[1] or "fpstate", head)
    return f"{'t' if head == 'k' else head}{dot}{re.sub(r'^sigframe(?:-own|[0-9]+)', 'sigframe', rest)}"


def _unknown(name: str, wanted: str) -> str:
    if wanted.startswith("ghost."):
        return f"{name}: no kernel has that, it is what an ideal machine would hold"
    paths = [one.path for one in every()]
    near = _near(wanted, paths)
    return f"unknown field {name}: {f'did you mean {_listed(near)}?' if near else 'see xfdfuzz list fields'}"


def _near(wanted: str, paths: Sequence[str]) -> list[str]:
    """Those that end alike come first: who leaves out a part of a path knows its end."""
    last = wanted.rpartition(".")[2]
    same_end = [path for path in paths if path.rpartition(".")[2] == last]
    near = difflib.get_close_matches(wanted, paths, n=3, cutoff=0.6)
    ends = difflib.get_close_matches(last, [path.rpartition(".")[2] for path in paths], n=1, cutoff=0.8)
    alike = [path for path in paths if path.rpartition(".")[2] in ends]
    return list(dict.fromkeys([*same_end, *near, *alike]))[:3]


def _listed(names: Sequence[str]) -> str:
    return " or ".join(names)
