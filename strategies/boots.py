"""Boot sequences: what a program starts with.

Without one hardly a run ever gets a guest to load a tile; with one, the interesting part begins at once.  They are
ordinary ops, executed and judged like all others, and the shrinker takes away what is not needed.
"""

from __future__ import annotations

from collections.abc import Callable

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CET_MSRS, MSR_IA32_XSS
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import VM_X86_SNP_VM, VM_X86_TDX_VM
from xfdfuzz.program.fields import Cr4
from xfdfuzz.program.ops import guest, host, kvm, processes, protected, run, signals, tasks
from xfdfuzz.program.ops.base import Op

Boot = Callable[[Machine], list[Op]]


def everything(machine: Machine) -> CpuidEntries:
    """A CPUID that offers all that the machine has."""
    return CpuidEntries(machine.user_xfeatures, True, True, machine.supervisor_xfeatures & xf.MASK_CET)


def pristine(machine: Machine) -> list[Op]:
    """Nothing."""
    return []


def permitted(machine: Machine) -> list[Op]:
    """Permission for every dynamic feature of the machine."""
    return [tasks.ReqXcompGuestPerm(0, i) for i in xf.components_in(machine.xfd_xfeatures)]


def with_vcpu(machine: Machine) -> list[Op]:
    """Permissions, then a VM with a vCPU."""
    return [*permitted(machine), kvm.KvmCreateVm(0), kvm.KvmCreateVcpu(0, 0, 0)]


def unpermitted_vcpu(machine: Machine) -> list[Op]:
    """A VM with a vCPU, no permission asked for."""
    return [kvm.KvmCreateVm(0), kvm.KvmCreateVcpu(0, 0, 0)]


def without_memory(machine: Machine) -> list[Op]:
    """The same, and the next allocation fails."""
    return [*with_vcpu(machine), host.FailAlloc(1)]


def with_cpuid(machine: Machine) -> list[Op]:
    """A vCPU whose CPUID offers all that the machine has."""
    return [*with_vcpu(machine), kvm.KvmSetCpuid2(0, 0, everything(machine))]


def narrow_cpuid(machine: Machine) -> list[Op]:
    """A vCPU whose CPUID lacks what the machine has: the components, or, on AMD's, XSAVES, which its guest executes."""
    if not machine.amd:
        return [*unpermitted_vcpu(machine), kvm.KvmSetCpuid2(0, 0, CpuidEntries(0, False, False))]
    hidden = CpuidEntries(machine.user_xfeatures, False, False, no_xsaves=True)
    return [*unpermitted_vcpu(machine), kvm.KvmSetCpuid2(0, 0, hidden), run.KvmRun(0, 0), run.VmEnter(0)]


def with_xcr0(machine: Machine) -> list[Op]:
    """The same with XCR0 set from user space."""
    return [*with_cpuid(machine), kvm.KvmSetXcrs(0, 0, machine.user_xfeatures)]


def in_guest(machine: Machine) -> list[Op]:
    """The guest runs with XCR0 = 1; where there are LBRs its VMM is profiled."""
    profiled: list[Op] = [tasks.PerfEventOpen(0), tasks.UserCall(0, 1)] if machine.lbr else []
    return [*with_cpuid(machine), *profiled, run.KvmRun(0, 0), run.VmEnter(0)]


def in_amx_guest(machine: Machine) -> list[Op]:
    """The guest has set XCR0; KVM_RUN returned once on the way, as amx-v1 needs."""
    enabled: list[Op] = [guest.GuestXsetbv(0, machine.user_xfeatures), run.HandleExit(0), run.KvmRunReturns(0)]
    return [*in_guest(machine), *enabled, run.KvmRun(0, 0), run.VmEnter(0)]


def tiles_live(machine: Machine) -> list[Op]:
    """The guest holds tile data."""
    return [*in_amx_guest(machine), guest.GuestLdtilecfg(0, 1), guest.GuestTileload(0, 2)]


def all_live(machine: Machine) -> list[Op]:
    """The guest has something in every component that it can use."""
    components = machine.user_xfeatures
    return [*in_amx_guest(machine), guest.GuestXrstor(0, components, components, 1, mxcsr=1)]


def own_keys(machine: Machine) -> list[Op]:
    """The guest uses protection keys; the VMM's thread has a PKRU that it had not when it made the vCPU."""
    keys: list[Op] = [guest.GuestMovCr4(0, Cr4(True, True)), run.HandleExit(0), run.VmEnter(0), guest.GuestWrpkru(0, 3)]
    return [*with_xcr0(machine), tasks.UserWrpkru(0, 2), run.KvmRun(0, 0), run.VmEnter(0), *keys]


def guest_disabled_xfd(machine: Machine) -> list[Op]:
    """The guest has written a non-zero XFD, so later writes of it may not exit."""
    writes: list[Op] = [guest.GuestWrmsr(0, value=machine.xfd_xfeatures), run.HandleExit(0), run.VmEnter(0)]
    return [*in_amx_guest(machine), *writes]


def stopped_beside_another(machine: Machine) -> list[Op]:
    """The guest holds tile data and is stopped; another vCPU of its VM is new."""
    stop: list[Op] = [guest.GuestOut(0), run.HandleExit(0), run.KvmRunReturns(0)]
    return [*tiles_live(machine), *stop, kvm.KvmCreateVcpu(0, 0, 1)]


def nested(machine: Machine) -> list[Op]:
    """The guest runs a guest of its own, whose #NM it wants to see."""
    launch: list[Op] = [guest.GuestVmlaunchNm(0), run.HandleExit(0), run.VmEnter(0)]
    return [*in_amx_guest(machine), *launch]


