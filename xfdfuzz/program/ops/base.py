"""Ops: one dataclass per thing that can happen, and the registry that the text format, the rules and the docs read.

An op's template is its line in a program: an actor, a verb and arguments, where ``{field}`` stands for a field.  The
type of the field says how it is written and read (:mod:`xfdfuzz.program.fields`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar, dataclass_transform

from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import USER_TASKS, VCPU_EXITED, VCPU_IN_GUEST, VCPU_OUTSIDE, Task, Vcpu, inside_call
from xfdfuzz.program.step import Result

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


class Op:
    """Something that happens.  Subclasses are frozen dataclasses registered with :func:`op`."""

    __slots__ = ()
    template: ClassVar[str]

    def enabled(self, k: Kernel) -> bool:
        """Whether it can happen in this state."""
        raise NotImplementedError

    def run(self, k: Kernel) -> Result:
        """Make it happen: call the kernel and write the ghost, before or after, as the hardware would."""
        raise NotImplementedError


OK = Result("ok")
EXIT = Result("exit")
ZERO = Result(0)


class TaskOp(Op):
    """An op of a user task that is on a CPU and not inside a call that is cut in two."""

    __slots__ = ()
    task: int

    def enabled(self, k: Kernel) -> bool:
        task = k.tasks[self.task]
        return self.task < USER_TASKS and bool(task.on_cpu) and not inside_call(task)

    def enter_kernel(self, k: Kernel) -> Task:
        """The task makes a system call.  It does so from user mode: finish a pending return there first."""
        task = k.tasks[self.task]
        k.on_cpu(task.on_cpu - 1)
        if not task.user_mode:
            k.exit_to_user_mode()
        task.user_mode = 0
        return task


class VmIoctl(TaskOp):
    """An ioctl on a VM's file descriptor, which the task has open."""

    __slots__ = ()
    vm: int

    def enabled(self, k: Kernel) -> bool:
        return k.has_open(self.task, self.vm) and TaskOp.enabled(self, k)


class VcpuIoctl(TaskOp):
    """An ioctl on a vCPU's file descriptor, which the task has open, other than KVM_RUN.  The vCPU's mutex is free."""

    __slots__ = ()
    vcpu: int

    def enabled(self, k: Kernel) -> bool:
        vcpu = k.vcpus[self.vcpu]
        free = bool(vcpu.exists) and vcpu.mode == VCPU_OUTSIDE
        return free and k.has_open(self.task, vcpu.vm) and TaskOp.enabled(self, k)

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        vcpu = k.vcpus[self.vcpu]
        ret = k.kvm_vm_ioctl_guard(k.vms[vcpu.vm])
        return Result(ret) if ret else self.ioctl(k, vcpu)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        """The ioctl itself, past the guards."""
        raise NotImplementedError


class VcpuRunOp(Op):
    """An op inside KVM_RUN, between a VM exit and the next entry, with interrupts on."""

    __slots__ = ()
    vcpu: int

    def enabled(self, k: Kernel) -> bool:
        vcpu = k.vcpus[self.vcpu]
        return vcpu.mode == VCPU_EXITED and bool(k.tasks[vcpu.task - 1].on_cpu)

    def thread(self, k: Kernel) -> Vcpu:
        """Go to the CPU that the vCPU's thread runs on."""
        vcpu = k.vcpus[self.vcpu]
        k.on_cpu(k.tasks[vcpu.task - 1].on_cpu - 1)
        return vcpu


class GuestOp(Op):
    """An instruction of the guest, or something that makes it exit."""

    __slots__ = ()
    vcpu: int

    def enabled(self, k: Kernel) -> bool:
        return k.vcpus[self.vcpu].mode == VCPU_IN_GUEST

    def thread(self, k: Kernel) -> Vcpu:
        """Go to the CPU that executes the guest."""
        vcpu = k.vcpus[self.vcpu]
        k.on_cpu(k.tasks[vcpu.task - 1].on_cpu - 1)
        return vcpu
