"""Every invariant has a mutant, which it catches, and a witness: the same program on the kernel without the mistake.

A mutant replaces a function or two of a revision by a plausible mistake of a patch's author; where a posted series
made the mistake already, that revision stands in for one.  The witness must come as far as the decision: in the step in
which the mutant is caught the invariant is looked at there too, and all of it runs but what reports.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Any, TypeVar

import pytest

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import Leaf
from xfdfuzz.arch.registers import CR4_OSXSAVE, MSR_IA32_PASID, MSR_IA32_XFD, load_component
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.engines.judge.verdict import Verdict, judge, steps
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.vocabulary import INVARIANTS, Broken, Predicate, View
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.coredump import Coredump, CoreFile, XfeatComponent
from xfdfuzz.kernel.errno import EFAULT, EINTR, EINVAL, EPERM
from xfdfuzz.kernel.fork import Fork
from xfdfuzz.kernel.fpu.core import FpuCore
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.kernel.fpu.regset import NT_X86_SHSTK, SSP_UNALIGNED, Regset, UserRegset
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.fpu.xstate import Value
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries, KvmCpuid
from xfdfuzz.kernel.kvm.msrs import KvmMsrs
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.x86 import KvmVcpuEvents, KvmX86
from xfdfuzz.kernel.kvm.xsave import KVM_XSAVE_SIZE, KvmFpu, KvmXcrs, KvmXsave, UserBuffer
from xfdfuzz.kernel.power import Power
from xfdfuzz.kernel.process import Process
from xfdfuzz.kernel.shstk import ARCH_SHSTK_STATUS
from xfdfuzz.kernel.state import Fpstate, Fpu, FpuGuest, SigFrame, Vcpu
from xfdfuzz.memory.cstruct import assign, copy_of
from xfdfuzz.program.ops.base import OPS, call_of
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import Revision, resolve
from xfdfuzz.revisions.amx_review import AmxReviewB
from xfdfuzz.revisions.amx_series import AmxSeries
from xfdfuzz.revisions.amx_v1 import AmxV1
from xfdfuzz.revisions.amx_v6 import AmxV6
from xfdfuzz.revisions.mainline.coredump import XsaveLayout
from xfdfuzz.revisions.mainline.features import UserShadowStacks

#: Invariants that no plausible kernel can break, and why.
VACUOUS: dict[str, str] = dict.fromkeys(
    (
        *("procedure-keeps-the-guest", "reset-leaves-nothing", "reset-is-a-reset", "guest-cpuid-is-coherent"),
        "buffer-has-room",
    ),
    "about VMMs, no kernel can help: tests/test_vmm.py",
) | {
    "procedure-keeps-the-task": "about tracers, likewise: tests/test_tracers.py",
    "kernel-fpu-is-used-by-its-rules": "about other kernel code, likewise: tests/test_windows.py",
}


@dataclass(frozen=True)
class Case:
    """An invariant, a kernel that breaks it in ``program``, and ``sound``, the same kernel without the mistake.

    ``site``, for an invariant that judges reports: the kernel function that would have had to report.
    """

    invariant: str
    name: str
    program: Program
    broken: Revision
    sound: Revision
    site: str = ""


CASES: list[Case] = []

_K = TypeVar("_K", bound=type[FpuCore])


def mutant(invariant: str, text: str, of: str = "v7.3", site: str = "") -> Callable[[_K], _K]:
    """The decorated class, on top of revision ``of``, breaks ``invariant`` in the program."""

    def register(cls: _K) -> _K:
        sound = posted(of)
        label = f"{sound.label}+{cls.__name__}"
        kernel = type(label, (cls, sound.kernel), {"revision": label})
        CASES.append(
            Case(invariant, cls.__name__, parse(text), replace(sound, label=label, kernel=kernel), sound, site)
        )
        return cls

    return register


def posted(name: str) -> Revision:
    """A revision; one of the posted series without its permission bug (063452fd94d1), which has a case of its own."""
    return resolve(name, apply=["063452fd94d1"] if name.startswith("amx-") else [])


def known(invariant: str, text: str, broken: Revision, sound: Revision, site: str = "") -> None:
    """A revision that breaks ``invariant``, and one that does not."""
    CASES.append(Case(invariant, broken.label, parse(text), broken, sound, site))


# -- programs ----------------------------------------------------------------------------------------------------------


def program(*parts: str, machine: str = "cpus=1") -> str:
    return "\n".join(["# xfdfuzz program 1", f"machine {machine}", *parts])


CREATE = """
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
"""
#: A vCPU whose guest may use AMX, and whose buffer has room for it wherever KVM_SET_CPUID2 makes it.
AMX = f"""
t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
{CREATE}
t0 ioctl(v0, KVM_SET_CPUID2, {{xcr0: x87|sse|avx|avx512|pkru|xtile, xfd, amx}}) = 0
"""
AMX_XCR0 = "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtile) = 0"
ENTER = """
t0 ioctl(v0, KVM_RUN) ... = ok
v0 vmenter = ok
"""
#: Back into the guest.
AGAIN = "v0 vmenter"
#: The guest runs a guest of its own.
L2 = "v0 vmlaunch = exit\nv0 handle = resume\nv0 vmenter = ok"
L2_NM = L2.replace("vmlaunch", "vmlaunch intercept-nm")
#: A vCPU whose guest has CET.
CET = f"{CREATE}\nt0 ioctl(v0, KVM_SET_CPUID2, {{xcr0: x87|sse, xss: cet_user|cet_kernel}}) = 0"
CET_READ = "t0 ioctl(v0, KVM_GET_MSRS, IA32_U_CET) = 1"
#: The guest runs with AMX enabled in XCR0 and in IA32_XFD, which is 0 since reset.
AMX_GUEST = AMX + AMX_XCR0 + ENTER
#: The same guest after it disabled TILEDATA: from here on its writes of IA32_XFD do not exit.
DISABLED = """
v0 wrmsr(IA32_XFD, 0x40000) = exit
v0 handle = resume
v0 vmenter = ok
"""
TILES = """
v0 ldtilecfg(1) = ok
v0 tileload(2) = ok
"""
#: KVM_RUN ends by a signal.
LEAVE = """
v0 interrupt = exit
t0 ... KVM_RUN = -EINTR
"""
#: amx-v1 and the alternatives that keep its request: XSETBV makes TILEDATA usable before there is room for it.
REQUESTED = f"""
{AMX}
{ENTER}
v0 xsetbv(x87|sse|avx|xtile) = exit
v0 handle = exit
"""
SERVED = REQUESTED + "t0 ... KVM_RUN = KVM_EXIT_FPU_REALLOC\n"
#: There is no memory at first; the alternatives that keep the request then serve it later.
RETRIED = f"""
{REQUESTED}
host fail_alloc(1)
t0 ... KVM_RUN = -EFAULT
t0 ioctl(v0, KVM_RUN) ... = ok
t0 ... KVM_RUN = -EINTR
"""
#: The guest's first tile instruction faults.
FAULTED = f"""
{AMX_GUEST}
{DISABLED}
v0 ldtilecfg(1) = ok
v0 tileload(2) = exit
"""

# -- what ioctls and system calls promise ------------------------------------------------------------------------------


@mutant(
    "failed-call-changes-nothing",
    program(CREATE, "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx}) = -EPERM"),
)
class CommitsCpuidBeforeTheCheck(KvmCpuid):
    def kvm_check_cpuid(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        vcpu.arch.cpuid_xcr0 = entries.xcr0
        return super().kvm_check_cpuid(vcpu, entries)


@mutant(
    "faulting-instruction-changes-nothing",
    program(AMX_GUEST, "v0 xsetbv(x87|avx) = exit", "v0 handle = resume", "v0 vmenter = #GP"),
)
class CommitsXcr0BeforeTheCheck(KvmX86):
    def _kvm_set_xcr(self, vcpu: Vcpu, index: int, xcr: int) -> int:
        vcpu.arch.xcr0 = xcr
        return super()._kvm_set_xcr(vcpu, index, xcr)


@mutant("ioctl-leaves-run-state-alone", program(AMX, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x20}) = 0"))
class InjectsGpForUserSpace(KvmX86):
    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        ret = super().kvm_set_msr_common(vcpu, index, data, host_initiated)
        if ret:
            self.kvm_inject_gp(vcpu)
        return ret


@mutant(
    "ioctl-leaves-run-state-alone",
    program(AMX, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0}) = 1"),
)
class CompletesAnInstructionForUserSpace(KvmX86):
    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        vcpu.arch.complete_userspace_io = st.COMPLETE_SKIP_INSN
        return super().kvm_set_msr_common(vcpu, index, data, host_initiated)


known(
    "supported-cpuid-is-usable",
    program(
        CREATE,
        "t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID) = 0",
        "t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0",
    ),
    broken=resolve("v7.3", revert=["55cd57b596e8"]),
    sound=resolve("v7.3"),
)


#: The guest enables AVX in XCR0, then user space gives it the CPUID that it has once more.
SAME_CPUID_AGAIN = f"""
{CREATE}
t0 ioctl(v0, KVM_SET_CPUID2, {{xcr0: x87|sse|avx}}) = 0
t0 ioctl(v0, KVM_RUN) ... = ok
v0 vmenter = ok
v0 xsetbv(x87|sse|avx) = exit
v0 handle = resume
v0 vmenter = ok
v0 interrupt = exit
t0 ... KVM_RUN = -EINTR
t0 ioctl(v0, KVM_SET_CPUID2, {{xcr0: x87|sse|avx}}) = 0
"""
known(
    "same-cpuid-again-is-accepted",
    program(SAME_CPUID_AGAIN),
    broken=resolve("v7.3", revert=["e2b43fb25243"]),
    sound=resolve("v7.3"),
)
#: QEMU gives a vCPU that was unplugged and is plugged again what KVM supports, or what its first vCPU has.
for first, again in (("KVM_SET_CPUID2, supported", ""), ("KVM_SET_CPUID2, {xcr0: x87|sse|avx}", " of v0")):
    known(
        "same-cpuid-again-is-accepted",
        program(
            CREATE,
            f"t0 ioctl(v0, {first}) = 0",
            ENTER,
            LEAVE,
            "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx) = 0",
            f"t0 ioctl(v0, KVM_SET_CPUID2){again} = 0" if again else f"t0 ioctl(v0, {first}) = 0",
        ),
        broken=resolve("v6.17.13"),
        sound=resolve("v7.3"),
    )
known(
    "guest-cpuid-follows-xcr0",
    program(
        SAME_CPUID_AGAIN,
        ENTER,
        "v0 cpuid(0xd, 0) = exit",
        "v0 handle = resume [0x340]",
    ),
    broken=resolve("v7.3", revert=["e2b43fb25243"]),
    sound=resolve("v7.3"),
)


@mutant(
    "guest-cpuid-follows-xcr0",
    program(SAME_CPUID_AGAIN, ENTER, "v0 cpuid(0xd, 1) = exit", "v0 handle = resume"),
)
class NeverUpdatesTheCpuid(KvmCpuid):
    def kvm_update_cpuid_runtime(self, vcpu: Vcpu) -> None:
        vcpu.arch.cpuid_0xd_1_ebx = 0


@mutant(
    "guest-cpuid-follows-cr4",
    program(
        AMX_GUEST,
        "v0 mov_cr4({}) = exit",
        "v0 handle = resume",
        "v0 vmenter = ok",
        "v0 cpuid(0x1, 0) = exit",
        "v0 handle = resume",
    ),
    of="v6.12",
)
class CpuidForgetsCr4(KvmX86):
    def kvm_set_cr4(self, vcpu: Vcpu, cr4: int) -> int:
        vcpu.arch.cr4_osxsave = bool(cr4 & CR4_OSXSAVE)
        return 0


@mutant(
    "supported-cpuid-is-coherent",
    program("t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID, 0xd, 0) = 0 {eax: 0x2e7, ebx: 0xa88, ecx: 0xa88, edx: 0x0}"),
)
class OffersTheProcessorsSize(KvmCpuid):
    def do_cpuid_func(self, entries: CpuidEntries, function: int, index: int, sizes: tuple[int, int]) -> Leaf | None:
        leaf = super().do_cpuid_func(entries, function, index, sizes)
        return leaf._replace(ecx=11008) if leaf and (function, index) == (0xD, 0) else leaf


@mutant(
    "supported-cpuid-is-coherent",
    program("t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID, 0x1d, 1) = 0"),
)
class OffersNoPalettes(KvmCpuid):
    def kvm_dev_ioctl_get_cpuid(self) -> CpuidEntries:
        return super().kvm_dev_ioctl_get_cpuid()._replace(no_palettes=True)


@mutant(
    "supported-cpuid-is-coherent",
    program("t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID, 0xd, 18) = 0"),
)
class OffersSubleavesWithoutPermission(KvmCpuid):
    def kvm_dev_ioctl_get_cpuid(self) -> CpuidEntries:
        return super().kvm_dev_ioctl_get_cpuid()._replace(leaves=self.supported_xcr0)


#: A guest whose registers are sealed.
SEALED = """
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_SEV_ES_INIT) = 0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0
"""


@mutant(
    "protected-guest-is-hidden",
    program(
        SEALED,
        "t0 vmovups(1) = ok",
        ENTER,
        "v0 interrupt = exit",
        "t0 ... KVM_RUN = -EINTR",
        "t0 ioctl(v0, KVM_GET_XSAVE) = 0",
    ),
)
class ShowsSealedImages(KvmXsave):
    def kvm_arch_vcpu_ioctl_get_xsave(self, vcpu: Vcpu, user: UserBuffer) -> tuple[int, XsaveArea | None]:
        area = XsaveArea(xstate_bv=xf.MASK_YMM)
        area.data[xf.YMM] = self.fpstates[self.current.fpu.fpstate].regs.data[xf.YMM]
        return 0, area


@mutant(
    "protected-state-is-refused",
    program(
        "t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0",
        "t0 ioctl(v0, KVM_SET_XCRS, x87)",
    ),
)
class TakesXcrsOfAnybody(Kernel):
    def kvm_vcpu_ioctl_x86_set_xcrs(self, vcpu: Vcpu, xcrs: KvmXcrs) -> int:
        return -EINVAL if self._kvm_set_xcr(vcpu, 0, xcrs.value) else 0


@mutant(
    "listed-msrs-can-be-saved",
    program(SEALED, "t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD)"),
)
class KeepsAllMsrsFromTheVmm(Kernel):
    def protected_msr(self, vcpu: Vcpu, index: int) -> int | None:
        return -EINVAL if vcpu.arch.guest_state_protected else None


@mutant("protected-guest-is-untouched", program(SEALED, "t0 ioctl(v0, KVM_SET_FPU, {data: 1}) = 0"))
class WritesSealedRegisters(KvmXsave):
    def kvm_arch_vcpu_ioctl_set_fpu(self, vcpu: Vcpu, fpu: KvmFpu) -> int:
        vcpu.vmsa.data[xf.X87] = fpu.x87
        return 0


@mutant(
    "supported-cpuid-is-usable",
    program(
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
        CREATE,
        "host fail_alloc(1)",
        "t0 ioctl(v0, KVM_SET_CPUID2, supported) = -EFAULT",
        "t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0",
        machine="cpus=1 dyn2",
    ),
)
class OffersWhatIsNotPermitted(AmxV6):
    def supported_cpuid_xcr0(self) -> int:
        return self.supported_xcr0


known(
    "get-xsave-hides-disabled",
    program(
        AMX_GUEST,
        TILES,
        "v0 wrmsr(IA32_XFD, 0x40000) = exit",
        "cpu0 softirq kernel_fpu_begin",
        "v0 handle = resume",
        "t0 ... KVM_RUN = -EINTR",
        "t0 ioctl(v0, KVM_GET_XSAVE2) = 0",
    ),
    broken=resolve("v7.3", revert=["b45f72177594"]),
    sound=resolve("v7.3"),
)


@mutant(
    "get-xsave-is-complete",
    program(
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
        CREATE,
        "t0 ioctl(v0, KVM_GET_XSAVE) = 0",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx}) = 0",
        "t0 ioctl(v0, KVM_GET_XSAVE) = -EINVAL",
    ),
)
class CutsTheImage(AmxV6):
    def kvm_vcpu_ioctl_x86_get_xsave(self, vcpu: Vcpu) -> tuple[int, XsaveArea | None]:
        return KvmX86.kvm_vcpu_ioctl_x86_get_xsave(self, vcpu)


@mutant("xsave-copies-what-it-promised", program(AMX, "t0 ioctl(v0, KVM_GET_XSAVE2) = 0"))
class PromisesTheDefaults(AmxV6):
    def kvm_vm_ioctl_check_extension_xsave2(self, vm: int | None) -> int:
        return KVM_XSAVE_SIZE


@mutant("xsave-copies-what-it-promised", program(CREATE, "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: x87, data: 1}) = 0"))
class ReadsTheLargestImage(KvmXsave):
    def kvm_set_xsave_size(self, vcpu: Vcpu) -> int:
        return self.fpu_user_cfg.max_size


known(
    "get-xsave-keeps-to-the-guest",
    program(
        CREATE,
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0",
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: avx|pkru, data: 1}) = 0",
        "t0 ioctl(v0, KVM_GET_XSAVE) = 0",
    ),
    broken=resolve("v5.16"),
    sound=resolve("v7.3"),
)


@mutant("set-xsave-takes-what-the-host-has", program(CREATE, "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: avx, data: 1})"))
class TakesWhatTheGuestHas(AmxV6):
    def kvm_vcpu_ioctl_x86_set_xsave(self, vcpu: Vcpu, image: XsaveArea) -> int:
        return -EINVAL if image.xstate_bv & ~vcpu.arch.guest_supported_xcr0 else 0


#: A guest with PKU migrates to a vCPU without: v5.17 and v5.18 refuse its image (Bloomberg's kvm-guest-debug, #2278).
known(
    "set-xsave-takes-what-the-host-has",
    program(
        CREATE,
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|pkru}) = 0",
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: x87|sse|avx|pkru, data: 2}) = 0",
        "t0 ioctl(v0, KVM_GET_XSAVE) keep",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 1) = v1",
        "t0 ioctl(v1, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0",
        "t0 ioctl(v1, KVM_SET_XSAVE) of v0 = 0",
    ),
    broken=resolve("v5.18"),
    sound=resolve("v7.3"),
)


@mutant("guest-sees-its-xss", program(AMX, ENTER))
class RunsTheGuestWithTheHostsXss(KvmX86):
    def xsaves_enabled(self, vcpu: Vcpu) -> bool:
        return False


@mutant(
    "guest-sees-its-xss",
    program(CREATE, "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse, no_xsaves}) = 0", ENTER, machine="cpus=1 cet amd"),
)
class TakesXsavesAwayByCpuidOnAmd(KvmX86):
    """As VMX can."""

    def guest_cpu_cap_has_xsaves(self, vcpu: Vcpu) -> bool:
        return self.guest_cpuid_has_xsaves(vcpu)


@mutant("host-runs-with-its-own-xcr0", program(CREATE, ENTER, "v0 interrupt = exit"))
class RestoresTheHostsXcr0AtTheNextExitToUserSpace(KvmX86):
    """42bdf991f4ca and 1811d979c716 closed two ways to run the scheduler with a guest's XCR0."""

    def kvm_load_host_xsave_state(self, vcpu: Vcpu) -> None:
        pass

    def kvm_put_guest_fpu(self, vcpu: Vcpu) -> int:
        KvmX86.kvm_load_host_xsave_state(self, vcpu)
        return super().kvm_put_guest_fpu(vcpu)