def host_amx(machine: Machine) -> list[Op]:
    """Another process uses every dynamic feature on the VMM's CPU, with a VM waiting."""
    use: list[Op] = [
        host.Schedule(0, 1),
        *(tasks.ReqXcompPerm(1, i) for i in xf.components_in(machine.xfd_xfeatures)),
        tasks.UserLdtilecfg(1, 1),
        tasks.UserTileload(1, 2),
        *([tasks.UserDyn2load(1, 3)] if machine.dyn2 else []),
        host.Schedule(0, 0),
    ]
    return [*with_xcr0(machine), *use]


def signalled(machine: Machine) -> list[Op]:
    """The same, and a signal is about to be handled."""
    return [*host_amx(machine), signals.Signal(0)]


def handling(machine: Machine) -> list[Op]:
    """Another process uses every dynamic feature; the VMM's thread may too, and is in a signal handler."""
    may_use = [tasks.ReqXcompPerm(0, i) for i in xf.components_in(machine.xfd_xfeatures)]
    use: list[Op] = [tasks.UserLdmxcsr(0, 1), tasks.UserLdtilecfg(0, 1)]
    return [*host_amx(machine), *may_use, *use, signals.Signal(0), signals.SignalDelivered(0)]


def executing(machine: Machine) -> list[Op]:
    """A process that has used AVX, a shadow stack and ENQCMD is in the middle of execve()."""
    own: list[Op] = [tasks.ShstkEnable(1)] if machine.cet else []
    bound: list[Op] = [tasks.OpenDsa(1), tasks.UserEnqcmd(1)] if machine.pasid else []
    return [host.Schedule(0, 1), tasks.UserVmovups(1, 1), *own, *bound, processes.Execve(1)]


def profiled(machine: Machine) -> list[Op]:
    """No guest: threads of two processes have what the kernel keeps of them but their user state, one has a worker."""
    return [*_kept(machine, 0), processes.CreateIoThread(0), host.Schedule(0, 1), *_kept(machine, 1)]


def _kept(machine: Machine, task: int) -> list[Op]:
    """A thread's shadow stack and its branches, where there are such."""
    stack: list[Op] = [tasks.ShstkEnable(task)] if machine.cet else []
    branches: list[Op] = [tasks.PerfEventOpen(task), tasks.UserCall(task, 1)] if machine.lbr else []
    return [*stack, *branches]


def _avx_and_cet(machine: Machine) -> CpuidEntries:
    """What a protected guest can have of a machine."""
    xss = machine.supervisor_xfeatures & xf.MASK_CET
    return CpuidEntries(machine.user_xfeatures & (xf.MASK_FPSSE | xf.MASK_YMM), False, False, xss)


def unsealed(machine: Machine) -> list[Op]:
    """A VM whose guest will be protected, of a thread with a shadow stack; on old kernels there is neither."""
    own: list[Op] = [tasks.ShstkEnable(0)] if machine.cet else []
    made: list[Op] = [protected.KvmCreateVmOfType(0), kvm.KvmCreateVcpu(0, 0, 0)]
    return [*own, *made, kvm.KvmSetCpuid2(0, 0, _avx_and_cet(machine))]


def _sealing(machine: Machine) -> list[Op]:
    """The guest is sealed, and its VMM reads the MSRs of supervisor state, as one does for a snapshot."""
    msrs = (MSR_IA32_XSS, *CET_MSRS) if machine.cet else ()
    return [protected.KvmSevLaunchUpdateVmsa(0, 0), *(kvm.KvmGetMsrs(0, 0, msr) for msr in msrs)]


def sealed_of_own_type(machine: Machine) -> list[Op]:
    """The same, and the guest is sealed, which a VMM's calls are tried on."""
    return [*unsealed(machine), *_sealing(machine)]


def sealed(machine: Machine) -> list[Op]:
    """A protected guest runs, made as on every kernel."""
    made: list[Op] = [kvm.KvmCreateVm(0), protected.KvmSevEsInit(0, 0), kvm.KvmCreateVcpu(0, 0, 0)]
    ready: list[Op] = [kvm.KvmSetCpuid2(0, 0, _avx_and_cet(machine)), *_sealing(machine)]
    return [*made, *ready, run.KvmRun(0, 0), run.VmEnter(0)]


def snp_guest(machine: Machine) -> list[Op]:
    """An SEV-SNP guest is sealed, and stopped; on old kernels there is none."""
    made: list[Op] = [protected.KvmCreateVmOfType(0, VM_X86_SNP_VM), kvm.KvmCreateVcpu(0, 0, 0)]
    launch: list[Op] = [protected.KvmSevSnpLaunchStart(0, 0), protected.KvmSevSnpLaunchFinish(0, 0)]
    return [*made, kvm.KvmSetCpuid2(0, 0, _avx_and_cet(machine)), *launch]


def trusted_domain(machine: Machine) -> list[Op]:
    """A TD runs; on old kernels there is none."""
    made: list[Op] = [protected.KvmCreateVmOfType(0, VM_X86_TDX_VM), kvm.KvmCreateVcpu(0, 0, 0)]
    return [*made, run.KvmRun(0, 0), run.VmEnter(0)]


#: Plainest first; the ones with a guest are what most of the time should go to.
BOOTS: tuple[Boot, ...] = (
    pristine,
    with_vcpu,
    with_cpuid,
    with_xcr0,
    in_guest,
    in_amx_guest,
    tiles_live,
    guest_disabled_xfd,
    host_amx,
    signalled,
    handling,
    executing,
    unpermitted_vcpu,
    narrow_cpuid,
    without_memory,
    nested,
    all_live,
    executing,
    nested,
    own_keys,
    unsealed,
    sealed_of_own_type,
    sealed,
    snp_guest,
    trusted_domain,
    stopped_beside_another,
    profiled,
)
