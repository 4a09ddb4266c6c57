"""Which procedures of VMMs are safe on which kernels: for people, as a page, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rich.console import Console

from xfdfuzz.engines.compare.known import OpenFindings
from xfdfuzz.engines.compare.orders import Order, condition, words
from xfdfuzz.engines.compare.procedures import REFUSED, Answer, Fact, Procedure, always_safe, worst
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.vocabulary import VMM
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.program.text import format_program
from xfdfuzz.report.console import SEVERITY, hanging, line, markdown_table, prose
from xfdfuzz.report.files import save_program
from xfdfuzz.report.privacy import CURRENT, SEVERE, on_current
from xfdfuzz.revisions import Revision

#: What became of every procedure, by kernel.
Answers = Mapping[Revision, Sequence[Answer]]


class Kernels(NamedTuple):
    """Kernels on which all procedures come to the same, and which open findings that is on the first of them."""

    revisions: list[Revision]
    answers: Sequence[Answer]
    findings: OpenFindings

    @property
    def names(self) -> str:
        """All of them."""
        return ", ".join(revision.label for revision in self.revisions)


def together(answers: Answers) -> list[Kernels]:
    """Kernels with the same answers stand together, in the order of the first ones."""
    found: dict[object, Kernels] = {}
    for revision, some in answers.items():
        found.setdefault(tuple(one.told for one in some), Kernels([], some, OpenFindings(revision))).revisions.append(
            revision
        )
    return [*found.values()]


class Told(NamedTuple):
    """What some orders come to, and the numbers of the open findings that it is."""

    fact: Fact
    findings: tuple[int, ...]


class Row(NamedTuple):
    """Procedures with one aim that come to the same: the situations, how many orders are safe and when, the rest."""

    aim: str
    situations: list[str]
    safe: str
    facts: tuple[Told, ...]


def _guests(answers: Sequence[Answer], aim: str, situations: Sequence[str]) -> str:
    """The situations of an aim, by name if they are not all."""
    possible = [one.procedure.situation for one in answers if one.possible and one.procedure.aim == aim]
    return "; ".join(situations) if len(situations) < len(possible) else "every guest"


def rows(kernels: Kernels) -> Iterator[Row]:
    """A row for each aim and what comes of it."""
    found: dict[object, Row] = {}
    for one in kernels.answers:
        if one.possible:
            said = _safe(one)
            told = tuple(Told(fact, kernels.findings.of_fact(one, fact)) for fact in one.facts)
            same = (one.procedure.aim, said, told)
            row = found.setdefault(same, Row(one.procedure.aim, [], said, told))
            row.situations.append(one.procedure.situation)
    return iter(found.values())


class Other(NamedTuple):
    """The usual order, done in another way: the aims for which that is worse, and what comes of it, by the situations
    of the guest."""

    way: str
    aims: list[str]
    comes_to: Mapping[str, str]


def others(kernels: Kernels) -> list[Other]:
    """A row for each way that comes to something else than the usual order, and the aims for which it is the same."""
    by_aim: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in kernels.answers:
        for way, seen in one.others.items():
            if more := seen.facts - one.usual.facts:
                kind = worst(more)
                what = {what: kernels.findings.of_other(one, way, kind, what) for k, what in more if k == kind}
                comes_to = by_aim.setdefault((way, one.procedure.aim), {})
                comes_to.setdefault(_worst(kind, what), []).append(one.procedure.situation)
    found: dict[str, Other] = {}
    for (way, aim), comes_to in by_aim.items():
        said = {come: _guests(kernels.answers, aim, situations) for come, situations in comes_to.items()}
        found.setdefault(f"{way} {said}", Other(way, [], said)).aims.append(aim)
    return sorted(found.values(), key=lambda row: row.way)


def advice(answers: Answers) -> Iterator[tuple[str, str]]:
    """For each aim the orders that are safe on all these kernels by what is promised, wherever there is a safe one."""
    possible = {one.procedure.aim for some in answers.values() for one in some if one.possible}
    every = dict.fromkeys(one.procedure.aim for some in answers.values() for one in some)
    for aim in (aim for aim in every if aim in possible):
        when = always_safe(one for some in answers.values() for one in some if one.procedure.aim == aim)
        yield aim, "none" if when is None else words(when, _ioctl)


def _safe(one: Answer) -> str:
    """``12 of 24: KVM_SET_MSRS before KVM_SET_XSAVE``"""
    safe, every = one.safe, len(one.orders)
    if not safe:
        return "none"
    when = words(condition(safe, one.orders), _ioctl)
    return f"all {every}" if len(safe) == every else f"{len(safe)} of {every}: {when}"


def _ioctl(call: str) -> str:
    return f"KVM_{call}"


def _what(kind: str, what: str) -> str:
    """What is broken, refused, or kept without a promise; of what a VMM does wrong, what the guest finds changed."""
    if kind == VMM:
        return what.partition("@")[2]
    return _ioctl(what) if kind == REFUSED else what


def _fact(told: Told) -> str:
    fact = told.fact
    return f"{fact.kind} {_what(fact.kind, fact.what)}{_findings(told.findings)}: {words(fact.when, _ioctl)}"


def _findings(numbers: Sequence[int]) -> str:
    """`` (finding 3)``, or nothing."""
    return f" (finding{'s' * (len(numbers) > 1)} {' and '.join(map(str, numbers))})" if numbers else ""


def _worst(kind: str, what: Mapping[str, Sequence[int]]) -> str:
    """``refused KVM_SET_XCRS``, ``vmm xfd, xtiledata``: the worst of it, with the open findings that it is."""
    said = sorted(f"{_what(kind, one)}{_findings(numbers)}" for one, numbers in what.items())
    return f"{kind} {', '.join(said)}"


# -- for people --------------------------------------------------------------------------------------------------------


def terminal(out: Console, answers: Answers) -> None:
    """A section for each kind of kernel, then what the words mean."""
    for kernels in together(answers):
        line(out, (kernels.names, "bold"))
        for row in rows(kernels):
            line(out)
            line(out, f"  {row.aim}", (f" ({_guests(kernels.answers, row.aim, row.situations)})", "dim"))
            hanging(out, 6, "    safe orders: ", row.safe)
            for told in row.facts:
                kind = told.fact.kind
                hanging(out, 6, "    ", (kind, SEVERITY.get(kind, "")), _fact(told).removeprefix(kind))
        line(out)
        line(out, "  in the usual order, but")
        for other in others(kernels):
            line(out, f"    {other.way}", (f" ({'; '.join(other.aims)})", "dim"))
            for come, guests in other.comes_to.items():
                hanging(out, 8, f"      {come}", (f" ({guests})", "dim"))
        line(out)
    line(out, ("safe on all of these kernels, wherever there is a safe order", "bold"))
    for aim, when in advice(answers):
        hanging(out, 4, f"  {aim}: {when}")
    line(out)
    prose(out, _MEANING, indent="")
    if said := warning(answers):
        prose(out, said, indent="")


_MEANING = (
    "A severity: the kernel does wrong, although the VMM says all that it means. With the number of an open finding "
    "(docs/fidelity.md): its proposed cure takes that away. vmm: the kernel does what it is told, "
    "and the guest does not find what its VMM means. refused: a call fails, so a VMM that looks at results knows; what "
    "comes of going on is not told. unpromised: the guest finds what is meant, so the order is safe here, and no "
    "contract says so: other kernels may do otherwise."
)


def warning(answers: Answers) -> str:
    """What must be said of it where it stands for everybody; empty if there is nothing."""
    severe = any(
        one.kind in SEVERE
        for revision, some in answers.items()
        if on_current([revision])
        for a in some
        for one in a.facts
    )
    if not severe:
        return ""
    return f"What is severe here on {CURRENT} may be a vulnerability: treat it as SECURITY.md says."


# -- as a page ---------------------------------------------------------------------------------------------------------


def markdown(out: TextIO, answers: Answers) -> None:
    """The page docs/vmm.md."""
    parts = [_HEAD, *([warning(answers)] if warning(answers) else []), "## In short", _SHORT]
    parts.append(markdown_table(("procedure", "orders"), advice(answers)))
    for kernels in together(answers):
        parts.append(f"## {kernels.names}")
        table = [
            (
                row.aim,
                _guests(kernels.answers, row.aim, row.situations),
                row.safe,
                "<br>".join(map(_fact, row.facts)) or "-",
            )
            for row in rows(kernels)
        ]
        parts.append(markdown_table(("procedure", "guest", "safe orders", "otherwise"), table))
        ways = [
            (
                other.way,
                "; ".join(other.aims),
                "<br>".join(f"{come} ({guests})" for come, guests in other.comes_to.items()),
            )
            for other in others(kernels)
        ]
        parts.append("In the usual order, but:")
        parts.append(markdown_table(("what is different", "procedure", "comes to"), ways))
    print("\n\n".join(parts), file=out)


_HEAD = f"""# What VMMs may do to vCPUs

