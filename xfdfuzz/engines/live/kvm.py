"""Ops on /dev/kvm, VMs and vCPUs on the host, other than running a guest."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import CpuidTable
from xfdfuzz.engines.live import images
from xfdfuzz.engines.live import ioctls as abi
from xfdfuzz.engines.live.host import Host, carries
from xfdfuzz.engines.live.tasks import IMAGE_SIZE, Task
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.main import KVM_MAX_VCPU_IDS
from xfdfuzz.kernel.kvm.xsave import KVM_XSAVE_SIZE, UserBuffer
from xfdfuzz.native import layout
from xfdfuzz.native.contents import mxcsr
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Sregs
from xfdfuzz.program.ops import kvm, xsave
from xfdfuzz.program.step import FpuState, Image, MpState, Result

#: For a bad pointer.
_NOWHERE = 8
#: Where they stand in struct kvm_sregs.
_CS, _CR0, _CR4, _EFER = 0, 224, 248, 264
_FILL = 0xCC

# -- /dev/kvm ---------------------------------------------------------------------------------------------------------


@carries(kvm.KvmCreateVm)
def _create_vm(host: Host, op: kvm.KvmCreateVm, expected: Result) -> Result:
    assert isinstance(expected.ret, str)
    fd = host.create_vm(host.task(op.task), int(expected.ret.removeprefix("vm")))
    return Result(fd if fd < 0 else expected.ret)


def supported(host: Host, task: Task) -> list[abi.CpuidEntry]:
    """KVM_GET_SUPPORTED_CPUID, as that process gets it."""
    asked = struct.pack("<II", abi.KVM_MAX_CPUID_ENTRIES, 0) + bytes(40 * abi.KVM_MAX_CPUID_ENTRIES)
    ret, data = host.exchange(task, host.kvm(task), abi.KVM_GET_SUPPORTED_CPUID, asked)
    return [] if ret else [*abi.cpuid_entries(data)]


def user_components(entries: list[abi.CpuidEntry]) -> int:
    """Leaf 0xD.0 EDX:EAX."""
    return next((one.edx << 32 | one.eax for one in entries if (one.function, one.subleaf) == (0xD, 0)), 0)


@carries(kvm.KvmGetSupportedCpuid)
def _get_supported(host: Host, op: kvm.KvmGetSupportedCpuid, expected: Result) -> Result:
    return Result(0, user_components(supported(host, host.task(op.task))))


@carries(kvm.KvmGetDeviceAttr)
def _get_attribute(host: Host, op: kvm.KvmGetDeviceAttr, expected: Result) -> Result:
    task = host.task(op.task)
    value = host.crew.scratch(task, bytes(8))
    attribute = struct.pack("<IIQQ", 0, op.group, op.attr, _NOWHERE if op.pointer else value)
    ret, _ = host.exchange(task, host.kvm(task), abi.KVM_GET_DEVICE_ATTR, attribute)
    return Result(ret, None if ret else struct.unpack("<Q", host.crew.bytes_at(value, 8))[0])


@carries(kvm.KvmHasDeviceAttr)
def _has_attribute(host: Host, op: kvm.KvmHasDeviceAttr, expected: Result) -> Result:
    task = host.task(op.task)
    attribute = struct.pack("<IIQQ", 0, op.group, op.attr, 0)
    return Result(host.exchange(task, host.kvm(task), abi.KVM_HAS_DEVICE_ATTR, attribute)[0])


def msr_indices(host: Host, task: Task) -> tuple[int, ...]:
    """KVM_GET_MSR_INDEX_LIST."""
    room = 1024
    _, data = host.exchange(task, host.kvm(task), abi.KVM_GET_MSR_INDEX_LIST, struct.pack("<I", room) + bytes(4 * room))
    count = struct.unpack_from("<I", data)[0]
    return struct.unpack_from(f"<{count}I", data, 4)


@carries(kvm.KvmGetMsrIndexList)
def _index_list(host: Host, op: kvm.KvmGetMsrIndexList, expected: Result) -> Result:
    return Result(0, int(op.msr in msr_indices(host, host.task(op.task))))


@carries(xsave.KvmCheckXsave2)
def _check_xsave2(host: Host, op: xsave.KvmCheckXsave2, expected: Result) -> Result:
    task = host.task(op.task)
    return Result(host.ioctl(task, host.kvm(task), abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_XSAVE2))


# -- VMs --------------------------------------------------------------------------------------------------------------


@carries(xsave.KvmVmCheckXsave2)
def _vm_check_xsave2(host: Host, op: xsave.KvmVmCheckXsave2, expected: Result) -> Result:
    task = host.task(op.task)
    return Result(host.ioctl(task, task.files.vms[op.vm], abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_XSAVE2))


@carries(kvm.KvmCreateVcpu)
def _create_vcpu(host: Host, op: kvm.KvmCreateVcpu, expected: Result) -> Result:
    task = host.task(op.task)
    vm, number = task.files.vms[op.vm], op.id
    if number >= KVM_MAX_VCPU_IDS:  # the model's limit stands for the kernel's
        number += host.ioctl(task, host.kvm(task), abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_MAX_VCPU_ID)
    fd = host.ioctl(task, vm, abi.KVM_CREATE_VCPU, number)
    if fd < 0:
        return Result(fd)
    if not isinstance(expected.ret, str):
        host.close(task, fd)
        return Result("created")
    nr = int(expected.ret.removeprefix("v"))
    task.files.vcpus[nr] = (op.vm, fd)
    if not op.reset:
        set_sregs(host, task, fd, Sregs(True))
    return Result(f"v{nr}")


def set_sregs(host: Host, task: Task, fd: int, wanted: Sregs) -> int:
    """KVM_GET_SREGS, then KVM_SET_SREGS of a flat state of 64 bits in ring 0."""
    ret, data = host.exchange(task, fd, abi.KVM_GET_SREGS, bytes(abi.KVM_SIZE_SREGS))
    if ret:
        return ret
    sregs = bytearray(data)
    struct.pack_into("<Q", sregs, _CR0, layout.CR0 | (layout.CR0_TS if wanted.ts else 0))
    struct.pack_into("<Q", sregs, _CR4, layout.CR4 | (layout.CR4_OSXSAVE if wanted.osxsave else 0))
    struct.pack_into("<Q", sregs, _EFER, layout.EFER)
    # CS: type 11, present, DPL 0, DB 0, S, L, G
    struct.pack_into("<QIHBBBBBBBBBB", sregs, _CS, 0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
    return host.exchange(task, fd, abi.KVM_SET_SREGS, bytes(sregs))[0]


@carries(kvm.CloseVm)
def _close_vm(host: Host, op: kvm.CloseVm, expected: Result) -> Result:
    task = host.task(op.task)
    host.close(task, task.files.vms.pop(op.vm))
    for nr, (vm, fd) in [*task.files.vcpus.items()]:
        if vm == op.vm:
            host.close(task, fd)
            del task.files.vcpus[nr]
    return Result(0)


# -- CPUID ------------------------------------------------------------------------------------------------------------

_XSAVE, _XSAVES, _XFD, _AMX = 1 << 26, 1 << 3, 1 << 4, 1 << 24 | 1 << 25 | 1 << 22
#: A leaf that nothing looks at, for CPUIDs that differ in what does not matter.
_OTHER = 0x40000F00


def edited(entries: list[abi.CpuidEntry], wanted: CpuidEntries, cpuid: CpuidTable) -> Iterator[abi.CpuidEntry]:
    """What is supported, as a program wants it; sizes and places are those of the processor."""
    whole = wanted.leaves or wanted.xcr0 | wanted.xss
    for one in entries:
        where = (one.function, one.subleaf)
        if one.function == 1:
            yield one._replace(ecx=one.ecx & ~_XSAVE | (0 if wanted.no_xsave else _XSAVE))
        elif where == (7, 0):
            yield one._replace(edx=one.edx & ~_AMX | (_AMX if wanted.amx else 0))
        elif where == (0xD, 0):
            yield one._replace(eax=wanted.xcr0 & 0xFFFFFFFF, edx=wanted.xcr0 >> 32)
        elif where == (0xD, 1):
            flags = one.eax & ~(_XSAVES | _XFD) | (0 if wanted.no_xsaves else _XSAVES) | (_XFD if wanted.xfd else 0)
            yield one._replace(eax=flags, ecx=wanted.xss & 0xFFFFFFFF, edx=wanted.xss >> 32)
        elif one.function != 0xD:
            yield one
    for i in xf.components_in(whole & ~xf.MASK_FPSSE):
        if i in cpuid.components:
            known = cpuid.components[i]
            flags = known.supervisor | known.aligned << 1 | known.xfd << 2
            yield abi.CpuidEntry(0xD, i, 1, known.size, known.offset, flags, 0)
    if wanted.other:
        yield abi.CpuidEntry(_OTHER, 0, 0, wanted.other, 0, 0, 0)


@carries(kvm.KvmSetCpuid2)
def _set_cpuid(host: Host, op: kvm.KvmSetCpuid2, expected: Result) -> Result:
    task = host.task(op.task)
    entries = abi.cpuid_list(edited(supported(host, task), op.entries, host.cpuid))
    return Result(host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_SET_CPUID2, entries)[0])


@carries(kvm.KvmSetCpuid2Supported)
def _set_supported(host: Host, op: kvm.KvmSetCpuid2Supported, expected: Result) -> Result:
    task = host.task(op.task)
    entries = supported(host, task)
    ret, _ = host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_SET_CPUID2, abi.cpuid_list(entries))
    # the model's value is there whenever the call got as far as that
    return Result(ret, None if expected.out is None else user_components(entries))


@carries(kvm.KvmGetCpuid2)
def _get_cpuid(host: Host, op: kvm.KvmGetCpuid2, expected: Result) -> Result:
    task = host.task(op.task)
    asked = struct.pack("<II", abi.KVM_MAX_CPUID_ENTRIES, 0) + bytes(40 * abi.KVM_MAX_CPUID_ENTRIES)
    ret, data = host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_GET_CPUID2, asked)
    return Result(ret, None if ret else user_components([*abi.cpuid_entries(data)]))


# -- registers --------------------------------------------------------------------------------------------------------


@carries(kvm.KvmSetSregs)
def _set_sregs(host: Host, op: kvm.KvmSetSregs, expected: Result) -> Result:
    task = host.task(op.task)
    return Result(set_sregs(host, task, task.files.vcpu(op.vcpu), op.sregs))


@carries(kvm.KvmSetRegs)
def _set_regs(host: Host, op: kvm.KvmSetRegs, expected: Result) -> Result:
    task = host.task(op.task)
    fd = task.files.vcpu(op.vcpu)
    ret, regs = host.exchange(task, fd, abi.KVM_GET_REGS, bytes(abi.KVM_SIZE_REGS))
    return Result(ret or host.exchange(task, fd, abi.KVM_SET_REGS, regs)[0])


@carries(kvm.KvmSetXcrs)
def _set_xcrs(host: Host, op: kvm.KvmSetXcrs, expected: Result) -> Result:
    task = host.task(op.task)
    xcrs = abi.xcrs(op.xcr0, op.xcr, op.nr_xcrs, op.flags)
    return Result(host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_SET_XCRS, xcrs)[0])


@carries(kvm.KvmGetXcrs)
def _get_xcrs(host: Host, op: kvm.KvmGetXcrs, expected: Result) -> Result:
    task = host.task(op.task)
    empty = bytes(abi.KVM_SIZE_XCRS)
    ret, data = host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_GET_XCRS, empty)
    return Result(ret, None if ret else struct.unpack_from("<Q", data, 16)[0])


@carries(kvm.KvmSetMsrs)
def _set_msrs(host: Host, op: kvm.KvmSetMsrs, expected: Result) -> Result:
    task = host.task(op.task)
    entries = abi.msr_list(op.msrs.entries)
    return Result(host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_SET_MSRS, entries)[0])


@carries(kvm.KvmGetMsrs)
def _get_msrs(host: Host, op: kvm.KvmGetMsrs, expected: Result) -> Result:
    task = host.task(op.task)
    ret, data = host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_GET_MSRS, abi.msr_list([(op.msr, 0)]))
    return Result(ret, struct.unpack_from("<Q", data, 16)[0] if ret > 0 else None)


@carries(kvm.KvmGetMpState)
def _get_mp_state(host: Host, op: kvm.KvmGetMpState, expected: Result) -> Result:
    task = host.task(op.task)
    ret, data = host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_GET_MP_STATE, bytes(4))
    return Result(ret, MpState(struct.unpack("<I", data)[0]))


# -- images -----------------------------------------------------------------------------------------------------------


class _Buffer:
    """The caller's memory: as much as there is, some with other data behind it, or some with nothing mapped behind."""

    def __init__(self, host: Host, task: Task, wanted: UserBuffer, data: bytes) -> None:
        self.host, self.task = host, task
        self.size = wanted.size
        size = min(IMAGE_SIZE if wanted.size is None else wanted.size, IMAGE_SIZE - 4096)
        self.guarded = wanted.guarded and wanted.size is not None
        if not self.guarded:
            filled = bytes([_FILL]) * (IMAGE_SIZE - 4096)
            self.place = host.crew.image(task, data + filled[len(data) :])
            return
        pages = (size + 4095) & ~4095
        start = host.crew.allocate(task, pages + 4096)
        host.crew.syscall(task, abi.SYS_MUNMAP, start + pages, 4096)
        self.place = start + pages - size
        if data[:size]:
            host.crew.store(task, self.place, data[:size])

    def read(self, size: int) -> bytes:
        """What stands in it now; of guarded memory as far as there is any."""
        if not self.guarded:
            return self.host.crew.bytes_at(self.place, size)
        assert self.size is not None
        return self.host.crew.fetch(self.task, self.place, min(size, self.size))

    def overrun(self, ret: int) -> bool:
        """Whether an ioctl wrote beyond its end."""
        if ret or self.guarded or self.size is None:
            return False
        return any(byte != _FILL for byte in self.read(IMAGE_SIZE - 4096)[self.size :])


