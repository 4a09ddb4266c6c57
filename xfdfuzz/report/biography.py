"""The biography of a field, for people and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console

from xfdfuzz.arch.kinds import Kind
from xfdfuzz.engines.review.accesses import Access
from xfdfuzz.engines.review.against import Comparison, Lost
from xfdfuzz.engines.review.biography import Biography, Known
from xfdfuzz.engines.review.life import Life, Loop
from xfdfuzz.engines.review.mining import Mined
from xfdfuzz.engines.review.rows import Value
from xfdfuzz.engines.review.survival import Checked
from xfdfuzz.program.ops import OPS
from xfdfuzz.report import checked, steps, values
from xfdfuzz.report.console import counted, line, table

_DEEP = " " * 6
#: So many ops fit into a line.
_FEW = 4


def terminal(out: Console, found: Biography) -> None:
    """Who writes and reads it, its life, and what holds of it."""
    field = found.subject.column.field
    line(out, (found.subject.path, "bold"), f" on {found.revision.label}: {field.kind}, struct {field.struct.__name__}")
    line(out, f"scope {_scope(found)}")
    _written(out, found)
    _read(out, found)
    _life(out, found.life, field.kind)
    _relations(out, found)


def _scope(found: Biography) -> str:
    return checked.text([Checked(found.scope, found.states, found.exhausted)])


def _written(out: Console, found: Biography) -> None:
    _head(out, "Written by", found.written)
    for one in found.written:
        line(out, f"  {_name(one.access.function)} ", (one.access.action.value, "bold"), _called_by(one.access))
        steps.terminal(out, one.program, "  ")


def _read(out: Console, found: Biography) -> None:
    _head(out, "Read by", found.read)
    for access in found.read:
        line(out, f"  {_name(access.function)}", _called_by(access))


def _head(out: Console, title: str, entries: Iterable[object] = (True,)) -> None:
    line(out)
    line(out, (title, "bold"), "" if any(True for _ in entries) else ": nobody in this scope")


def _name(function: str) -> str:
    """A kernel function, or the op of what the hardware or the test does itself."""
    return function if function in OPS else f"{function}()"


def _called_by(access: Access) -> str:
    return f", called by {', '.join(map(_name, access.callers))}" if access.callers else ""


def _life(out: Console, life: Life, kind: Kind) -> None:
    _head(out, "Life")
    shown = [f"{_value(kind, value)} ({count:,})" for value, count in life.values.most_common(8)]
    more = f" and {len(life.values) - 8} more" if len(life.values) > 8 else ""
    rows = [("values", f"{', '.join(shown)}{more}"), ("stays set", _stretch(life)), ("for ever", _for_ever(life))]
    rows += [(f"when {one.name}", _how_often(one.set, one.times)) for one in life.moments]
    table(out, (), [("", *row) for row in rows])
    if life.loop:
        steps.terminal(out, life.loop.program, "  ")
    for one in life.moments:
        if one.program:
            line(out, f"  set when {one.name}:")
            steps.terminal(out, one.program, "  ")


def _value(kind: Kind, value: Value) -> str:
    return values.text(kind, value) if isinstance(value, int) else "contents"


def _stretch(life: Life) -> str:
    shortest = f"{counted(life.shortest, 'op')} at least" if life.shortest else "it is never set and cleared again"
    return f"{shortest}, {'any number' if life.longest is None else life.longest} at most"


def _for_ever(life: Life) -> str:
    if life.loop is None:
        return "no: it is cleared where user space or the guest gets on"
    memory = ", while no memory can be had" if life.loop.without_memory else ""
    return f"yes{memory}: the last {life.loop.turns} ops of this can be repeated"


def _how_often(times: int, of: int) -> str:
    return f"set {times:,} of {of:,} times" if times else f"never set, of {of:,} times"


# -- relations ---------------------------------------------------------------------------------------------------------


def relation_text(one: Mined, field: Kind, few: int = _FEW) -> str:
    """``v.guest_fpu.realloc_request != 0 => v.complete_userspace_io == COMPLETE_SKIP_INSN``; of the ops after which it
    holds the first few."""
    text, points = one.relation.text(_writes(field), _writes(one.other.kind) if one.other else str), one.relation.points
    more = f" and {len(points) - few} more" if len(points) > few else ""
    return f"{text} after {', '.join(points[:few])}{more}" if points else text


def _writes(kind: Kind) -> Callable[[int], str]:
    return lambda value: values.text(kind, value)


def _relations(out: Console, found: Biography) -> None:
    _head(out, "What holds of it, which nobody wrote down", found.relations)
    for number, one in enumerate(found.relations, 1):
        _relation(out, number, one, found)
    if found.more:
        line(out, f"  {found.more} more: --all")
    if found.interrupted:
        line(out, "  interrupted: they were not tried to the end")


def _relation(out: Console, number: int, one: Known, found: Biography) -> None:
    line(out, (f"{number:4}  ", "dim"), (relation_text(one.mined, found.subject.column.kind), "bold"))
    line(out, _DEEP, (f"holds in {checked.text(found.held(one))}", "dim"))
    if one.broken:
        where = "by the fuzzer" if one.broken.where == "fuzz" else f"in {one.broken.where}"
        behind = f", behind {one.broken.behind}" if one.broken.behind else ""
        line(out, _DEEP, (f"broken {where}{behind}:", "yellow"))
        steps.terminal(out, one.broken.program, _DEEP, machine=True)


# -- against another revision ------------------------------------------------------------------------------------------


def comparison(out: Console, found: Comparison) -> None:
    """Which relations hold on one revision and not on the other, with what breaks them there."""
    for holds, breaks, lost in (
        (found.first, found.second, found.only_first),
        (found.second, found.first, found.only_second),
    ):
        _head(out, f"Holds on {holds.label} and not on {breaks.label}", lost or [True])
        if not lost:
            line(out, "  nothing")
        for one in lost:
            line(out, "  ", (relation_text(one.mined, found.subject.column.kind), "bold"))
            steps.terminal(out, one.broken.program, "  ")


# -- JSON --------------------------------------------------------------------------------------------------------------


def as_object(
    found: Biography, against: Comparison | None = None, emitted: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One object; the keys are documented in docs/cli.md.  ``emitted``: the files that a relation was written to."""
    field = found.subject.column.field
    return {
        "field": found.subject.path,
        "revision": found.revision.label,
        "kind": str(field.kind),
        "struct": field.struct.__name__,
        "scope": found.scope,
        "states": found.states,
        "exhausted": found.exhausted,
        "written": [_access(one.access) | {"program": steps.as_object(one.program)} for one in found.written],
        "read": [_access(one) for one in found.read],
        "life": _life_object(found.life, field.kind),
        "relations": [_relation_object(one.mined, field.kind) | _fate(one) for one in found.relations],
        "more": found.more,
        "seconds": round(found.seconds, 3),
        "interrupted": found.interrupted,
        "against": None if against is None else _against_object(against),
        "emitted": emitted,
    }


