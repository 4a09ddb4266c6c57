"""The scope that both explore: what the Promela model has, op for op."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.fields import Msrs
from xfdfuzz.program.ops import guest, host, kvm, run, tasks
from xfdfuzz.strategies.scopes import SCOPES, Scope

_MACHINE = Machine(avx512=False, pku=False, pasid=False)
_FULL = _MACHINE.user_xfeatures
_TILES = xf.MASK_XTILE_DATA

#: The ops stand in the order of their numbers in amx_v1.pml.
PEERS = Scope(
    name="peers",
    summary="1 CPU, 1 vCPU, the VMM's thread; the life of a reallocation request",
    leaves_out=(
        "what tiny leaves out, KVM_GET_* and KVM_SET_XSAVE, plain CPUID and XCR0, accesses to IA32_XFD_ERR, HLT"
    ),
    machine=_MACHINE,
    ops=(
        tasks.ReqXcompGuestPerm(0),
        kvm.KvmCreateVm(0),
        kvm.KvmCreateVcpu(0, 0, 0),
        kvm.KvmSetCpuid2(0, 0, CpuidEntries(_FULL, True, True)),
        kvm.KvmSetXcrs(0, 0, _FULL),
        kvm.KvmSetMsrs(0, 0, Msrs(((MSR_IA32_XFD, 0),))),
        kvm.KvmSetMsrs(0, 0, Msrs(((MSR_IA32_XFD, _TILES),))),
        run.KvmRun(0, 0),
        run.VmEnter(0),
        run.HandleExit(0),
        guest.GuestInterrupt(0),
        guest.GuestInterruptKernelFpu(0),
        run.KvmRunReturns(0),
        guest.GuestXsetbv(0, _FULL),
        guest.GuestWrmsr(0, MSR_IA32_XFD, 0),
        guest.GuestWrmsr(0, MSR_IA32_XFD, _TILES),
        guest.GuestLdtilecfg(0, 1),
        guest.GuestTileload(0, 1),
        guest.GuestTilerelease(0),
        host.SoftirqKernelFpu(0),
        host.FailAlloc(1),
    ),
)


def register() -> None:
    """Let `explore` find the scope by its name."""
    SCOPES[PEERS.name] = PEERS
