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
        why = f"preempt_count {count:#x}" if count else f"rcu_read_lock() held {nested} deep"
        yield Broken(f"{sleeps} may sleep with {why} in {' <- '.join(callers)}", callers[0] if callers else sleeps)
