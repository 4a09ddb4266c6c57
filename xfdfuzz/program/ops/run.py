"""KVM_RUN in its parts: begin, VM entry, handling of an exit, end."""

from __future__ import annotations

from xfdfuzz.arch import protected
from xfdfuzz.arch.cpuid import Leaf
from xfdfuzz.arch.registers import load_cet_state
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Nr
from xfdfuzz.program.ops.base import OK, TaskOp, VcpuRunOp, inside, not_free, op, whereabouts
from xfdfuzz.program.step import Content, MpState, Result, msr_value

_EXIT_REASONS = {
    st.KVM_EXIT_UNKNOWN: "KVM_EXIT_UNKNOWN",
    st.KVM_EXIT_IO: "KVM_EXIT_IO",
    st.KVM_EXIT_HLT: "KVM_EXIT_HLT",
    st.KVM_EXIT_SHUTDOWN: "KVM_EXIT_SHUTDOWN",
    st.KVM_EXIT_FPU_REALLOC: "KVM_EXIT_FPU_REALLOC",
}


@op("t{task} ioctl(v{vcpu}, KVM_RUN) ...")
class KvmRun(TaskOp):
    """Enter KVM_RUN; the ioctl goes on until ``KvmRunReturns``.  An SEV-ES or SEV-SNP guest must have been sealed."""

    task: Nr = 0
    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        hindered = not_free(k, self.task, self.vcpu) or TaskOp.hindrance(self, k)
        vcpu = k.vcpus[self.vcpu]
        vm = k.vms[vcpu.vm]
        if hindered or vcpu.arch.guest_state_protected or vm.type == st.VM_DEFAULT or vm.vm_dead:
            return hindered
        return f"v{self.vcpu} is not sealed yet"

    def run(self, k: Kernel) -> Result:
        task = self.enter_kernel(k)
        vcpu = k.vcpus[self.vcpu]
        ret = k.kvm_vm_ioctl_guard(k.vms[vcpu.vm])
        if ret:
            return Result(ret)
        task.kvm_run = self.vcpu + 1
        vcpu.task = self.task + 1
        vcpu.mode = st.VCPU_EXITED
        vcpu.wants_to_run = 1
        k.kvm_arch_vcpu_ioctl_run(vcpu)
        ghost.settle_insn(k, self.vcpu)
        ghost.goes_on(k, self.vcpu)
        return OK


@op("v{vcpu} vmenter")
class VmEnter(VcpuRunOp):
    """vcpu_enter_guest() up to VM entry; a queued exception is delivered and named as the result."""

    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        vcpu = k.vcpus[self.vcpu]
        if vcpu.mode == st.VCPU_EXITED:
            if vcpu.exit_pending:
                return f"v{self.vcpu} has an exit to handle"
            if vcpu.run_over:
                return f"KVM_RUN of v{self.vcpu} is to return to user space"
            if not st.can_enter(k.system, vcpu):
                return f"v{self.vcpu} waits, or an INIT will have it wait"
        return VcpuRunOp.hindrance(self, k)

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        reset = vcpu.arch.init_pending
        arch = vcpu.arch
        queued = (arch.exception_pending or arch.exception_injected) and not reset
        injected = arch.exception_vector if queued else 0
        if reset:
            ghost.init(k, self.vcpu)
        k.vcpu_enter_guest(vcpu)
        if vcpu.arch.guest_state_protected:
            protected.swap(k.regs, vcpu.vmsa)
        elif k.machine.cet:
            load_cet_state(k.regs, arch.vmcs)
        vcpu.mode = st.VCPU_IN_GUEST
        k.this_cpu.guest = self.vcpu + 1
        ghost.owes_nothing(k.system.ghost.vcpus[self.vcpu])
        arch.insn_skips = 0
        return Result(st.VECTORS[injected] if injected else "ok")


