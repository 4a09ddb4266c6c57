"""Atomic context: what raises preempt_count, what may not run then, and that every op leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import filterfalse
from pathlib import Path

import pytest

from xfdfuzz.kernel.event import ATOMIC_SLEEP, OOPS, HostDied
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.locking import PREEMPT_OFFSET, SOFTIRQ_DISABLE_OFFSET
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import System
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.tasks import KernelFpuNotEnded, KernelFpuSleeps
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import PANIC
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import names, resolve

CORPUS = Path(__file__).parent.parent / "corpus"
PROGRAMS = {path.name: path.read_text() for path in sorted(CORPUS.glob("*/*.xfd"))}


def booted(rt: bool) -> Kernel:
    return Executor(resolve("v7.3").kernel, Machine(rt=rt)).kernel


def sleeps(k: Kernel) -> list[tuple[int, ...]]:
    """The details of the reports since the last look."""
    found = [event.detail for event in k.events if event.kind == ATOMIC_SLEEP]
    k.events.clear()
    return found


# -- what the kernel's own check says ----------------------------------------------------------------------------------


def test_memory_comes_and_goes_without_a_report() -> None:
    k = booted(rt=False)
    k.vfree(k.vzalloc(4096))
    assert not k.events


@pytest.mark.parametrize("rt", [False, True])
def test_memory_may_not_come_or_go_with_preemption_disabled(rt: bool) -> None:
    k = booted(rt)
    k.preempt_disable()
    nr = k.vzalloc(4096)
    k.vfree(nr)
    assert sleeps(k) == [(PREEMPT_OFFSET, 0)] * 2
    k.preempt_enable()
    k.vfree(k.vzalloc(4096))
    assert not k.events


def test_with_preempt_rt_the_registers_are_locked_by_disabling_preemption() -> None:
    k = booted(rt=True)
    k.fpregs_lock()
    k.vzalloc(4096)
    assert sleeps(k) == [(PREEMPT_OFFSET, 0)]
    k.spin_lock_irq()
    assert sleeps(k) == [(PREEMPT_OFFSET, 0)]


def test_else_by_disabling_bottom_halves_where_vmalloc_has_a_bug_on_and_vfree_waits() -> None:
    k = booted(rt=False)
    nr = k.vzalloc(4096)
    k.fpregs_lock()
    assert k.this_cpu.preempt_count == SOFTIRQ_DISABLE_OFFSET
    k.spin_lock_irq()
    k.spin_unlock_irq()
    k.vfree(nr)
    assert not k.events
    with pytest.raises(HostDied):
        k.vzalloc(4096)
    assert [event.kind for event in k.events] == [OOPS]


@pytest.mark.parametrize(("rt", "detail"), [(False, (PREEMPT_OFFSET, 0)), (True, (0, 1))])
def test_memory_may_not_come_under_siglock(rt: bool, detail: tuple[int, int]) -> None:
    """With PREEMPT_RT the lock leaves preemption alone, but takes rcu_read_lock(); another such lock is fine there."""
    k = booted(rt)
    k.spin_lock_irq()
    k.spin_lock_irq()
    k.spin_unlock_irq()
    assert not k.events
    k.vzalloc(4096)
    assert sleeps(k) == [detail]
    k.spin_unlock_irq()
    k.vzalloc(4096)
    assert not k.events


@pytest.mark.parametrize("rt", [False, True])
def test_user_memory_may_not_be_touched_while_the_registers_are_locked(rt: bool) -> None:
    """But for the copies of a signal frame's registers, which run with page faults disabled."""
    k = booted(rt)
    k.fpregs_lock()
    k.put_user(1, 1)
    assert sleeps(k) == [(PREEMPT_OFFSET if rt else SOFTIRQ_DISABLE_OFFSET, 0)]
    k.fpregs_unlock()
    k.put_user(1, 1)
    assert k.setup_rt_frame(True)
    assert k.rt_sigreturn()
    assert not k.events


def test_the_trace_is_the_kernels() -> None:
    k = resolve("v7.3", revert=["36b038791e1e"]).kernel
    (step,) = Executor(k, Machine(rt=True)).run(parse("# xfdfuzz program 1\nmachine cpus=1 rt\n\nt0 fork\n").ops)
    (event,) = step.events
    assert event.trace == ("rt_spin_lock", "fpu_inherit_perms", "fpu_clone", "clone")


# -- every section ends ------------------------------------------------------------------------------------------------


@cache
def program(name: str, rt: bool) -> Program:
    written = parse(PROGRAMS[name], name)
    return replace(written, machine=replace(written.machine, rt=rt))


def leaves_one_open(name: str) -> bool:
    """Whether kernel code forgets to end a section, or sleeps in it, in a program."""
    return any(isinstance(op, KernelFpuNotEnded | KernelFpuSleeps) for op in program(name, False).ops)


def open_sections(system: System) -> Iterator[str]:
    for nr, cpu in enumerate(system.cpus):
        if system.tasks[cpu.current].kernel_fpu:
            continue  # which begins one, and an op of its own ends it
        # KVM enters the guest with preemption disabled
        if cpu.preempt_count != (PREEMPT_OFFSET if cpu.guest else 0):
            yield f"cpu{nr}: preempt_count {cpu.preempt_count:#x}"
    for nr, task in enumerate(system.tasks):
        if task.rcu_read_lock_nesting:
            yield f"t{nr}: rcu_read_lock_nesting {task.rcu_read_lock_nesting}"


@pytest.mark.parametrize("rt", [False, True])
@pytest.mark.parametrize("revision", names())
def test_every_op_ends_every_section_that_it_began(revision: str, rt: bool) -> None:
    """Also where the host dies in the middle of one."""
    resolved = resolve(revision)
    for name in filterfalse(leaves_one_open, PROGRAMS):
        for step in Executor(resolved.kernel, program(name, rt).machine).run(program(name, rt).ops):
            assert not [*open_sections(step.after)], f"{name}: {step.op}"


def test_a_dead_host_has_no_open_section() -> None:
    """Or two ways to the same end would be two states."""
    dies = program("cve-2026-23005-set-xsave.xfd", False)
    dead = next(step for step in Executor(resolve("v6.18").kernel, dies.machine).run(dies.ops) if step.after.dead)
    assert dead.result.ret == PANIC
    assert any("fpu_swap_kvm_fpstate" in event.trace for event in dead.events)
    assert not [*open_sections(dead.after)]
