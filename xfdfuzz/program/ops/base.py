"""Ops: one dataclass per thing that can happen, and the registry that the text format, the rules and the docs read.

An op's template is its line in a program: an actor, a verb and arguments, where ``{field}`` stands for a field.  The
type of the field says how it is written and read (:mod:`xfdfuzz.program.fields`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar, dataclass_transform

from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import (
    USER_TASKS,
    VCPU_EXITED,
    VCPU_IN_GUEST,
    VCPU_OUTSIDE,
    VM_DEFAULT,
    System,
    Task,
    Vcpu,
    in_section,
)
from xfdfuzz.program import ghost
from xfdfuzz.program.codecs import REG_NAMES
from xfdfuzz.program.fields import TOKENS
from xfdfuzz.program.step import Content, Result

#: Every op by its class name, in the order of definition.
OPS: dict[str, type[Op]] = {}

_O = TypeVar("_O", bound="Op")


@dataclass_transform(frozen_default=True)
def op(template: str) -> Callable[[type[_O]], type[_O]]:
    """Register an op under its line template."""

    def register(cls: type[_O]) -> type[_O]:
        cls.template = template
        decorated = dataclass(frozen=True, slots=True)(cls)
        OPS[cls.__name__] = decorated
        return decorated

    return register


def makers(*calls: type[Op]) -> tuple[type[Op], ...]:
    """All classes that make one of these calls: they, and those that only say in another way with what.

    What holds of a call holds whoever makes it, so invariants name calls by this.
    """
    names = {cls.__name__ for cls in calls}
    return tuple(cls for cls in OPS.values() if call_of(cls) in names)


def call_of(cls: type[Op]) -> str:
    """The name of the class whose call this one makes, its own as a rule."""
    return cls.call or cls.__name__


class Op:
    """Something that happens.  Subclasses are frozen dataclasses registered with :func:`op`."""

    __slots__ = ()
    template: ClassVar[str]
    #: The class whose call it makes, where it only says in another way with what: one mistake shows in both alike.
    call: ClassVar[str] = ""
    #: Whether searches draw it: not what would be a mistake of other code's than the kernel's that is modelled.
    DRAWN: ClassVar[bool] = True

    def enabled(self, k: Kernel) -> bool:
        """Whether it can happen in this state."""
        return not self.hindrance(k)

    def hindrance(self, k: Kernel) -> str:
        """Why it cannot happen in this state, ``t1 is on no CPU``; nothing where it can.

        It reads no more of the state than it takes to find out: what is explored is remembered by what was read.
        """
        return ""

    def run(self, k: Kernel) -> Result:
        """Make it happen: call the kernel and write the ghost, before or after, as the hardware would."""
        raise NotImplementedError

    def asked(self, before: System) -> int:
        """How many MSRs it asks for, of which it returns how many the kernel took; 0 for what is no such call."""
        return 0

    def without_effect(self, machine: Machine) -> Iterator[str]:
        """Which of its arguments have no effect on a machine, whatever happens before, or another one than they seem
        to have, and why; a text for each."""
        yield from ()


OK = Result("ok")
EXIT = Result("exit")
ZERO = Result(0)


def reserved_bits(index: int, value: int) -> Iterator[str]:
    """That a value which looks like any other is none that the MSR can have."""
    if ghost.has_reserved_bits(index, value):
        yield f"{REG_NAMES[index]}: {value:#x} stands for what it cannot hold: that is 0 to {TOKENS}"


def sample(k: Kernel) -> Result:
    """What a PMI has sampled on this CPU; without an event nothing."""
    return Result("ok", Content(k.this_cpu.lbr_entries)) if k.this_cpu.lbr_users else OK


def not_waiting(k: Kernel, nr: int) -> str:
    """Why the scheduler cannot switch to a task; nothing if it can."""
    task = k.tasks[nr]
    name = f"t{nr}" if nr < USER_TASKS else f"the kernel thread of cpu{nr - USER_TASKS}"
    if not task.exists:
        return f"there is no {name}"
    if task.on_cpu:
        return f"{name} is on a CPU already"
    if task.vfork_child:
        return f"{name} waits in vfork() for t{task.vfork_child - 1}"
    return f"{name} has exited" if task.exit_state else ""


def busy(task: Task, nr: int) -> str:
    """Why a task executes no user code and can make no system call; nothing where it can."""
    if not task.on_cpu:
        return f"t{nr} is on no CPU" if task.exists else f"there is no t{nr}"
    return inside(task, nr)


def inside(task: Task, nr: int) -> str:
    """What a task is in the middle of, of all that takes several ops."""
    if in_section(task):
        return f"t{nr} uses the FPU in the kernel"
    if task.kvm_run:
        return f"t{nr} is inside KVM_RUN"
    if task.in_execve:
        return f"t{nr} is inside execve()"
    if task.in_sigreturn or task.in_sigframe:
        return f"t{nr} waits for a page of its signal frame"
    if task.vfork_child:
        return f"t{nr} waits in vfork() for t{task.vfork_child - 1}"
    return f"t{nr} is about to handle a signal" if task.in_signal else ""


def not_open(k: Kernel, nr: int, vm: int) -> str:
    """That a task does not have a VM open; nothing if it has."""
    return "" if k.has_open(nr, vm) else f"t{nr} does not have vm{vm} open"


def not_free(k: Kernel, nr: int, vcpu_nr: int) -> str:
    """Why a vCPU can take no ioctl of a task's; nothing if it can."""
    vcpu = k.vcpus[vcpu_nr]
    if not vcpu.exists:
        return f"there is no v{vcpu_nr}"
    return not_open(k, nr, vcpu.vm) if vcpu.mode == VCPU_OUTSIDE else whereabouts(vcpu, vcpu_nr)


