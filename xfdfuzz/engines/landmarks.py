"""Abstract states: what tells a new situation from one that was seen, without register contents.

A *landmark* is a small projection: of a CPU, of the task on it, of the buffer that it works on, or of a vCPU.  Their
fields are modes, flags and masks, so there are some hundreds of each, where there are millions of states.
"""

from __future__ import annotations

from typing import TypeAlias

from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.memory.cstruct import Regions
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


def passed(k: Kernel, step: Step) -> tuple[Landmark, ...]:
    """The landmarks of a step: what its op gave, the CPU that executed it, and the vCPU that it is about."""
    kind, cpu, task = type(step.op), k.this_cpu, k.current
    found: tuple[Landmark, ...] = (
        (kind, step.result.ret),
        (kind, _CPU(cpu), cpu.fpu_fpregs_owner_ctx - 1 == cpu.current, _TASK(task)),
        _PERMISSIONS(task),
        ("host", _FPSTATE(k.fpstates[task.fpu.fpstate])),
    )
    # the vCPU that the op names, or whose KVM_RUN the task is inside of
    nr = getattr(step.op, "vcpu", task.kvm_run - 1)
    if nr < 0:
        return found
    vcpu = k.vcpus[nr]
    guests = ("guest", _FPSTATE(k.fpstates[vcpu.arch.guest_fpu.fpstate]))
    return (*found, (kind, _RUN(vcpu)), _FEATURES(vcpu), guests)
