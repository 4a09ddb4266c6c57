"""Programs as text: what is written is read back, what is read is written back, and what is wrong is told where."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.processor import NOT_AMD
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.kernel.kvm.xsave import UserBuffer
from xfdfuzz.kernel.machine import MAX_CPUS, Machine
from xfdfuzz.kernel.state import NR_VCPUS, NR_VMS, USER_TASKS, VECTORS
from xfdfuzz.program.fields import (
    BEYOND,
    INNERMOST,
    NULL_FPSTATE,
    OWN,
    RESERVED,
    TOKENS,
    ZERO,
    Cr4,
    Events,
    FpuChange,
    FpuImage,
    ImageChange,
    IovLen,
    Mapped,
    Meant,
    Msrs,
    Nested,
    Sregs,
    SsSize,
    Switch,
    SwReserved,
    Undefined,
    UserImage,
)
from xfdfuzz.program.ops import OPS, Op
from xfdfuzz.program.ops.guest import GuestWrmsr
from xfdfuzz.program.ops.host import FailAlloc
from xfdfuzz.program.ops.kvm import KvmSetCpuid2, KvmSetMsrs
from xfdfuzz.program.ops.tasks import ReqXcompGuestPerm
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.program.text import ProgramError, format_op, format_program, parse, parse_op, synopsis

DOC = Path(__file__).parent.parent / "docs" / "program-format.md"

CANONICAL = """\
# xfdfuzz program 1
# title: WARN_ON_ONCE(enter_guest) fires when XFD is restored before the first KVM_RUN
# expect: amx-v1 violates no-realloc-on-enter request-cleared
# expect: v5.18.. clean
# expect: v5.17..v6.18 clean
# expect: ..v6.1 clean
# expect: * clean
# expect: amx-v2..amx-v4 result 4 = -ENXIO
# apply: 063452fd94d1
# revert: b45f72177594
# revert: dda366083e5f
# Posted as <20211208000359.2853257-1-yang.zhong@intel.com>.
#
#   indented = as it was
machine cpus=2 no-pku mpx debug-fpu

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
# the next one is new
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx}) = 0
t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000})
t0 ioctl(v0, KVM_RUN) ...
t0 ... KVM_RUN = -EINTR
v0 wrmsr(IA32_XFD, 0x40000, drop) = exit
t0 ioctl(v0, KVM_GET_XSAVE2) = 0 {xstate_bv: x87|avx, x87: 9, avx: 10}
v0 rdmsr(IA32_XFD) = ok [0x40000]
v0 tileload(7) = #NM
host fail_alloc(1)
cpu0 softirq kernel_fpu_begin
# the end
"""

HEAD = "# xfdfuzz program 1\nmachine cpus=1\n\n"

# -- drawing ops from the types of their fields ------------------------------------------------------------------------

U64 = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda bit: 1 << bit), st.integers(0, 1 << 21))
MSRS = st.sampled_from([MSR_IA32_XFD, MSR_IA32_XFD_ERR])
TOKEN = st.integers(1, TOKENS)
CPUID_FLAGS = "xfd, amx, no_xsave, no_xsaves, no_xsaveopt, no_xsavec, no_xgetbv1, no_palettes, no_tmul, no_shstk"


def contents_of(parts: Sequence[int]) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    """Contents by component, as a program names them; reserved bits are MXCSR's alone, zeros its and those of x87."""
    of_all = st.dictionaries(st.sampled_from(parts), st.integers(0, TOKENS))
    special = st.sampled_from([{}, {xf.MXCSR: RESERVED}, {xf.MXCSR: ZERO}, {xf.X87: ZERO}])
    return st.builds(lambda held, more: tuple(sorted((held | more).items())), of_all, special)


