"""Permissions: who may use a dynamic feature, and what arch_prctl() promises about it."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.vocabulary import Broken, View, invariant
from xfdfuzz.kernel.errno import EBUSY
from xfdfuzz.kernel.shstk import ARCH_SHSTK_WRSS
from xfdfuzz.kernel.state import FPU_GUEST_PERM_LOCKED, USER_TASKS, FpuStatePerm, System, Vcpu
from xfdfuzz.memory.cstruct import Regions
from xfdfuzz.program.ops import tasks
from xfdfuzz.program.ops.base import TaskOp
from xfdfuzz.program.ops.processes import Execve, ExecveReturns, Fork
from xfdfuzz.program.ops.tasks import ReqXcompGuestPerm, ReqXcompPerm, UserEnqcmd

#: What the vCPUs' buffers have room for, to see at once whether that has changed.
_GUEST_FEATURES = Regions(System, "vcpus[].arch.guest_fpu.xfeatures")
#: The guest permissions of every task, to see at once whether any has changed.
_GUEST_PERMISSIONS = Regions(System, f"tasks[:{USER_TASKS}].fpu.guest_perm.state_perm")


def _perm(system: System, task: int, guest: bool) -> FpuStatePerm:
    fpu = system.tasks[system.tasks[task].group_leader].fpu
    return fpu.guest_perm if guest else fpu.perm


@invariant("permission-only-grows", "abi", ("INV-20", "PERM"), ops=(ReqXcompPerm, ReqXcompGuestPerm))
def permission_only_grows(view: View) -> Iterator[Broken]:
    """A permission, once given, stays until exec, and the default features need none: user space, KVM's CPUID and the
    buffer sizes all rely on it.  Looked at as user space can: through the user components."""
    k, op = view.k, view.step.op
    assert isinstance(op, ReqXcompPerm | ReqXcompGuestPerm)
    for guest in (False, True):
        before = _perm(view.before, op.task, guest).state_perm
        after = _perm(k.system, op.task, guest).state_perm
        watched = k.user_supported | FPU_GUEST_PERM_LOCKED
        lost = (before | k.fpu_user_cfg.default_features) & watched & ~after
        if lost:
            whose = "guest" if guest else "host"
            yield Broken(f"the {whose} permission loses {xf.format_mask(lost)}", whose)


@invariant("permission-frozen-by-first-vcpu", "abi", ("INV-21", "PERM"), ops=(TaskOp,))
def permission_frozen_by_first_vcpu(view: View) -> Iterator[Broken]:
    """After the first vCPU of a process its guest permissions do not change until exec: a request for a new one is
    -EBUSY, for one that is held 0.  Otherwise the vCPUs of a VM disagree about what the guest may use."""
    op = view.step.op
    if isinstance(op, Execve):
        return
    if view.step.changed(_GUEST_PERMISSIONS):
        for nr, task in view.tasks:
            before, after = view.before.tasks[nr].fpu.guest_perm.state_perm, task.fpu.guest_perm.state_perm
            if before != after and before & FPU_GUEST_PERM_LOCKED:
                yield Broken(f"t{nr}'s locked guest permissions changed to {xf.format_mask(after)}")
    if isinstance(op, ReqXcompGuestPerm) and _perm(view.before, op.task, True).state_perm & FPU_GUEST_PERM_LOCKED:
        held = _perm(view.before, op.task, True).state_perm >> op.facility & 1 if op.facility < 63 else 0
        known = view.k.xstate_prctl_req(op.facility) if op.facility < view.k.XFEATURE_MAX else 0
        known &= view.k.fpu_user_cfg.max_features
        expected = 0 if held else -EBUSY
        if known and view.step.result.ret != expected:
            yield Broken(f"a request on locked permissions gives {view.step.result}, expected {expected}")


@invariant("permission-request-truthful", "abi", ("INV-22",), ops=(ReqXcompPerm, ReqXcompGuestPerm))
def permission_request_truthful(view: View) -> Iterator[Broken]:
    """A request returns 0 if and only if the permission is held afterwards."""
    op = view.step.op
    assert isinstance(op, ReqXcompPerm | ReqXcompGuestPerm)
    guest = isinstance(op, ReqXcompGuestPerm)
    facility = view.k.xstate_prctl_req(op.facility) if op.facility < view.k.XFEATURE_MAX else 0
    held = bool(facility) and _perm(view.k.system, op.task, guest).state_perm & facility == facility
    if (view.step.result.ret == 0) != held:
        yield Broken(f"returns {view.step.result} and the permission is {'held' if held else 'not held'}")


@invariant("guest-features-permitted", "abi", ("INV-07", "PERM"), ops=(TaskOp,))
def guest_features_permitted(view: View) -> Iterator[Broken]:
    """A guest's buffer gets room only for dynamic features that a process which shares its VM's memory may give to
    guests. (Which of several such processes is not fixed: permissions belong to a thread group, VMs to an address
    space.)"""
    for nr, vcpu, used in _grown(view):
        mm = view.k.vms[vcpu.vm].mm
        allowed = 0
        for task in view.k.tasks:
            if task.exists and task.mm == mm:
                allowed |= view.k.tasks[task.group_leader].fpu.guest_perm.state_perm
        if used & ~allowed:
            yield Broken(f"v{nr} has room for {xf.format_mask(used)}, permitted is {xf.format_mask(allowed)}")


def _grown(view: View) -> list[tuple[int, Vcpu, int]]:
    """The vCPUs whose buffers have got room for a dynamic feature, with all that they have room for."""
    if not view.step.changed(_GUEST_FEATURES):
        return []
    found = [(nr, vcpu, vcpu.arch.guest_fpu.xfeatures & view.k.XFEATURE_MASK_USER_DYNAMIC) for nr, vcpu in view.vcpus]
    return [(nr, vcpu, used) for nr, vcpu, used in found if used & ~view.before.vcpus[nr].arch.guest_fpu.xfeatures]


@invariant("host-features-permitted", "abi", ("INV-11", "PERM"), ops=(TaskOp,), state=True)
def host_features_permitted(view: View) -> Iterator[Broken]:
    """A host thread's own fpstate has room only for dynamic features that its process asked for."""
    tasks, dynamic = view.k.tasks, view.k.XFEATURE_MASK_USER_DYNAMIC
    for nr, task, own in view.own_fpstates:
        used = own.xfeatures & dynamic
        if used and used & ~tasks[task.group_leader].fpu.perm.state_perm:
            yield Broken(f"t{nr} has room for a feature that its process may not use", key=nr)


