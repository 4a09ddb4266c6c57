"""What can happen inside a call: a fault half-way, a preemption, a hard interrupt."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.engines.judge import windows
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.kernel.errno import ENOMEM
from xfdfuzz.kernel.event import ATOMIC_SLEEP, IRQ_FPU
from xfdfuzz.kernel.locking import SOFTIRQ_DISABLE_OFFSET
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.text import ProgramError, parse
from xfdfuzz.report.verdict import conclusion
from xfdfuzz.revisions import Revision, resolve

CORPUS = Path(__file__).parent.parent / "corpus"
FAULT = "conformance/49-sigreturn-faults-on-anothers-registers.xfd"

V7_3 = resolve("v7.3")


class OwnerStands(V7_3.kernel):  # type: ignore[name-defined,misc]
    """A kernel without d8778e393afa: a failed XRSTOR leaves the owner of the registers alone."""

    def restore_fpregs_from_user(self, frame: SigFrame, xrestore: int, fx_only: bool) -> bool:
        """(fpu/signal.c)."""
        owner = self.this_cpu.fpu_fpregs_owner_ctx
        restored: bool = super().restore_fpregs_from_user(frame, xrestore, fx_only)
        if not restored:
            self.this_cpu.fpu_fpregs_owner_ctx = owner
        return restored


def broken(text: str, revision: Revision) -> set[str]:
    return set(judge(parse(text), revision).broken)


def results(text: str) -> tuple[str, ...]:
    return judge(parse("# xfdfuzz program 1\n" + text), V7_3).results


def test_a_failed_xrstor_that_keeps_the_owner_gives_registers_to_another_task() -> None:
    text = (CORPUS / FAULT).read_text(encoding="utf-8")
    assert not broken(text, V7_3)
    assert "no-foreign-registers" in broken(text, replace(V7_3, kernel=OwnerStands))


def test_a_bad_header_comes_before_the_fault() -> None:
    *_, last = results("""machine cpus=1
t0 signal ...
t0 ... signal
t0 sigframe({xstate_bv: avx, data: 4, reserved})
t0 sigreturn(absent, avx) ...
""")
    assert last == "SIGSEGV"


PREEMPTED = """machine cpus=1 no-pku
cpu0 schedule(t1)
t1 vmovups(2)
cpu0 schedule(t0)
t0 vmovups(1)
cpu0 preempt(t1, {points})
t0 signal ...
t0 ... signal
t0 sigreturn
t0 xsave(avx)
cpu0 schedule(t1)
t1 xsave(avx)
"""


def test_a_preemption_comes_where_it_was_asked_for() -> None:
    """t1 gets its registers in the middle of t0's call, so they are not loaded yet where t0 is preempted late."""
    for points in range(1, 12):
        *_, mine, _, others = results(PREEMPTED.format(points=points))
        assert (mine, others) == ("ok {xstate_bv: avx, avx: t0:1}", "ok {xstate_bv: avx, avx: t1:2}")


def test_a_context_switch_calls_a_preemption_off() -> None:
    executor = Executor(V7_3.kernel, Machine())
    text = "machine cpus=1\nt0 fork\ncpu0 preempt(t2, 1)\ncpu0 schedule(t1)\nt1 signal ...\n"
    for _ in executor.run(parse("# xfdfuzz program 1\n" + text).ops):
        pass
    assert executor.kernel.tasks[2].fpu.last_cpu == -1, "t2 never had registers"


def test_a_worker_that_preempts_a_call_stays_in_the_kernel() -> None:
    """It has no user mode to go to (create_io_thread(), kernel/fork.c), so its registers stay where they are."""
    executor = Executor(V7_3.kernel, Machine())
    text = "machine cpus=1\nt0 create_io_thread\ncpu0 preempt(t2, 1)\nt0 signal ...\n"
    for _ in executor.run(parse("# xfdfuzz program 1\n" + text).ops):
        pass
    worker = executor.kernel.tasks[2]
    assert worker.pf_user_worker, "t2 is the worker"
    assert worker.fpu.last_cpu == -1, "its registers were loaded"