CHANGES = st.one_of(
    st.builds(ImageChange, contents_of([*xf.IN_IMAGES]), st.just(xf.U64_MAX), U64),
    st.builds(
        lambda held, bits, signs: ImageChange(held, bits & signs, bits & ~signs), contents_of([*xf.IN_IMAGES]), U64, U64
    ),
)
MSRS_KNOWN = (
    "IA32_XFD, IA32_XFD_ERR, IA32_XSS, IA32_U_CET, IA32_S_CET, IA32_PL0_SSP, IA32_PL1_SSP, IA32_PL2_SSP, IA32_PL3_SSP "
    "or IA32_INT_SSP_TAB"
)
BY_TYPE: dict[object, st.SearchStrategy[Any]] = {
    "xfeatures": U64,
    "msr data": U64,
    "count": st.integers(0, 2**32 - 1),
    "small": st.integers(0, 255),
    "points": st.integers(1, 255),
    "bit": st.integers(0, 1),
    "facility": st.one_of(st.sampled_from([17, 18, 20]), U64),
    "msr": MSRS,
    "one reg": st.one_of(MSRS, st.just(MSR_KVM_INTERNAL_GUEST_SSP)),
    "vm type": st.sampled_from([2, 3]),
    "mp state": st.sampled_from([0, 1, 2, 3, 4, 9]),
    "cpuid leaf": st.sampled_from([1, 0xD, 0x1D, 0x1E]),
    "token": TOKEN,
    "pkru": st.integers(0, TOKENS),
    "contents": st.sampled_from([*range(TOKENS + 1), ZERO]),
    "shstk features": st.sampled_from((1, 2, 3)),
    "legacy part": st.sampled_from(xf.LEGACY),
    "sse contents": st.integers(0, TOKENS),
    "xcomp_bv": U64,
    **dict.fromkeys(("index", "xcr", "nr_xcrs", "flags"), st.integers(0, 2**32 - 1)),
    FpuImage: st.builds(FpuImage, st.integers(0, TOKENS), contents_of(xf.LEGACY)),
    Msrs: st.lists(st.tuples(MSRS, U64), max_size=4).map(lambda entries: Msrs(tuple(entries))),
    UserImage: st.builds(UserImage, U64, st.integers(0, TOKENS), contents_of([*xf.IN_IMAGES]), U64, st.booleans()),
    **dict.fromkeys((ImageChange, "frame change"), CHANGES),
    FpuChange: st.builds(FpuChange, contents_of(xf.LEGACY)),
    Meant: st.builds(Meant, contents_of([*xf.CONTENTS])),
    "mxcsr": st.sampled_from([*range(TOKENS + 1), ZERO, RESERVED]),
    "frame": st.integers(INNERMOST, OWN),
    "fpstate": st.integers(0, NULL_FPSTATE),
    SsSize: st.builds(SsSize, st.none() | st.integers(0, 2**32 - 1)),
    Mapped: st.builds(Mapped, st.integers(0, 2**26 - 1).map(lambda lines: 64 * lines)),
    "ssp": st.integers(1, BEYOND),
    "init2": st.integers(0, 1),
    CpuidEntries: st.builds(
        CpuidEntries,
        *(U64, st.booleans(), st.booleans(), U64, U64, st.integers(0, 255)),
        size=st.integers(0, 2**32 - 1),
    ),
    UserBuffer: st.one_of(st.just(UserBuffer()), st.builds(UserBuffer, st.integers(0, 2**32 - 1), st.booleans())),
    IovLen: st.builds(IovLen, st.none() | st.integers(0, 2**32 - 1)),
    SwReserved: st.builds(
        SwReserved,
        *(st.none() | st.integers(0, last) for last in (1, 2**32 - 1, 2**64 - 1, 2**32 - 1, 2**32 - 1)),
    ),
    Sregs: st.builds(Sregs, *[st.booleans()] * 4),
    Cr4: st.builds(Cr4, st.booleans()),
    Nested: st.builds(Nested, st.booleans(), st.booleans()),
    Events: st.builds(Events.of, st.sampled_from([0, *VECTORS]), st.booleans(), st.sampled_from([None, True, False])),
    Undefined: st.builds(Undefined, st.integers(-(2**31), 2**31 - 1)),
    **{Switch(word): st.booleans() for word in ("drop", "torn", "NULL", "reset", "autodisarm", "wrss")},
}
NUMBERED = {"task": USER_TASKS, "tracee": USER_TASKS, "vcpu": NR_VCPUS, "vm": NR_VMS, "cpu": MAX_CPUS}
NUMBERED |= {"source": NR_VCPUS, "thread": USER_TASKS, "other": USER_TASKS}


def ops_of(cls: type[Op]) -> st.SearchStrategy[Op]:
    hints = get_type_hints(cls, include_extras=True)
    drawn: dict[str, st.SearchStrategy[Any]] = {}
    for name in re.findall(r"\{(\w+)\}", cls.template):
        marker = getattr(hints[name], "__metadata__", (hints[name],))[0]
        drawn[name] = st.integers(0, NUMBERED[name] - 1) if marker == "nr" else BY_TYPE[marker]
    return st.builds(cls, **drawn)


OP = st.sampled_from(list(OPS.values())).flatmap(ops_of)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=30)
COMMENT = TEXT.map(str.rstrip).filter(lambda text: not re.match(r"\s*(title|expect|apply|revert):", text))
RESULT = st.sampled_from(["0", "-EINVAL", "ok", "exit", "#NM", "vm0", "ok [0x40000]", "0 {xstate_bv: x87, x87: 9}"])
REVISION = st.sampled_from(["amx-v1", "v5.17", "v6.1.192", "*", "v5.18..", "..v6.1", "amx-v2..amx-v4", "v5.17..v7.3"])
NAME = st.sampled_from(["no-realloc-on-enter", "host-xrstor-never-faults", "xfd2"])


def machines() -> st.SearchStrategy[Machine]:
    names = [f.name for f in fields(Machine) if f.name not in ("cpus", "in_use", "amd")]
    switches: dict[str, st.SearchStrategy[int]] = {name: st.booleans() for name in names}
    switches["in_use"] = st.integers(0, (1 << xf.COMPONENTS) - 1)
    amd = {name: switch for name, switch in switches.items() if name not in NOT_AMD}
    cpus = st.integers(1, MAX_CPUS)
    return st.builds(Machine, cpus=cpus, **switches) | st.builds(Machine, cpus=cpus, amd=st.just(True), **amd)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    ops = tuple(draw(st.lists(OP, max_size=8)))
    expect = [
        st.builds(Expectation, REVISION, st.just("clean")),
        st.builds(Expectation, REVISION, st.just("violates"), st.lists(NAME, min_size=1, max_size=3).map(tuple)),
    ]
    if ops:
        number = st.integers(1, len(ops))
        expect.append(st.builds(Expectation, REVISION, st.just("result"), st.just(()), number, RESULT))
    notes = draw(st.lists(st.tuples(st.integers(0, len(ops)), COMMENT), max_size=3))
    return Program(
        machine=draw(machines()),
        ops=ops,
        results=tuple(draw(st.one_of(st.none(), RESULT)) for _ in ops),
        title=draw(TEXT.map(str.strip)),
        expect=tuple(draw(st.lists(st.one_of(expect), max_size=3))),
        apply=tuple(draw(st.lists(st.sampled_from(["063452fd94d1", "no-warn"]), max_size=2))),
        revert=tuple(draw(st.lists(st.sampled_from(["b45f72177594", "no-warn"]), max_size=2))),
        comments=tuple(draw(st.lists(COMMENT, max_size=3))),
        notes=tuple(sorted(notes, key=lambda note: note[0])),
    )