@carries(xsave.KvmSetXsave)
def _set_xsave(host: Host, op: xsave.KvmSetXsave, expected: Result) -> Result:
    task = host.task(op.task)
    image = host.images.made(op.image, partial(ghost.vcpu_token, op.vcpu))
    buffer = _Buffer(host, task, op.buffer, image)
    ret = host.ioctl(task, task.files.vcpu(op.vcpu), abi.KVM_SET_XSAVE, buffer.place)
    # nobody sees how far the kernel has read
    return expected if expected.ret == "overrun" and not ret else Result(ret)


@carries(xsave.KvmGetXsave)
def _get_xsave(host: Host, op: xsave.KvmGetXsave, expected: Result) -> Result:
    return _get_image(host, op, abi.KVM_GET_XSAVE, KVM_XSAVE_SIZE)


@carries(xsave.KvmGetXsave2)
def _get_xsave2(host: Host, op: xsave.KvmGetXsave2, expected: Result) -> Result:
    return _get_image(host, op, abi.KVM_GET_XSAVE2, images.SIZE)


def _get_image(host: Host, op: xsave.KvmGetXsave | xsave.KvmGetXsave2, request: int, size: int) -> Result:
    task = host.task(op.task)
    buffer = _Buffer(host, task, op.buffer, b"")
    ret = host.ioctl(task, task.files.vcpu(op.vcpu), request, buffer.place)
    if ret:
        return Result(ret)
    data = buffer.read(size)
    image = host.images.read(data) if len(data) >= 576 else Image(0)
    return Result("overrun" if buffer.overrun(ret) else ret, image)