# -- kernel code that uses the FPU -------------------------------------------------------------------------------------


def test_a_cpu_can_use_the_fpu_once_it_is_online() -> None:
    """kernel_fpu_allowed is set by fpu__init_cpu() (fpu/init.c), and one CPU at a time comes online (kernel/cpu.c)."""
    assert results("""machine cpus=3
cpu1 hotplug ...
cpu1 kthread kernel_fpu_begin
cpu2 hotplug
cpu1 schedule(t1)
cpu1 ... hotplug
cpu1 kthread kernel_fpu_begin
""") == ("ok", "unusable", "not-enabled", "not-enabled", "ok", "ok")


SECTION = """machine cpus=1 debug-fpu
t0 vmovups(1)
t0 kernel_fpu_begin ...
cpu0 schedule(t1)
cpu0 hardirq kernel_fpu_begin
cpu0 softirq kernel_fpu_begin
t0 ... kernel_fpu_end
t0 xsave(avx)
"""


def test_nobody_else_uses_the_fpu_in_a_section_of_kernel_code() -> None:
    """Softirqs are told so, or since 6.15 wait; the task finds its registers again (fpu/core.c)."""
    ends = ("ok [kernel:5]", "ok {xstate_bv: avx, avx: t0:1}")
    assert results(SECTION) == ("ok", "ok", "not-enabled", "unusable", "pending", *ends)
    before = judge(parse("# xfdfuzz program 1\n" + SECTION), resolve("v6.12"))
    assert before.results == ("ok", "ok", "not-enabled", "unusable", "unusable", *ends)
    assert not before.broken


def test_a_softirq_that_waits_runs_where_the_section_ends() -> None:
    """local_bh_enable() runs it, so the kernel's contents in the registers are its own (kernel/softirq.c)."""
    executor = Executor(V7_3.kernel, Machine())
    text = "machine cpus=1\nt0 kernel_fpu_begin ...\ncpu0 softirq kernel_fpu_begin\nt0 ... kernel_fpu_end\n"
    *_, last = executor.run(parse("# xfdfuzz program 1\n" + text).ops)
    assert last.before.cpus[0].softirq_pending
    assert not last.after.cpus[0].softirq_pending
    assert [event.kind for event in last.events] == [IRQ_FPU]


def test_with_preempt_rt_a_softirq_waits_for_the_cpu() -> None:
    *_, softirq = results("machine cpus=1 rt\nt0 kernel_fpu_begin ...\ncpu0 softirq kernel_fpu_begin\n")
    assert softirq == "not-enabled"


def test_a_thread_in_a_section_is_not_killed_by_execve() -> None:
    """Preemption is disabled there, so execve() waits for it to die (de_thread(), fs/exec.c)."""
    assert results("""machine cpus=2
t0 clone(CLONE_THREAD)
t0 kernel_fpu_begin ...
cpu1 schedule(t2)
t2 execve ...
t0 ... kernel_fpu_end
t2 execve ...
""") == ("t2", "ok", "ok", "not-enabled", "ok [kernel:5]", "ok")


@pytest.mark.parametrize(
    ("ops", "site"),
    [
        ("t0 kernel_simd", "KernelSimd"),
        ("t0 kernel_simd ...\nt0 ... kernel_simd", "KernelSimdBegins"),
        ("t0 kernel_fpu_begin unasked ...\nt0 kernel_fpu_begin unasked ...", "nested"),
        ("t0 kernel_fpu_begin ...\ncpu0 hardirq kernel_fpu_begin unasked", "nested"),
        ("t0 kernel_fpu_begin ...\nt0 ... schedule(t1)", "KernelFpuSleeps"),
        ("t0 kernel_fpu_begin ...\nt0 ... return without kernel_fpu_end", "KernelFpuNotEnded"),
        ("t0 kernel_fpu_begin unasked ...\nt0 ... kernel_fpu_end\nt0 kernel_fpu_begin unasked ...", ""),
        ("cpu0 hardirq kernel_fpu_begin unasked", ""),
        ("t0 kernel_fpu_begin ...\ncpu0 softirq kernel_fpu_begin unasked", ""),  # which waits
        ("t0 kernel_fpu_begin ...\nt0 ... kernel_simd", ""),
    ],
)
def test_whose_fault_it_is_is_said_of_kernel_code(ops: str, site: str) -> None:
    """What asm/fpu/api.h asks of it, and nothing that it may do."""
    verdict = judge(parse(f"# xfdfuzz program 1\nmachine cpus=1\n{ops}\n"), V7_3)
    found = [one.site for one in verdict.violations if one.invariant == "kernel-fpu-is-used-by-its-rules"]
    assert found == [site] * bool(site)
    assert "not-enabled" not in verdict.results


