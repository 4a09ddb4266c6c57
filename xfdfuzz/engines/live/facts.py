"""What a host says of itself: asked by probes in processes of its own, never assumed from the name of a module."""

from __future__ import annotations

import errno
import os
import platform
import struct
from dataclasses import dataclass, replace
from fcntl import ioctl

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END, SAPPHIRE_RAPIDS, ZEN4, CpuidTable
from xfdfuzz.engines.live import ioctls as abi
from xfdfuzz.engines.live.guest import Machine as Guests
from xfdfuzz.engines.live.host import Host
from xfdfuzz.engines.live.kvm import edited, supported, user_components
from xfdfuzz.engines.live.tasks import Crew, Task
from xfdfuzz.engines.live.user import stop
from xfdfuzz.kernel.fpu import xstate
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.machine import MAX_CPUS, Machine
from xfdfuzz.native.assembler import PLAIN
from xfdfuzz.native.contents import mxcsr
from xfdfuzz.program.ops import guest

_API = 12
#: Where it lies in an image.
_XSTATE_BV = 512
#: MOV EAX, leaf; MOV ECX, sub-leaf; XCHG RBX, R12; CPUID; XCHG RBX, R12, and the four registers to RDI.
_CPUID = "b8{leaf} b9{subleaf} 4987dc 0fa2 4987dc 8907 44896704 894f08 89570c"
#: MOV EAX, 6; XOR EDX, EDX; XRSTOR [RDI]; XSAVEC [RDI].
_RESTORE_AND_SAVE = "b806000000 31d2 0fae2f 0fc727"
#: An x87 instruction, XGETBV: what an emulator of guest code does not have.
_FPU_INSN, _XGETBV_INSN = guest.GuestFld(0, 1), guest.GuestXgetbv(0, 0)


class NoHost(Exception):
    """There is nothing to run programs on; the text says why, in a line."""


@dataclass(frozen=True)
class Facts:
    """What was found.

    ``release`` is the kernel's, ``supported`` ARCH_GET_XCOMP_SUPP, ``supervisor`` what CPUID has for IA32_XSS,
    ``xfeatures_end`` the first number that ARCH_REQ_XCOMP_PERM calls invalid; ``xfd``, ``xsaves``, ``xsavec`` and
    ``xgetbv1`` are CPUID's flags, ``mxcsr_mask`` what MXCSR can hold, ``amd`` whether images lie as on AMD's
    processors, ``zeros_are_initial`` whether XMM registers are initial once zeros are loaded, ``ptrace`` whether it
    works.
    ``kvm_xcr0``, ``kvm_xfd``, ``kvm_amx``, ``kvm_xsaves`` are what KVM offers a process that has every permission,
    ``xsave2`` KVM_CAP_XSAVE2 without any.  ``cpuid_kept``: KVM_SET_CPUID2 stores what it is given; ``cpuid_again``: it
    takes the same after KVM_RUN.  ``guest_fpu``: a guest's x87 instruction in ring 0 is executed;
    ``guest_xcr0``: a guest's XGETBV gives its XCR0.
    """

    release: str
    supported: int
    supervisor: int
    xfeatures_end: int
    xfd: bool
    mxcsr_mask: int
    cpus: int
    xsaves: bool = True
    xsavec: bool = True
    xgetbv1: bool = True
    amd: bool = False
    zeros_are_initial: bool = False
    ptrace: bool = True
    kvm_xcr0: int = 0
    kvm_xfd: bool = False
    kvm_amx: bool = False
    kvm_xsaves: bool = False
    xsave2: int = 0
    cpuid_kept: bool = True
    cpuid_again: bool = True
    guest_fpu: bool = True
    guest_xcr0: bool = True

    @property
    def machine(self) -> Machine:
        """The model's machine that is most like it; nobody sees which of its supervisor states the kernel uses."""
        has = self.supported
        return Machine(
            cpus=max(1, min(self.cpus, MAX_CPUS)),
            xsaves=self.xsaves,
            xsavec=self.xsavec,
            xgetbv1=self.xgetbv1,
            avx=bool(has & xf.MASK_YMM),
            avx512=has & xf.MASK_AVX512 == xf.MASK_AVX512,
            pku=bool(has & xf.MASK_PKRU),
            mpx=has & xf.MASK_MPX == xf.MASK_MPX,
            apx=bool(has & xf.MASK_APX),
            xfd=self.xfd,
            amx=has & xf.MASK_XTILE == xf.MASK_XTILE,
            pasid=bool(self.supervisor & xf.MASK_PASID),
            cet=bool(self.supervisor & xf.MASK_CET),
            amd=self.amd,
        )