@mutant(
    "get-msrs-is-true", program(CET, ENTER, "v0 wrmsr(IA32_U_CET, 0x1) = ok", LEAVE, CET_READ, machine="cpus=1 cet")
)
class ReadsTheMsrOfTheVmm(KvmMsrs):
    """KVM_GET_MSRS as posted in 2023, without e44eb58334bb."""

    def msr_io_load_fpu(self, vcpu: Vcpu, index: int) -> bool:
        return False


@mutant(
    "nm-delivered-once",
    program(AMX_GUEST, DISABLED, L2_NM, "v0 tileload(1)", "v0 handle", AGAIN),
)
class QueuesTheNmBeforeTheNestedExit(AmxV6):
    """As amx-v2 to amx-v4, were it not for nested_vmx_vmexit(), which drops what is queued for L2."""

    def handle_exception_nmi_irqoff(self, vcpu: Vcpu) -> None:
        super().handle_exception_nmi_irqoff(vcpu)
        self.kvm_queue_exception(vcpu, st.NM_VECTOR)

    def nested_vmx_vmexit(self, vcpu: Vcpu) -> None:
        vcpu.arch.guest_mode = 0


@mutant(
    "passthrough-needs-nm-intercept",
    program(AMX_GUEST, DISABLED, "v0 wrmsr(IA32_XFD, 0x0)", "v0 hlt", "v0 handle"),
)
class InterceptsNmWhileXfdIsSet(AmxV6):
    """The policy that the review of amx-v3 proposed first: what the guest writes next, without an exit, it misses."""

    def vmx_update_exception_bitmap(self, vcpu: Vcpu) -> None:
        vcpu.arch.nm_intercept = bool(self.deref(vcpu.arch.guest_fpu.fpstate).xfd)

    def vcpu_exited_before_irqoff(self, vcpu: Vcpu) -> None:
        super().vcpu_exited_before_irqoff(vcpu)
        self.vmx_update_exception_bitmap(vcpu)