def test_a_section_that_slept_leaves_the_count_of_preemption_below_zero() -> None:
    """__schedule_bug() sets it to what it should be, and preempt_enable() comes once too often (kernel/sched/core.c);
    so the task is not preemptible in user mode, until the next context switch."""
    text = "t0 kernel_fpu_begin ...\nt0 ... schedule(t1)\ncpu0 schedule(t0)\nt0 ... kernel_fpu_end\n"
    text += "t0 user\ncpu0 schedule(t1)\n"
    for revision, count in ((resolve("v6.12"), -1), (V7_3, -SOFTIRQ_DISABLE_OFFSET)):
        executor = Executor(revision.kernel, Machine())
        *_, user, switch = executor.run(parse(f"# xfdfuzz program 1\nmachine cpus=1\n{text}").ops)
        assert user.before.cpus[0].preempt_count == switch.before.cpus[0].preempt_count == count & 0xFFFFFFFF
        assert switch.after.cpus[0].preempt_count == 0
        assert [event.kind for event in switch.events] == [ATOMIC_SLEEP]


@pytest.mark.parametrize(
    "begun",
    [
        "cpu1 schedule(t2)\nt2 kernel_fpu_begin ...\nt2 ... copy_from_user",
        "cpu1 schedule(t2)\nt2 kernel_fpu_begin ...\nt0 exit",
        "t0 ioctl(v0, KVM_RUN) ...\nt0 kernel_fpu_begin ...\nv0 vmenter",
        "t0 ioctl(v0, KVM_RUN) ...\nt0 kernel_fpu_begin ...\nt0 ... KVM_RUN",
        "t0 ioctl(v0, KVM_RUN) ...\nv0 vmenter\nt0 kernel_fpu_begin ...",
        "t0 kernel_fpu_begin ...\nt0 ... schedule(t1)\nt0 ... kernel_fpu_end",
        "t0 kernel_fpu_begin ...\nt0 kernel_fpu_begin ...",
        "t0 ... kernel_simd",
        "t0 kernel_simd ...\nt0 ... kernel_fpu_end",
        "t0 kernel_simd ...\nt0 ... kernel_simd\nt0 ... kernel_simd",
        "t0 kernel_simd ...\nt0 user",
        "cpu1 schedule(t2)\nt2 kernel_simd ...\nt0 exit",
        "t0 ioctl(v0, KVM_RUN) ...\nt0 kernel_simd ...\nv0 vmenter",
        "t0 ioctl(v0, KVM_RUN) ...\nt0 kernel_simd ...\nt0 ... KVM_RUN",
    ],
)
def test_what_cannot_happen_beside_a_section(begun: str) -> None:
    made = "t0 ioctl(kvm, KVM_CREATE_VM)\nt0 ioctl(vm0, KVM_CREATE_VCPU, 0)\nt0 create_io_thread\n"
    *before, last = results(f"machine cpus=2\n{made}{begun}\n")
    assert last == "not-enabled"
    assert "not-enabled" not in before


