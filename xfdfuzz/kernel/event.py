"""What a kernel reports while it runs: what a kernel log, KASAN or a hardware probe would show of one step."""

from __future__ import annotations

from typing import NamedTuple

#: A WARN_ON*() fired.
WARN = "warn"
#: An XRSTOR of the host faulted: #NM is fatal, #GP is fixed up with init state.
XRSTOR_FAULT = "xrstor-fault"
#: Another instruction of the host kernel faulted, an exception that it has no handler for, or a BUG_ON(); it is dead.
OOPS = "oops"
#: XSAVES ran over state that is in use and that the buffer has no room for; detail: the lost components.
LOST_STATE = "lost-state"
#: Bytes beyond a buffer were read or written; detail: (bytes touched, bytes there).
OVERRUN = "overrun"
#: An ioctl copied an XSAVE image from or to its caller; detail: (bytes).
USER_COPY = "user-copy"
#: A freed fpstate was used; detail: its index.  Without one: a freed CPUID array.
USE_AFTER_FREE = "use-after-free"
#: A NULL pointer was dereferenced.
NULL_DEREF = "null-deref"
#: Something that may sleep ran in atomic context; detail: (preempt_count, depth of rcu_read_lock()).
ATOMIC_SLEEP = "atomic-sleep"
#: An allocation that a caller still owned was dropped; detail: its index.
LEAK = "leak"
#: A softirq or interrupt handler used the FPU; detail: (CPU, MSR XFD, per-CPU shadow, fpstate->xfd or -1, whether
#: the kernel used it already).
IRQ_FPU = "irq-fpu"
#: Kernel code computes with another MXCSR than the default; detail: what it holds.
KERNEL_MXCSR = "kernel-mxcsr"
#: What a program asked to happen inside a call has: a preemption; detail: (CPU, task, whether the task ran).
PREEMPTED = "preempted"
#: Or a hard interrupt; detail: (CPU, whether it used the FPU).
HARDIRQ = "hardirq"
#: Or a preemption will not any more; detail: (CPU, points that were left).
CALLED_OFF = "called-off"
#: An allocation found no memory, as a program asked for.
ALLOC_FAILED = "alloc-failed"
#: Reports that only say that something happened which is no defect in itself.
HARMLESS = frozenset({IRQ_FPU, USER_COPY, PREEMPTED, HARDIRQ, CALLED_OFF, ALLOC_FAILED})


class Event(NamedTuple):
    """One report: its kind, the kernel function that it happened in, the call trace (innermost first) and details."""

    kind: str
    site: str
    trace: tuple[str, ...]
    detail: tuple[int, ...] = ()


class HostDied(Exception):
    """The modelled kernel died: nothing runs any more.  The reason stands in the last event."""
