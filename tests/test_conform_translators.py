"""Each operation and guest token of recordings, by what a kernel answers to it: see docs/conform.md for the format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xfdfuzz.engines.conform.score  # noqa: F401 - the translators are loaded with it
from xfdfuzz import cli
from xfdfuzz.engines.conform.translator import TRANSLATORS

Op = dict[str, Any]
Judge = Callable[..., tuple[int, dict[str, Any]]]

#: KVM_SET_REGS and so on are not seen; 7.3.4 has b45f72177594 and CET, 6.12.117 no CET.
NEW, OLD = "7.3.4", "6.12.117"
FULL = "0x602e7"
EINTR, EINVAL = 4, 22


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Judge:
    monkeypatch.chdir(tmp_path)

    def run(ops: list[Op], kernel: str = NEW, **more: object) -> tuple[int, dict[str, Any]]:
        Path("p.jsonl").write_text(json.dumps({"program": "p", "kernel": kernel, "ops": ops, **more}) + "\n")
        code = cli.main(("conform", "p.jsonl", "--format", "json"))
        captured = capsys.readouterr()
        assert all("nobody has looked" in line for line in captured.err.splitlines())
        score: dict[str, Any] = json.loads(captured.out)
        return code, score

    return run


def op(name: str, *args: str, context: Any = "", **result: Any) -> Op:
    more = {"context": context} if context else {}
    return {"op": name, "args": list(args), "result": result or {"ret": 0}, **more}


def vcpu(cpuid: tuple[str, ...] = (), xcr0: str = FULL) -> list[Op]:
    """A guest that may use AMX."""
    return [
        op("req_guest_perm", "18"),
        op("create_vm", ret=5, vm=0),
        op("create_vcpu", "0", ret=6, vcpu=0),
        op("set_cpuid2", *cpuid),
        op("set_xcr0", xcr0),
    ]


def ok(token: str, value: int | None = None, value2: int = 0) -> Op:
    return {"token": token, "status": "ok", "value": hex(value or 0), "value2": hex(value2)}


def fault(token: str, exception: str) -> Op:
    return {"token": token, "status": "fault", "exception": exception}


def late(token: str) -> Op:
    return {"token": token, "status": "not_reached"}


def run(*guest: Op, name: str = "run_guest", **result: Any) -> Op:
    ended = {"ret": 0, "exit": "HLT", "io_ports": []} | result
    return op(name, *(entry["token"] for entry in guest), **ended, guest=list(guest))


def interrupted(*guest: Op, **result: Any) -> Op:
    return run(*guest, **{"ret": -1, "errno": EINTR} | result)


def image(bv: int, **more: Any) -> Op:
    """What KVM_GET_XSAVE2 shows: MXCSR and FCW are initial, PKRU is always there since ae6012d72fa6."""
    shown = {"xstate_bv": hex(bv | 0x200), "xcomp_bv": "0x0", "fcw": "0x37f", "mxcsr": "0x1f80", "size": 11008}
    return op("get_xsave_x" if set(more) - {"mxcsr", "fcw"} else "get_xsave", ret=0, **shown | more)


X, Y = 0x1122334455667788, 0x99
XMM = [run(ok(f"wrxmm:{X:#x}"), ok("rdxmm", X)), image(2, xmm0=hex(X))]

EQUAL: dict[str, list[Op]] = {
    "SSE": [*vcpu(), *XMM, run(ok("wrxmm:0"), ok("rdxmm", 0)), image(0)],
    "SSE without XCR0": [*vcpu(xcr0="1"), run(ok("wrxmm:0x5"), ok("rdxmm", 5), fault("rdymmh", "#UD"))],
    "AVX that XRSTOR loads": [
        *vcpu(),
        op("set_xsave", "bv=0x4", "avx=0x5a"),
        run(ok("rdymmh", 0x5A5A5A5A5A5A5A5A)),
        image(4, ymmh0=hex(0x5A5A5A5A5A5A5A5A)),
    ],
    "CR0.TS": [
        *vcpu(),
        run(
            ok("cr0or:0x8", 0x80000039),
            *(fault(token, "#NM") for token in ("fnop", "wrxmm:0x1", "rdxmm", "fnstcw", "stmxcsr", "rdymmh")),
            *(fault(token, "#NM") for token in ("xsaveopt:0x7", "xsaves:0x7", "xrstor:0x7:0x0", "xrstors:0x7:0x0")),
            ok("xgetbv:0", 0x602E7),
        ),
        run(fault("fnop", "#NM"), ok("cr0andn:0x8", 0x80000031), ok("fnop")),
        image(1),
    ],
    # the emulated processor lets XFD object first, and is_xfd_nm_fault() takes every #NM under CR0.TS for one of CR0.TS
    "CR0.TS and XFD": [
        *vcpu(),
        run(
            ok("ldtilecfg"),
            ok("wrmsr:0x1c4:0x40000"),
            ok("cr0or:0x8", 0x80000039),
            fault("tilezero:0", "#NM"),
            ok("rdmsr:0x1c5", 0x40000),
            fault("fnop", "#NM"),
        ),
    ],
    "MSRs": [
        *vcpu(),
        op("set_msr", "0xda0", "0", ret=1, of=1),
        op("get_msr", "0xda0", ret=1, val="0x0"),
        op("set_msrs", "0x1c4", "0x40000", "0xda0", "0x100", ret=1, of=2),
        op("get_msr", "0x1c4", ret=1, val="0x40000"),
        op("host_rdmsr", "0xda0", val="0x1800"),
    ],
    "KVM_SET_SREGS clears CR0.TS": [*vcpu(), run(ok("cr0or:0x8", 0x80000039)), op("setup_guest"), run(ok("fnop"))],
    "x87": [
        *vcpu(),
        run(ok("fnstcw", 0x37F), ok("stmxcsr", 0x1F80), ok("xgetbv:1", 0)),
        image(0),
        run(ok("fnop"), ok("xgetbv:1", 1)),
        image(1),
        op("set_xsave", "bv=0x3", "fcw=0x27f", "x87=0x11", "sse=0x22", "mxcsr=0x1fa0"),
        run(ok("fnstcw", 0x27F), ok("stmxcsr", 0x1FA0), ok("rdxmm", 0x2222222222222222)),
        image(3, fcw="0x27f", mxcsr="0x1fa0", st0=hex(0x1111111111111111), xmm0=hex(0x2222222222222222)),
    ],
    "a compacted image": [
        *vcpu(),
        run(
            ok(f"wrxmm:{X:#x}"),
            ok("xsaves:0x7", 2, 1 << 63 | 7),
            ok("wrxmm:0x5"),
            ok("xrstors:0x7:0x2:0x8000000000000007"),
        ),
        run(ok("rdxmm", X), fault("xrstors:0x7:0x6:0x8000000000000003", "#GP"), fault("xrstors:0x7:0x2:0x7", "#GP")),
        run(ok("wrxmm:0x5"), ok("xrstor:0x7:0x2:0x8000000000000002"), ok("rdxmm", X)),
        run(ok("xrstors:0x7:0x0"), ok("rdxmm", 0)),
    ],
    "XSAVEOPT leaves alone what is not in use": [
        *vcpu(),
        run(ok(f"wrxmm:{X:#x}"), ok("xsave:0x2", 2), ok("wrxmm:0"), ok("xsaveopt:0x2", 0), ok("xrstor:0x2:0x2")),
        run(ok("rdxmm", X)),
    ],
    "TILEZERO": [
        *vcpu(),
        run(ok("ldtilecfg"), ok("tilezero:0"), ok("xgetbv:1", 0x20000), ok("fill:0x7"), ok("tileload:1")),
        run(ok("tilezero:1"), ok("xgetbv:1", 0x60000), ok("tilestore:1", 0, 0)),
    ],
    "guest code that is left": [
        *vcpu(),
        run(ok("wrxmm:0x5"), late("out:0x80:1"), late("rdxmm"), name="run_stop", exit="IO", io_ports=["0x80"]),
        image(2, xmm0="0x5"),
        op("set_xsave", "bv=0x2", "sse=0x66"),
        op(
            "run_cont",
            ret=0,
            exit="HLT",
            io_ports=[],
            guest=[ok("wrxmm:0x5"), ok("out:0x80:1"), ok("rdxmm", 0x6666666666666666)],
        ),
        run(late("out:0x80:1"), late("wrxmm:0x1"), name="run_stop", exit="IO", io_ports=["0x80"]),
        run(ok("rdxmm", 0x6666666666666666)),
    ],
    "run_sig": [*vcpu(), run(ok("wrxmm:0x5"), ok("spin:1000"), ok("rdxmm", 5), name="run_sig", interrupted=True)],
    "KVM_RUN before its program": [
        *vcpu(),
        op("run_imm", "fnop", ret=-1, errno=EINTR, io_ports=[], guest=[late("fnop")]),
        op("run_cont", ret=0, exit="HLT", io_ports=[], guest=[ok("fnop")]),
    ],
    "a vCPU that cannot be set up": [
        op("create_vm", ret=5, vm=0),
        op("create_vcpu", "0", ret=6, vcpu=0),
        op("run_imm", "nop", ret=-1, errno=EINVAL, failed_call="set_sregs", set_sregs_osxsave_errno=EINVAL, guest=[]),
        op("setup_guest", ret=-1, errno=EINVAL, set_sregs_osxsave_errno=EINVAL),
    ],
    "the older interface": [
        *vcpu()[:3],
        op("get_fpu", ret=0, fcw="0x37f"),
        op("set_cpuid2"),
        # fpstate_realloc() gives a zeroed buffer
        op("get_fpu_x", ret=0, fcw="0x0", mxcsr="0x0", st0="0x0", xmm0="0x0"),
        run(ok("fnstcw", 0x37F)),
        op("set_xsave", "bv=0x3", "x87=0x1", "sse=0x1"),
        op("set_fpu", "fcw=0x27f", "x87=0x33", "sse=0x44"),
        op("get_fpu_x", ret=0, fcw="0x27f", st0="0x3333333333333333", xmm0="0x4444444444444444"),
        run(ok("fnstcw", 0x27F), ok("rdxmm", 0x4444444444444444)),
        op("set_fpu", "x87=0", "sse=0"),
        run(ok("xgetbv:1", 0), ok("rdxmm", 0)),
    ],
    "KVM_SET_FPU of what XSTATE_BV lacks": [
        *vcpu(),
        op("set_fpu", "sse=0x44"),
        run(ok("rdxmm", 0)),
        op("get_fpu_x", ret=0, fcw="0x37f", xmm0="0x4444444444444444"),
    ],
    "slots": [
        *vcpu(),
        op("set_xsave", "bv=0x2", "sse=0x66", "mxcsr=0x1fa0"),
        op("save_xsave", "1", ret=0, xstate_bv="0x2", mxcsr="0x1fa0"),
        op("set_xsave", "bv=0x0"),
        op("load_xsave", "1"),
        run(ok("rdxmm", 0x6666666666666666), ok("stmxcsr", 0x1FA0)),
    ],
    "a CPUID without XSAVES": [
        *vcpu(("xsaves=0",)),
        run(fault("xsaves:0x1", "#UD"), fault("xrstors:0x1:0x0", "#UD"), ok("xsavec:0x1", 0, 1 << 63 | 1)),
    ],
    "a CPUID without XSAVE": [
        *vcpu(("xsave=0",))[:4],
        op("set_xcr0", "3", ret=-1, errno=EINVAL),
        run(fault("xgetbv:0", "#UD"), ok("wrxmm:0x1"), set_sregs_osxsave_errno=EINVAL),
    ],
    "CR4.OSXSAVE": [
        *vcpu(),
        run(ok("cr4andn:0x40000", 0x620), fault("xgetbv:0", "#UD"), ok("wrxmm:0x1"), ok("cr4or:0x40000", 0x40620)),
        run(ok("xgetbv:0", 0x602E7), ok("rdxmm", 1), fault("ud2", "#UD"), ok("cpuid:0x1:0", 0x123)),
    ],
    "more contents than a program has numbers for": [
        *vcpu(),
        *(run(ok(f"wrxmm:{n:#x}"), ok("rdxmm", n)) for n in range(1, 20)),
    ],
    "a signal in user mode": [
        op("host_tileload", "1", signal="SIGILL"),
        op("host_xgetbv", "1", val="0x202"),  # the handler began with initial registers, and nobody restored others
    ],
    "fifty execs that leak": [
        op("req_perm", "18"),
        *(entry for _ in range(50) for entry in (op("host_tileload", "1", ok=True), op("exec"), op("req_perm", "18"))),
    ],
    "arch_prctl": [
        op("arch_prctl", "0x1026", ret=-1, errno=EINVAL),
        op("arch_prctl", "0x1021", val=FULL, ret=0),
        op("arch_prctl", "0x1022", "0", ret=-1, errno=14),
        op("arch_prctl", "0x1023", "18"),
        op("get_perm", ret=0, val=FULL),
    ],
    "entries of a CPUID": [
        op("supported_cpuid", "0xd", "1", eax="0x1f", ebx="0x9b0", ecx="0x1800", edx="0x0"),
        op("supported_cpuid", "0xd", "11", eax="0x10", ebx="0x0", ecx="0x1", edx="0x0"),
        op("supported_cpuid", "0x1d", "1", eax="0x4002000", ebx="0x80040", ecx="0x10", edx="0x0"),
        *vcpu(("xfd=0", f"xcr0={FULL}"))[:4],
        op("get_cpuid2", "0xd", "0", eax="0x602e7", ebx="0x240", ecx="0x2b00", edx="0x0"),
        op("get_cpuid2", "0xd", "1", eax="0xf", ebx="0x240", ecx="0x1800", edx="0x0"),
        op("get_cpuid2", "0xd", "18", eax="0x2000", ebx="0xb00", ecx="0x6", edx="0x0"),
        op("get_cpuid2", "0xd", "11", absent=True),
        op("get_cpuid2", "0x7", "0", eax="0x0", ebx="0x0", ecx="0x0", edx="0x1400000"),
        op("get_cpuid2", "0x1d", "1", eax="0x4002000", ebx="0x80040", ecx="0x10", edx="0x0"),
        op("set_cpuid2", "xsave=0", "amx=0"),
        op("get_cpuid2", "0xd", "0", absent=True),
        op("get_cpuid2", "0xd", "1", absent=True),
        op("get_cpuid2", "0x7", "0", eax="0x0", ebx="0x0", ecx="0x0", edx="0x400000"),
    ],
    "an interrupt controller": [
        op("create_vm", ret=5, vm=0),
        op("create_irqchip", ret=0),
        op("create_irqchip", ret=-1, errno=17),
        op("create_vm", ret=6, vm=1),
        op("create_vcpu", "0", ret=7, vcpu=0),
        op("create_irqchip", ret=-1, errno=EINVAL),
    ],
    "a child that exits": [
        op("fork"),
        op("req_perm", "18", context="child"),
        op("exit", "3", context="child", ok=True),
        op("endfork", wait_status="768"),
        op("get_perm", ret=0, val="0x202e7"),
    ],
    "nothing to act on": [
        op("close_vm", skipped="no-vm"),
        op("vm_cap", "208", skipped="no-vm"),
        op("set_cpuid2", ret=-1, errno=11),
    ],
    "no descriptors": [
        op("rlimit_nofile", "0"),
        op("create_vm", ret=-1, errno=24),
        op("rlimit_nofile", "64"),
        op("create_vm", ret=5, vm=0),
        op("rlimit_nofile", "0"),
        op("create_vcpu", "0", ret=-1, errno=24),
    ],
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_a_kernel_answers_is_what_the_model_does(judge: Judge, name: str) -> None:
    ops = EQUAL[name]
    code, score = judge(ops)
    assert [(d["op"], d["field"], d["recorded"], d["model"]) for d in score["differences"]] == []
    assert (code, score["not_compared"]) == (0, {})
    assert score["compared"] == score["equal"]


def wrong() -> Iterator[tuple[str, int, str, Callable[[Op], object]]]:
    """(program, op, field, alteration of its result)."""
    yield "SSE", 5, "rdxmm value", lambda result: result["guest"][1].update(value="0x1")
    yield "SSE", 6, "xmm0", lambda result: result.update(xmm0="0x1")
    yield "SSE", 6, "mxcsr", lambda result: result.update(mxcsr="0x1fa0")
    yield "CR0.TS", 5, "cr0or:0x8 value", lambda result: result["guest"][0].update(value="0x80000031")
    yield "x87", 5, "fnstcw value", lambda result: result["guest"][0].update(value="0x0")
    yield "x87", 5, "stmxcsr value", lambda result: result["guest"][1].update(value="0x0")
    yield "x87", 11, "st0", lambda result: result.update(st0="0x0")
    yield "a compacted image", 6, "rdxmm value", lambda result: result["guest"][0].update(value="0x5")
    yield "guest code that is left", 5, "exit", lambda result: result.update(exit="HLT")
    yield "guest code that is left", 5, "io_ports", lambda result: result.update(io_ports=["0x81"])
    yield "guest code that is left", 8, "rdxmm value", lambda result: result["guest"][2].update(value="0x5")
    yield "a vCPU that cannot be set up", 2, "set_sregs", lambda result: result.update(errno=1)
    yield "a vCPU that cannot be set up", 3, "set_sregs with OSXSAVE", lambda r: r.update(set_sregs_osxsave_errno=0)
    yield "the older interface", 5, "fcw", lambda result: result.update(fcw="0x37f")
    yield "the older interface", 9, "xmm0", lambda result: result.update(xmm0="0x0")
    yield "slots", 6, "mxcsr", lambda result: result.update(mxcsr="0x1f80")
    yield "entries of a CPUID", 0, "eax", lambda result: result.update(eax="0xf")
    yield "entries of a CPUID", 8, "eax", lambda result: result.update(eax="0x1f")
    yield "entries of a CPUID", 10, "absent", lambda result: result.pop("absent")
    yield "entries of a CPUID", 11, "AMX_TILE", lambda result: result.update(edx="0x0")
    yield "a child that exits", 3, "wait_status", lambda result: result.update(wait_status="0")
    yield "nothing to act on", 2, "call", lambda result: result.update(errno=EINVAL)
    yield "no descriptors", 3, "ret", lambda result: result.update(ret=-1, errno=24)
    yield "arch_prctl", 0, "ret", lambda result: result.update(ret=0)


@pytest.mark.parametrize(("name", "index", "field", "alter"), list(wrong()), ids=lambda value: str(value)[:24])
def test_another_answer_is_noticed(
    judge: Judge, name: str, index: int, field: str, alter: Callable[[Op], object]
) -> None:
    ops: list[Op] = json.loads(json.dumps(EQUAL[name]))
    alter(ops[index]["result"])
    code, score = judge(ops)
    assert (index, field) in [(d["op"], d["field"]) for d in score["differences"]]
    assert code == 1


def test_what_the_model_does_not_have_ends_nothing(judge: Judge) -> None:
    others = [
        op("set_msr", "0x10", "1", ret=1),
        op("get_msr", "0x10", ret=1, val="0x5"),
        op("host_rdmsr", "0x10", val="0x5"),
    ]
    code, score = judge([*vcpu(), *others, *XMM])
    assert (code, sum(score["not_compared"].values())) == (0, len(others))
    assert score["equal"] == len(vcpu()) + len(XMM)


def test_the_leaves_of_a_cpuid_count_once_the_guest_has_run(judge: Judge) -> None:
    """`xcr0=` drops the leaves of supervisor states, which 7.3.4 offers: another CPUID, which kvm_cpuid_check_equal()
    does not let pass."""
    refused = op("set_cpuid2", f"xcr0={FULL}", ret=-1, errno=EINVAL)
    same = op("set_cpuid2", f"xcr0={FULL}")
    assert judge([*vcpu(), run(ok("nop")), refused])[0] == 0
    assert judge([*vcpu(), run(ok("nop")), same])[0] == 1
    assert judge([*vcpu(), run(ok("nop")), same], OLD)[0] == 0
    assert judge([*vcpu((f"xcr0={FULL}",)), run(ok("nop")), same])[0] == 0
    assert judge([*vcpu(("d18ecx=1",)), run(ok("nop")), op("set_cpuid2", ret=-1, errno=EINVAL)])[0] == 0


# -- what a recording leaves open --------------------------------------------------------------------------------------


WRITE = "wrmsr:0x1c4:0x40000"


def test_a_signal_may_fall_before_an_instruction_or_after_it(judge: Judge) -> None:
    code, score = judge([*vcpu(), interrupted(late(WRITE)), op("get_msr", "0x1c4", ret=1, val="0x0")])
    assert (code, score["scheduled"], score["schedules"]) == (0, 0, [])
    code, score = judge([*vcpu(), interrupted(late(WRITE)), op("get_msr", "0x1c4", ret=1, val="0x40000")])
    assert (code, score["scheduled"]) == (0, 1)
    assert score["schedules"][0]["schedule"] == [f"the signal at {WRITE}: after it"]
    code, score = judge([*vcpu(), interrupted(late(WRITE)), op("get_msr", "0x1c4", ret=1, val="0x20000")])
    assert (code, score["scheduled"], score["different"]) == (1, 0, 1)


READY = "wrmsr:0x1c4:0"
TILES = [ok("ldtilecfg"), ok("fill:0x42"), ok("tileload:0")]
HELD, LOST = 0x4242424242424242, 0


@pytest.mark.parametrize(
    ("guest", "where"),
    [
        (
            [*TILES, ok(WRITE), ok(READY)],
            "a preemption between the exit of v0 wrmsr(IA32_XFD, 0x40000) and its emulation",
        ),
        # from the first write on that is not 0, no write exits
        ([ok(WRITE), ok(READY), *TILES, ok(WRITE), ok("spin:1000"), ok(READY)], "a preemption in spin:1000"),
        (
            [ok(WRITE), ok(READY), *TILES, ok(WRITE), ok("cpuid:0x1:0"), ok(READY)],
            "a preemption between the exit of v0 cpuid(0xd, 0) and its emulation",
        ),
    ],
    ids=["wrmsr", "spin", "cpuid"],
)
def test_a_preemption_may_lose_what_xfd_disables(judge: Judge, guest: list[Op], where: str) -> None:
    """XSAVES saves no component that XFD disables, and then another task's registers take its place."""

    def ops(tile: int) -> list[Op]:
        return [*vcpu(), run(*guest, ok("tilestore:0", tile, tile))]

    code, score = judge(ops(HELD), timing_dependent=True)
    assert (code, score["schedules"]) == (0, [])
    code, score = judge(ops(LOST), timing_dependent=True)
    assert (code, score["scheduled"]) == (0, 1)
    assert score["schedules"][0]["schedule"] == [f"{where}: another task runs"]
    assert judge(ops(LOST))[0] == 1
    assert judge(ops(0x17), timing_dependent=True)[0] == 1


