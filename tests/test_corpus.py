"""The corpus: every file does what it says, on every revision that it speaks of, and nothing in it is idle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.verdict import Verdict, judge, revisions_for
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.ops import kvm, tasks, xsave
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.ops.guest import GuestRdmsr
from xfdfuzz.program.ops.host import HostRdmsr
from xfdfuzz.program.ops.ptrace import PtraceGetXstate
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import Revision, selects

ROOT = Path(__file__).parent.parent / "corpus"
FILES = sorted(ROOT.glob("*/*.xfd"))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]


@cache
def program(name: str) -> Program:
    return parse((ROOT / name).read_text(encoding="utf-8"), name)


@cache
def revisions(name: str) -> tuple[Revision, ...]:
    return tuple(revisions_for(program(name)))


# -- every expectation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_does_what_it_says(name: str) -> None:
    """On every revision of which it says anything: one test a file, for there are thousands of pairs."""
    verdicts = [judge(program(name), revision) for revision in revisions(name)]
    assert verdicts
    assert [one.revision.name for one in verdicts if not one.judged] == []
    assert {one.revision.name: one.failures for one in verdicts if one.failures} == {}


@pytest.mark.parametrize("name", NAMES)
def test_is_canonical(name: str) -> None:
    assert format_program(program(name)) == (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is(name: str) -> None:
    written = program(name)
    assert written.title
    assert written.expect
    # what a program is clean of, or breaks, is said for every revision that any line selects
    for revision in revisions(name):
        assert [e for e in selected(written, revision) if e.kind != "result"], revision.name


def selected(written: Program, revision: Revision) -> list[Expectation]:
    return [e for e in written.expect if selects(e.revisions, revision.name)]


def test_readme_has_a_line_for_every_file() -> None:
    """But for those of the conformance set, which have a page of their own (tests/test_conformance.py)."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    listed = [name for name in NAMES if not name.startswith("conformance/")]
    for name in listed:
        assert len([line for line in lines if line.startswith(f"| `{Path(name).name}` |")]) == 1, name
    rows = [line for line in lines if line.startswith("| `") and ".xfd`" in line]
    assert len(rows) == len(listed)


# -- the witness table -------------------------------------------------------------------------------------------------

COLUMNS = (
    "amx-v1",
    "amx-review-a",
    "amx-review-b",
    "amx-review-c",
    "amx-tglx",
    "amx-v2",
    "amx-v3",
    "amx-v4",
    "amx-v5",
    "amx-v6",
    "v5.17",
    "v5.18",
    "v6.1.192",
    "v6.12.117",
    "v7.3",
)

#: What a specification written before the model says of each trace on each revision.  Numbers are INV-nn that must be
#: violated (others may be too), WARN is a warning that must fire, an errno is what an op must return; `ok` is nothing
#: violated at all, and so is an errno alone.  n/a: not judged, see DIFFERENT.
WITNESSES = {
    "t01-warn-on-entering": ("01 06 09 WARN", "03 06", "06", "ok", "n/a", *["ok"] * 10),
    "t02-stale-request": ("01 06 09 WARN", "03", "ok", "ok", "n/a", *["ok"] * 10),
    "t03-set-xcrs-checks-nothing": ("06 15", "06 15", "06 15", "ok", "n/a", *["ok"] * 10),
    "t04-failed-reallocation-reentered": ("06 15", "03 06", "06", "ok", "ok", *["ok"] * 10),
    "t06-permission-by-amx-tile-only": (
        *("06 15", "06 15", "06 15", "EINVAL", "n/a", "ENXIO", "ENXIO", "ENXIO"),
        *["EPERM"] * 7,
    ),
    "t07-set-msrs-writes-the-host": ("11 WARN", *["ok"] * 14),
    "t08-invalid-xfd-from-user-space": ("09", "09", "09", *["ok"] * 12),
    "t10-irq-between-exit-and-emulation": (*["14"] * 12, "ok", "ok", "ok"),
    "t11-set-xsave-under-xfd": ("14", "n/a", *["14"] * 10, "ok", "ok", "ok"),
    "t14-expansion-fails": (*["n/a"] * 5, "10 EFAULT", "10 EFAULT", *["EFAULT"] * 8),
    "t15-xfd-err-life-cycle": ("16", *["n/a"] * 4, *["ok"] * 10),
    "t17-supported-cpuid-fed-back": ("28 EINVAL", *["28"] * 12, "ok", "ok"),
    "t18-permission-overwritten": (
        *["20 22"] * 5,
        *("20 22 28 ENXIO", "20 28 ENXIO", "20 28 ENXIO", "20 28", "20 28", "20 28"),
        *["ok"] * 4,
    ),
    "t19-happy-path": ("ok", "03", *["ok"] * 13),
}