@mutant("fpstate-fits-its-features", program(AMX, machine="cpus=1 cet dense"))
class SizesGuestsByTheHostsPermission(AmxSeries):
    """7c2c89364d92 gives guest_perm the guests' own defaults, which have CET_KERNEL; with the host's, the buffer that
    the next permission asks for has no room for it."""

    def fpstate_reset(self, nr: int) -> None:
        super().fpstate_reset(nr)
        fpu = self.tasks[nr].fpu
        assign(fpu.guest_perm, fpu.perm)


@mutant("xcomp-guest-supp-is-complete", program("t0 ioctl(kvm, KVM_GET_DEVICE_ATTR, 0, 0) = 0"))
class TellsWhatIsPermitted(AmxV6):
    def kvm_x86_dev_get_attr(self, group: int, attr: int, pointer_ok: bool) -> Value:
        return Value(0, self.cap_xsave2_xcr0())


known(
    "xfd-msrs-are-listed",
    program("t0 ioctl(kvm, KVM_GET_MSR_INDEX_LIST, IA32_XFD_ERR) = 0 [0x1]"),
    broken=posted("amx-v1"),
    sound=resolve("v7.3"),
)


@mutant("get-fpu-is-true", program(CREATE, "t0 ioctl(v0, KVM_GET_FPU)"), of="v7.3-cured")
class X87Zeroed(KvmXsave):
    def kvm_arch_vcpu_ioctl_get_fpu(self, vcpu: Vcpu) -> tuple[int, KvmFpu]:
        ret, fpu = super().kvm_arch_vcpu_ioctl_get_fpu(vcpu)
        return ret, fpu._replace(x87=ZEROED)


@mutant("get-fpu-has-mxcsr", program(CREATE, "t0 ioctl(v0, KVM_GET_FPU)"), of="v7.3-cured")
class MxcsrNotSet(KvmXsave):
    def kvm_arch_vcpu_ioctl_get_fpu(self, vcpu: Vcpu) -> tuple[int, KvmFpu]:
        ret, fpu = super().kvm_arch_vcpu_ioctl_get_fpu(vcpu)
        return ret, fpu._replace(mxcsr=ZEROED)


@mutant("get-xsave-is-true", program(AMX_GUEST, TILES, LEAVE, "t0 ioctl(v0, KVM_GET_XSAVE2) = 0"))
class CopiesTheOldSize(AmxV6):
    def kvm_vcpu_ioctl_x86_get_xsave2(self, vcpu: Vcpu) -> tuple[int, XsaveArea | None]:
        return 0, self.kvm_copy_xsave_to_uabi(vcpu, KVM_XSAVE_SIZE)


@mutant("get-msrs-is-true", program(AMX, "t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD) = 1 [0x0]"))
class ReadsTheXfdOfCurrent(AmxV6):
    def kvm_get_msr_common(self, vcpu: Vcpu, index: int, host_initiated: bool) -> tuple[int, int]:
        ret, data = super().kvm_get_msr_common(vcpu, index, host_initiated)
        return ret, self.this_cpu.xfd_state if index == MSR_IA32_XFD else data


known(
    "xfd-msrs-can-be-saved",
    program(AMX, "t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD_ERR) = 1 [0x0]"),
    broken=posted("amx-v1"),
    sound=resolve("v7.3"),
)


@mutant("load-put-balanced", program(AMX, "t0 ioctl(v0, KVM_GET_MP_STATE) = 0 [KVM_MP_STATE_RUNNABLE]"))
class LoadsForTheMpStateAndNeverPuts(KvmX86):
    def kvm_arch_vcpu_ioctl_get_mpstate(self, vcpu: Vcpu) -> int:
        self.kvm_load_guest_fpu(vcpu)
        return 0


@mutant("xfd-msrs-can-be-restored", program(CREATE, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0, IA32_XFD_ERR: 0}) = 2"))
class RefusesXfdErr(AmxV6):
    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        return super().kvm_set_msr_common(vcpu, index, data, host_initiated) if index == MSR_IA32_XFD else 1


@mutant("xfd-msrs-can-be-restored", program(CREATE, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0, IA32_XFD_ERR: 0}) = 2"))
class AsksCpuidOfUserSpaceToo(AmxV6):
    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        return super().kvm_set_msr_common(vcpu, index, data, False)


@mutant(
    "xfd-msrs-can-be-restored",
    program(
        AMX,
        "t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD) keep",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 1) = v1",
        "t0 ioctl(v1, KVM_SET_MSRS) of v0 = 1",
    ),
)
class AsksCpuidOfTheVmmThatRestores(AmxV6):
    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        return super().kvm_set_msr_common(vcpu, index, data, False)


@mutant(
    "exit-reason-is-known",
    program(AMX, ENTER, "v0 xsetbv(x87|sse|avx|xtile) = exit", "v0 handle = resume", "t0 ... KVM_RUN = -EINTR"),
)
class ExitsForAReallocation(KvmX86):
    def kvm_emulate_xsetbv(self, vcpu: Vcpu, index: int, value: int, cpl: int = 0) -> int:
        super().kvm_emulate_xsetbv(vcpu, index, value, cpl)
        vcpu.run.exit_reason = st.KVM_EXIT_FPU_REALLOC
        return 0


# -- amx-v1 and its alternatives: the life of a request ----------------------------------------------------------------


@mutant("no-realloc-on-enter", program(SERVED, "t0 ioctl(v0, KVM_RUN) ... = ok"), of="amx-v1")
class NothingClearsTheRequest(AmxV1):
    def xfd_enable_guest_features(self, guest_fpu: FpuGuest) -> int:
        request = guest_fpu.realloc_request
        ret = super().xfd_enable_guest_features(guest_fpu)
        guest_fpu.realloc_request = request
        return ret


known("request-is-not-stale", program(SERVED), broken=posted("amx-review-a"), sound=posted("amx-review-b"))
known("request-is-discharged", program(RETRIED), broken=posted("amx-review-a"), sound=posted("amx-review-b"))


@mutant("request-is-discharged", program(RETRIED), of="amx-review-b")
class KeepsTheRequestAndReportsSuccess(AmxReviewB):
    def kvm_put_guest_fpu(self, vcpu: Vcpu) -> int:
        super().kvm_put_guest_fpu(vcpu)
        return 0


