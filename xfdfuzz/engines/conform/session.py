"""A program under translation: what the harness' processes know, and the ops that were executed so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.conform.choices import Choices
from xfdfuzz.engines.conform.contents import Contents
from xfdfuzz.engines.conform.fields import NotCompared, NothingSelected, Stopped
from xfdfuzz.engines.conform.memory import GuestMemory
from xfdfuzz.invariants.checker import Checker
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.errno import EBADF, EMFILE
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops import host, kvm, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED, PANIC, Result, Step
from xfdfuzz.program.text import format_op
from xfdfuzz.revisions import Revision

#: The processor that the recorded kernels ran on (docs/conform.md).
MACHINE = Machine(cpus=1, pasid=False, cet=True, amx_ignores_ts=True)


class HostDied(Exception):
    """The modelled host died in the op that was executed last."""


#: A task that is no part of the harness.
_ANOTHER = 1
#: CR0 and CR4 as the harness sets a guest up, and the bits of them that the model has.
_CR0, CR0_TS = 0x80000031, 1 << 3
_CR4, CR4_OSXSAVE = 0x620, 1 << 18


@dataclass
class HarnessVcpu:
    """What the harness knows of a vCPU: its VM, and whether it has set it up for its first run.

    ``cr0`` and ``cr4`` are the guest's.
    """

    vm: int
    set_up: bool = False
    cr0: int = _CR0
    cr4: int = _CR4

    def reset_control_registers(self, osxsave: bool) -> None:
        """KVM_SET_SREGS has set them."""
        self.cr0, self.cr4 = _CR0, _CR4 | (CR4_OSXSAVE if osxsave else 0)


@dataclass
class GuestProgram:
    """The code that a vCPU runs: its tokens, where it is, and what those before came to.

    ``left_in_out``: user space serves the OUT that it is at.
    """

    tokens: tuple[str, ...]
    at: int = 0
    outcomes: list[Any] = field(default_factory=list)
    left_in_out: bool = False


@dataclass
class Files:
    """A file table: which VMs and vCPUs are open, and whether /dev/kvm is."""

    vms: set[int] = field(default_factory=set)
    vcpus: set[int] = field(default_factory=set)
    kvm: bool = False

    def copy(self) -> Files:
        """What a forked process gets."""
        return Files(set(self.vms), set(self.vcpus), self.kvm)


@dataclass
class Names:
    """The harness' numbers for VMs and vCPUs, and whether it has opened /dev/kvm: what lives in a process' memory."""

    vms: dict[int, int] = field(default_factory=dict)
    vcpus: dict[int, int] = field(default_factory=dict)
    kvm: bool = False

    def copy(self) -> Names:
        """What a forked process gets."""
        return Names(dict(self.vms), dict(self.vcpus), self.kvm)


@dataclass
class HarnessProcess:
    """A process or thread of the harness, the task that it is, and the VM and vCPU that it has selected.

    ``kind`` is what its block is called; ``descriptors`` whether RLIMIT_NOFILE lets it open any; ``background`` whether
    its parent goes on meanwhile; ``status`` what it exits with.
    """

    kind: str = "main"
    task: int = 0
    files: Files = field(default_factory=Files)
    names: Names = field(default_factory=Names)
    vm: int | None = None
    vcpu: int | None = None
    descriptors: bool = True
    background: bool = False
    status: int = 0


class Session:
    """Executes ops for the harness, asks the invariants about each, and keeps them as a program."""

    def __init__(
        self, revision: Revision, choices: Choices, timing_dependent: bool = False, machine: Machine = MACHINE
    ) -> None:
        self.choices = choices
        self.machine = machine
        self.timing_dependent = timing_dependent
        #: Tasks that have been joined and are still to exit.
        self.exiting: list[int] = []
        self.executor = Executor(revision.kernel, machine)
        self.kernel = self.executor.kernel
        self.checker = Checker(self.kernel, revision.name, vmms=False)
        self.contents = Contents()
        self.processes = [HarnessProcess()]
        self.vcpus: dict[int, HarnessVcpu] = {}
        self.memory: dict[int, GuestMemory] = {}
        self.programs: dict[int, GuestProgram] = {}
        self.irqchips: set[int] = set()
        self.slots: dict[int, dict[int, bytes]] = {}
        #: Numbers for CPUIDs that differ in what the model does not have.
        self.cpuids: dict[object, int] = {}
        self.last: Step | None = None
        self._ops: list[Op] = []
        self._results: list[str] = []
        self._notes: list[tuple[int, str]] = []
        self._violations: list[Violation] = []

    @property
    def now(self) -> HarnessProcess:
        """The process that runs."""
        return self.processes[-1]

    # -- executing -----------------------------------------------------------------------------------------------

    def do(self, op: Op) -> Result:
        """Execute an op; raises :class:`HostDied`, or :class:`Stopped` if it cannot happen now."""
        step = self.executor.execute(op)
        self.last = step
        self._ops.append(op)
        self._results.append(str(step.result))
        self._violations += self.checker.check(step)
        if step.result.ret == PANIC:
            raise HostDied
        if step.result.ret == NOT_ENABLED:
            raise Stopped(f"{format_op(op)} cannot happen in the model")
        return step.result

    def aside(self, note: str, action: Callable[[Kernel], None]) -> None:
        """Do to the kernel what no op can; the program has a comment there."""
        self.note(note)
        action(self.kernel)

    def note(self, text: str) -> None:
        """Leave a comment in the program."""
        self._notes.append((len(self._ops), text))

    @property
    def has_free_task(self) -> bool:
        """Whether the model has room for one more."""
        return not all(self.kernel.tasks[nr].exists for nr in range(USER_TASKS))

    def schedule(self, task: int) -> None:
        """Let the task run, if it does not already."""
        if not self.kernel.tasks[task].on_cpu:
            self.do(host.Schedule(0, task))

    def may_be_preempted(self, where: str, stop: Callable[[], object] = lambda: None) -> bool:
        """Let another task have its turn, if results depend on that and it is chosen; ``stop`` is done before."""
        if not self.timing_dependent or not self.choices.choose(f"a preemption {where}", "none", "another task runs"):
            return False
        stop()
        self.do(host.Schedule(0, _ANOTHER))
        self.do(tasks.ReturnToUser(_ANOTHER))
        self.schedule(self.now.task)
        return True

    def program(self, title: str) -> Program:
        """What was executed so far, with what came of it."""
        return Program(self.machine, tuple(self._ops), tuple(self._results), title=title, notes=tuple(self._notes))

    def drain(self) -> None:
        """Let everything that is pending come to its end, for the invariants that look there; no op of the program."""
        if self.checker.looks_at_end and (last := self.executor.drain()):
            self._violations += self.checker.finish(last)

    def violations(self) -> list[Violation]:
        """What was broken since this was asked the last time."""
        found, self._violations = self._violations, []
        return found

    # -- register contents ---------------------------------------------------------------------------------------

    def token(self, owner: Callable[[int], int], held: Mapping[int, bytes]) -> int:
        """A number for an image with these components; ``owner`` makes it distinct."""
        return self.contents.token(owner, held, self._tokens_held)

    def _tokens_held(self) -> set[tuple[int, int]]:
        """What registers and images hold, as (token, component)."""
        system = self.kernel.system
        images = [*(cpu.regs.data for cpu in system.cpus), *(fpstate.regs.data for fpstate in system.fpstates)]
        images += [frame.area.data for frame in system.sigframes]
        ideal = [regs.data for regs in system.ghost.tasks] + [vcpu.regs.data for vcpu in system.ghost.vcpus]
        found = {(token, i) for data in (*images, *ideal) for i, token in enumerate(data)}
        pkru = [*(task.pkru for task in system.tasks), *(v.arch.pkru for v in system.vcpus)]
        return found | {(token, xf.PKRU) for token in (*pkru, *(v.arch.host_pkru for v in system.vcpus))}

    # -- selections ----------------------------------------------------------------------------------------------

    @property
    def vm(self) -> int:
        """The selected VM; raises :class:`NothingSelected`, or :class:`NotCompared` if it is not open here."""
        if self.now.vm is None:
            raise NothingSelected
        if self.now.vm not in self.memory:
            raise NotCompared("a VM that is closed")
        return self.now.vm

    @property
    def vcpu(self) -> int:
        """The selected vCPU; raises :class:`NothingSelected`, or :class:`NotCompared` if it is not open here."""
        if self.now.vcpu is None:
            raise NothingSelected
        if self.now.vcpu not in self.now.files.vcpus:
            raise NotCompared("a vCPU that is closed")
        return self.now.vcpu

    def open_kvm(self) -> int:
        """The harness uses /dev/kvm, which it opens once; 0, or EBADF if another process with this memory did that in
        a file table of its own, or EMFILE."""
        now = self.now
        if now.names.kvm:
            return 0 if now.files.kvm else -EBADF
        if not now.descriptors:
            return -EMFILE
        now.names.kvm = now.files.kvm = True
        return 0

    def opened_vm(self, number: int, vm: int) -> None:
        """A VM was created; ``number`` is the harness'."""
        self.now.files.vms.add(vm)
        self.now.names.vms[number] = self.now.vm = vm
        self.memory[vm] = GuestMemory()
        self.irqchips.discard(vm)

    def opened_vcpu(self, number: int, vcpu: int, vm: int) -> None:
        """A vCPU was created."""
        self.now.files.vcpus.add(vcpu)
        self.now.names.vcpus[number] = self.now.vcpu = vcpu
        self.vcpus[vcpu] = HarnessVcpu(vm)
        self.programs.pop(vcpu, None)

    def close(self, vms: set[int], vcpus: set[int]) -> None:
        """The running process closes files; a VM goes when neither it nor a vCPU of it is open there any more."""
        files = self.now.files
        before = self._held(files)
        files.vms -= vms
        files.vcpus -= vcpus
        for vm in sorted(before - self._held(files)):
            self.do(kvm.CloseVm(self.now.task, vm))
        self.forget_closed()

    def close_own(self) -> None:
        """Before a process with a file table of its own exits: what only it has open goes with it.

        The model takes tasks with one address space to share their files, so it would wait for the others.
        """
        files = self.now.files
        others = set().union(*(self._held(process.files) for process in self.processes if process.files is not files))
        for vm in sorted(self._held(files) - others):
            self.do(kvm.CloseVm(self.now.task, vm))
        files.vms, files.vcpus = set(), set()

    def forget_closed(self) -> None:
        """What no process has open any more is gone; its number may be another one's next."""
        held = set().union(*(self._held(process.files) for process in self.processes))
        for vm in [vm for vm in self.memory if vm not in held]:
            del self.memory[vm]
            self.vcpus = {nr: vcpu for nr, vcpu in self.vcpus.items() if vcpu.vm != vm}

    def _held(self, files: Files) -> set[int]:
        return files.vms | {self.vcpus[nr].vm for nr in files.vcpus if nr in self.vcpus}

    # -- processes -----------------------------------------------------------------------------------------------

    def begin(self, kind: str, task: int) -> None:
        """A block begins: a copy of the running process, which shares what its kind says."""
        parent = self.now
        files = parent.files if kind == "thread" else parent.files.copy()
        names = parent.names.copy() if kind == "fork" else parent.names
        self.processes.append(replace(parent, kind=kind, task=task, files=files, names=names))
        self.schedule(task)
