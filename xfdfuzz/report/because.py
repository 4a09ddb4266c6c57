"""Why something is broken, in words: the fields that it follows from, and the steps that left them so."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.console import Console

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XCOMP_BV_COMPACTED
from xfdfuzz.engines.judge.because import Because, Reason, Reasons
from xfdfuzz.engines.judge.leaves import Leaf
from xfdfuzz.engines.judge.verdict import Verdict
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.program import Program
from xfdfuzz.report.console import counted, hanging, line
from xfdfuzz.report.values import text

_INDENT = " " * 8
#: More reasons than these nobody reads; what is left out stands in the JSON.
MANY = 6
#: What is said of a ghost's fields, which are as the architecture calls them.
_IDEAL = {
    "xcr0": "should have XCR0",
    "xss": "should have IA32_XSS",
    "xfd": "should have IA32_XFD",
    "xfd_err": "should have IA32_XFD_ERR",
    "insn_owed": "is owed an instruction",
    "owed_value": "is owed the value",
    "nm_owed": "is owed a #NM",
    "exception": "is to get the exception",
    "undefined": "may find anything in",
    "intent": "has the intent",
    "pending": "has to keep a promise",
    "tenant": "has a guest of",
    "kept": "keeps",
}

#: Nobody asked, or nothing is known.
UNEXPLAINED: Mapping[Violation, Reasons] = MappingProxyType({})


class Words(NamedTuple):
    """A reason as people read it: ``v0 should have IA32_XFD``, ``0x40000``, ``since step 10``."""

    field: str
    value: str
    since: str

    def __str__(self) -> str:
        return " ".join(self)


def explain(program: Program, verdict: Verdict) -> dict[Violation, Reasons]:
    """What each violation follows from, as it is reported."""
    because = _because(program, verdict)
    return {violation: reasons for judged in verdict.trace for violation, reasons in because.of(judged).items()}


def first(program: Program, verdict: Verdict, bucket: str) -> Reasons:
    """What the first violation of a bucket follows from; nothing if there is none."""
    because = _because(program, verdict)
    return next((reasons for judged in verdict.trace for reasons in because.of(judged, bucket).values()), ())


def _because(program: Program, verdict: Verdict) -> Because:
    return Because(program, verdict.revision, [judged.step for judged in verdict.trace if judged.step is not None])


def terminal(out: Console, reasons: Reasons, step: int, ops: int | None = None, head: str = "because") -> None:
    """A line for each of the first ones; ``step`` is that of the violation, or the last one of a loop, and the program
    has ``ops``."""
    shown = [words(reason, step, ops) for reason in reasons[:MANY]]
    widths = [max((len(row[nr]) for row in shown), default=0) for nr in range(2)]
    if out.is_terminal and sum(widths) + max((len(row.since) for row in shown), default=0) + 20 > out.width:
        widths = [0, 0]
    for nr, row in enumerate(shown):
        told = head if nr == 0 else " " * len(head)
        style = "" if reasons[nr].contradicts else "dim"
        hanging(
            out,
            len(_INDENT) + 10,
            (f"{_INDENT}{told} ", "dim"),
            (f"{row.field:{widths[0]}}  {row.value:{widths[1]}}  ", style),
            (row.since, "dim"),
        )
    if len(reasons) > MANY:
        line(out, (f"{_INDENT}{' ' * len(head)} and {counted(len(reasons) - MANY, 'field')} more", "dim"))


def steps(explained: Mapping[Violation, Reasons]) -> set[int]:
    """The steps that a shown reason names."""
    return {reason.step for reasons in explained.values() for reason in reasons[:MANY]}


def words(reason: Reason, step: int, ops: int | None = None) -> Words:
    """A reason of a violation of the step with that number; a step behind the last of ``ops`` was at the end."""
    if not reason.step:
        since = "since the boot"
    elif ops is not None and reason.step > ops:
        since = "at the end"
    elif reason.step == step:
        since = "by this step"
    else:
        since = f"{'since' if _ideal(reason.leaf) else 'left by'} step {reason.step}"
    name = field(reason.leaf)
    if reason.owner:  # as traces do, which follow a buffer from who points to it
        name = reason.owner + name[name.index(".") :]
    return Words(name, value(reason.leaf, reason.value), since)


def path(leaf: Leaf) -> str:
    """What reports call it: ``cpu0.MSR_IA32_XFD``, ``fpstate#12.regs.xtiledata``, ``ghost.v0.xfd``."""
    if leaf.component is None:
        return leaf.field.path
    return f"{leaf.field.path.removesuffix('.data')}.{xf.CONTENTS.get(leaf.component, leaf.component)}"


def field(leaf: Leaf) -> str:
    """The same, but of the ghost what should be: ``v0 should have IA32_XFD``."""
    if not _ideal(leaf):
        return path(leaf)
    _, who, name = path(leaf).split(".", 2)
    promised = name.startswith("promise.")
    name = name.removeprefix("promise.").removeprefix("regs.")
    if promised:
        return f"{who.replace('vmm', 'v')} {_IDEAL.get(name, f'should have {name}').replace('should', 'was to')}"
    return f"{who} {_IDEAL.get(name, f'should have {name}')}"


def value(leaf: Leaf, number: int) -> str:
    """A number that stands there."""
    if leaf.field.path.endswith(".xcomp_bv"):  # which has a flag of its own in bit 63
        return text(leaf.field.kind, number & ~XCOMP_BV_COMPACTED) + (
            ", compacted" if number & XCOMP_BV_COMPACTED else ""
        )
    return text(leaf.field.kind, number)


def _ideal(leaf: Leaf) -> bool:
    return leaf.field.path.startswith("ghost.")


def as_object(reasons: Reasons) -> list[dict[str, Any]]:
    """All of them, in their order; ``step`` 0 is the boot."""
    return [
        {
            "field": path(one.leaf),
            "value": value(one.leaf, one.value),
            "was": value(one.leaf, one.was),
            "step": one.step,
            "found": one.found,
            "contradicts": one.contradicts,
        }
        for one in reasons
    ]


def as_objects(program: Program, verdict: Verdict) -> list[dict[str, Any]]:
    """Each violation of a run with what it follows from; its step is null at the end."""
    explained = explain(program, verdict)
    return [
        {
            "invariant": violation.invariant,
            "message": violation.message,
            "step": None if judged.step is None else violation.step,
            "because": as_object(explained[violation]),
        }
        for judged in verdict.trace
        for violation in judged.violations
    ]