@mutant(
    "realloc-failure-is-reported",
    program(REQUESTED, "host fail_alloc(1)", "t0 ... KVM_RUN = -EFAULT"),
    of="amx-v1",
)
class DropsTheResultOfThePut(AmxV1):
    def kvm_run_merge_put(self, r: int, put_ret: int) -> int:
        return r


known(
    "request-accumulates",
    program(
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, DYN2) = 0",
        CREATE,
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile|dyn2, xfd, amx}) = 0",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtile|dyn2) = 0",
        "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x100000}) = 1",
        "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000}) = 1",
        machine="cpus=1 dyn2",
    ),
    broken=posted("amx-v1"),
    sound=posted("amx-review-b"),
)
known(
    "request-is-eventually-cleared",
    program(REQUESTED, "host fail_alloc(1)", "t0 ... KVM_RUN = -EFAULT"),
    broken=posted("amx-review-a"),
    sound=posted("amx-review-b"),
)

# -- buffers -----------------------------------------------------------------------------------------------------------


@mutant("no-buffer-overrun", program(AMX_GUEST, TILES, LEAVE), site="os_xsave")
class AllocatesByTheHostsPermission(AmxSeries):
    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        ksize = self.tasks[self.current.group_leader].fpu.perm.state_size
        return super().fpstate_realloc_guest(xfeatures, ksize, usize, guest_fpu)


known(
    "no-buffer-overrun",
    program(CREATE, "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: x87|sse, data: 1}) = 0", machine="cpus=1 no-xsave"),
    broken=resolve("v7.3", revert=["d187ba531230"]),
    sound=resolve("v7.3"),
    site="fpu_copy_uabi_to_guest_fpstate",
)


@mutant("no-use-after-free", program(SERVED), of="amx-v1", site="fpu_swap_kvm_fpstate")
class KeepsCurrentOnTheOldFpstate(AmxV1):
    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        old = self.current.fpu.fpstate
        ret = super().fpstate_realloc_guest(xfeatures, ksize, usize, guest_fpu)
        self.current.fpu.fpstate = old
        return ret


@mutant(
    "no-null-dereference",
    program(AMX, "t0 ioctl(v0, KVM_GET_MP_STATE) = 0 [KVM_MP_STATE_RUNNABLE]", machine="cpus=1 mpx"),
    of="v6.12",
    site="fpu_swap_kvm_fpstate",
)
class PutsWhatIsNotLoaded(KvmX86):
    def kvm_arch_vcpu_ioctl_get_mpstate(self, vcpu: Vcpu) -> int:
        self.vcpu_load(vcpu)
        self.kvm_put_guest_fpu(vcpu)
        self.vcpu_put(vcpu)
        return 0


@mutant("no-leak", program(AMX_GUEST, LEAVE, "t0 close(vm0) = 0"), site="fpu_free_guest_fpstate")
class StaysInUse(AmxV6):
    def fpu_swap_kvm_fpstate(self, guest_fpu: FpuGuest, enter_guest: bool) -> int:
        ret = super().fpu_swap_kvm_fpstate(guest_fpu, enter_guest)
        self.deref(guest_fpu.fpstate).in_use = 1
        return ret


@mutant("fpstate-reachable", program(AMX, "t0 close(vm0) = 0"))
class ForgetsTheFpstateInDestroy(KvmX86):
    def kvm_arch_vcpu_destroy(self, vcpu: Vcpu) -> None:
        pass


@mutant("fpstate-has-one-owner", program("t0 clone(CLONE_THREAD) = t2"))
class CopiesTheFpuWithItsPointer(FpuCore):
    def fpu_clone(self, child: int, flags: int) -> None:
        super().fpu_clone(child, flags)
        self.tasks[child].fpu.fpstate = self.current.fpu.fpstate


known(
    "fpstate-fits-its-features",
    program(CREATE, machine="cpus=1 no-avx512 no-pku no-amx"),
    broken=resolve("v6.12.117", revert=["1937e18cc3cf"]),
    sound=resolve("v6.12.117"),
)


@mutant("fpstate-fits-its-features", program(CREATE, machine="cpus=1 no-xsaves no-xsavec"))
class SizesOfTheCompactedFormat(FpuCore):
    """What XSAVEC writes, on a processor that has but XSAVEOPT: PKRU lies behind a gap there."""

    def xstate_calculate_size(self, mask: int, *, compacted: bool) -> int:
        return super().xstate_calculate_size(mask, compacted=True)


@mutant("uabi-size-covers-image", program(AMX))
class TakesTheKernelSizeForTheUabi(AmxSeries):
    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        return super().fpstate_realloc_guest(xfeatures, ksize, ksize, guest_fpu)


@mutant("in-use-tells-the-truth", program(AMX_GUEST))
class ForgetsInUse(AmxV6):
    def fpu_swap_kvm_fpstate(self, guest_fpu: FpuGuest, enter_guest: bool) -> int:
        ret = super().fpu_swap_kvm_fpstate(guest_fpu, enter_guest)
        self.deref(guest_fpu.fpstate).in_use = 0
        return ret


@mutant("load-put-balanced", program(AMX_GUEST, LEAVE))
class ReturnsEarlyOnASignal(KvmX86):
    def kvm_arch_vcpu_ioctl_run_out(self, vcpu: Vcpu) -> int:
        if vcpu.run_over:
            return super().kvm_arch_vcpu_ioctl_run_out(vcpu)
        vcpu.run.exit_reason = st.KVM_EXIT_INTR
        self.vcpu_put(vcpu)
        return -EINTR


