"""How far a search came into what a change is about: "0 findings" says nothing of what never ran."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from xfdfuzz.engines.search.reach import Line, Reach
from xfdfuzz.report.console import counted, line

#: So many lines are printed.
_SHOWN = 6
_TREE = Path(__file__).parent.parent.parent


def terminal(out: Console, reach: Reach) -> None:
    """``the 4 functions that differ from v5.16 ran 18302 times; 1 never did: fpu_guest_realloc_fpstate``"""
    for said in lines(reach):
        line(out, said)


def lines(reach: Reach) -> Iterator[str]:
    """The same as lines."""
    if not reach.calls:
        return
    count, never = len(reach.calls), reach.never
    what = "1 function that differs" if count == 1 else f"{count} functions that differ"
    ran = f"ran {counted(sum(reach.calls.values()), 'time')}"
    rest = f"; {len(never)} never did: {', '.join(never)}" if never else ""
    yield f"the {what} from {reach.base} {ran}{rest}"
    if reach.partings is not None:
        yield f"the two kernels came into different states {counted(reach.partings, 'time')}"
    yield from _lines("never executed", [one for one in reach.unexecuted if one.function not in never])
    yield from _lines("made no difference", reach.idle)
    yield from _lines(f"left out of {reach.base}, which only diff can judge", reach.left_out)


def _lines(what: str, those: Sequence[Line]) -> Iterator[str]:
    for one in those[:_SHOWN]:
        yield f"{what}: {_place(one)} in {one.function}(): {one.statement.text}"
    if len(those) > _SHOWN:
        yield f"{what}: {counted(len(those) - _SHOWN, 'more line')}, all of them with --format json"


def _place(one: Line) -> str:
    file, number = one.statement.place
    return f"{_file(file)}:{number}"


def _file(name: str) -> str:
    """As short as it can be named."""
    file = Path(name)
    for root in (Path.cwd(), _TREE):
        if file.is_relative_to(root):
            return os.fspath(file.relative_to(root))
    return name


def as_object(reach: Reach | None) -> dict[str, Any] | None:
    """Everything; null where a revision is no change of another one."""
    if reach is None:
        return None
    return {
        "base": reach.base,
        "functions": dict(reach.calls),
        "never_executed": [*map(_line, reach.unexecuted)],
        "no_difference": [*map(_line, reach.idle)],
        "left_out": [*map(_line, reach.left_out)],
        "different_states": reach.partings,
    }


def _line(one: Line) -> dict[str, Any]:
    place = one.statement.place
    return {"function": one.function, "file": place.file, "line": place.line, "text": one.statement.text}