# -- round trips -------------------------------------------------------------------------------------------------------


def test_canonical_text_is_written_back_as_it_was() -> None:
    assert format_program(parse(CANONICAL)) == CANONICAL


def test_a_program_holds_what_its_text_says() -> None:
    program = parse(CANONICAL)
    assert program.machine == Machine(cpus=2, pku=False, mpx=True, debug_fpu=True)
    assert program.title.startswith("WARN_ON_ONCE(enter_guest) fires")
    assert program.expect[0] == Expectation("amx-v1", "violates", ("no-realloc-on-enter", "request-cleared"))
    assert program.expect[-1] == Expectation("amx-v2..amx-v4", "result", (), 4, "-ENXIO")
    assert [expectation.line for expectation in program.expect] == [3, 4, 5, 6, 7, 8]
    assert program.apply == ("063452fd94d1",)
    assert program.revert == ("b45f72177594", "dda366083e5f")
    assert program.patch_places == ((9, 10), (10, 11), (11, 11))
    assert program.expect[0].columns == (11, 27, 47)
    assert program.comments[1:] == ("", "  indented = as it was")
    assert program.notes == ((1, "the next one is new"), (11, "the end"))
    assert program.ops[0] == ReqXcompGuestPerm(0, 18, Undefined(0))
    assert program.ops[1] == KvmSetCpuid2(0, 0, CpuidEntries(0x60007, True, True))
    assert program.ops[5] == GuestWrmsr(0, MSR_IA32_XFD, 0x40000, True)
    assert program.results[:5] == ("0", "0", None, None, "-EINTR")
    assert program.lines[:3] == (17, 19, 20)


@given(programs())
@settings(deadline=None)
def test_every_program_is_read_back_equal(program: Program) -> None:
    text = format_program(program)
    assert parse(text) == program
    assert format_program(parse(text)) == text


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_a_line_of_its_own(name: str) -> None:
    op = OPS[name]()
    assert parse_op(format_op(op)) == op


@given(OP, OP)
@settings(deadline=None)
def test_two_ops_never_share_a_line(one: Op, other: Op) -> None:
    assert (format_op(one) == format_op(other)) == (one == other)


@given(st.data())
@settings(deadline=None)
@pytest.mark.parametrize("name", OPS)
def test_any_arguments_of_an_op_are_read_back(name: str, data: st.DataObject) -> None:
    op = data.draw(ops_of(OPS[name]))
    assert parse_op(format_op(op)) == op


def test_results_of_a_run_replace_the_expected_ones() -> None:
    program = parse(HEAD + "host fail_alloc(1) = 7\nt0 user\n")
    assert format_program(program, ["ok", "not-enabled"]).endswith("fail_alloc(1) = ok\nt0 user = not-enabled\n")
    with pytest.raises(ValueError, match="zip"):
        format_program(program, ["ok"])


# -- what is accepted beside the canonical form ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "canonical"),
    [
        ("t0   tileload( 1 )=#NM", "t0 tileload(1) = #NM"),
        ("  t0 user =  ok   [0x1]  ", "t0 user = ok [0x1]"),
        ("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, 18)", "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)"),
        ("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, 0x13)", "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, 19)"),
        (
            "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA, undefined=0)",
            "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)",
        ),
        (
            "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA, undefined=-5) = -EIO",
            "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA, undefined=-5) = -EIO",
        ),
        ("v0 wrmsr(IA32_XFD, 262144)", "v0 wrmsr(IA32_XFD, 0x40000)"),
        ("v0 wrmsr(IA32_XFD, 0x0)", "v0 wrmsr(IA32_XFD, 0)"),
        ("v0 xsetbv(1|2|xtilecfg|xtiledata)", "v0 xsetbv(x87|sse|xtile)"),
        ("v0 xsetbv(x87|0x4000000000000000)", "v0 xsetbv(x87|0x4000000000000000)"),
        (
            "t0 ioctl(v0, KVM_SET_CPUID2, {amx, xfd, xcr0: 7})",
            "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx, xfd, amx})",
        ),
        (
            "t0 ioctl(v0, KVM_SET_XSAVE, {data: 3, xstate_bv: 0})",
            "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: 0, data: 3})",
        ),
        (
            "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD:1, IA32_XFD_ERR:2,IA32_XFD:0})",
            "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x1, IA32_XFD_ERR: 0x2, IA32_XFD: 0})",
        ),
        ("t0 ioctl(v0, KVM_SET_MSRS, {}) = 0", "t0 ioctl(v0, KVM_SET_MSRS, {}) = 0"),
        (
            "t0 ptrace(PTRACE_SETREGSET, t1, NT_X86_XSTATE, {xstate_bv: fp|xmm|ymm, data: 1}, iov_len=4096)",
            "t0 ptrace(PTRACE_SETREGSET, t1, {xstate_bv: x87|sse|avx, data: 1}, iov_len=4096)",
        ),
        (
            "v0 xrstor(amx, avx, 1, mxcsr=2, xcomp_bv=0x8000000000000000)",
            "v0 xrstor(xtile, avx, 1, xcomp_bv=0x8000000000000000, mxcsr=2)",
        ),
        (
            "t0 ioctl(v0, KVM_SET_XSAVE) of v0 {mxcsr: 1, sse: 2, xstate_bv: -avx|+sse|+x87}",
            "t0 ioctl(v0, KVM_SET_XSAVE) of v0 {xstate_bv: +x87|+sse|-avx, sse: 2, mxcsr: 1}",
        ),
        ("t0 ioctl(v0, KVM_SET_FPU) of v0 {}", "t0 ioctl(v0, KVM_SET_FPU) of v0"),
        ("t0 sigframe(changed, {xstate_bv: 0})", "t0 sigframe(changed, {xstate_bv: 0})"),
        ("t0 sigframe(sw_reserved, {magic1: 0x46505853})", "t0 sigframe(sw_reserved, {magic1: 1})"),
    ],
)
def test_other_spellings_are_read(line: str, canonical: str) -> None:
    assert format_program(parse(HEAD + line)) == HEAD + canonical + "\n"


