"""A guest on the host: the code of :mod:`xfdfuzz.native.guestcode`, executed by KVM_RUN, and what became of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import partial

from xfdfuzz.engines.live import images
from xfdfuzz.engines.live import ioctls as abi
from xfdfuzz.engines.live.agent import ARENA, GUESTS
from xfdfuzz.engines.live.host import Host
from xfdfuzz.engines.live.tasks import Task
from xfdfuzz.kernel.errno import EINTR
from xfdfuzz.native import layout
from xfdfuzz.native.contents import SAMPLES
from xfdfuzz.native.guestcode import Insn, Stream
from xfdfuzz.native.values import STORED, Value, value_of
from xfdfuzz.program import ghost
from xfdfuzz.program.ops import guest
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Content, Image, Result

#: Exit reasons.
EXIT_IO, EXIT_HLT, EXIT_INTERNAL_ERROR = 2, 5, 17
_REASONS = {EXIT_IO: "KVM_EXIT_IO", EXIT_HLT: "KVM_EXIT_HLT", 8: "KVM_EXIT_SHUTDOWN", 17: "KVM_EXIT_INTERNAL_ERROR"}
_VECTORS = {6: "#UD", 7: "#NM", 8: "#DF", 13: "#GP", 14: "#PF"}
#: In struct kvm_run.
_IMMEDIATE_EXIT, _EXIT_REASON, _PORT = 1, 8, 34
#: In struct kvm_regs: RIP and RFLAGS.
_RSP, _RIP = 6 * 8, 16 * 8
#: In struct kvm_sregs: segments of 24 bytes, then GDT and IDT, control registers, EFER.
_GDT, _IDT, _CR0, _CR3, _CR4, _EFER = 192, 208, 224, 240, 248, 264
_NOT_REACHED, _DONE, _FAULTED = range(3)


@dataclass
class Vcpu:
    """A vCPU as it runs: its code, the instructions not run yet, and where its kvm_run lies in whose address space.

    ``begun``: its registers and its memory are set up.
    """

    nr: int
    vm: int
    stream: Stream
    run: dict[int, int] = field(default_factory=dict)
    begun: bool = False

    @property
    def memory(self) -> int:
        """Where its VM's memory lies in that of tasks."""
        return ARENA + GUESTS + self.vm * layout.MEMORY