@mutant("guest-features-backed", program(AMX_GUEST))
class NeverExpandsTheBuffer(AmxV6):
    def kvm_check_cpuid(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        return 0


# -- permissions -------------------------------------------------------------------------------------------------------


@mutant(
    "host-registers-preserved",
    program("t0 wrpkru(3)", "t0 create_io_thread = t2", "cpu0 schedule(t2)", "t2 ... copy_from_user"),
)
class WorkerMayTouchAnything(Fork):
    def create_io_thread(self) -> tuple[int, int]:
        ret, child = super().create_io_thread()
        self.tasks[child].pkru = 0
        return ret, child


known(
    "permission-only-grows",
    program("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0"),
    broken=resolve("v5.17"),
    sound=resolve("v7.3"),
)


@mutant(
    "permission-frozen-by-first-vcpu",
    program(CREATE, "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = -EBUSY"),
)
class IgnoresTheLock(AmxSeries):
    def xstate_request_perm_locked(self, permitted: int, requested: int, guest: bool, undefined: int) -> int:
        return self._xstate_request_perm(self.xstate_get_group_perm(guest), requested, guest)


@mutant(
    "permission-frozen-by-first-vcpu",
    program(AMX, "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0"),
)
class AsksTheLockBeforeTheWord(AmxSeries):
    def xstate_request_perm(self, idx: int, guest: bool, undefined: int = 0) -> int:
        if guest and self.xstate_get_group_perm(guest) & st.FPU_GUEST_PERM_LOCKED:
            return self.xstate_request_perm_locked(0, 1 << idx, guest, undefined)
        return super().xstate_request_perm(idx, guest, undefined)


known(
    "permission-request-truthful",
    program("t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA, undefined=7) = 0"),
    broken=posted("amx-v1"),
    sound=resolve("v7.3"),
)


HOST_TILES = """
t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0
t0 ldtilecfg(1) = ok
t0 tileload(2) = ok
"""


TRACED = """
cpu0 schedule(kthread) = ok
cpu1 schedule(t1) = ok
t1 ptrace(PTRACE_SETREGSET, t0, {xstate_bv: xtile, data: 3}) = 0
t1 ptrace(PTRACE_GETREGSET, t0, NT_X86_XSTATE) = 0 {xstate_bv: xtile, xtilecfg: 11, xtiledata: 11}
"""


@mutant("ptrace-reads-the-registers", program(HOST_TILES, TRACED, machine="cpus=2"))
class PtraceShowsTheDefaults(Regset):
    def xstateregs_get(self, nr: int, count: int) -> tuple[int, XsaveArea | None]:
        fpstate = self.deref(self.tasks[nr].fpu.fpstate)
        return 0, self.copy_xstate_to_uabi_buf(fpstate, self.fpu_user_cfg.default_features, 0, 4096)


@mutant(
    "host-registers-preserved",
    program(HOST_TILES, TRACED, "cpu0 schedule(t0) = ok", "t0 user = ok", machine="cpus=2"),
)
class PtraceLeavesTheRegistersValid(Regset):
    def fpu_force_restore(self, fpu: Fpu) -> None:
        pass


@mutant(
    "ptrace-write-is-taken",
    program("t0 ptrace(PTRACE_SETREGSET, t1, {xstate_bv: avx, data: 3, reserved}) = -EINVAL"),
)
class PtraceTakesAnyImage(Regset):
    def validate_user_xstate_header(self, image: XsaveArea, fpstate: Fpstate) -> int:
        return 0


WITH_SHADOW_STACK = program(
    "t0 arch_prctl(ARCH_SHSTK_ENABLE) = 0",
    "cpu0 schedule(t1) = ok",
    "t1 ptrace(PTRACE_SETREGSET, t0, NT_X86_SHSTK, unaligned)",
    "t1 ptrace(PTRACE_SETREGSET, t0, NT_X86_SHSTK, 3)",
    "t1 ptrace(PTRACE_GETREGSET, t0, NT_X86_SHSTK)",
    machine="cpus=1 cet",
)


@mutant("ptrace-sees-the-shadow-stack", WITH_SHADOW_STACK)
class ShadowStackIsSetNowhere(Regset):
    def ssp_set(self, nr: int, ssp: int, count: int) -> int:
        return -EINVAL if ssp == SSP_UNALIGNED else 0


@mutant("ptrace-sees-the-shadow-stack", WITH_SHADOW_STACK)
class AnyShadowStackPointerIsTaken(Regset):
    def ssp_set(self, nr: int, ssp: int, count: int) -> int:
        return 0


@mutant("core-dump-shows-the-registers", program(HOST_TILES, "t0 coredump(t0, NT_X86_XSTATE)"))
class DumpsWhatIsInMemory(Regset):
    def sync_fpstate(self, nr: int) -> None:
        pass


@mutant(
    "core-dump-shows-the-registers",
    program(
        *("t0 clone(CLONE_THREAD) = t2", "cpu1 schedule(t2) = ok", "t2 movups(1) = ok"),
        "t0 coredump(t2, NT_PRFPREG)",
        machine="cpus=2",
    ),
)
class DumpsOfThreadsThatRun(Coredump):
    def coredump_wait(self) -> list[int]:
        return self.thread_group()


@mutant(
    "core-dump-shows-the-registers",
    program("t0 arch_prctl(ARCH_SHSTK_ENABLE) = 0", "t0 coredump(t0, NT_X86_SHSTK)", machine="cpus=1 cet"),
)
class DumpsNoShadowStack(Coredump):
    def regset_active(self, nr: int, note_type: int, regset: UserRegset) -> bool:
        return note_type != NT_X86_SHSTK


@mutant("core-dump-can-be-read", program("t0 coredump(NT_X86_XSAVE_LAYOUT)"))
class SaysWhereXsavesPutIt(XsaveLayout):
    def dump_xsave_layout_desc(self, core: CoreFile) -> int:
        cpuid, features = self.machine.cpuid, self.fpu_user_cfg.max_features
        core.layout = tuple(
            XfeatComponent(i, cpuid.components[i].size, cpuid.compacted_offset(features, i))
            for i in xf.components_in(features & ~xf.MASK_FPSSE)
        )
        return len(core.layout)


@mutant(
    "shadow-stack-features-are-true",
    program("t0 arch_prctl(ARCH_SHSTK_LOCK, shstk) = 0", "t0 arch_prctl(ARCH_SHSTK_ENABLE)", machine="cpus=1 cet"),
)
class ForgetsWhatIsLocked(UserShadowStacks):
    def shstk_prctl(self, nr: int, option: int, arg2: int) -> Value:
        asked = super().shstk_prctl(nr, option, arg2)
        return asked if asked.ret != -EPERM else Value(self.shstk_prctl_own(option, arg2))


@mutant(
    "shadow-stack-features-are-true",
    program("t0 arch_prctl(ARCH_SHSTK_ENABLE) = 0", "t0 arch_prctl(ARCH_SHSTK_STATUS)", machine="cpus=1 cet"),
)
class TellsOfNoFeature(UserShadowStacks):
    def shstk_prctl(self, nr: int, option: int, arg2: int) -> Value:
        asked = super().shstk_prctl(nr, option, arg2)
        return Value(0, 0) if option == ARCH_SHSTK_STATUS else asked


@mutant("sigframe-is-true", program(HOST_TILES, "t0 signal ... = ok"))
class SignalLosesTheTiles(FpuSignal):
    def xfeatures_need_sigframe_write(self) -> int:
        return super().xfeatures_need_sigframe_write() & ~xf.MASK_XTILE_DATA


@mutant(
    "sigframe-is-true",
    program("t0 execve ... = ok", "t0 ... execve(ia32) = 0", "t0 fld(1) = ok", "t0 signal ... = ok"),
)
class FrameHasAnInitialHeader(FpuSignal):
    def save_fsave_header(self, frame: SigFrame, fpstate: Fpstate) -> None:
        frame.fsave = 0


@mutant(
    "host-registers-preserved",
    program(
        "t0 signal ...",
        "t0 ... signal = ok",
        "t0 sigframe(legacy, sse, 2) = ok",
        "t0 sigreturn = ok",
        "t0 fld(1) = ok",
    ),
)
class SaysNothingOfLegacyState(FpuSignal):
    """Without 04944b793e18."""

    def save_xstate_epilog(self, frame: SigFrame, fpstate: Fpstate) -> None:
        held = frame.area.xstate_bv
        super().save_xstate_epilog(frame, fpstate)
        frame.area.xstate_bv = held


@mutant(
    "host-registers-preserved",
    program(
        "t0 vmovups(1) = ok",
        "t0 sigframe(new) = ok",
        "t0 sigframe(fpstate, NULL) own = ok",
        "t0 sigreturn own = ok",
        "t0 movups(2) = ok",
    ),
)
class NoImageLeavesTheRegisters(FpuSignal):
    def fpu_restore_sig_begin(self, frame: SigFrame) -> bool:
        return bool(frame.null) or super().fpu_restore_sig_begin(frame)


@mutant("sigframe-describes-itself", program(HOST_TILES, "t0 signal ... = ok"))
class FrameHasTheDefaultSize(FpuSignal):
    def save_xstate_epilog(self, frame: SigFrame, fpstate: Fpstate) -> None:
        super().save_xstate_epilog(frame, fpstate)
        frame.xstate_size = self.fpu_user_cfg.default_size


@mutant("sigframe-describes-itself", program("t0 vmovups(1) = ok", "t0 signal ... = ok"))
class FrameHidesAvx(FpuSignal):
    def save_xstate_epilog(self, frame: SigFrame, fpstate: Fpstate) -> None:
        super().save_xstate_epilog(frame, fpstate)
        frame.xfeatures &= ~xf.MASK_YMM


#: A frame of a task's own, in memory that ends.
MADE = (
    "t0 sigframe(new, mapped={end}) = ok",
    "t0 sigframe({{xstate_bv: {held}, data: 2}}) own = ok",
    "t0 sigframe(sw_reserved, {{magic1: 1, extended_size: {more}, xfeatures: x87|sse|avx, xstate_size: {size}, "
    "magic2: {size}}}) own = ok",
)


def made(end: int, held: str, size: int) -> tuple[str, ...]:
    return tuple(line.format(end=end, held=held, more=size + 4, size=size) for line in MADE)


@mutant(
    "sigreturn-comes-to-an-end",
    program(
        *made(640, "x87|sse", 576),
        "t0 sigframe(changed, {xstate_bv: +avx}) own = ok",
        "t0 sigreturn own",
        "t0 ... sigreturn",
    ),
)
class FaultsInWhatTheFrameSays(FpuSignal):
    def sigframe_fault_in_size(self, frame: SigFrame) -> int:
        return frame.xstate_size


@mutant(
    "whole-frame-is-accepted",
    program(*made(896, "x87|sse|avx", 832), "t0 sigreturn own = ok"),
)
class MagicBehindTheFrame(FpuSignal):
    def check_xstate_in_sigframe(self, frame: SigFrame) -> bool | None:
        """Looks for the second magic behind the largest image."""
        return self.has_magic2(frame, self.fpu_user_cfg.max_size)


known(
    "xfd-matches-fpstate",
    program(
        "cpu0 schedule(kthread) = ok",
        "cpu0 schedule(t0) = ok",
        HOST_TILES,
        "cpu0 schedule(t1) = ok",
        "t1 signal ... = ok",
        "cpu0 schedule(t0) = ok",
        "t0 user = ok",
        "cpu0 schedule(t1) = ok",
        "t1 ... signal = ok",
    ),
    broken=resolve("v7.3", revert=["388eff894d6b"]),
    sound=resolve("v7.3"),
)


@mutant(
    "host-registers-preserved",
    program(HOST_TILES, "cpu0 schedule(kthread) = ok", "cpu0 idle = ok", "cpu0 schedule(t0) = ok", "t0 user = ok"),
)
class IdleKeepsTheOwner(Power):
    def intel_idle(self) -> None:
        owner = self.this_cpu.fpu_fpregs_owner_ctx
        super().intel_idle()
        self.this_cpu.fpu_fpregs_owner_ctx = owner


known(
    "xfd-shadow-matches-msr",
    program("cpu0 schedule(kthread) = ok", "cpu1 schedule(t0) = ok", HOST_TILES, "cpu1 hotplug = ok", machine="cpus=2"),
    broken=resolve("v7.3", revert=["10e4b5166df9"]),
    sound=resolve("v7.3"),
)


EXEC = """
t0 execve ... = ok
t0 ... execve = 0
"""


@mutant(
    "permission-inherited-by-fork",
    program("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0", "t0 fork = t2"),
)
class ForkStartsWithTheDefaults(FpuCore):
    def fpu_inherit_perms(self, child: int) -> None:
        pass


@mutant("exec-starts-afresh", program("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0", EXEC))
class ExecKeepsThePermissions(FpuCore):
    def fpu_flush_thread(self) -> None:
        kept = copy_of(self.current.fpu.perm)
        super().fpu_flush_thread()
        assign(self.current.fpu.perm, kept)


@mutant("exec-starts-afresh", program("t0 vmovups(1) = ok", EXEC))
class ExecForgetsTheRegisters(FpuCore):
    def fpu_flush_thread_regs(self) -> None:
        pass


@mutant(
    "sampled-branches-are-the-threads",
    program(
        *("t0 perf_event_open(lbr) = 0", "t0 call(1) = ok", "cpu0 schedule(t1)", "t1 perf_event_open(lbr) = 0"),
        *("t1 call(2) = ok", "cpu0 schedule(t0)", "cpu0 pmi"),
        machine="cpus=1 lbr",
    ),
)
class RestoresNoBranches(Process):
    def _intel_pmu_lbr_restore(self, context: st.LbrContext) -> None:
        pass


@mutant("enqcmd-works-with-a-pasid", program("t0 enqcmd = ok"))
class NeverFixesUpEnqcmd(Process):
    def try_fixup_enqcmd_gp(self) -> bool:
        return False


@mutant("enqcmd-works-with-a-pasid", program("t0 fork = t2", "cpu0 schedule(t2)", "t2 enqcmd"))
class AsksNoAddressSpaceForItsPasid(Process):
    def try_fixup_enqcmd_gp(self) -> bool:
        self.wrmsrl(MSR_IA32_PASID, st.pasid_of(self.current.mm))
        return True


@mutant(
    "guest-features-permitted",
    program(
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
        CREATE,
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx}) = 0",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile|dyn2, xfd, amx}) = -EPERM",
        machine="cpus=1 dyn2",
    ),
)
class SkipsTheGuestsPermission(AmxSeries):
    def _xfd_enable_feature(self, xfd_err: int, guest_fpu: FpuGuest | None) -> int:
        if guest_fpu is None:
            return super()._xfd_enable_feature(xfd_err, guest_fpu)
        size = self.fpu_kernel_cfg.max_size
        return -EFAULT if self.fpstate_realloc_guest(xfd_err, size, self.fpu_user_cfg.max_size, guest_fpu) else 0