def whereabouts(vcpu: Vcpu, nr: int) -> str:
    """Where a vCPU is: in a program, what comes before or behind ``vmenter``."""
    if vcpu.mode == VCPU_OUTSIDE:
        return f"v{nr} is outside KVM_RUN" if vcpu.exists else f"there is no v{nr}"
    return f"v{nr} is in the guest" if vcpu.mode == VCPU_IN_GUEST else f"v{nr} is inside KVM_RUN, not in the guest"


def not_visible(k: Kernel, nr: int) -> str:
    """That a vCPU is of a VM whose guests KVM cannot see, or will not; nothing if it is not."""
    protected = k.vms[k.vcpus[nr].vm].type != VM_DEFAULT
    return f"that of v{nr}, which is protected, is not modelled" if protected else ""


def in_l2(vcpu: Vcpu, nr: int) -> str:
    """That a vCPU executes its L2; nothing if it does not."""
    return f"v{nr} executes its L2" if vcpu.arch.guest_mode else ""


class TaskOp(Op):
    """An op of a user task that is on a CPU and not inside a call that is cut in two.

    A worker (io_uring, vhost), which never leaves the kernel, has ops of its own.
    """

    __slots__ = ()
    task: int

    def hindrance(self, k: Kernel) -> str:
        if self.task >= USER_TASKS:
            return f"t{self.task} is a kernel thread"
        task = k.tasks[self.task]
        return busy(task, self.task) or (f"t{self.task} is a worker" if task.pf_user_worker else "")

    def enter_user(self, k: Kernel) -> None:
        """The task executes user code, on its CPU: finish a pending return first."""
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.exit_to_user_mode()

    def enter_kernel(self, k: Kernel) -> Task:
        """The task makes a system call.  It does so from user mode: finish a pending return there first."""
        task = k.tasks[self.task]
        k.on_cpu(task.on_cpu - 1)
        if not task.user_mode:
            k.exit_to_user_mode()
        k.syscall_enter_from_user_mode()
        return task


class VmIoctl(TaskOp):
    """An ioctl on a VM's file descriptor, which the task has open."""

    __slots__ = ()
    vm: int

    def hindrance(self, k: Kernel) -> str:
        return not_open(k, self.task, self.vm) or TaskOp.hindrance(self, k)


class VcpuIoctl(TaskOp):
    """An ioctl on a vCPU's file descriptor, which the task has open, other than KVM_RUN.  The vCPU's mutex is free."""

    __slots__ = ()
    #: Whether of a protected guest it is not modelled.
    OF_VISIBLE: ClassVar[bool] = False
    vcpu: int

    def hindrance(self, k: Kernel) -> str:
        why = not_free(k, self.task, self.vcpu) or TaskOp.hindrance(self, k)
        return why or (not_visible(k, self.vcpu) if self.OF_VISIBLE else "")

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        vcpu = k.vcpus[self.vcpu]
        ret = k.kvm_vm_ioctl_guard(k.vms[vcpu.vm])
        if ret:
            return Result(ret)
        ghost.vmm_acts(k, self.vcpu)
        return self.ioctl(k, vcpu)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        """The ioctl itself, past the guards."""
        raise NotImplementedError


class VcpuRunOp(Op):
    """An op inside KVM_RUN, between a VM exit and the next entry, with interrupts on."""

    __slots__ = ()
    vcpu: int

    def hindrance(self, k: Kernel) -> str:
        vcpu = k.vcpus[self.vcpu]
        if vcpu.mode != VCPU_EXITED:
            return whereabouts(vcpu, self.vcpu)
        nr = vcpu.task - 1
        task = k.tasks[nr]
        if not task.on_cpu:
            return f"t{nr}, which runs v{self.vcpu}, is on no CPU"
        return f"t{nr} uses the FPU in the kernel" if in_section(task) else ""

    def thread(self, k: Kernel) -> Vcpu:
        """Go to the CPU that the vCPU's thread runs on."""
        vcpu = k.vcpus[self.vcpu]
        k.on_cpu(k.tasks[vcpu.task - 1].on_cpu - 1)
        return vcpu


class GuestOp(Op):
    """An instruction of the guest, or something that makes it exit.

    What a protected guest does that KVM would not handle as that of others is not modelled: ``PROTECTED`` is False.
    """

    __slots__ = ()
    PROTECTED: ClassVar[bool] = True
    vcpu: int

    def hindrance(self, k: Kernel) -> str:
        vcpu = k.vcpus[self.vcpu]
        if vcpu.mode != VCPU_IN_GUEST:
            return whereabouts(vcpu, self.vcpu)
        sealed = not self.PROTECTED and vcpu.arch.guest_state_protected
        return f"that of v{self.vcpu}, which is protected, is not modelled" if sealed else ""

    def thread(self, k: Kernel) -> Vcpu:
        """Go to the CPU that executes the guest."""
        vcpu = k.vcpus[self.vcpu]
        k.on_cpu(k.tasks[vcpu.task - 1].on_cpu - 1)
        return vcpu
