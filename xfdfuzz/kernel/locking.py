"""Atomic context: what disables preemption, and what must not run then.

include/linux/preempt.h, kernel/locking/spinlock_rt.c, kernel/sched/core.c and arch/x86/include/asm/fpu/api.h of 6.1 and
6.12 (v5.16 and 7.3 INFERRED).  The kernel checks with CONFIG_DEBUG_ATOMIC_SLEEP.  Nobody waits for a lock here, so no
lock has a state of its own.  Whether interrupts are off is not modelled: where only they are, nothing is noticed.
"""

from __future__ import annotations

from xfdfuzz.kernel.base import KernelBase, phase_of, seam
from xfdfuzz.kernel.event import ATOMIC_SLEEP
from xfdfuzz.kernel.machine import Machine

#: What preempt_disable() adds to preempt_count, and spin_lock() without PREEMPT_RT.
PREEMPT_OFFSET = 1
#: The part of it that counts that.
PREEMPT_MASK = 0xFF
#: What local_bh_disable() adds to it, without PREEMPT_RT.
SOFTIRQ_DISABLE_OFFSET = 0x200
#: What it adds to it to run a softirq.
SOFTIRQ_OFFSET = 0x100
#: The part of it that counts disabled bottom halves.
SOFTIRQ_MASK = 0xFF00
#: What a hard interrupt adds to it.
HARDIRQ_OFFSET = 0x10000
#: What a NMI adds to it beside that, and the part of it that counts them.
NMI_OFFSET, NMI_MASK = 0x100000, 0xF00000


class Locking(KernelBase):
    """preempt_count of each CPU, and the lock that the modelled functions take."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._fpregs_lock_offset = PREEMPT_OFFSET if self.config.rt else SOFTIRQ_DISABLE_OFFSET

    def preempt_disable(self) -> None:
        """No context switch on this CPU from here on (include/linux/preempt.h)."""
        self.this_cpu.preempt_count += PREEMPT_OFFSET

    def preempt_enable(self) -> None:
        """Undo preempt_disable() (include/linux/preempt.h)."""
        self.this_cpu.preempt_count -= PREEMPT_OFFSET
        self.preemptible()

    def fpregs_lock(self) -> None:
        """The registers stay as they are: local_bh_disable(), or with PREEMPT_RT, where that leaves a task preemptible,
        preempt_disable() (asm/fpu/api.h)."""
        self.this_cpu.preempt_count += self._fpregs_lock_offset

    def fpregs_unlock(self) -> None:
        """Undo fpregs_lock(): local_bh_enable() runs what is pending, before anything else (asm/fpu/api.h)."""
        self.this_cpu.preempt_count -= self._fpregs_lock_offset
        if self.this_cpu.softirq_pending and not self.in_interrupt():
            self.do_softirq()
        self.preemptible()

    def do_softirq(self) -> str:
        """fpu/core.py."""
        raise NotImplementedError

    @seam
    def preemptible(self) -> None:
        """A point at which the task in the kernel may be preempted: nothing is locked any more, or it may sleep.

        With CONFIG_PREEMPT it may be anywhere between, where no function does anything that the FPU core's state
        depends on.
        """
        cpu = self.this_cpu
        if cpu.resched_points and not cpu.preempt_count and not self.current.user_mode:
            cpu.resched_points -= 1
            if not cpu.resched_points:
                self.preempt_schedule(cpu.resched_task - 1)

    def preempt_schedule(self, nr: int) -> None:
        """process.py."""
        raise NotImplementedError

    @phase_of("rt_spin_lock")
    def spin_lock_irq(self) -> None:
        """spin_lock_irq(&current->sighand->siglock), with PREEMPT_RT a sleeping lock (kernel/locking/spinlock_rt.c).

        The latter leaves preemption alone, but takes rcu_read_lock(), under which only such locks may be taken.
        """
        if not self.config.rt:
            self.preempt_disable()
            return
        self.rtlock_might_resched()
        self.current.rcu_read_lock_nesting += 1

    def spin_unlock_irq(self) -> None:
        """Undo spin_lock_irq() (include/linux/spinlock_rt.h)."""
        if self.config.rt:
            self.current.rcu_read_lock_nesting -= 1
        else:
            self.preempt_enable()

    @seam
    def local_irq_disable(self) -> None:
        """(include/linux/irqflags.h)."""
        self.this_cpu.irqs_off = 1

    @seam
    def local_irq_enable(self) -> None:
        """(include/linux/irqflags.h)."""
        self.this_cpu.irqs_off = 0

    @seam
    def irqs_disabled(self) -> bool:
        """Whether interrupts are off where somebody asks: also in their handlers, and while a CPU is brought up
        (include/linux/irqflags.h)."""
        return self.in_hardirq() or bool(self.this_cpu.irqs_off) or not self.this_cpu.cr4_osfxsr

    def in_interrupt(self) -> bool:
        """Bottom halves are disabled; in the model interrupts neither sleep nor allocate (include/linux/preempt.h)."""
        return bool(self.this_cpu.preempt_count & SOFTIRQ_MASK)

    def in_hardirq(self) -> bool:
        """(include/linux/preempt.h)."""
        return self.this_cpu.preempt_count >= HARDIRQ_OFFSET

    def in_nmi(self) -> bool:
        """(include/linux/preempt.h)."""
        return bool(self.this_cpu.preempt_count & NMI_MASK)

    @seam
    def might_sleep(self) -> None:
        """__might_resched(): "BUG: sleeping function called from invalid context", and on it goes."""
        nested = self.current.rcu_read_lock_nesting
        if self.this_cpu.preempt_count or nested:
            self.report(ATOMIC_SLEEP, self.this_cpu.preempt_count, nested)
        self.preemptible()

    @seam
    def might_fault(self) -> None:
        """User memory is touched, and a page fault may sleep; where page faults are disabled nobody calls this."""
        self.might_sleep()

    @seam
    def rtlock_might_resched(self) -> None:
        """The same for a lock that is a sleeping one with PREEMPT_RT only: rcu_read_lock() does not matter."""
        if self.this_cpu.preempt_count:
            self.report(ATOMIC_SLEEP, self.this_cpu.preempt_count, self.current.rcu_read_lock_nesting)