def test_an_exception_that_was_queued_is_dropped_by_set_regs(judge: Judge) -> None:
    ops = [*vcpu(), interrupted(late("xsetbv:0x2")), run(ok("fnop"))]
    assert judge(ops)[0] == 0


def test_a_thread_that_was_joined_may_still_be_in_its_group(judge: Judge) -> None:
    def ops(errno: int) -> list[Op]:
        refused = {"ret": -1, "errno": errno} if errno else {"ret": 0}
        return [
            op("thread"),
            op("sigaltstack", "4096", context="thread"),
            op("endthread", ok=True),
            op("req_perm", "18", **refused),
        ]

    for errno in (0, 28):
        assert judge(ops(errno), timing_dependent=True)[0] == 0
    assert judge(ops(28))[0] == 1


def test_threads_in_the_background_keep_their_selection(judge: Judge) -> None:
    """Two vCPUs, each selected when a thread began; results do not say which thread they are of."""
    code, score = judge(
        [
            op("create_vm", ret=5, vm=0),
            op("create_vcpu", "0", ret=6, vcpu=0),
            op("set_cpuid2"),
            op("thread_bg", ok=True),
            op("create_vcpu", "1", ret=7, vcpu=1),
            op("set_cpuid2"),
            op("set_xcr0", "3"),
            op("thread_bg", ok=True),
            op("get_xcr0", context="thread", ret=0, val="0x3"),
            op("get_xcr0", context="thread", ret=0, val="0x1"),
            op("sel_vcpu", "0", ok=True),
            op("join", ok=True),
            op("get_xcr0", ret=0, val="0x1"),
        ],
        order="output",
    )
    assert (code, score["different"], score["not_compared"]) == (0, 0, {})
    assert score["schedules"][0]["schedule"]