@pytest.mark.parametrize(
    ("meanwhile", "found"),
    [
        ("cpu0 hardirq kernel_fpu_begin", "kernel:4"),
        ("cpu0 softirq kernel_fpu_begin", "kernel:4"),
        ("cpu0 schedule(t1)\nt1 movups(3)\ncpu0 schedule(t0)", "t1:3"),
        ("cpu0 schedule(kthread)\ncpu0 schedule(t0)", "kernel:5"),
    ],
)
def test_who_computes_without_kernel_fpu_begin_loses_what_it_computes(meanwhile: str, found: str) -> None:
    """Neither in_kernel_fpu nor disabled preemption keeps anybody from the registers (irq_fpu_usable())."""
    verdict = judge(
        parse(f"# xfdfuzz program 1\nmachine cpus=1\nt0 kernel_simd ...\n{meanwhile}\nt0 ... kernel_simd\n"), V7_3
    )
    assert verdict.results[-1] == f"ok [{found}]"
    assert ("kernel-fpu-section-is-undisturbed" in verdict.broken) == (found != "kernel:5")


@pytest.mark.parametrize(
    ("revision", "between", "inside"),
    [("v5.17", "ok", "unusable"), ("v5.18", *["unusable"] * 2), ("v7.3", *["unusable"] * 2)],
)
def test_a_nmi_is_warned_before_anything_else_is_asked(revision: str, between: str, inside: str) -> None:
    """WARN_ON_ONCE(in_nmi()) stands in front of what says that the FPU is in use (irq_fpu_usable(), 6.1 and 6.12)."""
    text = "machine cpus=1\ncpu0 nmi kernel_fpu_begin\nt0 kernel_fpu_begin ...\ncpu0 nmi kernel_fpu_begin\n"
    verdict = judge(parse(f"# xfdfuzz program 1\n{text}"), resolve(revision))
    assert (verdict.results[0], verdict.results[2]) == (between, inside)
    assert [v.step for v in verdict.violations if v.invariant == "no-warning"] == ([] if between == "ok" else [1, 3])


def test_a_preemption_comes_where_the_section_ends() -> None:
    told = said("machine cpus=1\nt0 kernel_fpu_begin ...\ncpu0 preempt(t1, 1)\nt0 ... kernel_fpu_end\n")
    assert told[3][0] == "t1 runs at point 1 of step 2, in kernel_fpu_end()"


# -- what is said of it ------------------------------------------------------------------------------------------------

INTERRUPTED = """machine cpus=1
cpu0 preempt(t1, 2)
t0 fork
cpu0 hardirq(kernel_fpu_begin, 1)
t0 fork
cpu0 preempt(t1, 200)
t0 fork
cpu0 schedule(t1)
cpu0 hardirq(kernel_fpu_begin, 200)
"""


def said(text: str, revision: Revision = V7_3) -> dict[int, list[str]]:
    trace = judge(parse("# xfdfuzz program 1\n" + text), revision).trace
    return {step: [one.text for one in ones] for step, ones in windows.said(trace).items()}


def test_an_op_that_was_hit_says_where_and_what_hit_nothing_says_so() -> None:
    """fpu_clone() saves the registers under fpregs_lock(), and the lock is let go there (fpu/core.c)."""
    told = said(INTERRUPTED)
    assert [*told] == [2, 4, 5, 8]
    assert told[2][0].startswith("t1 runs at point 2 of step 1, in fpu_clone()")
    assert "hard interrupt at point 1 of step 3, in os_xsave() <- save_fpregs_to_fpstate <- fpu_clone" in told[4][0]
    assert told[4][0].endswith("irq_fpu_usable() is false")
    assert re.fullmatch("did not hit: \\d points? passed until step 7 switched tasks, which calls it off", told[5][0])
    assert told[8] == ["did not hit: 0 points passed"]


def test_a_second_request_takes_the_place_of_the_first() -> None:
    told = said("machine cpus=1\ncpu0 preempt(t1, 5)\ncpu0 preempt(t1, 1)\nt0 fork\n")
    assert told[1] == ["did not hit: 0 points passed until step 2 took its place"]
    assert told[3][0].startswith("t1 runs at point 1 of step 2")


def test_a_task_that_cannot_run_by_then_is_no_hit() -> None:
    told = said("machine cpus=2\ncpu0 preempt(t1, 2)\ncpu1 schedule(t1)\nt0 fork\n")
    assert told[1][0].startswith("did not hit: t1 could not run at point 2 of step 1, in fpu_clone()")