Written by `xfdfuzz vmm --format markdown`. Which orders of KVM's calls are safe on which kernel? Each procedure is
tried in every order of its calls, with guests in several situations, and in its usual order with one thing left out.
Nothing is sampled.

* **copy into a new vCPU**: KVM_GET_XSAVE2 (KVM_GET_XSAVE where there is no other), KVM_GET_XCRS, KVM_GET_VCPU_EVENTS
  and KVM_GET_MSRS of a stopped vCPU; then a new one gets KVM_SET_CPUID2, KVM_SET_SREGS, KVM_SET_XCRS, KVM_SET_MSRS,
  KVM_SET_XSAVE and KVM_SET_VCPU_EVENTS, which is the usual order here. A snapshot or a migration is that.
* **copy into a used vCPU**: the same into one that was another guest's, which had tiles disabled, or in use, where both
  have tiles; it has its CPUID.
* **write back what was read**: the same into the vCPU itself, which must not show.
* **reset for another tenant**: KVM_SET_MSRS of 0, KVM_SET_XCRS of 1, KVM_SET_XSAVE of an image whose XSTATE_BV has
  every component, with its initial value, KVM_SET_SREGS, KVM_SET_VCPU_EVENTS without an exception and KVM_SET_REGS, in
  this order.

`unfinished` is an OUT that KVM_RUN has left for user space: the next KVM_RUN completes it, on this vCPU and on no copy.
A VMM enters KVM_RUN once more, with `immediate_exit`, before it reads the guest (Documentation/virt/kvm/api.rst).

