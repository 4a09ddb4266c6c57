"""vmalloc, which may sleep (mm/vmalloc.c of 6.1 and 6.12, which do the same here; v5.16 INFERRED), and memory that is
not there."""

from __future__ import annotations

from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.event import ALLOC_FAILED, OOPS, USE_AFTER_FREE
from xfdfuzz.kernel.locking import Locking
from xfdfuzz.kernel.state import FIRST_VALLOC, NR_FPSTATES, NULL, Fpstate
from xfdfuzz.memory.cstruct import assign


class Vmalloc(Locking):
    """The pool of fpstates that are allocated."""

    def should_fail(self) -> bool:
        """Whether this allocation is to fail (lib/fault-inject.c).

        The modelled allocations are those of register contents: fpstates, tasks, and the buffers that a call copies
        them through.
        """
        if not self.system.alloc_failures:
            return False
        self.system.alloc_failures -= 1
        self.report(ALLOC_FAILED)
        return True

    def vzalloc(self, size: int) -> int:
        """Allocate a zeroed fpstate with ``size`` bytes for its regs; NULL when the op asked for a failure.

        Not with bottom halves disabled: BUG_ON(in_interrupt()) in __get_vm_area_node().  It may sleep (GFP_KERNEL).
        """
        if self.in_interrupt():
            self.die(OOPS)
        self.might_sleep()
        if self.should_fail():
            return NULL
        nr = self._free_slot()
        if nr == NULL:
            return NULL
        fpstate = self.fpstates[nr]
        assign(fpstate, Fpstate())
        fpstate.allocated = 1
        fpstate.alloc_size = size
        return nr

    def _free_slot(self) -> int:
        """A slot that is free; one that was leaked if there is no other, as memory does not run out of those."""
        pointed_to, leaked = self.fpstate_pointers(), NULL
        for nr in range(FIRST_VALLOC, NR_FPSTATES):
            if nr not in pointed_to:
                if not self.fpstates[nr].allocated:
                    return nr
                leaked = leaked or nr
        return leaked

    @seam
    def fpstate_pointers(self) -> set[int]:
        """Every fpstate that something points to."""
        fpus = [task.fpu for task in self.tasks if task.exists]
        found = {NULL, *[vcpu.arch.guest_fpu.fpstate for vcpu in self.vcpus if vcpu.exists]}
        found.update([fpu.fpstate for fpu in fpus])
        found.update([fpu.task_fpstate for fpu in fpus])
        return found

    def vfree(self, nr: int) -> None:
        """Free an fpstate; the slot is not used again while anything points to it.

        May sleep, but where in_interrupt() puts it off.
        """
        if not self.in_interrupt():
            self.might_sleep()
        fpstate = self.fpstates[nr]
        if nr < FIRST_VALLOC or not fpstate.allocated:
            self.report(USE_AFTER_FREE, nr)
            return
        fpstate.allocated = 0
        fpstate.freed = 1