def test_a_call_can_be_preempted_before_it_locks_anything() -> None:
    told = said("machine cpus=1\ncpu0 preempt(t1, 1)\nt0 fork\n")
    assert told[2] == ["t1 runs at point 1 of step 1, in syscall_enter_from_user_mode()"]


def test_an_interrupt_before_5_18_is_told_that_it_can() -> None:
    told = said("machine cpus=1\ncpu0 hardirq(kernel_fpu_begin, 1)\nt0 signal ...\n", resolve("v5.16"))
    assert told[2][0].endswith("irq_fpu_usable() is true")


def test_what_hit_nothing_is_in_the_verdict() -> None:
    verdict = judge(parse("# xfdfuzz program 1\n" + INTERRUPTED), V7_3)
    assert conclusion(verdict) == "clean; what ops 5, 8 asked for did not hit"


def test_a_point_is_a_number_from_1() -> None:
    with pytest.raises(ProgramError, match="a number from 1 to 255"):
        parse("# xfdfuzz program 1\nmachine cpus=1\ncpu0 preempt(t1, 0)\n")


#: The worker has a lower number than its VMM.
WORKER = """# xfdfuzz program 1
machine cpus=1
t0 clone(CLONE_THREAD)
cpu0 schedule(t2)
t2 execve ...
t2 ... execve
t2 create_io_thread
t2 ioctl(kvm, KVM_CREATE_VM)
t2 ioctl(vm0, KVM_CREATE_VCPU, 0)
t2 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|avx512|pkru})
"""


def test_a_worker_does_not_stand_for_its_vmm() -> None:
    """Who enters a guest to see what it finds has to be a task that makes system calls."""
    assert not broken(WORKER, resolve("v7.3-cured"))


def test_where_memory_was_missing_is_told_and_what_asked_in_vain() -> None:
    text = """machine cpus=1
host fail_alloc(1)
t0 movups(1)
host fail_alloc(2)
t0 fork
t0 fork
host fail_alloc(1)
host fail_alloc(0)
"""
    told = said(text)
    assert told == {
        1: ["did not hit: no memory for registers was allocated until step 3 took its place"],
        4: ["no memory, in dup_task_struct()"],
        5: ["no memory, in dup_task_struct()"],
        6: ["did not hit: no memory for registers was allocated until step 7 took its place"],
    }
    verdict = judge(parse("# xfdfuzz program 1\n" + text), V7_3)
    assert conclusion(verdict).startswith("clean; ")
    assert windows.missed(verdict.trace) == [1, 6]


def test_a_core_file_lacks_the_note_that_there_was_no_memory_for() -> None:
    """fill_thread_core_info() goes on with the next register set: NT_PRFPREG comes before NT_X86_XSTATE."""
    for count, note, result in ((1, "NT_PRFPREG", "none"), (1, "NT_X86_XSTATE", "ok"), (2, "NT_X86_XSTATE", "none")):
        text = f"machine cpus=1\nhost fail_alloc({count})\nt0 coredump(t0, {note}) = {result}\n"
        verdict = judge(parse("# xfdfuzz program 1\n" + text), V7_3)
        assert not verdict.failures
        assert not verdict.broken
        assert said(text)[2] == ["no memory, in regset_get_alloc()"] * count


class GoesOnWithoutMemory(V7_3.kernel):  # type: ignore[name-defined,misc]
    """A kernel whose regset.c does not look at what vmalloc() gives."""

    def xstateregs_set(self, nr: int, image: XsaveArea, count: int) -> int:
        """(fpu/regset.c)."""
        ret: int = super().xstateregs_set(nr, image, count)
        return 0 if ret == -ENOMEM else ret


def test_a_call_without_memory_must_not_succeed() -> None:
    text = (CORPUS / "conformance/32-ptrace-without-memory.xfd").read_text(encoding="utf-8")
    assert not broken(text, V7_3)
    assert "ptrace-write-is-taken" in broken(text, replace(V7_3, kernel=GoesOnWithoutMemory))