_LAZY_T14 = "KVM_SET_CPUID2 allocates nothing there, so the allocation cannot fail in it"
_MAILS_T15 = "the mails say nothing about XFD_ERR"
_TGLX_REALLOC = (
    "the table says that the new buffer takes its attributes from the wrong fpstate: it does, and with TILEDATA alone"
    " they come out as they should (bugs/tglx-realloc-active-pointer.xfd shows where they do not)"
)

#: Cells that are not judged by the table, and why.
DIFFERENT = {
    ("t11-set-xsave-under-xfd", "amx-review-a"): (
        "the table says INV-14 and notes that it depends on whether a request that is never cleared is served again: it"
        " is, at every put, and each time it clears the XFD bit, so KVM_SET_XSAVE finds XFD = 0"
    ),
    ("t06-permission-by-amx-tile-only", "amx-tglx"): (
        "the table says EPERM, which is what fpu_update_guest_xcr0() returns; __kvm_set_xcr() has but one way to fail,"
        " and KVM_SET_XCRS makes it EINVAL"
    ),
    ("t01-warn-on-entering", "amx-tglx"): _TGLX_REALLOC,
    ("t02-stale-request", "amx-tglx"): _TGLX_REALLOC,
    ("t03-set-xcrs-checks-nothing", "amx-tglx"): _TGLX_REALLOC,
    **{("t14-expansion-fails", name): _LAZY_T14 for name in COLUMNS[:5]},
    **{("t15-xfd-err-life-cycle", name): _MAILS_T15 for name in COLUMNS[1:5]},
}


def cells() -> Iterator[tuple[str, str, str]]:
    for trace, row in WITNESSES.items():
        for column, cell in zip(COLUMNS, row, strict=True):
            if cell != "n/a":
                yield trace, column, cell


def witness(trace: str, revision: str) -> Verdict:
    """The verdict on a trace without its own `expect:` lines; 063452fd94d1 is applied to all of them but T18."""
    name = f"witness/{trace}.xfd"
    assert program(name).apply == (() if trace.startswith("t18") else ("063452fd94d1",))
    (resolved,) = revisions_for(program(name), [revision])
    return judge(program(name), resolved, expectations=False)


def references(verdict: Verdict) -> set[str]:
    return {reference for name in verdict.broken for reference in INVARIANTS[name].references}


@pytest.mark.parametrize(("trace", "revision", "cell"), list(cells()))
def test_witness_table(trace: str, revision: str, cell: str) -> None:
    load()
    verdict = witness(trace, revision)
    words = cell.split()
    wanted = {f"INV-{word}" for word in words if word.isdigit()}
    assert wanted <= references(verdict)
    if "WARN" in words:
        assert "no-warning" in verdict.broken
    for errno in (word for word in words if word.startswith("E")):
        assert f"-{errno}" in {result.split(" ")[0] for result in verdict.results}
    if not wanted and "WARN" not in words:
        assert not verdict.broken


def test_cells_that_are_not_judged_have_a_reason() -> None:
    unjudged = {
        (trace, column)
        for trace, row in WITNESSES.items()
        for column, cell in zip(COLUMNS, row, strict=True)
        if cell == "n/a"
    }
    assert unjudged == set(DIFFERENT)
    assert all(DIFFERENT.values())