def test_blank_lines_carriage_returns_and_a_missing_last_newline_do_not_matter() -> None:
    text = "# xfdfuzz program 1\r\n\r\n#note\r\n  machine  \r\n\r\n\r\nt0 user\r\n\r\n   # more\r\n\r\nv0 hlt"
    assert format_program(parse(text)) == "# xfdfuzz program 1\n# note\nmachine cpus=1\n\nt0 user\n# more\nv0 hlt\n"


@pytest.mark.parametrize(
    ("line", "machine"),
    [
        ("machine", Machine()),
        ("machine cpus=4 amx", Machine(cpus=4)),
        ("machine no-xfd amx-ignores-ts no-debug-fpu", Machine(xfd=False, amx_ignores_ts=True)),
        ("machine no-xfd", Machine(xfd=False, amx=False)),
        ("machine no-xsaves no-xsave amx", Machine(xsaves=False, xsave=False)),
        ("machine in-use=0", Machine()),
        ("machine in-use=pkru|xtile|ymm", Machine(in_use=xf.MASK_PKRU | xf.MASK_XTILE | xf.MASK_YMM)),
    ],
)
def test_machine_lines_may_name_defaults(line: str, machine: Machine) -> None:
    assert parse(f"# xfdfuzz program 1\n{line}\n") == Program(machine, ())


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("mpx mpx-in-use", "cpus=1 mpx in-use=mpx"),
        ("pkru-in-use no-mpx-in-use", "cpus=1 in-use=pkru"),
        # they meant nothing there
        ("mpx-in-use", "cpus=1"),
        ("pkru-in-use no-pku", "cpus=1 no-pku"),
    ],
)
def test_switches_of_before_are_read_as_in_use(before: str, now: str) -> None:
    assert format_program(parse(f"# xfdfuzz program 1\nmachine {before}\n")) == f"# xfdfuzz program 1\nmachine {now}\n"


