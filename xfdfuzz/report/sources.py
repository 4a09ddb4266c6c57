"""Where the functions of call traces stand in the kernel's source, and what brought the form that they have there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from rich.console import Console

from xfdfuzz.report.console import line
from xfdfuzz.revisions.sources import Source

_INDENT = " " * 8

#: Nobody asked: nothing is printed.
UNASKED: Mapping[str, Source] = MappingProxyType({})


def terminal(out: Console, functions: Iterable[str], sources: Mapping[str, Source]) -> None:
    """A line for each function that ``sources`` knows: its name in the call trace, its file, the commits or mails."""
    rows = [(name, _where(name, sources[name]), _origin(sources[name])) for name in functions if name in sources]
    widths = [max((len(row[nr]) for row in rows), default=0) for nr in range(2)]
    for name, where, origin in rows:
        line(out, (f"{_INDENT}{name:{widths[0]}}  {where:{widths[1]}}  {origin}", "dim"))


def _where(name: str, source: Source) -> str:
    file = source.file or "?"
    return file if source.function == name else f"{file}, {source.function}()"


def _origin(source: Source) -> str:
    return ", ".join(source.origin) + (" (inferred)" if source.inferred else "")


def as_object(functions: Iterable[str], sources: Mapping[str, Source]) -> dict[str, Any]:
    """The name in the call trace -> where that stands."""
    return {name: sources[name]._asdict() for name in functions if name in sources}
