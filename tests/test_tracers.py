"""What tracers, checkpoints and run-times do with a task: who is to blame for what it goes on with."""

from __future__ import annotations

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.vocabulary import VMM
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve


def broken(*ops: str, revision: str = "v7.3-cured", machine: str = "cpus=1") -> set[tuple[str, str]]:
    """(severity, bucket) of a program whose results are as they are written."""
    program = parse("\n".join(("# xfdfuzz program 1", f"machine {machine}", *ops)) + "\n")
    verdict = judge(program, resolve(revision))
    assert not [text for text in verdict.failures if text.startswith("op ")], verdict.failures
    return {(one.severity, one.bucket) for one in verdict.violations}


def kept(*changes: str, back: str = "t1 ptrace(PTRACE_SETREGSET, t0, NT_X86_XSTATE) of t0 = 0") -> tuple[str, ...]:
    """A debugger reads the registers of t0, lets it do something, and does ``back``."""
    return (
        *("t0 wrpkru(3) = ok", "t0 vmovups(2) = ok", "cpu0 schedule(t1) = ok", "t0 invisible from here = ok"),
        "t1 ptrace(PTRACE_GETREGSET, t0, NT_X86_XSTATE) keep = 0 {xstate_bv: avx|pkru, avx: t0:2, pkru: t0:3}",
        *("cpu0 schedule(t0) = ok", *changes, "cpu0 schedule(t1) = ok", back, "t0 goes on = ok"),
        *("cpu0 schedule(t0) = ok", "t0 user = ok"),
    )


@pytest.mark.parametrize("change", ["t0 wrpkru(4) = ok", "t0 vmovups(5) = ok", "t0 fld(6) = ok", "t0 ldmxcsr(1) = ok"])
def test_what_is_put_back_does_not_show_and_what_is_not_does(change: str) -> None:
    assert not broken(*kept(change))
    (found,) = broken(*kept(change, back="t1 user = ok"))
    component = {"wrpkru": "pkru", "vmovups": "avx", "fld": "x87", "ldmxcsr": "mxcsr"}[change.split()[1].split("(")[0]]
    assert found == (VMM, f"procedure-keeps-the-task@{component}")


def test_a_kernel_that_loses_what_a_tracer_wrote_is_to_blame_and_not_the_tracer() -> None:
    """PKRU was not written by ptrace before 4a804c4f8356 (6.2)."""
    found = broken(*kept("t0 wrpkru(4) = ok"), revision="v5.16")
    assert found
    assert VMM not in {severity for severity, _ in found}


def test_a_copy_is_what_the_other_task_has_where_the_copy_is_said() -> None:
    """What that one does later is its own."""
    begins = ("t0 vmovups(2) = ok", "cpu0 schedule(t1) = ok", "t1 copy of t0 = ok")
    image = (
        "t1 sigframe(new) = ok",
        "t1 sigframe(image, t0) own = ok",
        "t1 sigframe(sw_reserved, {magic1: 1, extended_size: 836, xfeatures: x87|sse|avx, xstate_size: 832, "
        "magic2: 832}) own = ok",
        "t1 sigreturn own = ok",
        "t1 goes on = ok",
    )
    keep = "t1 ptrace(PTRACE_GETREGSET, t0, NT_X86_XSTATE) keep = 0 {xstate_bv: avx, avx: t0:2}"
    small = "cpus=1 no-avx512 no-pku no-amx"
    assert not broken(*begins, keep, *image, machine=small)
    later = ("cpu0 schedule(t0) = ok", "t0 vmovups(5) = ok", "cpu0 schedule(t1) = ok")
    assert not broken(*begins, keep, *later, *image, machine=small)
    assert broken(*begins, *image[-1:], machine=small) == {(VMM, "procedure-keeps-the-task@avx")}


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("t0 goes on", "no `t0 invisible from here` or `copy of` comes before"),
        ("t0 copy of t0", "t0 is itself"),
        ("t0 copy of t3", "there is no t3"),
        ("t3 invisible from here", "there is no t3"),
        ("t0 ptrace(PTRACE_SETREGSET, t1, NT_X86_XSTATE) of t1", "nothing that PTRACE_GETREGSET gave was kept of t1"),
    ],
)
def test_what_nobody_can_mean_is_told(op: str, reason: str) -> None:
    verdict = judge(parse(f"# xfdfuzz program 1\nmachine cpus=1\n\n{op}\n"), resolve("v7.3"))
    step = verdict.trace[0].step
    assert step is not None
    assert step.hindrance == reason


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("{xstate_bv: +sse, sse: 5}", set()),
        ("{xstate_bv: x87|sse|avx|pkru, sse: 5}", set()),
        ("{sse: 5}", {"sse"}),
        ("{xstate_bv: +sse|-avx, sse: 5}", {"avx"}),
        ("{xstate_bv: +sse, sse: 5, mxcsr: 1}", {"mxcsr"}),
    ],
)
def test_a_register_that_a_debugger_sets_is_there_and_the_others_stay(change: str, found: set[str]) -> None:
    """The kernel goes by XSTATE_BV, which the debugger has to write too."""
    back = f"t1 ptrace(PTRACE_SETREGSET, t0, NT_X86_XSTATE) of t0 {change} = 0"
    ops = kept("t0 user = ok", back=back)
    meant = (*ops[: ops.index("t0 goes on = ok")], "t0 to find {sse: 5} = ok", *ops[-3:])
    assert broken(*meant) == {(VMM, f"procedure-keeps-the-task@{one}") for one in found}


def test_what_a_kernel_makes_of_a_changed_image_is_its_own_fault() -> None:
    """PKRU was not written by ptrace before 4a804c4f8356 (6.2)."""
    ops = (
        *("t0 wrpkru(0) = ok", "cpu0 schedule(t1) = ok", "t0 invisible from here = ok"),
        "t1 ptrace(PTRACE_GETREGSET, t0, NT_X86_XSTATE) keep",
        "t1 ptrace(PTRACE_SETREGSET, t0, NT_X86_XSTATE) of t0 {xstate_bv: +pkru, pkru: 2} = 0",
        *("t0 to find {pkru: 2} = ok", "t0 goes on = ok", "cpu0 schedule(t0) = ok", "t0 user = ok"),
    )
    assert not broken(*ops)
    assert {severity for severity, _ in broken(*ops, revision="v5.16")} == {"corruption"}


def test_a_handler_changes_what_its_frame_has() -> None:
    """Of x87 and SSE each frame has the bits; of AVX it has what was in use."""
    frame = ("t0 movups(4) = ok", "t0 invisible from here = ok", "t0 signal ...", "t0 ... signal = ok")
    ends = ("t0 sigreturn = ok", "t0 to find {x87: 1, avx: 2} = ok", "t0 goes on = ok", "t0 stmxcsr = ok [init]")
    assert not broken(*frame, "t0 sigframe(changed, {xstate_bv: +avx, x87: 1, avx: 2}) = ok", *ends)
    found = broken(*frame, "t0 sigframe(changed, {x87: 1, avx: 2}) = ok", *ends)
    assert found == {(VMM, "procedure-keeps-the-task@avx")}
