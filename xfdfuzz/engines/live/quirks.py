"""In which a host is not what the model takes it for: each is found by a probe, has a name, and is told.

A quirk changes the model where that is enough to go on comparing, and names the ops that are not compared where not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XSS
from xfdfuzz.engines.live.facts import Facts
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.program.ops import guest, kvm, ptrace, xsave
from xfdfuzz.program.ops.base import GuestOp, Op
from xfdfuzz.revisions import Revision


@dataclass(frozen=True)
class Quirk:
    """``what`` the host does, in a clause; ``shows``: whether this one does.

    ``model`` makes a kernel of the model one that does the same; ``masks`` says which ops are not compared then.
    """

    name: str
    what: str
    shows: Callable[[Facts, type[Kernel]], bool]
    model: Callable[[Facts], type[Any]] | None = None
    masks: Callable[[Op, Kernel], bool] = lambda op, kernel: False


def _offered(facts: Facts, kernel: type[Kernel]) -> int:
    """What the model's KVM offers on such a machine."""
    booted = kernel(facts.machine)
    booted.boot()
    return booted.supported_xcr0


def _offers_less(facts: Facts) -> type[Any]:
    class OffersLess:
        """KVM offers fewer components than the host has."""

        @property
        def supported_xcr0(self) -> int:
            return facts.kvm_xcr0

    return OffersLess


def _without_xfd(facts: Facts) -> type[Any]:
    class WithoutXfd:
        """KVM offers neither XFD nor AMX."""

        def kvm_cpu_cap_has_xfd(self) -> bool:
            return facts.kvm_xfd

        def kvm_cpu_cap_has_amx(self) -> bool:
            return facts.kvm_amx

    return WithoutXfd


def _rewrites_cpuid(facts: Facts) -> type[Any]:
    class RewritesCpuid:
        """KVM_SET_CPUID2 stores what the processor has, once it has checked what it was given; XSAVE is there."""

        def kvm_is_valid_cr4(self, vcpu: Vcpu, cr4: int) -> bool:
            return True

        def kvm_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> int:
            vcpu.arch.cpuid_xcr0 = facts.kvm_xcr0
            vcpu.arch.cpuid_no_xsave = 0
            return super().kvm_vcpu_after_set_cpuid(vcpu)  # type: ignore[misc, no-any-return]

    return RewritesCpuid


_TRACING = (ptrace.PtraceGetXstate, ptrace.PtraceSetXstate, ptrace.PtraceGetFpregs, ptrace.PtraceSetFpregs)
#: Guest instructions that every emulator of guest code has.
_EMULATED = (
    guest.GuestOut,
    guest.GuestHlt,
    guest.GuestXsetbv,
    guest.GuestRdmsr,
    guest.GuestWrmsr,
    guest.GuestStts,
    guest.GuestClts,
    guest.GuestMovCr4,
    guest.GuestCpuid,
    guest.GuestInterrupt,
    guest.GuestInterruptKernelFpu,
)


def _of_xss(op: Op, kernel: Kernel) -> bool:
    msrs = [index for index, _ in op.msrs.entries] if isinstance(op, kvm.KvmSetMsrs) else [getattr(op, "msr", 0)]
    return MSR_IA32_XSS in msrs or isinstance(op, guest.GuestXsaves | guest.GuestXrstors)


def _again(op: Op, kernel: Kernel) -> bool:
    if not isinstance(op, kvm.KvmSetCpuid2 | kvm.KvmSetCpuid2Supported):
        return False
    return kernel.vcpus[op.vcpu].last_vmentry_cpu != -1


def _shows_avx_alone(op: Op, kernel: Kernel) -> bool:
    """Whether an op copies an image with AVX and without SSE to user space, which has whatever MXCSR lay there (finding
    14 of docs/fidelity.md); of a vCPU that has not run, it is that of KVM_SET_XSAVE."""
    ghost = kernel.system.ghost
    if isinstance(op, ptrace.PtraceGetXstate | ptrace.PtraceGetFpregs):
        regs = ghost.tasks[op.tracee]
    elif isinstance(op, xsave.KvmGetXsave | xsave.KvmGetXsave2) and kernel.vcpus[op.vcpu].last_vmentry_cpu != -1:
        regs = ghost.vcpus[op.vcpu].regs
    else:
        return False
    return bool(regs.data[xf.YMM]) and not regs.data[xf.SSE]


QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        "zeros-are-initial",
        "XMM registers are initial once zeros are loaded, so copies of AVX without SSE are not compared",
        lambda facts, kernel: facts.zeros_are_initial,
        masks=_shows_avx_alone,
    ),
    Quirk(
        "ptrace-refused",
        "ptrace() is not allowed here, so it is not compared",
        lambda facts, kernel: not facts.ptrace,
        masks=lambda op, kernel: isinstance(op, _TRACING),
    ),
    Quirk(
        "kvm-offers-less",
        "KVM offers guests fewer components than the host has",
        lambda facts, kernel: facts.kvm_xcr0 != _offered(facts, kernel),
        _offers_less,
    ),
    Quirk(
        "kvm-without-xfd",
        "KVM offers guests no XFD where the host has it",
        lambda facts, kernel: bool(facts.xfd and facts.supported & xf.MASK_XTILE and not facts.kvm_xfd),
        _without_xfd,
    ),
    Quirk(
        "kvm-without-xsaves",
        "KVM offers guests no XSAVES, so nothing about IA32_XSS is compared",
        lambda facts, kernel: not facts.kvm_xsaves,
        masks=_of_xss,
    ),
    Quirk(
        "cpuid-rewritten",
        "KVM_SET_CPUID2 stores what the processor has, so what KVM_GET_CPUID2 and a guest's CPUID give is not compared",
        lambda facts, kernel: not facts.cpuid_kept,
        _rewrites_cpuid,
        lambda op, kernel: isinstance(op, kvm.KvmGetCpuid2 | guest.GuestCpuid | guest.GuestMovCr4),
    ),
    Quirk(
        "cpuid-refused-again",
        "KVM_SET_CPUID2 refuses the same CPUID after KVM_RUN, so it is not compared then",
        lambda facts, kernel: not facts.cpuid_again,
        masks=_again,
    ),
    Quirk(
        "guest-fpu-emulated",
        "guest code in ring 0 is emulated without x87, SSE, AVX and XSAVE, so they are not compared",
        lambda facts, kernel: not facts.guest_fpu,
        masks=lambda op, kernel: isinstance(op, GuestOp) and not isinstance(op, _EMULATED),
    ),
    Quirk(
        "guest-xcr0-not-loaded",
        "a guest's XGETBV does not give its XCR0, so what depends on it is not compared",
        lambda facts, kernel: not facts.guest_xcr0,
        masks=lambda op, kernel: isinstance(op, guest.GuestXgetbv),
    ),
)


def quirks_of(facts: Facts, revision: Revision) -> tuple[Quirk, ...]:
    """Those that the host shows, held against the revision."""
    return tuple(quirk for quirk in QUIRKS if quirk.shows(facts, revision.kernel))


def modelled(facts: Facts, revision: Revision, quirks: tuple[Quirk, ...]) -> type[Kernel]:
    """The revision with the quirks."""
    mixins = tuple(quirk.model(facts) for quirk in quirks if quirk.model)
    kernel: type[Kernel] = type(revision.label, (*mixins, revision.kernel), {"__doc__": revision.kernel.__doc__})
    return kernel
