"""Abstract states: what tells a new situation from one that was seen, without register contents.

A *landmark* is a small projection: of a CPU, of the task on it, of the buffer that it works on, or of a vCPU.  Their
fields are modes, flags and masks, so there are some hundreds of each, where there are millions of states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from xfdfuzz.arch.cstruct import Regions
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Step

#: Compared and hashed, nothing else.
Landmark: TypeAlias = tuple[object, ...]

_CPU = Regions(st.Cpu, "guest", "xfd_state", "regs.xfd", "regs.xfd_err")
_TASK = Regions(st.Task, "in_execve", "in_signal", "user_mode", "tif_need_fpu_load", "kvm_run")
_PERMISSIONS = Regions(st.Task, "fpu.perm", "fpu.guest_perm")
_FPSTATE = Regions(st.Fpstate, "freed", "is_guest", "in_use", "size", "xfeatures", "xfd", "regs.xstate_bv")
_RUN = Regions(
    st.Vcpu,
    *("mode", "preempted", "exit_pending", "run_over", "arch.cr0_ts", "arch.exception_pending", "arch.init_pending"),
    *("arch.guest_mode", "arch.complete_userspace_io", "arch.xfd_no_write_intercept", "arch.nm_intercept"),
)
_FEATURES = Regions(st.Vcpu, "arch.xcr0", "arch.guest_supported_xcr0", "arch.ia32_xss", "arch.guest_fpu.perm")


def passed(k: Kernel, step: Step) -> Iterator[Landmark]:
    """The landmarks of a step: what its op gave, the CPU that executed it, and the vCPU that it is about."""
    op = step.op
    yield type(op), step.result.ret
    cpu, task = k.this_cpu, k.current
    yield type(op), _CPU(cpu), cpu.fpu_fpregs_owner_ctx - 1 == cpu.current, _TASK(task)
    yield _PERMISSIONS(task)
    yield "host", _FPSTATE(k.fpstates[task.fpu.fpstate])
    nr = _vcpu(k, op)
    if nr >= 0:
        vcpu = k.vcpus[nr]
        yield type(op), _RUN(vcpu)
        yield _FEATURES(vcpu)
        yield "guest", _FPSTATE(k.fpstates[vcpu.arch.guest_fpu.fpstate])


def _vcpu(k: Kernel, op: Op) -> int:
    """The vCPU that the op names, or whose KVM_RUN the task is inside of; -1 without one."""
    nr: int = getattr(op, "vcpu", k.current.kvm_run - 1)
    return nr