def _fpu(tokens: dict[int, int]) -> bytes:
    """struct kvm_fpu."""
    control, registers = images.x87(tokens[xf.X87])
    return registers + control + images.sse(tokens[xf.SSE]) + mxcsr(tokens[xf.MXCSR]).to_bytes(4, "little") + bytes(4)


@carries(xsave.KvmSetFpu)
def _set_fpu(host: Host, op: xsave.KvmSetFpu, expected: Result) -> Result:
    task = host.task(op.task)
    data = _fpu(images.fpu(op.image, partial(ghost.vcpu_token, op.vcpu)))
    return Result(host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_SET_FPU, data)[0])


@carries(xsave.KvmGetFpu)
def _get_fpu(host: Host, op: xsave.KvmGetFpu, expected: Result) -> Result:
    task = host.task(op.task)
    ret, data = host.exchange(task, task.files.vcpu(op.vcpu), abi.KVM_GET_FPU, bytes(abi.KVM_SIZE_FPU))
    if ret:
        return Result(ret)
    tokens = {
        xf.X87: images.x87_token(data[128:152], data[:128]),
        xf.SSE: images.sse_token(data[152:408]),
        xf.MXCSR: images.mxcsr_in(data[408:412]),
    }
    return Result(ret, FpuState(tuple(tokens.items())))