@invariant("host-xfd-guards-unbacked-features", "corruption", ("INV-11", "PERM"), ops=(TaskOp,), state=True)
def host_xfd_guards_unbacked_features(view: View) -> Iterator[Broken]:
    """A host thread's fpstate keeps every dynamic feature disabled that it has no room for: with the XFD bit clear the
    thread uses the feature without permission, and its state is lost at the next switch."""
    init_xfd = view.k.init_xfd
    for nr, _, own in view.own_fpstates:
        if init_xfd & ~own.xfeatures & ~own.xfd and not own.is_guest:
            yield Broken(f"t{nr}'s fpstate->xfd is {own.xfd:#x}, it has no room for {init_xfd:#x}", key=nr)


@invariant("enqcmd-works-with-a-pasid", "abi", ("PERM", "HSTATE"), ops=(UserEnqcmd,))
def enqcmd_works_with_a_pasid(view: View) -> Iterator[Broken]:
    """ENQCMD of a thread whose address space was bound to a device is executed, as soon as the #GP handler has given
    the thread the PASID of that; in an address space that was not, fork()ed or exec()ed since, it is a #GP
    (Documentation/arch/x86/sva.rst)."""
    op, result = view.step.op, view.step.result.ret
    assert isinstance(op, UserEnqcmd)
    if not view.k.xfeatures_mask_supervisor() & xf.MASK_PASID:
        return
    if view.before.tasks[op.task].mm_pasid and result != "ok":
        yield Broken(f"t{op.task}'s address space has a PASID, and its ENQCMD ends in {result}", "refused")
    if not view.before.tasks[op.task].mm_pasid and result == "ok":
        yield Broken(f"t{op.task}'s address space has no PASID, and its ENQCMD is executed", "executed")