@pytest.mark.parametrize("cpus", [0, MAX_CPUS + 1])
def test_machine_without_or_with_too_many_processors_is_refused(cpus: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 4"):
        Machine(cpus=cpus)


def test_one_apply_line_may_name_several_patches() -> None:
    assert parse("# xfdfuzz program 1\n# apply: one two\nmachine\n").apply == ("one", "two")


# -- what is refused ---------------------------------------------------------------------------------------------------


def error_of(text: str) -> str:
    with pytest.raises(ProgramError) as caught:
        parse(text, "p.xfd")
    message = str(caught.value)
    assert message == f"p.xfd:{caught.value.line}:{caught.value.column}: {caught.value.message}"
    assert len(message.splitlines()) == 1
    return message.removeprefix("p.xfd:")


@pytest.mark.parametrize(
    ("line", "column", "expected"),
    [
        # actors and verbs
        ("t5 user", 1, "t0 to t4"),
        ("v3 vmenter", 1, "v0 to v2"),
        ("cpu4 schedule(kthread)", 1, "cpu0 to cpu3"),
        ("t01 user", 1, "t0 to t4"),
        ("x0 user", 1, "host, cpu0 to cpu3, t0 to t4 or v0 to v2"),
        ("(", 1, "a word"),
        ("host fial_alloc(1)", 6, "an op of host (did you mean fail_alloc?): fail_alloc(...)"),
        (
            "cpu0",
            5,
            "an op of cpu: ... hotplug, hardirq(...), hotplug, hotplug ..., idle, "
            "kthread kernel_fpu_begin, nmi kernel_fpu_begin, pmi, preempt(...), rdmsr(...), schedule(...), "
            "softirq kernel_fpu_begin, softirq kernel_fpu_begin unasked",
        ),
        (
            "t0 tileloda(1)",
            4,
            "an op of t (did you mean tileload, tilerelease or tilezero?): see xfdfuzz list ops",
        ),
        # words that choose the op
        ("t0 ioctl(v3, KVM_RUN) ...", 10, "v0 to v2"),
        ("t0 ioctl(vm3, KVM_CREATE_VCPU, 0)", 10, "vm0 to vm2"),
        ("t0 ioctl(7, KVM_RUN) ...", 10, "kvm, v0 to v2 or vm0 to vm2"),
        ("cpu0 schedule(t5)", 15, "t0 to t4"),
        ("cpu0 schedule(kthreads)", 15, "kthread or t0 to t4 (did you mean kthread?)"),
        (
            "t0 ioctl(vm0, KVM_CREATE_CPU, 0)",
            15,
            "KVM_CHECK_EXTENSION, KVM_CREATE_IRQCHIP, KVM_CREATE_VCPU, KVM_ENABLE_CAP, KVM_SEV_ES_INIT, "
            "KVM_SEV_LAUNCH_UPDATE_VMSA, "
            "KVM_SEV_SNP_LAUNCH_FINISH or KVM_SEV_SNP_LAUNCH_START (did you mean KVM_CREATE_VCPU?)",
        ),
        # what only begins alike was not meant
        ("v0 interrupt kernel_fpu_end", 14, "the end of the line or kernel_fpu_begin"),
        ("v0 vmlaunch intercept-xsaves", 13, "the end of the line or intercept-nm"),
        (
            "t0 ioctl(vm0, KVM_TDX_INIT_VM)",
            15,
            "KVM_CHECK_EXTENSION, KVM_CREATE_IRQCHIP, KVM_CREATE_VCPU, KVM_ENABLE_CAP, KVM_SEV_ES_INIT, "
            "KVM_SEV_LAUNCH_UPDATE_VMSA, "
            "KVM_SEV_SNP_LAUNCH_FINISH or KVM_SEV_SNP_LAUNCH_START",
        ),
        ("t0 frob", 4, "an op of t: see xfdfuzz list ops"),
        ("t0 clts", 4, "an op of t (clts is one of v): see xfdfuzz list ops"),
        ("v0 execve ...", 4, "an op of v (execve is one of t): see xfdfuzz list ops"),
        (
            "t0 ioctl(v1, KVM_SET_XSAVE, buffer=4096) of v0",
            29,
            "t<task> ioctl(v<vcpu>, KVM_SET_XSAVE) of v<source>[ {<component>: <contents>, ...}] or "
            "t<task> ioctl(v<vcpu>, KVM_SET_XSAVE, <image>[, buffer=<n>])",
        ),
        # too few, too many
        ("t0 sigaltstack", 15, "t<task> sigaltstack(<size>[, autodisarm])"),
        ("t0 sigreturn frame3", 14, "frame0 to frame2, or own"),
        ("t0 sigreturn frame0 frame1", 21, "t<task> sigreturn[ frame<n>]"),
        ("t0 sigframe(copy, frame3)", 19, "frame0 to frame2"),
        ("t0 sigframe(copy, own)", 19, "a number from 0 to 4294967295"),
        ("t0 sigframe(fpstate, 64)", 22, "NULL, or a number from 0 to 63"),
        (
            "t0 sigframe(new, iov_len=1)",
            18,
            "ss_size=N, where N is a number of bytes from 0 to 4294967295 "
            "or mapped=N, where N is a number of bytes that 64 divides, from 0 to 4294967232",
        ),
        ("t0 sigaltstack()", 16, "t<task> sigaltstack(<size>[, autodisarm])"),
        ("t0 sigaltstack(1, 2)", 19, "autodisarm"),
        ("t0 ioctl(v0, KVM_RUN)", 22, "t<task> ioctl(v<vcpu>, KVM_RUN) ..."),
        ("t0 ioctl(v0, KVM_RUN) = 0", 23, "t<task> ioctl(v<vcpu>, KVM_RUN) ..."),
        ("v0 wrmsr(IA32_XFD)", 18, "v<vcpu> wrmsr(<msr>, <value>[, drop])"),
        ("v0 vmenter now", 12, "v<vcpu> vmenter"),
        ("v0 vmenter # not a comment", 12, "v<vcpu> vmenter"),
        (
            "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM)",
            40,
            "t<task> arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, <facility>[, undefined=<n>])",
        ),
        # values that do not fit
        ("host fail_alloc(256)", 17, "a number from 0 to 255"),
        ("host fail_alloc(-1)", 17, "a number from 0 to 255"),
        ("host fail_alloc(1|2)", 17, "a number from 0 to 255"),
        ("t0 ioctl(vm0, KVM_CREATE_VCPU, 256)", 32, "a number from 0 to 255"),
        ("t0 sigaltstack(4294967296)", 16, "a number from 0 to 4294967295"),
        ("t0 sigaltstack(" + "9" * 5000 + ")", 16, "a number from 0 to 4294967295"),
        ("t0 tileload(0)", 13, "a token from 1 to 7"),
        ("t0 tileload(8)", 13, "a token from 1 to 7"),
        ("v0 wrmsr(IA32_XFD, 0x10000000000000000)", 20, "a 64-bit number, or state components joined by '|'"),
        ("v0 wrmsr(IA32_XFD, 18446744073709551616)", 20, "a 64-bit number, or state components joined by '|'"),
        ("v0 wrmsr(IA32_PAT, 0)", 10, MSRS_KNOWN),
        ("v0 wrmsr(IA32_XFD, 0, drops)", 23, "drop"),
        ("v0 rdmsr(0x1c4)", 10, MSRS_KNOWN),
        ("v0 cpuid(0x7, 0)", 10, "0x1, 0xd, 0x1d or 0x1e: other leaves are not modelled"),
        (
            "t0 ioctl(v0, KVM_SET_VCPU_EVENTS, {latched_init, no_latched_init})",
            35,
            "latched_init or no_latched_init, not both",
        ),
        (
            "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, 18446744073709551616)",
            36,
            "XTILECFG, XTILEDATA, DYN2 or a 64-bit number",
        ),
        (
            "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA, 7)",
            53,
            "undefined=N, where N is a 32-bit signed number",
        ),
        (
            "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA, undefined=2147483648)",
            63,
            "undefined=N, where N is a 32-bit signed number",
        ),
        # dicts
        ("t0 ioctl(v0, KVM_SET_CPUID2, 7)", 30, f"supported or {{xcr0: ..., {CPUID_FLAGS}, no_ibt}}"),
        ("t0 ioctl(v0, KVM_SET_CPUID2, {xfd})", 30, f"supported or {{xcr0: ..., {CPUID_FLAGS}, no_ibt}}"),
        (
            "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: 0, xdf})",
            40,
            f"xcr0, xss, leaves, other, size, {CPUID_FLAGS} or no_ibt",
        ),
        ("t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: 0, xfd, xfd})", 45, "xfd only once"),
        ("t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: 0, xfd: 1})", 45, "no value after xfd"),
        ("t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: 0, data: 8})", 50, "a token from 1 to 7"),
        (
            "t0 ioctl(v0, KVM_SET_XSAVE, {data: 1})",
            29,
            "{xstate_bv: ..., data: ..., <component>: ..., mxcsr: ..., xcomp_bv: ..., reserved}",
        ),
        ("t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: 0, avx: 8})", 49, "init, or a token up to 7"),
        ("t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: 0, avx: 1, avx: 1})", 52, "avx only once"),
        ("t0 ioctl(v0, KVM_SET_FPU, {avx: 1})", 28, "data, x87, sse or mxcsr"),
        ("t0 ioctl(v0, KVM_SET_FPU) of v0 {avx: 1}", 34, "x87, sse or mxcsr"),
        ("t0 ioctl(v0, KVM_SET_XSAVE) of v0 {sse: 1, sse: 2}", 44, "sse only once"),
        (
            "t0 ioctl(v0, KVM_SET_XSAVE) of v0 {xstate_bv: +sse|avx}",
            47,
            "a sign, + or -, before each component or before none",
        ),
        ("t0 ioctl(v0, KVM_SET_XSAVE) of v0 {xstate_bv: +sse|-sse}", 47, "each component with one sign"),
        (
            "v0 xrstor(avx, avx, 1, 7)",
            24,
            "xcomp_bv=N, where N is a 64-bit number or mxcsr=N, where N is init, zero, a token up to 7, or reserved",
        ),
        ("t0 ioctl(v0, KVM_SET_MSRS, IA32_XFD)", 28, f"{{MSR: value, ...}}, where MSR is {MSRS_KNOWN}"),
        ("t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD})", 29, "IA32_XFD: value"),
        ("t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFF: 0})", 29, MSRS_KNOWN),
        ("t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: x})", 39, "a 64-bit number, or state components joined by '|'"),
        # broken syntax
        ("t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0)", 40, "',', '|' or '}'"),
        ("t0 ioctl(v0, KVM_GET_FPU", 25, "')', ',', '=' or '|'"),
        ("t0 ioctl(v0 KVM_GET_FPU)", 13, "')', ',', '=' or '|'"),
        ("t0 user =", 9, "'(', '=' and a result, '{', a word or the end of the line"),
    ],
)
def test_a_wrong_op_is_told_with_its_place(line: str, column: int, expected: str) -> None:
    assert error_of(HEAD + line) == f"4:{column}: expected {expected}"
    with pytest.raises(ProgramError, match=f"^<string>:1:{column}: "):
        parse_op(line)


def test_an_unknown_component_gets_a_proposal() -> None:
    message = error_of(HEAD + "v0 xsetbv(x87|ssse)")
    assert message.startswith("4:15: expected state components joined by '|' (x87, sse, avx, ")
    assert message.endswith(" (did you mean sse?)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: expected '# xfdfuzz program 1', the first line of every program"),
        ("\n# xfdfuzz program 1\nmachine", "1:1: expected '# xfdfuzz program 1', the first line of every program"),
        ("# xfdfuzz program 2\nmachine", "1:1: expected '# xfdfuzz program 1', the first line of every program"),
        ("# xfdfuzz program 1\n", "2:1: expected a machine line, such as 'machine cpus=1'"),
        ("# xfdfuzz program 1\n\n t0 user", "3:2: expected a machine line above the first op"),
        (HEAD + "machine", "4:1: expected one machine line only"),
        (HEAD + "# expect: * clean", "4:1: expected the expect line above the machine line"),
        (HEAD + "t0 user\n  # title: late", "5:3: expected the title line above the machine line"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(text: str, message: str) -> None:
    assert error_of(text) == message


@pytest.mark.parametrize(
    "char", ["\0", "\x07", "\x0b", "\x0c", "\r", "\x1b", "\x1c", "\x1f", "\x7f", "\x85", "\x9b", "\u2028"]
)
def test_control_characters_are_told_with_their_place(char: str) -> None:
    expected = f"expected text, not the control character U+{ord(char):04X}"
    assert error_of(f"# xfdfuzz program 1\n# title: a{char}b\nmachine cpus=1\n") == f"2:11: {expected}"
    assert error_of(f"{HEAD}# a{char}b\n") == f"4:4: {expected}"
    assert error_of(f"{HEAD}t0 user = o{char}k\n") == f"4:12: {expected}"
    if char != "\r":
        assert error_of(f"{HEAD}t0 user{char}\n") == f"4:8: {expected}"


def test_lines_may_end_as_they_do_elsewhere_and_tabs_are_white_space() -> None:
    assert parse(HEAD.replace("\n", "\r\n") + "t0\tuser = ok \r\n# a\tb\r\n").notes == ((1, "a\tb"),)


WORDS = (
    "cpus=N, in-use=<mask>, xsave, xsaves, xsavec, xgetbv1, avx, avx512, pku, mpx, xfd, amx, dyn2, pasid, cet, "
    "cet-kernel, lbr, lbr-xsaves, apx, amx-ignores-ts, amx-ud-first, spr4-erratum, fxsave-leak, dense, exact-sse, amd, "
    "debug-fpu, rt, nopku, strict-sas-size, or a switch with no-"
)
NO_AMX = "no-amx where there is no XFD: Linux does not boot there, as TILECFG alone in XCR0 is #GP"
MASK = (
    "state components joined by '|' (x87, sse, avx, bndregs, bndcsr, opmask, zmm_hi256, hi16_zmm, pkru, pasid, "
    "cet_user, cet_kernel, lbr, xtilecfg, xtiledata, apx, dyn2, avx512, mpx, xtile), 0 or a 64-bit number"
)


@pytest.mark.parametrize(
    ("words", "column", "expected"),
    [
        ("cpus=0", 9, "cpus=1 to cpus=4"),
        ("cpus=5", 9, "cpus=1 to cpus=4"),
        ("amx cpus=two", 13, "cpus=1 to cpus=4"),
        ("xfd amx no-xfd", 17, "xfd only once"),
        ("debug-fpu debug-fpu", 19, "debug-fpu only once"),
        ("amx no-xfd", 9, NO_AMX),
        ("cpus=2 no-xsaves amx", 26, NO_AMX),
        ("amd amx", 13, "no-amx beside amd: no processor of AMD's has it"),
        ("spr4-erratum cpus=1 amd", 29, "no-spr4-erratum beside amd: no processor of AMD's has it"),
        ("in-use=pkru in-use=avx", 21, "in-use only once"),
        ("in-use=pkru|lbr", 21, "a component that the machine has: x87|sse|avx|avx512|pkru|pasid|xtile"),
        ("in-use=avx no-avx", 16, "a component that the machine has: x87|sse|pkru|pasid|xtile"),
        ("in-use=xtile amd", 16, "a component that the machine has: x87|sse|avx|avx512|pkru"),
        ("in-use=0x2000", 16, "a component that the machine has: x87|sse|avx|avx512|pkru|pasid|xtile"),
        ("in-use=x87 no-xsave", 16, "a component that the machine has: 0"),
        ("exact-sse in-use=avx|sse", 30, "no sse beside exact-sse, which says that SSE can be initial"),
        ("in-use=", 16, MASK),
        ("in-use=avx|", 20, MASK),
        ("in-use", 9, f"{WORDS} (did you mean in-use=<mask>?)"),
        (
            "vcpus=1",
            9,
            f"{WORDS} (did you mean cpus=N?)",
        ),
        (
            "no-ams",
            9,
            f"{WORDS} (did you mean no-amx?)",
        ),
    ],
)
def test_a_wrong_machine_is_told_with_its_place(words: str, column: int, expected: str) -> None:
    assert error_of(f"# xfdfuzz program 1\nmachine {words}\n") == f"2:{column}: expected {expected}"


@pytest.mark.parametrize(
    ("line", "column", "expected"),
    [
        ("# expect:", 10, "a revision, or a range: A..B, A.., ..B or *"),
        ("# expect: .. clean", 11, "a revision, or a range: A..B, A.., ..B or *"),
        ("# expect: v1...v2 clean", 11, "a revision, or a range: A..B, A.., ..B or *"),
        ("# expect: v5.17", 16, "clean, violates or result"),
        ("# expect: v5.17 claen", 17, "clean, violates or result (did you mean clean?)"),
        ("# expect: v5.17 clean now", 23, "nothing after clean"),
        ("# expect: v5.17 violates", 25, "the name of an invariant, such as no-realloc-on-enter"),
        ("# expect: v5.17 violates a, b", 26, "the name of an invariant, such as no-realloc-on-enter"),
        ("# expect: v5.17 result", 23, "the number of an op, counted from 1"),
        ("# expect: v5.17 result 0 = 0", 24, "the number of an op, counted from 1"),
        ("# expect: v5.17 result 1 -EIO", 26, "'=' and a result"),
        ("# expect: v5.17 result 1", 25, "'=' and a result"),
        ("# expect: v5.17 result 1 =", 27, "a result"),
        ("# expect: v5.17 result 2 = 0", 24, "the number of an op, which are 1"),
        ("# apply:", 9, "the commit or the name of a patch"),
        ("# revert:", 10, "the commit or the name of a patch"),
        ("# title: two", 1, "one title line only"),
    ],
)
def test_a_wrong_header_line_is_told_with_its_place(line: str, column: int, expected: str) -> None:
    text = f"# xfdfuzz program 1\n# title: one\n{line}\nmachine cpus=1\n\nt0 user\n"
    assert error_of(text) == f"3:{column}: expected {expected}"


def test_parse_op_takes_no_result() -> None:
    with pytest.raises(ProgramError, match=r"^<string>:1:9: expected no result$"):
        parse_op("t0 user = ok")


@given(st.text(st.sampled_from("t0v1 (){},:=|.#\tmachine\n_é\x1b\u2028")))
@example("t0 user ==")
@example("= 5")
@settings(deadline=None, max_examples=100)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    error = refusal(HEAD + text)
    if error is not None:
        assert len(str(error).splitlines()) == 1
        lines = [*(HEAD + text).split("\n"), ""]
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1


def refusal(text: str) -> ProgramError | None:
    try:
        parse(text)
    except ProgramError as error:
        return error
    return None


def test_an_error_travels_between_processes() -> None:
    error = ProgramError("p.xfd", 3, 4, "expected more")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


# -- what cannot be written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        Program(Machine(), (), title="two\nlines"),
        Program(Machine(), (), title=" white space around it "),
        Program(Machine(), (), comments=("expect: * clean",)),
        Program(Machine(), (), comments=("a\r\nb",)),
        Program(Machine(), (), title="a\x1b[2J"),
        Program(Machine(), (), comments=("a\x85",)),
        Program(Machine(), (FailAlloc(1),), results=("a\x00b",)),
        Program(Machine(), (FailAlloc(1),), notes=((0, "title: late"),)),
        Program(Machine(), (), apply=("two words",)),
        Program(Machine(), (), revert=("two words",)),
        Program(Machine(), (), comments=("revert: 063452fd94d1",)),
        Program(Machine(), (FailAlloc(1),), results=("",)),
        Program(Machine(), (FailAlloc(1),), results=("two  spaces",)),
    ],
)
def test_what_would_be_read_as_something_else_is_not_written(program: Program) -> None:
    with pytest.raises(ValueError, match=r": '"):
        format_program(program)