@mutant("host-features-permitted", program("t0 ldtilecfg(1) = ok", "t0 tileload(2) = SIGILL", "t0 user = ok"))
class AsksTheMachineForPermission(AmxSeries):
    def xstate_get_group_perm(self, guest: bool) -> int:
        return super().xstate_get_group_perm(guest) if guest else self.fpu_kernel_cfg.max_features


@mutant("host-xfd-guards-unbacked-features", program(AMX, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0}) = 1"))
class WritesTheXfdOfCurrent(AmxV6):
    def fpu_update_guest_xfd(self, guest_fpu: FpuGuest, xfd: int) -> None:
        fpstate = self.deref(self.current.fpu.fpstate)
        fpstate.xfd = xfd
        self.xfd_update_state(fpstate)


# -- register contents -------------------------------------------------------------------------------------------------


@mutant(
    "guest-registers-preserved",
    program(
        AMX_GUEST,
        "v0 vmovups(1) = ok",
        "v0 interrupt = exit",
        "cpu0 schedule(kthread) = ok",
        "cpu1 schedule(t0) = ok",
        "v0 vmenter = ok",
        "v0 vmovups(2) = ok",
        "v0 interrupt = exit",
        "cpu1 schedule(kthread) = ok",
        "cpu0 schedule(t0) = ok",
        "v0 vmenter = ok",
        machine="cpus=2",
    ),
)
class ForgetsLastCpu(FpuCore):
    def fpregs_state_valid(self, fpu: Fpu, task: int) -> bool:
        return self.this_cpu.fpu_fpregs_owner_ctx == task + 1


@mutant("guest-registers-preserved", program(AMX, "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|pkru) = 0", ENTER))
class EntersWithTheHostsPkru(KvmX86):
    def kvm_load_guest_xsave_state(self, vcpu: Vcpu) -> None:
        super().kvm_load_guest_xsave_state(vcpu)
        load_component(self.regs, xf.PKRU, vcpu.arch.host_pkru)


@mutant("guest-registers-preserved", program(SEALED, ENTER))
class BreaksOlderMeasurements(KvmX86):
    """sev_es_sync_vmsa() without its "if (vcpu->kvm->arch.vm_type != KVM_X86_DEFAULT_VM)"."""

    def sync_vmsa_fpu(self, vcpu: Vcpu) -> None:
        regs = self.deref(vcpu.arch.guest_fpu.fpstate).regs
        for i in (xf.X87, xf.MXCSR):
            self.vmsa_component(vcpu, i, regs.data[i])


@mutant(
    "no-foreign-registers",
    program(
        "t0 wrpkru(2) = ok",
        CREATE,
        "t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0",
        "t0 ioctl(v0, KVM_SET_SREGS, {osxsave, pke}) = 0",
        ENTER,
        "v0 wrpkru(1) = ok",
        "v0 interrupt = exit",
        "t0 ... KVM_RUN = -EINTR",
        "t0 user = ok",
    ),
)
class GoesByXcr0ForPkru(KvmX86):
    """XSA-220."""

    def guest_uses_pkru(self, vcpu: Vcpu) -> bool:
        return bool(vcpu.arch.xcr0 & xf.MASK_PKRU)


@mutant("host-registers-preserved", program("t0 vmovups(1) = ok", "cpu0 softirq kernel_fpu_begin = ok", "t0 user = ok"))
class BeginsWithoutSaving(FpuCore):
    def kernel_fpu_begin(self) -> None:
        self.current.tif_need_fpu_load = 1
        super().kernel_fpu_begin()


@mutant(
    "kernel-computes-with-default-mxcsr",
    program("t0 ldmxcsr(1) = ok", "cpu0 softirq kernel_fpu_begin = ok", "t0 user"),
    site="kernel_fpu_compute",
)
class ComputesWithTheUsersMxcsr(FpuCore):
    """Without 7ad816762f9b (5.8)."""

    def kernel_fpu_mxcsr(self) -> None:
        pass


@mutant(
    "kernel-fpu-section-is-undisturbed",
    program("t0 kernel_fpu_begin ... = ok", "cpu0 hardirq kernel_fpu_begin", "t0 ... kernel_fpu_end"),
)
class SaysThatTheFpuIsUsable(FpuCore):
    def irq_fpu_usable(self) -> bool:
        return True


@mutant(
    "kernel-fpu-section-is-undisturbed",
    program("t0 kernel_fpu_begin ... = ok", "cpu0 softirq kernel_fpu_begin", "t0 ... kernel_fpu_end"),
    of="v6.12",
)
class ForgetsThatTheKernelUsesTheFpu(FpuCore):
    def kernel_fpu_disable(self) -> None:
        pass


@mutant(
    "user-mode-is-preemptible",
    program("t0 kernel_fpu_begin ... = ok", "t0 ... kernel_fpu_end = ok [kernel:5]", "t0 user = ok"),
)
class ForgetsToEnablePreemption(FpuCore):
    def kernel_fpu_unlock(self) -> None:
        pass


@mutant(
    "no-foreign-registers",
    program(
        "t0 vmovups(1) = ok",
        "cpu0 schedule(t1) = ok",
        "t1 vmovups(2) = ok",
        "cpu0 schedule(t0) = ok",
        "t0 user = ok",
    ),
)
class ForgetsTheOwnerOfTheRegisters(FpuCore):
    def fpregs_state_valid(self, fpu: Fpu, task: int) -> bool:
        return fpu.last_cpu == self.cpu


@mutant(
    "no-foreign-registers",
    program(
        "t0 fld(1) = ok",
        "cpu0 schedule(t1) = ok",
        "t1 fld(1) = ok",
        "cpu0 schedule(t0) = ok",
        "t0 user = ok",
        machine="cpus=1 fxsave-leak",
    ),
)
class LeavesErrorPointers(FpuCore):
    """CVE-2006-1056."""

    def clear_error_pointers(self) -> None:
        pass


@mutant("no-foreign-registers", program("t0 vmovups(1) = ok", AMX_GUEST))
class DoesNotRestoreTheGuest(AmxV6):
    def fpu_swap_kvm_fpstate(self, guest_fpu: FpuGuest, enter_guest: bool) -> int:
        if not enter_guest:
            return super().fpu_swap_kvm_fpstate(guest_fpu, enter_guest)
        fpu = self.current.fpu
        self.save_fpregs_to_fpstate(fpu)
        fpu.task_fpstate, fpu.fpstate = fpu.fpstate, guest_fpu.fpstate
        fpstate = self.deref(fpu.fpstate)
        fpstate.in_use = 1
        self.xfd_update_state(fpstate)
        self.fpregs_mark_activate()
        return 0


@mutant("live-state-saved", program(AMX_GUEST, TILES, LEAVE), site="os_xsave")
class ForgetsTheNewFeatures(AmxSeries):
    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        old = self.deref(guest_fpu.fpstate).xfeatures
        ret = super().fpstate_realloc_guest(xfeatures, ksize, usize, guest_fpu)
        self.deref(guest_fpu.fpstate).xfeatures = old
        return ret


known(
    "host-xrstor-never-faults",
    program(
        AMX_GUEST,
        DISABLED,
        LEAVE,
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: xtile, data: 3}) = 0",
        "t0 ioctl(v0, KVM_RUN) ... = ok",
    ),
    broken=resolve("v7.3", revert=["b45f72177594"]),
    sound=resolve("v7.3"),
    site="os_xrstor",
)