The MSRs are IA32_XFD and IA32_XFD_ERR of guests that have XFD, and IA32_XSS and all of CET's of guests with CET. SSP
goes with them: KVM_GET_ONE_REG reads it, KVM_SET_ONE_REG writes it. CR4.CET is not modelled: who copies CR4 has it.

{_MEANING} `xfdfuzz vmm --save DIR` writes a program for each line, which `xfdfuzz replay` shows step by step."""
_SHORT = "Orders that are safe on all kernels below, by what is promised, wherever there is a safe order at all:"


# -- programs and JSON -------------------------------------------------------------------------------------------------


def programs(answers: Answers) -> Iterator[tuple[str, Program]]:
    """A program for each fact, with a name for its file, and for the usual order of each procedure."""
    for kernels in together(answers):
        first = kernels.revisions[0]
        for one in (one for one in kernels.answers if one.possible):
            usual = tuple(one.procedure.calls)
            yield _named(first, one.procedure, "usual", one.procedure.program(usual), usual)
            for fact in one.facts:
                made = one.procedure.program(fact.example)
                yield _named(first, one.procedure, f"{fact.kind} {fact.what}", made, fact.example)


def _named(revision: Revision, procedure: Procedure, what: str, made: Program, order: Order) -> tuple[str, Program]:
    tried = judge(made, revision, expectations=False)
    # what was not read cannot be written
    ops = tuple(op for op, result in zip(made.ops, tried.results, strict=True) if result != NOT_ENABLED)
    made = Program(made.machine, ops)
    verdict = judge(made, revision, expectations=False)
    kind = "violates" if verdict.broken else "clean"
    title = f"{procedure.name}: {', '.join(map(_ioctl, order))}"
    expect = Expectation(revision.name, kind, tuple(verdict.broken))
    name = "-".join(
        "".join(c if c.isalnum() else " " for c in f"{revision.label} {procedure.name} {what}").lower().split()
    )
    return name, Program(made.machine, made.ops, title=title, expect=(expect,))


def save(answers: Answers, directory: Path) -> list[Path]:
    """Write the programs; raises OSError."""
    return [save_program(program, name, directory) for name, program in programs(answers)]


def as_object(revision: Revision, answers: Sequence[Answer]) -> dict[str, Any]:
    """One object for a kernel; the keys are documented in docs/cli.md."""
    known = OpenFindings(revision)
    return {"revision": revision.label, "procedures": [_as_object(one, known) for one in answers]}


def _as_object(one: Answer, known: OpenFindings) -> dict[str, Any]:
    return {
        "aim": one.procedure.aim,
        "situation": one.procedure.situation,
        "possible": one.possible,
        "orders": len(one.orders),
        "safe": [list(order) for order in one.safe],
        "facts": [
            {
                "kind": fact.kind,
                "what": fact.what,
                "when": words(fact.when, _ioctl),
                "orders": fact.many,
                "findings": list(known.of_fact(one, fact)),
                "program": format_program(one.procedure.program(fact.example)),
            }
            for fact in one.facts
        ],
        "otherwise": {
            way: {"kind": seen.kind, "what": sorted(what for kind, what in seen.facts if kind == seen.kind)}
            for way, seen in one.others.items()
        },
    }
