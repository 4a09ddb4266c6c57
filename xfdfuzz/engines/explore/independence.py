"""Ops that cannot interact: of their two orders one is enough (sleep sets).

Two ops are independent when each belongs to one CPU only and the CPUs differ: guest instructions and exits, VM entry, a
softirq and a look at an MSR read and write nothing but their CPU, the task or vCPU on it and its fpstate, and none of
them schedules, allocates or fails.

While a state ``s`` is expanded, the ops are tried in the scope's order; a successor by ``a`` lets every independent op
``t`` sleep that was tried before ``a`` or slept in ``s``.  A sleeping op is not tried.  A state that is reached several
times in one level keeps asleep only what all of them let sleep.

Why every state is still found, and as early: take for a state the shortest path that is first in the order of the ops.
Were its op ``t`` asleep in the state before, then some ``a`` earlier on the path and all ops since would be independent
of ``t`` and ``t`` before ``a`` in the order, so moving ``t`` before ``a`` gave a path of the same length to the same
state (or one with other names), earlier in the order: a contradiction.  Renaming a state would rename what sleeps, so
such a state lets nothing sleep; fewer sleeping ops are always sound.

What an independent op does and breaks is the same in both orders, as far as the invariants look at its own CPU; that
the two orders agree in results, violations and state is what tests/test_explore.py tries on every pair it reaches.
"""

from __future__ import annotations

from collections.abc import Sequence

from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.ops.base import GuestOp, Op
from xfdfuzz.program.ops.host import HostRdmsr, SoftirqKernelFpu
from xfdfuzz.program.ops.run import VmEnter

NOWHERE = -1


def cpu_of(op: Op, k: Kernel) -> int:
    """The one CPU that an enabled op belongs to, :data:`NOWHERE` if it may reach further."""
    if isinstance(op, GuestOp | VmEnter):
        return k.tasks[k.vcpus[op.vcpu].task - 1].on_cpu - 1
    if isinstance(op, SoftirqKernelFpu | HostRdmsr):
        return op.cpu
    return NOWHERE


def asleep_after(chosen: int, tried: Sequence[tuple[int, int]]) -> int:
    """What sleeps in the state after an op of CPU ``chosen``, as a bitmap of ops.

    ``tried``: those with a CPU of their own, by number, that were tried before it or sleep with it.
    """
    if chosen == NOWHERE or not tried:
        return 0
    return sum(1 << number for number, cpu in tried if cpu != chosen)
