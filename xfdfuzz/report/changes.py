"""What a step changed: the difference of two systems, as paths that a kernel developer reads.

Shown is what the FPU code decides by, by the name and the kind with which each field is declared.  Left out are the
ghost, which no kernel has, and what the op and its result say anyway (which exit waits to be handled, which task is
inside KVM_RUN); ``tests/test_report.py`` lists those fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.kinds import TOKEN, XFEATURES, Reference
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import Field, fields_of, task_name
from xfdfuzz.kernel.state import Fpstate, System, Task
from xfdfuzz.memory.cstruct import Array
from xfdfuzz.report.values import text


class Change(NamedTuple):
    """One thing that is different: ``v0.guest_fpu.fpstate.xfd 0x0 -> 0x40000``."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path} {self.before} -> {self.after}"


def _shown(struct: Any, *members: str) -> tuple[Field, ...]:
    found = {field.member: field for field in fields_of(struct)}
    return tuple(found[member] for member in members)


# What is shown of each struct, in this order.
HOST = _shown(st.System, "dead", "alloc_failures")
CPU = _shown(
    st.Cpu,
    *("current", "fpu_fpregs_owner_ctx", "cr4_osfxsr", "in_kernel_fpu", "kernel_fpu_allowed", "softirq_pending"),
    *("xfd_state", "lbr_users", "last_task_ctx", "lbr_xsave.entries"),
    *("regs.xcr0", "regs.xss", "regs.xfd", "regs.xfd_err", "regs.xinuse"),
)
TASK = _shown(
    Task,
    *("exists", "exit_state", "on_cpu", "tif_need_fpu_load", "sas_ss_size", "sas_ss_disable", "sas_ss_autodisarm"),
    *("vfork_child", "pkru", "pf_user_worker", "ia32", "mm_pasid", "pasid_activated"),
    *("shstk", "wrss", "shstk_locked", "wrss_locked", "lbr.lbr_stack_state", "lbr.xsave.entries"),
    *("fpu.last_cpu", "fpu.fpstate", "fpu.task_fpstate"),
    *("fpu.perm.state_perm", "fpu.perm.state_size", "fpu.perm.user_state_size"),
    *("fpu.guest_perm.state_perm", "fpu.guest_perm.state_size", "fpu.guest_perm.user_state_size"),
)
FPSTATE = _shown(
    Fpstate,
    *("alloc_size", "size", "user_size", "xfeatures", "user_xfeatures", "xfd", "in_use", "is_confidential"),
    *("regs.xstate_bv", "regs.reserved"),
)
VM = _shown(
    st.Vm,
    *("exists", "type", "es_active", "need_init", "snp_context", "vm_bugged", "vm_dead", "exception_payload_enabled"),
    "irqchip_in_kernel",
)
VCPU = _shown(
    st.Vcpu,
    *("exists", "last_vmentry_cpu", "arch.xcr0", "arch.guest_supported_xcr0"),
    *("arch.cpuid_xcr0", "arch.cpuid_xfd", "arch.cpuid_xss", "arch.guest_supported_xss", "arch.ia32_xss"),
    *("arch.cpuid_leaves", "arch.cpuid_other", "arch.cpuid_no_xsave", "arch.cpuid_no_xsaves"),
    *("arch.cpuid_amx", "arch.cpuid_freed", "arch.cpuid_dynamic_bits_dirty"),
    *("arch.cpuid_no_xsaveopt", "arch.cpuid_no_xsavec", "arch.cpuid_no_xgetbv1", "arch.cpuid_no_palettes"),
    *("arch.cpuid_no_tmul", "arch.cpuid_no_shstk", "arch.cpuid_no_ibt", "arch.cpuid_osxsave", "arch.cpuid_ospke"),
    *("arch.cpuid_0xd_0_ecx", "arch.cpuid_0xd_0_ebx", "arch.cpuid_0xd_1_ebx"),
    *("arch.cr0_ts", "arch.init_pending", "arch.sipi_pending", "arch.guest_mode", "arch.vmcs12_nm", "arch.cr4_osxsave"),
    *("arch.cr4_pke", "arch.mp_state"),
    *("arch.guest_state_protected", "arch.xss_intercept"),
    *("arch.vmcs.s_cet", "arch.vmcs.ssp", "arch.vmcs.int_ssp_tab"),
    *("vmsa.xcr0", "vmsa.xss", "vmsa.xfd", "vmsa.xfd_err", "vmsa.xinuse"),
    *("arch.xfd_no_write_intercept", "arch.nm_intercept", "arch.xfd_read_intercept", "arch.xfd_write_intercept"),
    *("arch.xfd_err_read_intercept", "arch.xfd_err_write_intercept"),
    *("arch.exception_pending", "arch.exception_injected", "arch.exception_vector"),
    *("arch.pkru", "arch.host_pkru", "arch.xfd_realloc_request"),
    *("arch.guest_fpu.xfeatures", "arch.guest_fpu.perm", "arch.guest_fpu.realloc_request", "arch.guest_fpu.xfd"),
    *("arch.guest_fpu.xfd_err", "arch.guest_fpu.uabi_size", "arch.guest_fpu.fpstate"),
)
#: Shown as numbers, although they are register contents: PKRU, and what stands for it in a vCPU.
_NUMBERS = ("pkru", "arch.pkru", "arch.host_pkru")
#: What is shown of a new object, beside that it exists.
_TELLING = (XFEATURES, Reference("fpstate"))