@op("v{vcpu} wakeup")
class Wakeup(VcpuRunOp):
    """KVM_RUN's loop goes round without a VM entry: an interrupt wakes a halted vCPU, or it takes the INIT or SIPI that
    is pending; an INIT has an application processor wait for SIPI.  The value is the MP state."""

    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        vcpu = k.vcpus[self.vcpu]
        if found := VcpuRunOp.hindrance(self, k):
            return found
        if vcpu.exit_pending:
            return f"v{self.vcpu} has an exit to handle"
        if vcpu.run_over:
            return f"KVM_RUN of v{self.vcpu} is to return to user space"
        return "" if st.can_wake(k.system, vcpu) else f"nothing wakes v{self.vcpu}"

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        if vcpu.arch.init_pending:
            ghost.init(k, self.vcpu)
        k.vcpu_run(vcpu)
        return Result("ok", MpState(vcpu.arch.mp_state))


@op("v{vcpu} handle")
class HandleExit(VcpuRunOp):
    """Handle the last VM exit with interrupts on: ``resume``, ``exit`` to user space, or an errno."""

    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        vcpu = k.vcpus[self.vcpu]
        if vcpu.mode == st.VCPU_EXITED and not vcpu.exit_pending:
            return f"v{self.vcpu} has no exit to handle"
        return VcpuRunOp.hindrance(self, k)

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        kind, nested = vcpu.exit_pending, vcpu.arch.guest_mode
        k.vcpu_enter_guest_handle_exit(vcpu)
        if kind == st.EXIT_SHUTDOWN and k.is_svm():
            ghost.init(k, self.vcpu, shutdown=True)
        reflected = nested and not vcpu.arch.guest_mode
        if kind == st.EXIT_VMLAUNCH or reflected:
            # L2 begins, or L1 has the exit: nothing is left to complete or to deliver
            ghost.owes_nothing(k.system.ghost.vcpus[self.vcpu])
        out = None if vcpu.arch.exception_pending or reflected else _read_by(kind, vcpu)
        ghost.settle_insn(k, self.vcpu)
        ghost.was_handled(vcpu, k.system.ghost.vcpus[self.vcpu])
        if not vcpu.run_over:
            return Result("resume", out)
        return Result(vcpu.run_ret or "exit", out)


def _read_by(kind: int, vcpu: Vcpu) -> int | Leaf | None:
    """What an instruction that exited has read, or KVM of the guest's registers in its stead."""
    if kind in (st.EXIT_EMULATED_STORE, st.EXIT_HYPERCALL):
        return Content(vcpu.exit_value)
    if kind == st.EXIT_CPUID:
        (edx, eax), (ecx, ebx) = divmod(vcpu.exit_value, 1 << 32), divmod(vcpu.exit_value2, 1 << 32)
        return Leaf(eax, ebx, ecx, edx)
    return msr_value(vcpu.exit_msr, vcpu.exit_value) if kind == st.EXIT_MSR_READ else None


@op("t{task} ... KVM_RUN")
class KvmRunReturns(TaskOp):
    """KVM_RUN goes back to user space: an exit asked for it, a signal is pending (-EINTR), or a vCPU that was not
    initialised has got an INIT (-EAGAIN)."""

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if not task.kvm_run:
            return f"t{self.task} is not inside KVM_RUN"
        if not task.on_cpu:
            return f"t{self.task} is on no CPU"
        if st.in_section(task):
            return inside(task, self.task)
        nr = task.kvm_run - 1
        vcpu = k.vcpus[nr]
        if vcpu.mode != st.VCPU_EXITED:
            return whereabouts(vcpu, nr)
        return f"v{nr} has an exit to handle" if vcpu.exit_pending else ""

    def run(self, k: Kernel) -> Result:
        task = k.tasks[self.task]
        nr = task.kvm_run - 1
        vcpu = k.vcpus[nr]
        k.on_cpu(task.on_cpu - 1)
        if vcpu.arch.mp_state == st.KVM_MP_STATE_UNINITIALIZED and vcpu.arch.init_pending:
            ghost.init(k, nr)
        ret = k.kvm_arch_vcpu_ioctl_run_out(vcpu)
        ghost.goes_on(k, nr)
        vcpu.mode = st.VCPU_OUTSIDE
        vcpu.wants_to_run = 0
        vcpu.task = 0
        task.kvm_run = 0
        reason = vcpu.run.exit_reason
        return Result(ret or _EXIT_REASONS.get(reason, f"KVM_EXIT_{reason}"))
