"""The host as something that carries out ops: who does which, and what it takes to do one."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from xfdfuzz.arch.cpuid import SAPPHIRE_RAPIDS, CpuidTable
from xfdfuzz.engines.live import ioctls as abi
from xfdfuzz.engines.live.agent import ARENA, GUESTS
from xfdfuzz.engines.live.images import Images
from xfdfuzz.engines.live.tasks import Crew, Task
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.native import layout
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Result

#: Where KVM may put the task state segment of a guest, below the BIOS.
_TSS = 0xFFFBD000
#: What it does for an op, given what the model says that it results in.
Carry: TypeAlias = Callable[["Host", Any, Result], Result]

#: By the class of the op; the modules :mod:`user` and :mod:`kvm` fill it.
CARRIED: dict[type[Op], Carry] = {}


def carries(*ops: type[Op]) -> Callable[[Carry], Carry]:
    """The function does these ops on the host and gives the result as the model would."""

    def register(function: Carry) -> Carry:
        CARRIED.update(dict.fromkeys(ops, function))
        return function

    return register


class Host:
    """One program's processes on the host, with /dev/kvm, the CPUs that a program's stand for, and their layout."""

    def __init__(self, crew: Crew, device: str = "/dev/kvm", cpuid: CpuidTable = SAPPHIRE_RAPIDS) -> None:
        self.crew = crew
        self.device = device
        self.cpus = tuple(sorted(os.sched_getaffinity(0)))
        self.cpuid, self.images = cpuid, Images(cpuid)
        #: The highest number of a vCPU, for those that programs take for too high.
        self.vcpu_ids: int | None = None
        #: What execve() gave to those that are in the middle of it, for programs cut it in two.
        self.executed: dict[int, int] = {}

    def carry(self, op: Op, expected: Result) -> Result:
        """Do an op that the model has done; raises TaskDied or Hung."""
        return CARRIED[type(op)](self, op, expected)

    def task(self, nr: int) -> Task:
        """A task that is there."""
        return self.crew.tasks[nr]

    def follow(self, kernel: Kernel) -> None:
        """Forget the tasks that the model says are gone."""
        for nr in range(USER_TASKS):
            if nr in self.crew.tasks and (not kernel.tasks[nr].exists or kernel.tasks[nr].exit_state):
                self.crew.forget(nr)

    # -- descriptors -----------------------------------------------------------------------------------------------

    def kvm(self, task: Task) -> int:
        """/dev/kvm, which the task's process opens once; or a negative errno."""
        if task.files.kvm is None:
            path = self.crew.scratch(task, self.device.encode() + b"\0")
            fd = self.crew.syscall(task, abi.SYS_OPENAT, abi.AT_FDCWD, path, abi.O_RDWR | abi.O_CLOEXEC)
            if fd < 0:
                return fd
            task.files.kvm = fd
        return task.files.kvm

    def close(self, task: Task, fd: int) -> None:
        """Close one of a task's."""
        self.crew.syscall(task, abi.SYS_CLOSE, fd)

    def ioctl(self, task: Task, fd: int, request: int, argument: int = 0) -> int:
        """What an ioctl returns."""
        return fd if fd < 0 else self.crew.syscall(task, abi.SYS_IOCTL, fd, request, argument)

    def exchange(self, task: Task, fd: int, request: int, data: bytes) -> tuple[int, bytes]:
        """The same with a structure that the kernel may read and write."""
        here = self.crew.image(task, data)
        return self.ioctl(task, fd, request, here), self.crew.bytes_at(here, len(data))

    def create_vm(self, task: Task, nr: int) -> int:
        """A VM with its memory, as the program's number ``nr``; its descriptor, or a negative errno."""
        fd = self.ioctl(task, self.kvm(task), abi.KVM_CREATE_VM)
        if fd < 0:
            return fd
        task.files.vms[nr] = fd
        place = ARENA + GUESTS + nr * layout.MEMORY
        self.exchange(task, fd, abi.KVM_SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, layout.MEMORY, place))
        self.ioctl(task, fd, abi.KVM_SET_TSS_ADDR, _TSS)
        return fd

    def map(self, task: Task, fd: int, size: int) -> int:
        """A file of the task's, mapped and shared; its address, or a negative errno."""
        return self.crew.syscall(task, abi.SYS_MMAP, 0, size, 3, 1, fd, 0)