def _access(access: Access) -> dict[str, Any]:
    return {"function": access.function, "action": access.action.name.lower(), "callers": list(access.callers)}


def _life_object(life: Life, kind: Kind) -> dict[str, Any]:
    return {
        "values": {_value(kind, value): count for value, count in life.values.most_common()},
        "shortest": life.shortest,
        "longest": life.longest,
        "loop": _loop_object(life.loop),
        "returning": _loop_object(life.returning),
        "moments": [{**one._asdict(), "program": steps.as_object(one.program)} for one in life.moments],
    }


def _loop_object(loop: Loop | None) -> dict[str, Any] | None:
    return loop and {**loop._asdict(), "program": steps.as_object(loop.program)}


def _relation_object(one: Mined, kind: Kind) -> dict[str, Any]:
    return {
        "relation": relation_text(one, kind),
        "form": one.relation.form.name.lower(),
        "other": one.relation.other or None,
        "points": list(one.relation.points),
        "support": one.support,
        "chance": round(one.chance, 3),
    }


def _fate(one: Known) -> dict[str, Any]:
    return {"checked": checked.as_object(one.checked), "broken": checked.broken(one.broken)}


def _against_object(found: Comparison) -> dict[str, Any]:
    def lost(those: Iterable[Lost]) -> list[dict[str, Any]]:
        kind = found.subject.column.kind
        return [_relation_object(one.mined, kind) | {"broken": checked.broken(one.broken)} for one in those]

    return {
        "revision": found.second.label,
        "only_here": lost(found.only_first),
        "only_there": lost(found.only_second),
    }