@mutant(
    "host-xrstor-never-faults", program(AMX_GUEST, TILES, LEAVE, "t0 ioctl(v0, KVM_RUN) ... = ok"), site="os_xrstor"
)
class RestoresBeforeItWritesXfd(FpuCore):
    def restore_fpregs_from_fpstate(self, fpstate: Fpstate, mask: int) -> None:
        self.os_xrstor(fpstate, self.fpu_kernel_cfg.max_features & mask)
        self.xfd_update_state(fpstate)


# -- the kernel's own opinion ------------------------------------------------------------------------------------------


known(
    "nothing-sleeps-in-atomic-context",
    program("t0 fork = t2", machine="cpus=1 rt"),
    broken=resolve("v7.3", revert=["36b038791e1e"]),
    sound=resolve("v7.3"),
    site="fpu_inherit_perms",
)


@mutant(
    "nothing-sleeps-in-atomic-context",
    program("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0", "t0 tileload(1)"),
    site="fpstate_realloc",
)
@mutant(
    "nothing-sleeps-in-atomic-context",
    program("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0", "t0 tileload(1)", machine="cpus=1 rt"),
    site="fpstate_realloc",
)
class GrowsTheBufferUnderSiglock(AmxSeries):
    def fpstate_realloc(self, xfeatures: int, ksize: int, usize: int) -> int:
        self.spin_lock_irq()
        ret = super().fpstate_realloc(xfeatures, ksize, usize)
        self.spin_unlock_irq()
        return ret


@mutant(
    "nothing-sleeps-in-atomic-context",
    program(AMX_GUEST, DISABLED, "v0 ldtilecfg(1) = ok", "v0 tileload(2) = exit"),
    site="handle_exception_nmi_irqoff",
)
class GrowsTheBufferBeforeInterruptsAreOn(AmxV6):
    def handle_exception_nmi_irqoff(self, vcpu: Vcpu) -> None:
        super().handle_exception_nmi_irqoff(vcpu)
        self._xfd_enable_feature(vcpu.arch.guest_fpu.xfd_err, vcpu.arch.guest_fpu)


@mutant(
    "host-kernel-never-oopses",
    program("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0", "t0 tileload(1)"),
    site="fpstate_realloc",
)
class GrowsTheBufferUnderFpregsLock(AmxSeries):
    def fpstate_realloc(self, xfeatures: int, ksize: int, usize: int) -> int:
        self.fpregs_lock()
        ret = super().fpstate_realloc(xfeatures, ksize, usize)
        self.fpregs_unlock()
        return ret


@mutant(
    "no-warning",
    program(
        AMX,
        "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000}) = 1",
        # a call between the two, or the sound kernel breaks restore-order-is-free (corpus/open)
        "t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD)",
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: xtile, data: 3}) = 0",
    ),
    site="fpu_copy_uabi_to_guest_fpstate",
)
class LetsTheFpuCoreFindOut(AmxV6):
    def kvm_vcpu_ioctl_x86_set_xsave(self, vcpu: Vcpu, image: XsaveArea) -> int:
        return KvmX86.kvm_vcpu_ioctl_x86_set_xsave(self, vcpu, image)


# -- IA32_XFD, IA32_XFD_ERR and #NM ------------------------------------------------------------------------------------


@mutant("xfd-shadow-matches-msr", program(AMX_GUEST, LEAVE))
class WritesTheMsrButNotTheShadow(FpuCore):
    def xfd_update_state(self, fpstate: Fpstate) -> None:
        if self.fpu_state_size_dynamic and self.this_cpu.xfd_state != fpstate.xfd:
            self.wrmsrl(MSR_IA32_XFD, fpstate.xfd)


@mutant("xfd-matches-fpstate", program(AMX_GUEST, "v0 wrmsr(IA32_XFD, 0x40000) = exit", "v0 handle = resume"))
class WritesTheFpstateButNotTheMsr(AmxV6):
    def fpu_update_guest_xfd(self, guest_fpu: FpuGuest, xfd: int) -> None:
        self.deref(guest_fpu.fpstate).xfd = xfd


@mutant(
    "xfd-coherent-in-interrupt",
    program(AMX_GUEST, DISABLED, "v0 wrmsr(IA32_XFD, 0) = ok", "v0 interrupt kernel_fpu_begin = exit"),
)
class SynchronisesXfdAfterTheHandlers(AmxV6):
    def vcpu_exited_before_irqoff(self, vcpu: Vcpu) -> None:
        pass

    def vcpu_exited_after_irqoff(self, vcpu: Vcpu) -> None:
        super().vcpu_exited_before_irqoff(vcpu)
        super().vcpu_exited_after_irqoff(vcpu)


@mutant("xfd-err-clean-in-host", program(FAULTED))
class ForgetsToClearXfdErr(AmxV6):
    def vcpu_exited_after_irqoff(self, vcpu: Vcpu) -> None:
        pass


@mutant(
    "guest-sees-its-xfd",
    program(
        AMX_GUEST,
        DISABLED,
        "v0 wrmsr(IA32_XFD, 0) = ok",
        "v0 interrupt = exit",
        "cpu0 schedule(t1) = ok",
        "t1 user = ok",
        "cpu0 schedule(t0) = ok",
        "v0 vmenter = ok",
    ),
)
class SynchronisesTheShadowOnly(AmxV6):
    def fpu_sync_guest_vmexit_xfd_state(self) -> None:
        self.this_cpu.xfd_state = self.rdmsrl(MSR_IA32_XFD)


@mutant("guest-sees-its-xcr0", program(AMX_GUEST))
class ForgetsTheGuestsXcr0(KvmX86):
    def kvm_load_guest_xsave_state(self, vcpu: Vcpu) -> None:
        pass


@mutant("guest-sees-its-xfd-err", program(FAULTED, "v0 handle = resume", "v0 vmenter = #NM"))
class ForgetsToRestoreXfdErr(AmxV6):
    def vcpu_enter_guest_xfd_err(self, vcpu: Vcpu) -> None:
        pass


@mutant("nm-delivered-once", program(FAULTED, "v0 handle = resume", "v0 vmenter = #NM"))
class ForgetsToQueueTheNm(AmxV6):
    def handle_exception_nmi(self, vcpu: Vcpu) -> int:
        return 1


@mutant(
    "nm-delivered-once",
    program(FAULTED, "v0 handle = resume", "v0 vmenter = #NM", "v0 interrupt = exit", "v0 vmenter = ok"),
)
class QueuesTheNmTwice(AmxV6):
    def vcpu_enter_guest(self, vcpu: Vcpu) -> None:
        super().vcpu_enter_guest(vcpu)
        if vcpu.arch.guest_fpu.xfd_err:
            self.kvm_queue_exception(vcpu, st.NM_VECTOR)


@mutant(
    "guest-reads-its-msrs",
    program(FAULTED, "v0 handle = resume", "v0 vmenter = #NM", "v0 rdmsr(IA32_XFD_ERR) = ok [0x40000]"),
)
class DropsTheSavedXfdErr(AmxV6):
    def handle_exception_nmi(self, vcpu: Vcpu) -> int:
        vcpu.arch.guest_fpu.xfd_err = 0
        return super().handle_exception_nmi(vcpu)


@mutant(
    "guest-instruction-completes-once",
    program(AMX_GUEST, "v0 wrmsr(IA32_XFD, 0x20) = exit", "v0 handle = resume", "v0 vmenter = #GP"),
)
class SkipsAndFaults(KvmX86):
    def kvm_complete_insn_gp(self, vcpu: Vcpu, err: int) -> int:
        super().kvm_complete_insn_gp(vcpu, err)
        return self.kvm_skip_emulated_instruction(vcpu) if err else 1


mutant(
    "guest-instruction-completes-once",
    program(AMX, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0}) = 1", ENTER),
)(CompletesAnInstructionForUserSpace)


@mutant(
    "guest-instruction-completes-once",
    program(AMX_GUEST, "v0 wrmsr(IA32_XFD, 0x20) = exit", "v0 handle = resume", "v0 vmenter = #GP"),
)
class NeitherSkipsNorFaults(KvmX86):
    def kvm_complete_insn_gp(self, vcpu: Vcpu, err: int) -> int:
        return 1


@mutant(
    "guest-instruction-completes-once",
    program(
        AMX, "t0 ioctl(v0, KVM_SET_VCPU_EVENTS, {injected: #GP}) = 0", ENTER.replace("vmenter = ok", "vmenter = #GP")
    ),
)
class ForgetsWhatIsInjected(KvmX86):
    def kvm_vcpu_ioctl_x86_set_vcpu_events(self, vcpu: Vcpu, events: KvmVcpuEvents) -> int:
        return 0


@mutant("guest-reads-its-msrs", program(AMX_GUEST, "v0 rdmsr(IA32_XFD) = exit", "v0 handle = resume [0x0]"))
class ReadsTheHostsXfd(AmxV6):
    def kvm_get_msr_common(self, vcpu: Vcpu, index: int, host_initiated: bool) -> tuple[int, int]:
        return 0, self.init_xfd


@mutant(
    "emulator-reads-the-guest",
    program(
        CREATE,
        ENTER,
        "v0 movups(3) = ok",
        "v0 emulated(movups) = exit",
        "cpu0 schedule(t1) = ok",
        "t1 movups(5) = ok",
        "cpu0 schedule(t0) = ok",
        "v0 handle = resume [v0:3]",
    ),
)
class ReadsWhatIsThere(KvmX86):
    def kvm_fpu_get(self) -> None:
        self.fpregs_lock()