def look(device: str = "/dev/kvm") -> Facts:
    """Ask the host; raises :class:`NoHost`."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise NoHost(f"needs Linux on x86_64, this is {platform.system()} on {platform.machine()}")
    _open(device)
    try:
        with Crew() as crew:
            facts = _of_processor(Host(crew, device))
        for probe in (_of_kvm, _of_cpuid, _of_guests):
            with Crew() as crew:
                facts = probe(Host(crew, device, facts.machine.cpuid), facts)
    except OSError as error:
        raise NoHost(f"cannot start a process for probes: {error.strerror}") from None
    return facts


def _open(device: str) -> None:
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NoHost(f"{device}: {error.strerror}") from None
    try:
        if ioctl(fd, abi.KVM_GET_API_VERSION, 0) != _API:
            raise NoHost(f"{device}: not KVM")
    except OSError:
        raise NoHost(f"{device}: not KVM") from None
    finally:
        os.close(fd)


def _cpuid(crew: Crew, task: Task, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    words = (struct.pack("<I", word).hex() for word in (leaf, subleaf))
    code = bytes.fromhex(_CPUID.format(**dict(zip(("leaf", "subleaf"), words, strict=True))))
    here = crew.scratch(task, bytes(16))
    crew.execute(task, code, here)
    eax, ebx, ecx, edx = struct.unpack("<4I", crew.bytes_at(here, 16))
    return eax, ebx, ecx, edx


def _of_processor(host: Host) -> Facts:
    crew, task = host.crew, host.task(0)
    here = crew.scratch(task, bytes(8))
    ret = crew.syscall(task, abi.SYS_ARCH_PRCTL, xstate.ARCH_GET_XCOMP_SUPP, here)
    if ret:
        raise NoHost(f"no ARCH_GET_XCOMP_SUPP: {os.strerror(-ret)} (Linux 5.16 or later)")
    supported_ = struct.unpack("<Q", crew.bytes_at(here, 8))[0]
    eax, _, ecx, edx = _cpuid(crew, task, 0xD, 1)
    found = {i: _cpuid(crew, task, 0xD, i)[:2] for i in xf.components_in(supported_ & ~xf.MASK_FPSSE)}
    return Facts(
        release=platform.release(),
        supported=supported_,
        supervisor=edx << 32 | ecx,
        xfeatures_end=_first_invalid(crew, host.task(1)),
        xfd=bool(eax & 1 << 4),
        xsaves=bool(eax & 1 << 3),
        xsavec=bool(eax & 1 << 1),
        xgetbv1=bool(eax & 1 << 2),
        amd=layout_of(found) is ZEN4,
        zeros_are_initial=bool(eax & 1 << 1 and supported_ & xf.MASK_YMM) and _zeros_are_initial(crew, task),
        mxcsr_mask=_mxcsr_mask(crew, task),
        cpus=len(host.cpus),
        ptrace=_traces(task),
    )


def layout_of(found: dict[int, tuple[int, int]]) -> CpuidTable:
    """The layout with components of these sizes and offsets; raises :class:`NoHost` if the model has none."""
    for table in (SAPPHIRE_RAPIDS, ZEN4):
        if found.items() <= {i: (one.size, one.offset) for i, one in table.components.items()}.items():
            return table
    places = ", ".join(f"{xf.format_mask(1 << i)} {size} bytes at {offset}" for i, (size, offset) in found.items())
    raise NoHost(f"the model has no processor that lays out its XSAVE image so: {places}")


def _zeros_are_initial(crew: Crew, task: Task) -> bool:
    """Whether XSAVEC calls SSE initial once XRSTOR has loaded an image whose XMM registers are 0, and YMM are not."""
    image = bytearray(HEADER_END + 256)
    image[24:28] = mxcsr(0).to_bytes(4, "little")
    struct.pack_into("<Q", image, _XSTATE_BV, xf.MASK_SSE | xf.MASK_YMM)
    image[HEADER_END:] = bytes([1]) * 256
    here = crew.image(task, bytes(image))
    crew.execute(task, bytes.fromhex(_RESTORE_AND_SAVE), here)
    xstate_bv: int = struct.unpack("<Q", crew.bytes_at(here + _XSTATE_BV, 8))[0]
    return xstate_bv == xf.MASK_YMM


def _traces(task: Task) -> bool:
    """Whether ptrace() is allowed."""
    try:
        stop(task)
    except OSError:
        return False
    return True


def _mxcsr_mask(crew: Crew, task: Task) -> int:
    """What FXSAVE stores; 0 stands for that of the first processors."""
    here = crew.image(task, bytes(512))
    crew.execute(task, PLAIN["fxsave64"].data, here)
    mask: int = struct.unpack("<I", crew.bytes_at(here + 28, 4))[0]
    return mask or 0xFFBF


def _first_invalid(crew: Crew, task: Task) -> int:
    """XFEATURE_MAX; permissions that are given meanwhile are the process' own."""
    for number in range(64):
        if crew.syscall(task, abi.SYS_ARCH_PRCTL, xstate.ARCH_REQ_XCOMP_PERM, number) == -errno.EINVAL:
            return number
    return 64