def test_t11_on_amx_review_a() -> None:
    """The one cell that differs from the table is as its reason says: no fault, because the XFD bit is gone."""
    verdict = witness("t11-set-xsave-under-xfd", "amx-review-a")
    assert "INV-14" not in references(verdict)
    assert "request-is-discharged" in verdict.broken
    executed = [judged.step for judged in verdict.trace if judged.step is not None]
    set_xsave = next(step for step in executed if isinstance(step.op, xsave.KvmSetXsave))
    assert set_xsave.before.ghost.vcpus[0].xfd == 0x40000
    assert set_xsave.before.fpstates[set_xsave.before.vcpus[0].arch.guest_fpu.fpstate].xfd == 0


@pytest.mark.parametrize("trace", [trace for trace, name in DIFFERENT if name == "amx-tglx"])
def test_cells_of_amx_tglx_that_differ_are_harmless(trace: str) -> None:
    """Beside XFD_ERR, which it handles as amx-v1 does, nothing goes wrong in them."""
    broken = witness(trace, "amx-tglx").broken
    assert broken == (("xfd-err-clean-in-host",) if trace.startswith("t15") else ())


def test_every_witness_is_in_the_table() -> None:
    assert {f"witness/{trace}.xfd" for trace in WITNESSES} == {n for n in NAMES if n.startswith("witness/")}


# -- nothing idle ------------------------------------------------------------------------------------------------------

#: Ops that change nothing: they are there for what they read.
_QUERIES = (
    PtraceGetXstate,
    GuestRdmsr,
    HostRdmsr,
    kvm.KvmGetCpuid2,
    kvm.KvmGetCpuid2Entry,
    kvm.KvmGetDeviceAttr,
    kvm.KvmGetMsrIndexList,
    kvm.KvmGetMsrs,
    kvm.KvmGetSupportedCpuid,
    kvm.KvmGetSupportedCpuidEntry,
    kvm.KvmGetXcrs,
    kvm.KvmHasDeviceAttr,
    tasks.GetXcompGuestPerm,
    tasks.GetXcompPerm,
    tasks.GetXcompSupp,
    xsave.KvmCheckXsave2,
    xsave.KvmGetFpu,
    xsave.KvmGetXsave,
    xsave.KvmGetXsave2,
    xsave.KvmVmCheckXsave2,
)


def without(written: Program, number: int) -> Program:
    """The program without op ``number``, counted from 1, and without what is expected of that op alone."""
    expect = [
        replace(e, op=e.op - 1) if e.kind == "result" and e.op > number else e
        for e in written.expect
        if e.kind != "result" or e.op != number
    ]
    cut = slice(number - 1, number)
    ops: list[Op] = list(written.ops)
    results = list(written.results)
    del ops[cut], results[cut]
    return replace(written, ops=tuple(ops), results=tuple(results), expect=tuple(expect), notes=(), lines=())


def is_question(written: Program, number: int) -> bool:
    """Whether the op's own result is what the program asks for: it reads something, must fail, or comes last."""
    results = [e.result for e in written.expect if e.kind == "result" and e.op == number]
    results += [result for result in (written.results[number - 1],) if result is not None]
    if not results:
        return False
    last = number == len(written.ops)
    return last or isinstance(written.ops[number - 1], _QUERIES) or any(r.startswith("-E") for r in results)


#: Where ops stand for what they are rather than for what they lead to: a procedure has all that belongs to it.
_WHOLE = ("witness/", "conformance/", "tracers/", "vmm/complete-", "vmm/patch-")


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(_WHOLE)])
def test_every_op_is_needed(name: str) -> None:
    """Without any one op, something that the program expects does not come out on some revision.

    Conformance programs are left out: there every op has a result of its own to be held against.
    """
    written = program(name)
    idle = [
        number
        for number in range(1, len(written.ops) + 1)
        if not is_question(written, number)
        and not any(judge(without(written, number), revision).failures for revision in revisions(name))
    ]
    assert not idle