@mutant("legal-xfd", program(AMX, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x20}) = 0"))
class TakesAnyXfd(AmxV6):
    def kvm_guest_supported_xfd(self, vcpu: Vcpu) -> int:
        return xf.U64_MAX


@mutant("legal-xcr0", program(AMX, "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtiledata) = -EINVAL"))
class ForgetsTheTileRule(AmxSeries):
    def legal_tile_pair(self, xcr0: int) -> bool:
        return True


@mutant(
    "host-kernel-never-oopses",
    program(AMX, "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|dyn2) = -EINVAL", ENTER),
    site="xsetbv",
)
@mutant("legal-xcr0", program(AMX, "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|dyn2) = -EINVAL"))
class TakesAnyXcr0(KvmX86):
    def _kvm_set_xcr(self, vcpu: Vcpu, index: int, xcr: int) -> int:
        vcpu.arch.xcr0 = xcr
        return 0


@mutant("passthrough-needs-nm-intercept", program(AMX, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000}) = 1"))
class ForgetsTheExceptionBitmap(AmxV6):
    def vmx_update_exception_bitmap(self, vcpu: Vcpu) -> None:
        Kernel.vmx_update_exception_bitmap(self, vcpu)


mutant(
    "passthrough-needs-buffer",
    program(AMX, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000}) = 1"),
)(NeverExpandsTheBuffer)

# -- the tests ---------------------------------------------------------------------------------------------------------

#: The number that stands for the drained end of a program.
END = 0

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.invariant}:{case.name}")


@each_case
def test_invariant_catches_the_mutant(case: Case) -> None:
    assert case.invariant in judge(case.program, case.broken, expectations=False).broken


@each_case
def test_the_kernel_without_the_mistake_keeps_every_invariant(case: Case) -> None:
    verdict = judge(case.program, case.sound)
    assert verdict.failures == ()
    assert NOT_ENABLED not in verdict.results


@each_case
def test_witness_comes_as_far_as_the_decision(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    caught = caught_in(judge(case.program, case.broken, expectations=False), case.invariant)
    if case.site:
        assert caught in steps_that_reach(case.site, case)
        return
    on_mutant = evaluated(case, case.broken, monkeypatch)
    on_witness = evaluated(case, case.sound, monkeypatch)
    assert caught in on_witness
    decided = set().union(*on_mutant.values()) - reporting_lines(INVARIANTS[case.invariant].predicate)
    assert decided <= set().union(*on_witness.values())


def test_every_invariant_has_a_mutant_or_is_named_vacuous() -> None:
    tried = {case.invariant for case in CASES}
    assert set(load()) == tried | VACUOUS.keys()
    assert not tried & VACUOUS.keys()


#: Invariants that judge an op and not those that make the same call in another way, or only these, and why.
OF_ONE_WAY = {
    "buffer-has-room": "what is kept lies in memory that has room for everything",
}


def test_what_holds_of_a_call_holds_whoever_makes_it() -> None:
    """KVM_SET_CPUID2 of what KVM supports is a KVM_SET_CPUID2."""
    load()
    partly = set()
    for name, inv in INVARIANTS.items():
        for cls in OPS.values():
            one, other = issubclass(cls, inv.ops), issubclass(OPS[call_of(cls)], inv.ops)
            if inv.ops and one != other and name not in OF_ONE_WAY:
                partly.add(f"{name}: {cls.__name__ if other else call_of(cls)} is left out")
    assert not partly


def test_every_invariant_that_judges_reports_names_the_function_that_reports() -> None:
    load()
    for case in CASES:
        reports_only = bool(INVARIANTS[case.invariant].events) and case.invariant != "xfd-coherent-in-interrupt"
        assert bool(case.site) == reports_only, case


def caught_in(verdict: Verdict, invariant: str) -> int:
    """The number of the step that broke the invariant first, or ``END``."""
    return next(
        judged.step.number if judged.step else END
        for judged in verdict.trace
        if any(violation.invariant == invariant for violation in judged.violations)
    )


def steps_that_reach(site: str, case: Case) -> set[int]:
    """The steps in which the sound kernel runs the function ``site``."""
    ran: list[str] = []

    def counting(self: Kernel, *args: Any) -> Any:
        ran.append(site)
        return getattr(super(probe, self), site)(*args)

    probe = type("Probe", (case.sound.kernel,), {site: counting})
    found: set[int] = set()
    for judged in steps(case.program, replace(case.sound, kernel=probe)):
        if ran:
            found.add(judged.step.number if judged.step else END)
        ran.clear()
    return found


def evaluated(case: Case, revision: Revision, monkeypatch: pytest.MonkeyPatch) -> dict[int, set[int]]:
    """After which steps the invariant was looked at, and which of its lines ran then."""
    known_invariant = load()[case.invariant]
    ran: dict[int, set[int]] = defaultdict(set)

    def watched(view: View) -> list[Broken]:
        at = view.step.number if view.step.number <= len(case.program.ops) else END
        with lines_of(known_invariant.predicate.__code__, ran[at]):
            return list(known_invariant.predicate(view))

    with monkeypatch.context() as patch:
        patch.setitem(INVARIANTS, case.invariant, replace(known_invariant, predicate=watched))
        judge(case.program, revision, expectations=False)
    return ran


@contextmanager
def lines_of(code: CodeType, ran: set[int]) -> Iterator[None]:
    """Note which lines of a function run."""

    def line(frame: FrameType, event: str, argument: object) -> Any:
        ran.add(frame.f_lineno)
        return line

    outer = sys.gettrace()
    sys.settrace(lambda frame, event, argument: line if frame.f_code is code else None)
    try:
        yield
    finally:
        sys.settrace(outer)


#: Helpers that give nothing unless there is something to report.
_HELPERS = ("_differences(", "_more_than_once(")


def reporting_lines(predicate: Predicate) -> set[int]:
    """The lines of a predicate that run only after it decided: what guards a `yield`, and what follows one of the
    helpers."""
    first = predicate.__code__.co_firstlineno
    found: set[int] = set()
    for node in ast.walk(ast.parse(inspect.getsource(predicate))):
        guards = isinstance(node, ast.If) and any(isinstance(n, ast.Expr) and _yields(n) for n in node.body)
        if guards or (isinstance(node, ast.For) and ast.unparse(node.iter).startswith(_HELPERS)):
            body = node.body  # type: ignore[attr-defined]
            found.update(range(first + body[0].lineno - 1, first + body[-1].end_lineno))
    return found


def _yields(node: ast.Expr) -> bool:
    return isinstance(node.value, ast.Yield)


def test_a_kvm_run_that_is_refused_does_not_enter() -> None:
    """Another process' KVM_RUN is -EIO and loads nothing, so the request that waits there warns nobody."""
    waiting = program(
        AMX, AMX_XCR0, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0}) = 0", "t0 fork = t2", "cpu0 schedule(t2)"
    )
    verdict = judge(parse(waiting + "\nt2 ioctl(v0, KVM_RUN) ... = -EIO\n"), posted("amx-v1"), expectations=False)
    assert verdict.results[-1] == "-EIO"
    assert "no-realloc-on-enter" not in verdict.broken


def test_a_guest_without_osxsave_needs_no_room_for_what_the_hosts_xcr0_has() -> None:
    """It runs with the host's XCR0 and XFD = 0, but its tile instructions are #UD."""
    cpuid = "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87}) = 0"
    run = ("t0 ioctl(v0, KVM_SET_SREGS, {}) = 0", "t0 ioctl(v0, KVM_RUN) ...", "v0 vmenter", "v0 ldtilecfg(1) = #UD")
    verdict = judge(parse(program(CREATE, cpuid, *run)), resolve("v7.3"))
    assert not verdict.failures
    assert not verdict.violations


# -- restore and migration -------------------------------------------------------------------------------------------


@mutant(
    "restore-order-is-free",
    program(
        AMX,
        "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0}) = 1",
        AMX_XCR0,
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: avx|xtile, data: 3}) = 0",
    ),
)
class TakesOnlyWhatXcr0Enables(KvmX86):
    def kvm_vcpu_ioctl_x86_set_xsave(self, vcpu: Vcpu, image: XsaveArea) -> int:
        if image.xstate_bv & ~vcpu.arch.xcr0:
            return -EINVAL
        return super().kvm_vcpu_ioctl_x86_set_xsave(vcpu, image)


mutant("migration-is-invisible", program(AMX_GUEST, TILES, LEAVE))(CopiesTheOldSize)


@pytest.mark.parametrize(("revision", "warns"), [("v6.12", True), ("v6.18", False), ("v7.3", False)])
def test_supervisor_states_are_restored_under_any_xfd(revision: str, warns: bool) -> None:
    """A handler's task comes back under another task's XFD; 388eff894d6b sets its own before the user states."""
    verdict = judge(
        parse(
            program(
                "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0",
                "t0 tileload(1) = SIGILL",
                "cpu0 schedule(t1) = ok",
                "t1 signal ... = ok",
                "cpu0 schedule(t0) = ok",
                "t0 user = ok",
                "cpu0 schedule(t1) = ok",
                "t1 ... signal = ok",
                machine="cpus=1 debug-fpu",
            )
        ),
        resolve(revision),
        expectations=False,
    )
    assert verdict.left_out == 0
    assert ("no-warning" in verdict.broken) == warns