def _of_kvm(host: Host, facts: Facts) -> Facts:
    crew, task = host.crew, host.task(0)
    kvm = host.kvm(task)
    size = host.ioctl(task, kvm, abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_XSAVE2)
    for i in xf.components_in(facts.supported):
        crew.syscall(task, abi.SYS_ARCH_PRCTL, xstate.ARCH_REQ_XCOMP_GUEST_PERM, i)
    entries = {(one.function, one.subleaf): one for one in supported(host, task)}
    features, seven = entries.get((0xD, 1)), entries.get((7, 0))
    return replace(
        facts,
        xsave2=size,
        kvm_xcr0=user_components([*entries.values()]),
        kvm_xfd=bool(features and features.eax & 1 << 4),
        kvm_xsaves=bool(features and features.eax & 1 << 3),
        kvm_amx=bool(seven and seven.edx & 1 << 24),
    )


def _vcpu(host: Host, task: Task) -> int:
    """A vCPU of a new VM."""
    vm = host.create_vm(task, 0)
    fd = host.ioctl(task, vm, abi.KVM_CREATE_VCPU, 0)
    if vm < 0 or fd < 0:
        raise NoHost(f"cannot create a VM with a vCPU: {os.strerror(-min(vm, fd))}")
    task.files.vcpus[0] = (0, fd)
    return fd


def _of_cpuid(host: Host, facts: Facts) -> Facts:
    task = host.task(0)
    fd = _vcpu(host, task)
    wanted = [*edited(supported(host, task), CpuidEntries(xf.MASK_FPSSE, False, False), host.cpuid)]
    host.exchange(task, fd, abi.KVM_SET_CPUID2, abi.cpuid_list(wanted))
    asked = struct.pack("<II", abi.KVM_MAX_CPUID_ENTRIES, 0) + bytes(40 * abi.KVM_MAX_CPUID_ENTRIES)
    _, data = host.exchange(task, fd, abi.KVM_GET_CPUID2, asked)
    kept = user_components([*abi.cpuid_entries(data)]) == xf.MASK_FPSSE
    return replace(facts, cpuid_kept=kept)


def _of_guests(host: Host, facts: Facts) -> Facts:
    task = host.task(0)
    fd = _vcpu(host, task)
    wanted = abi.cpuid_list(edited(supported(host, task), CpuidEntries(facts.kvm_xcr0, False, False), host.cpuid))
    host.exchange(task, fd, abi.KVM_SET_CPUID2, wanted)
    guests = Guests(host)
    fpu, xcr0 = (_run(guests, task, op) for op in (_FPU_INSN, _XGETBV_INSN))
    again = host.exchange(task, fd, abi.KVM_SET_CPUID2, wanted)[0]
    return replace(facts, cpuid_again=not again, guest_fpu=fpu is not None, guest_xcr0=xcr0 == xf.MASK_X87)


def _run(guests: Guests, task: Task, op: guest.GuestFld | guest.GuestXgetbv) -> object:
    """What a guest's instruction came to or read; None if it was not executed."""
    vcpu = guests.vcpu(task, 0)
    insn = vcpu.stream.add(op)
    guests.run(task, vcpu, [insn, vcpu.stream.done()])
    outcome = guests.outcome(vcpu, insn)
    if outcome is None:  # go on behind it
        guests.go_to(task, vcpu, vcpu.stream.end)
        return None
    return outcome.ret if outcome.out is None else outcome.out
