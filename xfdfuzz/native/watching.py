"""Looks at what a program leaves in registers, by more ops: one that only breaks something shows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fpu.init import PKRU_DEFAULT
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops import Op, guest, host, run, tasks
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED

#: Instructions that store a component of a guest.
_STORES = {xf.YMM: guest.GuestVextractf128, xf.XTILE_CFG: guest.GuestSttilecfg, xf.XTILE_DATA: guest.GuestTilestore}


def watched(program: Program, kernel: type[Kernel]) -> tuple[Program, int]:
    """``program`` with ops at its end that read what guests and tasks should hold then, and how many these are.

    ``kernel`` is one that breaks nothing, where there is one; what it holds is what is looked at.
    """
    executor = Executor(kernel, program.machine)
    for _ in executor.run(program.ops):
        pass
    if executor.kernel.system.dead:
        return program, 0
    added = [op for op in _looks(executor) if executor.execute(op).result.ret != NOT_ENABLED]
    more = (None,) * len(added)
    return replace(program, ops=(*program.ops, *added), results=(*program.results, *more)), len(added)


def _looks(executor: Executor) -> Iterator[Op]:
    """The ops, each chosen in the state that the ones before have led to."""
    k = executor.kernel
    for nr in range(st.NR_VCPUS):
        if k.vcpus[nr].exists:
            yield from _of_guest(k, nr)
    for nr in range(st.USER_TASKS):
        task = k.tasks[nr]
        if task.exists and not (task.exit_state or task.kvm_run or task.in_execve or task.in_signal):
            yield from _of_task(k, nr)


def _of_guest(k: Kernel, nr: int) -> Iterator[Op]:
    reads = [*_reads(k, nr)]
    if not reads and k.vcpus[nr].mode == st.VCPU_OUTSIDE:
        return
    vcpu = k.vcpus[nr]
    owner = _owner(k, nr)
    if owner is None:
        return
    if not k.tasks[owner].on_cpu:
        yield host.Schedule(0, owner)
    began = vcpu.mode != st.VCPU_OUTSIDE
    if not began:
        yield run.KvmRun(owner, nr)
    yield from _enter(k, nr)
    if vcpu.mode == st.VCPU_IN_GUEST:
        for op in reads:
            yield op
            yield from _enter(k, nr)
        yield guest.GuestOut(nr)
        yield run.HandleExit(nr)
    yield run.KvmRunReturns(owner)


def _enter(k: Kernel, nr: int) -> Iterator[Op]:
    """Let what has exited be handled, and the guest go on."""
    vcpu = k.vcpus[nr]
    if vcpu.mode == st.VCPU_EXITED and vcpu.exit_pending:
        yield run.HandleExit(nr)
    if vcpu.mode == st.VCPU_EXITED and not vcpu.run_over:
        yield run.VmEnter(nr)


def _owner(k: Kernel, nr: int) -> int | None:
    """Who runs the vCPU, or can."""
    vcpu = k.vcpus[nr]
    if vcpu.task:
        return vcpu.task - 1
    usable = (t for t in range(st.USER_TASKS) if k.tasks[t].mm == k.vms[vcpu.vm].mm and k.has_open(t, vcpu.vm))
    return next(usable, None)


def _reads(k: Kernel, nr: int) -> Iterator[Op]:
    vcpu, ideal = k.vcpus[nr], k.system.ghost.vcpus[nr]
    if ideal.xfd or vcpu.arch.cpuid_xfd:
        yield guest.GuestRdmsr(nr, MSR_IA32_XFD)
    held = xf.mask_of(*(i for i in range(xf.COMPONENTS) if ideal.regs.data[i])) & ~ideal.regs.undefined
    if held & xf.MASK_FPSSE and vcpu.arch.cpuid_xcr0:
        yield guest.GuestFxsave(nr)
    for component in (xf.YMM, xf.XTILE_CFG, xf.XTILE_DATA):
        if held >> component & 1:
            yield _STORES[component](nr)


def _of_task(k: Kernel, nr: int) -> Iterator[Op]:
    ideal = k.system.ghost.tasks[nr]
    held = xf.mask_of(*(i for i in range(xf.COMPONENTS) if ideal.data[i])) & ~ideal.undefined
    mask = held & (xf.MASK_FPSSE | xf.MASK_YMM | xf.MASK_PKRU | xf.MASK_XTILE_CFG)
    own = mask & ~xf.MASK_PKRU if _has_default_pkru(k, nr) else mask
    if not (own or held & xf.MASK_XTILE_DATA):
        return
    if not k.tasks[nr].on_cpu:
        yield host.Schedule(0, nr)
    if own:
        yield tasks.UserXsave(nr, own)
    if held & xf.MASK_XTILE_DATA:
        yield tasks.UserTilestore(nr)


def _has_default_pkru(k: Kernel, nr: int) -> bool:
    return bool(k.system.ghost.tasks[nr].data[xf.PKRU] in (0, PKRU_DEFAULT))