def test_an_earlier_program_may_have_left_xfd_err(judge: Judge) -> None:
    for value in ("0x0", "0x40000"):
        assert judge([op("host_rdmsr", "0x1c5", val=value)])[0] == 0
    assert judge([op("host_rdmsr", "0x1c5", val="0x20000")])[0] == 1


# -- what cannot be judged ---------------------------------------------------------------------------------------------


#: What operations need that are not content with one number.
ARGUMENTS = {
    **dict.fromkeys(("dev_attr", "sel_vm", "sel_vcpu"), ("0", "0")),
    **dict.fromkeys(("supported_cpuid", "get_cpuid2"), ("0xd", "0")),
    **dict.fromkeys(("set_msr", "set_msrs"), ("0x1c4", "0")),
    **dict.fromkeys(("run_guest", "run_imm", "run_sig", "run_stop"), ("nop",)),
    "xfd": ("t0 sigaltstack(0)",),
}


@pytest.mark.parametrize("name", sorted(TRANSLATORS.keys() - {"switch_to", "exec"}))
def test_an_operation_without_a_result_ends_nothing(judge: Judge, name: str) -> None:
    """It was not executed, or the host died in it."""
    unseen = {"op": name, "args": [*ARGUMENTS.get(name, ("18",))], "result": None}
    code, score = judge([*vcpu(), unseen, op("get_xcr0", ret=0, val=FULL)])
    assert (code, score["different"]) == (0, 0)
    code, score = judge([*vcpu(), unseen], panic={"at": 5, "signature": "BUG"})
    assert [(d["field"], d["recorded"]) for d in score["differences"]] in ([], [("host", "dead")])
    assert (code, bool(score["differences"])) in ((1, True), (0, False))


