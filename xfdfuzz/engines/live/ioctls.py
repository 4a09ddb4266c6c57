"""What the kernel's headers give: numbers of system calls and ioctls, and the structures of KVM's (x86-64).

include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/{kvm,prctl}.h, arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SYS_CLOSE, SYS_MMAP, SYS_MUNMAP, SYS_IOCTL, SYS_GETPID, SYS_EXIT = 3, 9, 11, 16, 39, 60
SYS_SIGALTSTACK, SYS_ARCH_PRCTL, SYS_SCHED_SETAFFINITY, SYS_OPENAT = 131, 158, 203, 257
AT_FDCWD, O_RDWR, O_CLOEXEC = -100, 2, 0o2000000
SS_DISABLE, SS_AUTODISARM = 2, 1 << 31

KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_CHECK_EXTENSION, KVM_GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE03, 0xAE04
KVM_GET_MSR_INDEX_LIST, KVM_GET_SUPPORTED_CPUID = 0xC004AE02, 0xC008AE05
KVM_CREATE_VCPU, KVM_SET_USER_MEMORY_REGION, KVM_SET_TSS_ADDR = 0xAE41, 0x4020AE46, 0xAE47
KVM_RUN, KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS = (
    0xAE80,
    0x8090AE81,
    0x4090AE82,
    0x8138AE83,
    0x4138AE84,
)
KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_FPU, KVM_SET_FPU = 0xC008AE88, 0x4008AE89, 0x81A0AE8C, 0x41A0AE8D
KVM_SET_CPUID2, KVM_GET_CPUID2, KVM_GET_MP_STATE = 0x4008AE90, 0xC008AE91, 0x8004AE98
KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XSAVE2 = 0x9000AEA4, 0x5000AEA5, 0x9000AECF
KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR = 0x8188AEA6, 0x4188AEA7, 0x4018AEE2, 0x4018AEE3
KVM_CAP_MAX_VCPU_ID, KVM_CAP_XSAVE2 = 128, 208
KVM_SIZE_REGS, KVM_SIZE_SREGS, KVM_SIZE_FPU, KVM_SIZE_XCRS = 144, 312, 416, 392
#: Entries of CPUID and MSRs that KVM takes at once.
KVM_MAX_CPUID_ENTRIES = 256


class CpuidEntry(NamedTuple):
    """struct kvm_cpuid_entry2."""

    function: int
    subleaf: int
    flags: int
    eax: int
    ebx: int
    ecx: int
    edx: int


def cpuid_list(entries: Iterable[CpuidEntry]) -> bytes:
    """struct kvm_cpuid2."""
    packed = [struct.pack("<7I12x", *entry) for entry in entries]
    return struct.pack("<II", len(packed), 0) + b"".join(packed)


def cpuid_entries(data: bytes) -> Iterator[CpuidEntry]:
    """What is in one."""
    count = struct.unpack_from("<I", data)[0]
    for place in range(count):
        yield CpuidEntry(*struct.unpack_from("<7I", data, 8 + 40 * place))


def msr_list(entries: Iterable[tuple[int, int]]) -> bytes:
    """struct kvm_msrs."""
    packed = [struct.pack("<IIQ", index, 0, value) for index, value in entries]
    return struct.pack("<II", len(packed), 0) + b"".join(packed)


def xcrs(value: int, xcr: int, nr_xcrs: int, flags: int) -> bytes:
    """struct kvm_xcrs with one entry."""
    return struct.pack("<IIIIQ", nr_xcrs, flags, xcr, 0, value).ljust(KVM_SIZE_XCRS, b"\0")