@invariant("permission-inherited-by-fork", "abi", ("INV-20", "PERM"), ops=(Fork,))
def permission_inherited_by_fork(view: View) -> Iterator[Broken]:
    """A forked process has its parent's permissions, for itself and for its guests (Documentation/arch/x86/xstate.rst):
    a program that asked for AMX may go on in a child, and must not have to ask there."""
    op, ret = view.step.op, view.step.result.ret
    assert isinstance(op, Fork)
    if isinstance(ret, str) and view.k.fpu_state_size_dynamic:
        child = int(ret.removeprefix("t"))
        for guest in (False, True):
            if bytes(_perm(view.k.system, child, guest)) != bytes(_perm(view.before, op.task, guest)):
                yield Broken(f"t{child} does not have the permissions of t{op.task}", "guest" if guest else "host")


@invariant("exec-starts-afresh", "corruption", ("INV-20", "PERM", "HSTATE"), ops=(ExecveReturns,))
def exec_starts_afresh(view: View) -> Iterator[Broken]:
    """A program that was just executed has the default permissions, for itself and for guests, a buffer for just these,
    and its registers in their initial state: nothing of the program before, which another user may have run."""
    k, op = view.k, view.step.op
    assert isinstance(op, ExecveReturns)
    dynamic = k.XFEATURE_MASK_USER_DYNAMIC
    fpu = k.tasks[op.task].fpu
    fpstate = k.fpstates[fpu.fpstate]
    for perm in (fpu.perm, fpu.guest_perm):
        if perm.state_perm & (dynamic | FPU_GUEST_PERM_LOCKED):
            yield Broken(f"t{op.task} keeps the permissions {xf.format_mask(perm.state_perm)}", "permission")
    if fpstate.xfeatures & dynamic or k.init_xfd & ~fpstate.xfd:
        yield Broken(
            f"t{op.task}'s fpstate has room for {xf.format_mask(fpstate.xfeatures)}, its xfd is {fpstate.xfd:#x}",
            "fpstate",
        )
    if fpstate.regs.xstate_bv & k.fpu_user_cfg.max_features or not k.tasks[op.task].tif_need_fpu_load:
        yield Broken(f"t{op.task} finds registers of the program before", "registers")


@invariant(
    "shadow-stack-features-are-true",
    "abi",
    ("ABI",),
    ops=(tasks.ShstkEnable, tasks.ShstkDisable, tasks.ShstkUnlock, tasks.ShstkStatus),
)
def shadow_stack_features_are_true(view: View) -> Iterator[Broken]:
    """What arch_prctl() says of shadow stacks is so: a feature that is locked is neither enabled nor disabled, there is
    no ARCH_SHSTK_WRSS without a shadow stack, ARCH_SHSTK_STATUS says what the thread has, and ARCH_SHSTK_UNLOCK "only
    works via ptrace" (Documentation/arch/x86/shstk.rst)."""
    op, result = view.step.op, view.step.result
    assert isinstance(op, tasks.ShstkEnable | tasks.ShstkDisable | tasks.ShstkUnlock | tasks.ShstkStatus)
    task, has = view.before.tasks[op.task], bool(view.before.ghost.tasks[op.task].data[xf.CET_USER])
    if isinstance(op, tasks.ShstkStatus):
        if isinstance(result.out, int) and (bool(result.out & 1) != has or result.out == ARCH_SHSTK_WRSS):
            yield Broken(f"it says {result.out:#x}, and t{op.task} has {'a' if has else 'no'} shadow stack")
    elif isinstance(op, tasks.ShstkUnlock):
        if not result.ret:
            yield Broken(f"it gives 0 to t{op.task}, which is no tracer")
    elif not result.ret and (task.wrss_locked if op.wrss else task.shstk_locked):
        yield Broken(f"it gives 0, and t{op.task} has locked that")
    elif not result.ret and isinstance(op, tasks.ShstkEnable) and op.wrss and not has:
        yield Broken(f"it gives 0, and t{op.task} has no shadow stack")
