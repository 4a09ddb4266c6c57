"""Atomic context: nothing that can sleep runs in it."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.invariants.vocabulary import Broken, View, invariant
from xfdfuzz.kernel.event import ATOMIC_SLEEP


@invariant("nothing-sleeps-in-atomic-context", "warn", ("LOCK",), events=(ATOMIC_SLEEP,))
def nothing_sleeps_in_atomic_context(view: View) -> Iterator[Broken]:
    """Where preemption or bottom halves are disabled, or a spinlock is held, nothing may sleep: no allocation, no use
    of user memory, no sleeping lock, which with PREEMPT_RT a spinlock_t is (Documentation/locking/locktypes.rst).  The
    kernel says "BUG: sleeping function called from invalid context"; if it really sleeps, "BUG: scheduling while
    atomic", and another task runs in the middle of what was to be undisturbed."""
    for event in view.events(ATOMIC_SLEEP):
        sleeps, *callers = event.trace
        count, nested = event.detail
        why = f"rcu_read_lock() held {nested} deep" if nested and not count else f"preempt_count {count:#x}"
        where = f" in {' <- '.join(callers)}" if callers else ""
        yield Broken(f"{sleeps} may sleep with {why}{where}", callers[0] if callers else sleeps)


@invariant("user-mode-is-preemptible", "warn", ("LOCK", "KFPU"), state=True)
def user_mode_is_preemptible(view: View) -> Iterator[Broken]:
    """A task leaves the kernel with nothing disabled.  If it does not, all that may sleep in its later calls is
    reported in the place of what forgot to enable it, softirqs wait, and kernel_fpu_begin() without its end keeps
    everybody from the FPU of this CPU (Documentation/locking/preempt-locking.rst)."""
    for nr, cpu in enumerate(view.k.cpus):
        if cpu.preempt_count and view.k.tasks[cpu.current].user_mode:
            yield Broken(f"t{cpu.current} is in user mode with preempt_count {cpu.preempt_count:#x}", key=nr)
