"""What a step changed: the difference of two systems, as paths that a kernel developer reads.

Shown is what the FPU code decides by.  Left out are the ghost, which no kernel has, and what the op and its result say
anyway (which exit waits to be handled, which task is inside KVM_RUN); ``tests/test_report.py`` lists those fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.state import Fpstate, System, Task
from xfdfuzz.memory.cstruct import Array
from xfdfuzz.program import ghost


class Change(NamedTuple):
    """One thing that is different: ``v0.guest_fpu.fpstate.xfd 0x0 -> 0x40000``."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path} {self.before} -> {self.after}"


class _Field(NamedTuple):
    """A field of a struct: where it is, what the report calls it, and how its value reads."""

    member: str
    name: str
    show: Callable[[int], str]


def _mask(value: int) -> str:
    locked = value & st.FPU_GUEST_PERM_LOCKED
    names = xf.format_mask(value & ~locked)
    return f"{names}, locked" if locked else names


def _task(nr: int) -> str:
    return f"t{nr}" if nr < st.USER_TASKS else f"k{nr - st.USER_TASKS}"


def _task_pointer(nr: int) -> str:
    return _task(nr - 1) if nr else "NULL"


def _cpu_plus_1(nr: int) -> str:
    return f"cpu{nr - 1}" if nr else "none"


def _vector(nr: int) -> str:
    return {st.NM_VECTOR: "#NM", st.GP_VECTOR: "#GP"}.get(nr, str(nr))


def _fpstate_pointer(nr: int) -> str:
    if nr == st.NULL:
        return "NULL"
    if nr == st.INIT_FPSTATE:
        return "init_fpstate"
    if nr < st.FIRST_VALLOC:
        return f"{_task(nr - st.FIRST_EMBEDDED)}.fpu.__fpstate"
    return f"fpstate#{nr}"


HOST = (
    _Field("dead", "dead", str),
    _Field("alloc_failures", "alloc_failures", str),
)
CPU = (
    _Field("current", "current", _task),
    _Field("fpu_fpregs_owner_ctx", "fpu_fpregs_owner_ctx", _task_pointer),
    _Field("xfd_state", "xfd_state", hex),
    _Field("regs.xcr0", "XCR0", _mask),
    _Field("regs.xss", "MSR_IA32_XSS", _mask),
    _Field("regs.xfd", "MSR_IA32_XFD", hex),
    _Field("regs.xfd_err", "MSR_IA32_XFD_ERR", hex),
    _Field("regs.xinuse", "xinuse", _mask),
)
TASK = (
    _Field("exists", "exists", str),
    _Field("exit_state", "exit_state", str),
    _Field("on_cpu", "on_cpu", _cpu_plus_1),
    _Field("tif_need_fpu_load", "TIF_NEED_FPU_LOAD", str),
    _Field("sas_ss_size", "sas_ss_size", str),
    _Field("pkru", "pkru", str),
    _Field("fpu.last_cpu", "fpu.last_cpu", str),
    _Field("fpu.fpstate", "fpu.fpstate", _fpstate_pointer),
    _Field("fpu.task_fpstate", "fpu.__task_fpstate", _fpstate_pointer),
    _Field("fpu.perm.state_perm", "fpu.perm.__state_perm", _mask),
    _Field("fpu.perm.state_size", "fpu.perm.__state_size", str),
    _Field("fpu.perm.user_state_size", "fpu.perm.__user_state_size", str),
    _Field("fpu.guest_perm.state_perm", "fpu.guest_perm.__state_perm", _mask),
    _Field("fpu.guest_perm.state_size", "fpu.guest_perm.__state_size", str),
    _Field("fpu.guest_perm.user_state_size", "fpu.guest_perm.__user_state_size", str),
)
FPSTATE = (
    _Field("alloc_size", "alloc_size", str),
    _Field("size", "size", str),
    _Field("user_size", "user_size", str),
    _Field("xfeatures", "xfeatures", _mask),
    _Field("user_xfeatures", "user_xfeatures", _mask),
    _Field("xfd", "xfd", hex),
    _Field("in_use", "in_use", str),
    _Field("is_confidential", "is_confidential", str),
    _Field("regs.xstate_bv", "regs.xstate_bv", _mask),
    _Field("regs.reserved", "regs.header.reserved", str),
    _Field("regs.mxcsr", "regs.mxcsr (reserved bits)", str),
)
VM = (
    _Field("exists", "exists", str),
    _Field("vm_bugged", "vm_bugged", str),
)
VCPU = (
    _Field("exists", "exists", str),
    _Field("last_vmentry_cpu", "last_vmentry_cpu", str),
    _Field("arch.xcr0", "xcr0", _mask),
    _Field("arch.guest_supported_xcr0", "guest_supported_xcr0", _mask),
    _Field("arch.cpuid_xcr0", "cpuid.xcr0", _mask),
    _Field("arch.cpuid_xfd", "cpuid.xfd", str),
    _Field("arch.cpuid_xss", "cpuid.xss", _mask),
    _Field("arch.guest_supported_xss", "guest_supported_xss", _mask),
    _Field("arch.ia32_xss", "ia32_xss", _mask),
    _Field("arch.cpuid_amx", "cpuid.amx_tile", str),
    _Field("arch.cpuid_freed", "cpuid.freed", str),
    _Field("arch.cpuid_dynamic_bits_dirty", "cpuid_dynamic_bits_dirty", str),
    _Field("arch.cpuid_0xd_0_ebx", "cpuid.0xd.0.ebx", str),
    _Field("arch.cpuid_0xd_1_ebx", "cpuid.0xd.1.ebx", str),
    _Field("arch.cpuid_osxsave", "cpuid.osxsave", str),
    _Field("arch.cr0_ts", "cr0.ts", str),
    _Field("arch.init_pending", "apic.init_pending", str),
    _Field("arch.guest_mode", "nested.guest_mode", str),
    _Field("arch.vmcs12_nm", "nested.vmcs12.nm_intercept", str),
    _Field("arch.cr4_osxsave", "cr4.osxsave", str),
    _Field("arch.xfd_no_write_intercept", "xfd_no_write_intercept", str),
    _Field("arch.nm_intercept", "nm_intercept", str),
    _Field("arch.xfd_read_intercept", "xfd_read_intercept", str),
    _Field("arch.xfd_write_intercept", "xfd_write_intercept", str),
    _Field("arch.xfd_err_read_intercept", "xfd_err_read_intercept", str),
    _Field("arch.xfd_err_write_intercept", "xfd_err_write_intercept", str),
    _Field("arch.exception_pending", "exception.pending", str),
    _Field("arch.exception_vector", "exception.vector", _vector),
    _Field("arch.pkru", "pkru", str),
    _Field("arch.host_pkru", "host_pkru", str),
    _Field("arch.xfd_realloc_request", "xfd_realloc_request", _mask),
    _Field("arch.guest_fpu.xfeatures", "guest_fpu.xfeatures", _mask),
    _Field("arch.guest_fpu.perm", "guest_fpu.perm", _mask),
    _Field("arch.guest_fpu.realloc_request", "guest_fpu.realloc_request", _mask),
    _Field("arch.guest_fpu.xfd", "guest_fpu.xfd", hex),
    _Field("arch.guest_fpu.xfd_err", "guest_fpu.xfd_err", hex),
    _Field("arch.guest_fpu.uabi_size", "guest_fpu.uabi_size", str),
    _Field("arch.guest_fpu.fpstate", "guest_fpu.fpstate", _fpstate_pointer),
)