JUNK = st.one_of(
    st.none(), st.integers(-(1 << 65), 1 << 65), st.text(max_size=3), st.just([]), st.just({}), st.floats()
)
SAMPLE = [
    *EQUAL["guest code that is left"],
    *EQUAL["the older interface"][5:],
    op("fork"),
    op("endfork", wait_status="0"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([place for place in places(SAMPLE) if place]), JUNK)
def test_whatever_a_recording_says_the_next_one_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: tuple[Any, ...], junk: object
) -> None:
    ops: Any = json.loads(json.dumps(SAMPLE))
    holder = ops
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = junk
    lines = [{"program": "p", "kernel": NEW, "ops": ops}, {"program": "q", "kernel": NEW, "ops": EQUAL["SSE"]}]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code = cli.main(("conform", str(file), "--format", "json"))
    captured = capsys.readouterr()
    score = json.loads(captured.out)
    assert score["equal"] >= len(EQUAL["SSE"])
    assert len(score["not_judged"]) == (code == 2) == len(captured.err.splitlines())
    assert "Traceback" not in captured.err


def test_a_line_that_is_no_recording_is_told_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    good = json.dumps({"program": "p", "kernel": NEW, "ops": EQUAL["SSE"]})
    nested = '{"program": "p", "kernel": "7.3.4", "ops": [' + "[" * 50_000
    old = json.dumps({"program": "p", "kernel": "4.19.1", "ops": EQUAL["SSE"]})
    Path("p.jsonl").write_text("\n".join(("nonsense", good, nested, old, good)))
    code = cli.main(("conform", "p.jsonl"))
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.splitlines() == [
        "xfdfuzz: p.jsonl:1: expected a JSON object",
        "xfdfuzz: p.jsonl:3: expected a JSON object",
        "xfdfuzz: p.jsonl:4: expected kernel, a version from 5.16 on: what is older is not modelled",
    ]
    assert f"all  {2 * len(EQUAL['SSE']):12} compared".split() == captured.out.splitlines()[1].split()[:3]
    assert "     3 not judged: recordings that standard error names" in captured.out.splitlines()


@pytest.mark.parametrize(
    ("version", "model"),
    [
        ("7.3-rc7", "v7.3"),
        ("v7.3.4", "v7.3"),
        ("7.3.4-ubuntu1", "v7.3"),
        ("6.12.110", "v6.12.110"),
        ("6.7.2", "v6.7.2"),
        ("6.6.0-generic", "v6.6"),
        ("8.0", "v7.3"),
    ],
)
def test_a_version_is_judged_on_the_nearest_model(judge: Judge, version: str, model: str) -> None:
    assert judge([op("get_perm", ret=0, val="0x202e7")], version)[1]["models"] == {version: [model]}