def test_a_result_belongs_to_an_op() -> None:
    assert Program(Machine(), (FailAlloc(1), FailAlloc(0)), ("ok",)).results == ("ok", None)
    assert Program(Machine(), (), (None,)).results == ()
    with pytest.raises(ValueError, match="2 results for 1 ops"):
        Program(Machine(), (FailAlloc(1),), ("ok", "ok"))


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_printing_does_not_import_lark() -> None:
    code = (
        "import sys; from xfdfuzz.program import text; from xfdfuzz.program.ops.host import FailAlloc; "
        "assert text.format_op(FailAlloc(2)) == 'host fail_alloc(2)'; sys.exit('lark' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=DOC.parent.parent)


@pytest.mark.parametrize("name", OPS)
def test_the_documentation_lists_every_op(name: str) -> None:
    assert f"| `{synopsis(OPS[name])}` |" in DOC.read_text(encoding="utf-8")


def test_the_documentation_lists_every_machine_switch() -> None:
    text = DOC.read_text(encoding="utf-8")
    words = {"cpus": "cpus=N", "in_use": "in-use=<mask>"}
    for f in fields(Machine):
        default = "on" if f.default is True else "off" if f.default is False else f.default
        assert f"| `{words.get(f.name, f.name.replace('_', '-'))}` | {default} |" in text


def test_the_program_in_the_documentation_is_canonical() -> None:
    blocks = re.findall(r"^```\n(# xfdfuzz program 1\n.*?)^```$", DOC.read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for block in blocks:
        assert format_program(parse(block)) == block


def test_64_bit_values_are_written_whole() -> None:
    assert format_op(KvmSetMsrs(1, 2, Msrs(((MSR_IA32_XFD_ERR, 1 << 63),)))) == (
        "t1 ioctl(v2, KVM_SET_MSRS, {IA32_XFD_ERR: 0x8000000000000000})"
    )


@pytest.mark.parametrize(
    ("bare", "form"),
    [("ok t0:5", "ok [t0:5]"), ("ok v0.2:1", "ok [v0.2:1]"), ("0 0x2e7", "0 [0x2e7]"), ("ok init", "ok [init]")],
)
def test_a_value_without_its_brackets_is_refused(bare: str, form: str) -> None:
    """It would never match."""
    assert error_of(HEAD + f"v0 stmxcsr = {bare}") == f"4:12: expected {form}, with the value in brackets"
    assert "with the value in brackets" in error_of(
        f"{HEAD}v0 stmxcsr".replace("machine", f"# expect: * result 1 = {bare}\nmachine")
    )
    assert parse(f"{HEAD}v0 stmxcsr = {form}").results == (form,)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("t0 ioctl(v0, KVM_SET_FPU, 3)", "t0 ioctl(v0, KVM_SET_FPU, {data: 3})"),
        ("t0 ioctl(v0, KVM_SET_FPU, {data: 3, init: sse})", "t0 ioctl(v0, KVM_SET_FPU, {data: 3, sse: init})"),
        (
            "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: x87|avx, data: 3, init: avx, mxcsr})",
            "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: x87|avx, data: 3, avx: init, mxcsr: reserved})",
        ),
        ("v0 fld(0)", "v0 fld(init)"),
        ("t0 ldmxcsr(0)", "t0 ldmxcsr(init)"),
        ("t0 ioctl(v0, KVM_SET_FPU, {data: 3, mxcsr: 0})", "t0 ioctl(v0, KVM_SET_FPU, {data: 3, mxcsr: init})"),
        ("t0 sigframe(fx_only)", "t0 sigframe(sw_reserved, {magic1: 0})"),
    ],
)
def test_programs_of_before_are_read_and_written_as_now(before: str, now: str) -> None:
    assert format_op(parse_op(before)) == now
    assert parse_op(before) == parse_op(now)