def changes(before: System, after: System) -> Iterator[Change]:
    """What is different in ``after``, CPUs first, then tasks, VMs, vCPUs and the buffers."""
    yield from _fields("host", HOST, before, after)
    for nr, (b, a) in enumerate(zip(before.cpus, after.cpus, strict=True)):
        yield from _fields(f"cpu{nr}", CPU, b, a)
        yield from _tokens(f"cpu{nr}.regs", b.regs.data, a.regs.data, b.regs.xinuse, a.regs.xinuse)
    yield from _objects(_task, TASK, list(before.tasks), list(after.tasks))
    yield from _objects("vm{}".format, VM, list(before.vms), list(after.vms))
    yield from _objects("v{}".format, VCPU, list(before.vcpus), list(after.vcpus))
    for path, old, new in _followed(before, after):
        yield from _fields(path, FPSTATE, old, new)
        yield from _tokens(f"{path}.regs", old.regs.data, new.regs.data, old.regs.xstate_bv, new.regs.xstate_bv)
    for nr in range(st.FIRST_VALLOC, st.NR_FPSTATES):
        if after.fpstates[nr].freed and not before.fpstates[nr].freed:
            yield Change(f"fpstate#{nr}", "allocated", "freed")


def _fields(path: str, fields: Sequence[_Field], before: Any, after: Any) -> Iterator[Change]:
    for member, name, show in fields:
        value = attrgetter(member)
        old, new = value(before), value(after)
        if old != new:
            yield Change(f"{path}.{name}", show(old), show(new))


def _objects(
    name: Callable[[int], str], fields: Sequence[_Field], before: Sequence[Any], after: Sequence[Any]
) -> Iterator[Change]:
    """The members of a pool.  Of a new one the flags at their defaults are no news, of one that is gone nothing is."""
    telling = [field for field in fields if field.member == "exists" or field.show in (_mask, _fpstate_pointer)]
    for nr, (old, new) in enumerate(zip(before, after, strict=True)):
        if new.exists:
            yield from _fields(name(nr), fields if old.exists else telling, old, new)
        elif old.exists:
            yield Change(f"{name(nr)}.exists", "1", "0")


def _tokens(path: str, before: Array[int], after: Array[int], held_before: int, held_after: int) -> Iterator[Change]:
    """Register contents.  A component that is not held is in its initial configuration, whatever the array says."""
    old = {i: before[i] if held_before >> i & 1 else 0 for i in range(xf.COMPONENTS)}
    new = {i: after[i] if held_after >> i & 1 else 0 for i in range(xf.COMPONENTS)}
    differing = [i for i in old if old[i] != new[i]]
    if differing:
        yield Change(path, _contents(old, differing), _contents(new, differing))


def _contents(tokens: dict[int, int], components: Sequence[int]) -> str:
    return f"{{{', '.join(f'{xf.NAMES.get(i, i)}: {token(tokens[i])}' for i in components)}}}"


def token(value: int) -> str:
    """Register contents: ``init``, ``v0:3`` (vCPU 0's content 3), ``t1:2``, or ``kernel:1``."""
    if not value:
        return "init"
    who, content = ghost.owner(value), value & (1 << ghost.OWNER_SHIFT) - 1
    owners = {ghost.owner(ghost.vcpu_token(nr, 0)): f"v{nr}" for nr in range(st.NR_VCPUS)}
    owners |= {ghost.owner(ghost.task_token(nr, 0)): _task(nr) for nr in range(st.NR_TASKS)}
    return f"{owners.get(who, 'kernel')}:{content}"


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
            yield f"{_task(nr)}.fpu.{pointer}", before.fpstates[old], after.fpstates[new]


def _host_fpstate(task: Task) -> int:
    """The task's own buffer, also while it has lent its place to a guest's."""
    return task.fpu.task_fpstate or task.fpu.fpstate