def changes(before: System, after: System) -> Iterator[Change]:
    """What is different in ``after``, CPUs first, then tasks, VMs, vCPUs and the buffers."""
    yield from _fields("host", HOST, before, after)
    for nr, (b, a) in enumerate(zip(before.cpus, after.cpus, strict=True)):
        yield from _fields(f"cpu{nr}", CPU, b, a)
        yield from _tokens(f"cpu{nr}.regs", b.regs.data, a.regs.data, b.regs.xinuse, a.regs.xinuse)
    yield from _objects(task_name, TASK, list(before.tasks), list(after.tasks))
    yield from _objects("vm{}".format, VM, list(before.vms), list(after.vms))
    yield from _objects("v{}".format, VCPU, list(before.vcpus), list(after.vcpus))
    for nr, (was, now) in enumerate(zip(before.vcpus, after.vcpus, strict=True)):
        yield from _tokens(f"v{nr}.vmsa", was.vmsa.data, now.vmsa.data, was.vmsa.xinuse, now.vmsa.xinuse)
    for path, old, new in _followed(before, after):
        yield from _fields(path, FPSTATE, old, new)
        yield from _tokens(f"{path}.regs", old.regs.data, new.regs.data, old.regs.xstate_bv, new.regs.xstate_bv)
    for nr in range(st.FIRST_VALLOC, st.NR_FPSTATES):
        if after.fpstates[nr].freed and not before.fpstates[nr].freed:
            yield Change(f"fpstate#{nr}", "allocated", "freed")


def _fields(path: str, fields: Sequence[Field], before: Any, after: Any) -> Iterator[Change]:
    for field in fields:
        value = attrgetter(field.member)
        old, new = value(before), value(after)
        if old != new:
            yield Change(f"{path}.{field.path}", _value(field, old), _value(field, new))


def _value(field: Field, number: int) -> str:
    return str(number) if field.member in _NUMBERS else text(field.kind, number)


def _objects(
    name: Callable[[int], str], fields: Sequence[Field], before: Sequence[Any], after: Sequence[Any]
) -> Iterator[Change]:
    """The members of a pool.  Of a new one the flags at their defaults are no news, of one that is gone nothing is."""
    telling = [field for field in fields if field.member == "exists" or field.kind in _TELLING]
    for nr, (old, new) in enumerate(zip(before, after, strict=True)):
        if new.exists:
            yield from _fields(name(nr), fields if old.exists else telling, old, new)
        elif old.exists:
            yield Change(f"{name(nr)}.exists", "1", "0")


def _tokens(path: str, before: Array[int], after: Array[int], held_before: int, held_after: int) -> Iterator[Change]:
    """Register contents.  A component that is not held is in its initial configuration, whatever the array says; of
    what belongs to none, as MXCSR, nothing says that."""
    bits = xf.COMPONENT_BITS
    old = {i: before[i] if not bit or held_before & bit else 0 for i, bit in enumerate(bits)}
    new = {i: after[i] if not bit or held_after & bit else 0 for i, bit in enumerate(bits)}
    differing = [i for i in old if old[i] != new[i]]
    if differing:
        yield Change(path, _contents(old, differing), _contents(new, differing))


def _contents(tokens: dict[int, int], components: Sequence[int]) -> str:
    return f"{{{', '.join(f'{xf.CONTENTS.get(i, i)}: {text(TOKEN, tokens[i])}' for i in components)}}}"


def _followed(before: System, after: System) -> Iterator[tuple[str, Fpstate, Fpstate]]:
    """The buffers that matter, by who points to them: so a reallocated one is compared with what it replaces."""
    for nr, vcpu in enumerate(after.vcpus):
        if vcpu.exists:
            old = before.vcpus[nr].arch.guest_fpu.fpstate
            yield f"v{nr}.guest_fpu.fpstate", before.fpstates[old], after.fpstates[vcpu.arch.guest_fpu.fpstate]
    for nr, task in enumerate(after.tasks):
        if task.exists:
            pointer = "__task_fpstate" if task.fpu.task_fpstate else "fpstate"
            old, new = _host_fpstate(before.tasks[nr]), _host_fpstate(task)
            yield f"{task_name(nr)}.fpu.{pointer}", before.fpstates[old], after.fpstates[new]


def _host_fpstate(task: Task) -> int:
    """The task's own buffer, also while it has lent its place to a guest's."""
    return task.fpu.task_fpstate or task.fpu.fpstate