@pytest.mark.parametrize("written", ["v0 movups(zero)", "t0 sigframe({xstate_bv: sse|avx, sse: zero, avx: zero})"])
def test_zeros_are_the_initial_configuration_of_all_but_x87_and_mxcsr(written: str) -> None:
    assert parse_op(written) == parse_op(written.replace("zero", "init"))


@pytest.mark.parametrize(
    "written",
    [
        "t0 fld(zero)",
        "v0 fld(zero)",
        "t0 ldmxcsr(zero)",
        "t0 sigframe(fsave, zero)",
        "t0 sigframe({xstate_bv: x87|sse, x87: zero, mxcsr: zero})",
        "t0 ioctl(v0, KVM_SET_FPU, {x87: zero, mxcsr: zero})",
        "t0 ptrace(PTRACE_SETREGSET, t1, NT_PRFPREG, {x87: zero, mxcsr: zero})",
        "v0 xrstor(sse, sse, 1, mxcsr=zero)",
    ],
)
def test_zero_is_not_the_initial_configuration_of_x87_and_mxcsr(written: str) -> None:
    assert format_op(parse_op(written)) == written
    assert parse_op(written) != parse_op(written.replace("zero", "init"))


@pytest.mark.parametrize(
    "wrong", ["t0 ioctl(v0, KVM_SET_FPU, sse)", "t0 ioctl(v0, KVM_SET_XSAVE, 3)", "t0 sigframe(fx)"]
)
def test_what_programs_never_had_is_refused(wrong: str) -> None:
    with pytest.raises(ProgramError, match="expected "):
        parse_op(wrong)
