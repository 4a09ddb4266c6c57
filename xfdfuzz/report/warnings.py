"""What became of each WARN of a revision, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from xfdfuzz.engines.review.warnings import Verdict, Warnings
from xfdfuzz.program.ops import host
from xfdfuzz.program.ops.base import GuestOp, VcpuRunOp, VmIoctl
from xfdfuzz.program.ops.kvm import KvmCreateVm
from xfdfuzz.program.ops.run import KvmRun
from xfdfuzz.program.program import Program
from xfdfuzz.report import checked, steps
from xfdfuzz.report.console import counted, line, prose

#: What user space needs for ops, in the order in which it is told.
_NEEDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("/dev/kvm", (KvmCreateVm, KvmRun, VcpuRunOp, VmIoctl)),
    ("a guest that does what it wants", (GuestOp,)),
    ("memory that runs out", (host.FailAlloc,)),
    ("root", (host.Hotplug, host.Suspend)),
)


def terminal(out: Console, found: Warnings) -> None:
    """Those that fire, those that were not reached, those that were and held, then where was looked."""
    fire = [one for one in found.verdicts if one.fires]
    line(out, (f"{found.revision.label}: {counted(len(found.verdicts), 'place')} at which the kernel warns", "bold"))
    for one in fire:
        _fires(out, one)
    quiet = [one for one in found.verdicts if not one.fires]
    _listed(out, "Never reached", [one for one in quiet if one.reached is False])
    _listed(out, "Reached, and never fired", [one for one in quiet if one.reached])
    _listed(out, "Never fired", [one for one in quiet if one.reached is None])
    line(out)
    prose(out, statement(found), indent="")


def statement(found: Warnings) -> str:
    """What can be said of those that did not fire."""
    exhausted = [one for one in found.checked if one.exhausted and one.where != "fuzz"]
    rest = [one for one in found.checked if one not in exhausted]
    cannot = f"What did not fire cannot fire in {checked.text(exhausted)}" if exhausted else "No scope was exhausted"
    sentence = f"{cannot}; it was not seen in {checked.text(rest)}." if rest else f"{cannot}."
    return f"{sentence} Then it was interrupted." if found.interrupted else sentence


def _fires(out: Console, one: Verdict) -> None:
    assert one.fires is not None
    line(out)
    line(out, ("fires ", "bold yellow"), (place(one), "bold"), _source(one))
    where = "found by the fuzzer" if one.fires.where == "fuzz" else f"in scope {one.fires.where}"
    behind = f", behind {one.fires.behind}" if one.fires.behind else ""
    needs = f"; needs {' and '.join(needed)}" if (needed := needed_for(one.fires.program)) else ""
    line(out, f"  {where}{behind}{needs}")
    steps.terminal(out, one.fires.program, "  ", machine=True)


def _listed(out: Console, title: str, verdicts: Sequence[Verdict]) -> None:
    if verdicts:
        line(out)
        line(out, (title, "bold"))
    for one in verdicts:
        line(out, f"  {place(one)}", _source(one))


def place(one: Verdict) -> str:
    """``WARN_ON(enter_guest) in fpu_guest_realloc_fpstate()``"""
    return f"{one.site.what}({one.site.condition}) in {one.site.function}()"


def _source(one: Verdict) -> str:
    file = one.source.file if one.source else None
    return f", {file}" if file else ""


def needed_for(program: Program) -> list[str]:
    """What user space needs for it, beside what every process has."""
    return [what for what, ops in _NEEDS if any(isinstance(op, ops) for op in program.ops)]


def as_object(found: Warnings) -> dict[str, Any]:
    """One object; the keys are documented in docs/cli.md."""
    return {
        "revision": found.revision.label,
        "warnings": [_verdict(one) for one in found.verdicts],
        "checked": checked.as_object(found.checked),
        "seconds": round(found.seconds, 3),
        "interrupted": found.interrupted,
    }


def _verdict(one: Verdict) -> dict[str, Any]:
    return {
        "what": one.site.what,
        "function": one.site.function,
        "condition": one.site.condition,
        "file": one.source.file if one.source else None,
        "origin": list(one.source.origin) if one.source else [],
        "reached": one.reached or one.fires is not None if one.reached is not None or one.fires else None,
        "fires": checked.broken(one.fires),
        "needs": needed_for(one.fires.program) if one.fires else [],
    }
