"""What every kernel function stands on: the system it is bound to, `current`, this CPU, WARN and MSRs.

A kernel object is the behaviour of one revision *bound* to one system: it holds views into the system's memory and the
number of the CPU that executes, and no state of its own.  So a method reads as the C function does
(``self.current.fpu``, ``self.this_cpu.xfd_state``), and loading another system is one memory copy.

Names: as in the kernel, but for a leading double underscore, which Python mangles: ``__kvm_set_xcr()`` is
``_kvm_set_xcr()``.  Nobody waits for a lock: an op runs atomically, and ops are split where the kernel can be
interrupted (docs/fidelity.md).  What a lock forbids meanwhile is in ``locking.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from xfdfuzz.arch import registers as arch
from xfdfuzz.kernel.event import LEAK, NULL_DEREF, USE_AFTER_FREE, WARN, Event, HostDied
from xfdfuzz.kernel.machine import Config, Machine
from xfdfuzz.kernel.state import NULL, Fpstate, SigFrame, System
from xfdfuzz.memory.cstruct import resident

#: Methods that the kernel does not have: a phase of one of its functions, split off so that patches can replace it.
SEAMS: set[str] = set()

_M = TypeVar("_M", bound=Callable[..., object])


def seam(method: _M) -> _M:
    """Mark a method that is no function of the kernel's; call traces leave it out."""
    SEAMS.add(method.__name__)
    return method


#: Methods that bear another name than the kernel function they are, or are a part of: what call traces call them.
PHASES: dict[str, str] = {}


def phase_of(function: str) -> Callable[[_M], _M]:
    """Mark a method that is the kernel function ``function``, or a part of it, under another name here."""

    def mark(method: _M) -> _M:
        PHASES[method.__name__] = function
        return method

    return mark


def kernel_name(method: str) -> str:
    """What call traces call a method: the kernel function that it is, or is a part of."""
    return PHASES.get(method) or (f"_{method}" if method.startswith("_") else method)


class KernelBase:
    """The ground that the FPU core and KVM stand on."""

    #: The revision's label, as `--revision`, `--apply` and `--revert` would name it.
    revision: str = ""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.config: Config = machine
        self.events: list[Event] = []
        self.bind(*resident(System, Fpstate, SigFrame))

    @seam
    def bind(self, system: System, memory: memoryview) -> None:
        """Be the kernel of that system, which is in that memory."""
        self.system, self._memory = system, memory
        self.cpus = [system.cpus[i] for i in range(self.machine.cpus)]
        self.tasks = list(system.tasks)
        self.fpstates = list(system.fpstates)
        self.vms = list(system.vms)
        self.vcpus = list(system.vcpus)
        self.on_cpu(0)

    @property
    def state(self) -> bytes:
        """The system, as its bytes: what :meth:`load` takes."""
        return bytes(self._memory)

    @seam
    def load(self, state: bytes) -> None:
        """Let the system be in that state."""
        self._memory[:] = state
        self.on_cpu(0)

    @seam
    def on_cpu(self, cpu: int) -> None:
        """Execute on ``cpu`` from here on: what smp_processor_id(), this_cpu_ptr() and `current` refer to."""
        self.cpu = cpu
        self.this_cpu = this_cpu = self.cpus[cpu]
        self.regs = this_cpu.regs
        self.current_nr = this_cpu.current
        self.current = self.tasks[self.current_nr]

    @seam
    def set_current(self, task: int) -> None:
        """`current`, on this CPU."""
        self.this_cpu.current = task
        self.current_nr = task
        self.current = self.tasks[task]

    # -- reports -------------------------------------------------------------------------------------------------

    @seam
    def report(self, kind: str, *detail: int, site: str | None = None) -> None:
        """Note an event, with the model's own call stack as the call trace."""
        trace = self._call_trace(sys._getframe(1))
        self.events.append(Event(kind, site or trace[0], trace, detail))

    def _call_trace(self, frame: FrameType | None) -> tuple[str, ...]:
        names: list[str] = []
        while frame is not None and frame.f_locals.get("self") is self:
            method = frame.f_code.co_name
            name = kernel_name(method)
            # super().f() of a patch shows as f twice; the kernel has it once
            if method not in SEAMS and (not names or names[-1] != name):
                names.append(name)
            frame = frame.f_back
        return tuple(names) or ("?",)

    @seam
    def warn_on(self, condition: object) -> bool:
        """WARN_ON() and WARN_ON_ONCE(): report if ``condition``; "once" is left to whoever collects the reports."""
        if condition:
            self.report(WARN)
        return bool(condition)

    @seam
    def die(self, kind: str, *detail: int) -> None:
        """The kernel oopses here; nothing runs after it."""
        self.report(kind, *detail)
        self.system.dead = 1
        # no section of the dead kernel's is left open, or two ends of one host would be two states
        self.this_cpu.preempt_count = 0
        self.current.rcu_read_lock_nesting = 0
        raise HostDied

    # -- MSRs ----------------------------------------------------------------------------------------------------

    def wrmsrl(self, index: int, value: int) -> None:
        """wrmsrl(); an unchecked MSR access error is a WARN (asm/msr.h)."""
        try:
            arch.wrmsr(self.regs, self.machine, index, value)
        except arch.GeneralProtection:
            self.report(WARN)

    def rdmsrl(self, index: int) -> int:
        """rdmsrl(); an unchecked MSR access error is a WARN and reads 0 (asm/msr.h)."""
        try:
            return arch.rdmsr(self.regs, self.machine, index)
        except arch.GeneralProtection:
            self.report(WARN)
            return 0

    # -- pointers ------------------------------------------------------------------------------------------------

    @seam
    def deref(self, nr: int) -> Fpstate:
        """``*fpstate``: the kernel's pointer dereference, with KASAN's eyes."""
        if nr == NULL:
            self.die(NULL_DEREF)
        fpstate = self.fpstates[nr]
        if fpstate.freed:
            self.report(USE_AFTER_FREE, nr)
        return fpstate

    @seam
    def leak(self, nr: int) -> None:
        """An allocation is dropped without being freed."""
        self.report(LEAK, nr)