class Machine:
    """The vCPUs of a program."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.vcpus: dict[int, Vcpu] = {}

    def vcpu(self, task: Task, nr: int) -> Vcpu:
        """One that the task has open."""
        if nr not in self.vcpus:
            self.vcpus[nr] = Vcpu(nr, task.files.vcpus[nr][0], Stream(nr))
        return self.vcpus[nr]

    def forget(self, nr: int) -> None:
        """Another vCPU has its number now."""
        self.vcpus.pop(nr, None)

    def put(self, vcpu: Vcpu, address: int, data: bytes) -> None:
        """Write to a guest's memory."""
        place = vcpu.memory - ARENA + address
        self.host.crew.arena[place : place + len(data)] = data

    def get(self, vcpu: Vcpu, address: int, size: int) -> bytes:
        """Read from it."""
        return self.host.crew.bytes_at(vcpu.memory + address, size)

    # -- running -----------------------------------------------------------------------------------------------------

    def begin(self, task: Task, vcpu: Vcpu) -> int:
        """Set it up for its first run; 0 or a negative errno."""
        fd = task.files.vcpu(vcpu.nr)
        start = layout.base(vcpu.nr)
        for address, data in layout.tables(vcpu.nr).items():
            self.put(vcpu, address, data)
        ret, data = self.host.exchange(task, fd, abi.KVM_GET_SREGS, bytes(abi.KVM_SIZE_SREGS))
        if ret:
            return ret
        sregs = bytearray(data)
        old_cr0, old_cr4 = (struct.unpack_from("<Q", sregs, at)[0] for at in (_CR0, _CR4))
        for n, (selector, kind, long) in enumerate(
            [(layout.CODE_SELECTOR, 11, 1), *[(layout.DATA_SELECTOR, 3, 0)] * 5]
        ):
            struct.pack_into(
                "<QIHBBBBBBBBBB", sregs, 24 * n, 0, 0xFFFFFFFF, selector, kind, 1, 0, 1 - long, 1, long, 1, 0, 0, 0
            )
        struct.pack_into("<QH", sregs, _GDT, start + layout.GDT, 23)
        struct.pack_into("<QH", sregs, _IDT, start + layout.IDT, 16 * layout.VECTORS - 1)
        cr4 = layout.CR4 | old_cr4 & layout.CR4_OSXSAVE
        struct.pack_into("<Q", sregs, _CR0, layout.CR0 | old_cr0 & layout.CR0_TS)
        struct.pack_into("<QQ", sregs, _CR3, start + layout.PML4, cr4)
        struct.pack_into("<Q", sregs, _EFER, layout.EFER)
        ret, _ = self.host.exchange(task, fd, abi.KVM_SET_SREGS, bytes(sregs))
        return ret or self.go_to(task, vcpu, start + layout.CODE)

    def go_to(self, task: Task, vcpu: Vcpu, rip: int) -> int:
        """KVM_SET_REGS: the guest goes on there."""
        regs = bytearray(abi.KVM_SIZE_REGS)
        struct.pack_into("<Q", regs, _RSP, layout.base(vcpu.nr) + layout.STACK)
        struct.pack_into("<QQ", regs, _RIP, rip, 2)
        return self.host.exchange(task, task.files.vcpu(vcpu.nr), abi.KVM_SET_REGS, bytes(regs))[0]

    def run(self, task: Task, vcpu: Vcpu, insns: list[Insn], *, enter: bool = True) -> Result:
        """KVM_RUN through these instructions; what it returns.  Without ``enter`` it has immediate_exit."""
        for insn in insns:
            self._write(vcpu, insn)
        if not vcpu.begun:
            ret = self.begin(task, vcpu)
            if ret:
                return Result(ret)
            vcpu.begun = True
        run = self._mapped(task, vcpu)
        self.host.crew.store(task, run + _IMMEDIATE_EXIT, bytes([not enter]))
        ret = self.host.ioctl(task, task.files.vcpu(vcpu.nr), abi.KVM_RUN)
        if ret < 0:
            return Result(ret)
        state = self.host.crew.fetch(task, run, 64)
        reason, port = struct.unpack_from("<I", state, _EXIT_REASON)[0], struct.unpack_from("<H", state, _PORT)[0]
        if reason == EXIT_IO and port == layout.PORT_DONE:
            return Result(-EINTR)  # it stands for the signal that would end it there
        return Result(_REASONS.get(reason, f"KVM_EXIT_{reason}"))

    def _mapped(self, task: Task, vcpu: Vcpu) -> int:
        """Where its kvm_run is for the task."""
        if task.pid not in vcpu.run:
            vcpu.run[task.pid] = self.host.map(task, task.files.vcpu(vcpu.nr), 3 * 4096)
        return vcpu.run[task.pid]

    def _write(self, vcpu: Vcpu, insn: Insn) -> None:
        self.put(vcpu, insn.address, insn.data)
        self.put(vcpu, insn.slot, bytes(layout.RESULT_SIZE))
        operand = insn.operand
        if operand is not None:
            data, restored = operand.data, operand.restored
            if restored is not None:
                data = self.host.images.restored(restored, partial(ghost.vcpu_token, vcpu.nr))
            self.put(vcpu, operand.address, data.ljust(operand.size, b"\0"))

    def outcome(self, vcpu: Vcpu, insn: Insn) -> Result | None:
        """What became of an instruction; None if it was not reached."""
        status, vector, value = struct.unpack("<BB6xQ", self.get(vcpu, insn.slot, layout.RESULT_SIZE))
        if status != _DONE:
            return Result(_VECTORS.get(vector, f"vector {vector}")) if status == _FAULTED else None
        if insn.op is None:
            return Result("ok")
        return Result("ok", self._value(vcpu, insn, insn.op, value))

    def _value(self, vcpu: Vcpu, insn: Insn, op: Op, value: int) -> int | Image | None:
        if isinstance(op, guest.GuestStmxcsr) and insn.operand is not None:
            return Content(images.mxcsr_in(self.get(vcpu, insn.operand.address, 4)))
        kind = value_of(op)
        if kind in (Value.NUMBER, Value.IN_USE):
            return value
        if kind is None or insn.operand is None:
            return None
        stored = self.get(vcpu, insn.operand.address, insn.operand.size)
        if kind == Value.CONTENT:
            component = STORED[type(op)]
            return Content(images.token_in(component, stored[: SAMPLES[component][1]]))
        return self.host.images.stored(stored, whole=not isinstance(op, guest.GuestFxsave))
