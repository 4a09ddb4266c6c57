"""Buffers: big enough, owned once, never used after free."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.vocabulary import Broken, View, invariant
from xfdfuzz.kernel.event import LEAK, NULL_DEREF, OVERRUN, USE_AFTER_FREE
from xfdfuzz.kernel.state import FIRST_VALLOC, INIT_FPSTATE, NULL
from xfdfuzz.program.ops.base import GuestOp, makers
from xfdfuzz.program.ops.guest import GuestInterrupt
from xfdfuzz.program.ops.kvm import (
    CloseVm,
    KvmCreateVcpu,
    KvmGetMpState,
    KvmSetCpuid2,
    KvmSetMsrs,
    KvmSetXcrs,
)
from xfdfuzz.program.ops.processes import CloneThread, CloneVm, Execve, ExecveReturns, Exit, Fork, Vfork
from xfdfuzz.program.ops.run import HandleExit, KvmRun, KvmRunReturns, VmEnter
from xfdfuzz.program.ops.tasks import UserDyn2load, UserTileload

#: Ops after which buffers can have come, gone or changed hands.
_ALLOCATING = (
    CloneThread,
    CloneVm,
    Vfork,
    CloseVm,
    Execve,
    ExecveReturns,
    Exit,
    Fork,
    HandleExit,
    KvmCreateVcpu,
    KvmRun,
    KvmRunReturns,
    *makers(KvmGetMpState, KvmSetCpuid2, KvmSetMsrs, KvmSetXcrs),
    UserDyn2load,
    UserTileload,
)


@invariant("no-buffer-overrun", "corruption", ("INV-23", "BUF"), events=(OVERRUN,))
def no_buffer_overrun(view: View) -> Iterator[Broken]:
    """Nothing is read or written beyond the end of a buffer, the kernel's or the caller's."""
    for event in view.events(OVERRUN):
        used, size = event.detail
        yield Broken(f"{event.trace[0]} touches {used} bytes of a buffer of {size}", event.trace[0])


@invariant("no-use-after-free", "corruption", ("INV-24", "LIFE"), events=(USE_AFTER_FREE,))
def no_use_after_free(view: View) -> Iterator[Broken]:
    """A freed fpstate, or a vCPU's freed CPUID array, is never used, nor freed again."""
    for event in view.events(USE_AFTER_FREE):
        what = f"fpstate {event.detail[0]}" if event.detail else "the CPUID array"
        yield Broken(f"{what} is used in {event.trace[0]} after it was freed", event.trace[0])


@invariant("no-null-dereference", "panic", ("INV-24", "BAL"), events=(NULL_DEREF,))
def no_null_dereference(view: View) -> Iterator[Broken]:
    """The kernel follows no NULL pointer; here it would be a missing fpstate, after an unbalanced load or put, or a
    vCPU that was never created."""
    for event in view.events(NULL_DEREF):
        yield Broken(f"NULL dereference in {' <- '.join(event.trace)}", event.trace[0])


@invariant("no-leak", "leak", ("LIFE",), events=(LEAK,))
def no_leak(view: View) -> Iterator[Broken]:
    """Every allocated fpstate is freed."""
    for event in view.events(LEAK):
        yield Broken(f"fpstate {event.detail[0]} is dropped without being freed", event.trace[0])


@invariant("fpstate-reachable", "leak", ("LIFE",), ops=_ALLOCATING, state=True)
def fpstate_reachable(view: View) -> Iterator[Broken]:
    """Every allocated fpstate is pointed to by a task or a vCPU, and none that is pointed to is freed: the first is a
    leak, the second a use after free in waiting."""
    pointers, fpstates = view.k.fpstate_pointers(), view.k.fpstates
    for nr, _ in view.allocated:
        if nr not in pointers and nr >= FIRST_VALLOC:
            yield Broken(f"fpstate {nr} is allocated and nothing points to it", key=nr)
    for nr in pointers:
        if fpstates[nr].freed:
            yield Broken(f"fpstate {nr} was freed and is still pointed to", key=nr)


@invariant("fpstate-has-one-owner", "corruption", ("INV-24", "LIFE"), ops=_ALLOCATING, state=True)
def fpstate_has_one_owner(view: View) -> Iterator[Broken]:
    """No two tasks, and no two vCPUs, share an fpstate: each would find the other's registers."""
    for pointers in (
        [nr for nr in view.installed if nr != NULL],
        [vcpu.arch.guest_fpu.fpstate for _, vcpu in view.vcpus if vcpu.arch.guest_fpu.fpstate != NULL],
    ):
        for nr in _more_than_once(pointers):
            yield Broken(f"fpstate {nr} belongs to {pointers.count(nr)} owners", key=nr)


def _more_than_once(pointers: list[int]) -> list[int]:
    """Those that stand there several times."""
    different = set(pointers)
    return [] if len(different) == len(pointers) else [nr for nr in different if pointers.count(nr) > 1]


@invariant("fpstate-fits-its-features", "corruption", ("INV-23", "BUF"), ops=_ALLOCATING, state=True)
def fpstate_fits_its_features(view: View) -> Iterator[Broken]:
    """An fpstate's allocation holds the image of all its xfeatures, to the byte, in the format that the kernel saves
    in.  XSAVES with that mask writes there; the page that vmalloc rounds up to only hides it.  (Nobody saves to
    init_fpstate.)"""
    if not view.k.use_xsave:
        return
    table = view.k.machine.cpuid
    size = table.compacted_size if view.k.compacted else table.standard_size
    for nr, fpstate in view.allocated:
        needed = size(fpstate.xfeatures)
        if needed > fpstate.alloc_size and nr != INIT_FPSTATE:
            kind = "guest" if fpstate.is_guest else "host"
            yield Broken(f"{kind} fpstate {nr} has {fpstate.alloc_size} bytes for {needed}", kind, nr)


@invariant("uabi-size-covers-image", "corruption", ("INV-23", "BUF"), ops=_ALLOCATING, state=True)
def uabi_size_covers_image(view: View) -> Iterator[Broken]:
    """Where a vCPU has a uabi_size, the standard-format image of its user features fits in it: KVM_GET_XSAVE2 and
    KVM_SET_XSAVE copy that many bytes."""
    for nr, vcpu in view.vcpus:
        size = vcpu.arch.guest_fpu.uabi_size
        if size:
            needed = view.k.machine.cpuid.standard_size(view.k.fpstates[vcpu.arch.guest_fpu.fpstate].user_xfeatures)
            if view.k.use_xsave and needed > size:
                yield Broken(f"v{nr}: uabi_size is {size}, its image takes {needed} bytes", key=nr)


@invariant("in-use-tells-the-truth", "corruption", ("INV-24", "BAL"), ops=_ALLOCATING, state=True)
def in_use_tells_the_truth(view: View) -> Iterator[Broken]:
    """fpstate->in_use of a guest says whether some task has it installed: it decides whether XFD is written to the MSR
    and whether the buffer may be freed."""
    for nr, vcpu in view.vcpus:
        pointer = vcpu.arch.guest_fpu.fpstate
        in_use = bool(view.k.fpstates[pointer].in_use)
        if in_use != (pointer in view.installed):
            yield Broken(f"v{nr}: in_use is {in_use}, installed is {not in_use}", key=nr)


@invariant("load-put-balanced", "corruption", ("INV-24", "BAL"), ops=_ALLOCATING, state=True)
def load_put_balanced(view: View) -> Iterator[Broken]:
    """Outside KVM_RUN a task has its own fpstate installed and no other put aside."""
    for nr, task in view.tasks:
        installed = task.fpu.task_fpstate != NULL or view.k.fpstates[task.fpu.fpstate].is_guest
        if installed and not task.kvm_run:
            yield Broken(f"t{nr} runs outside KVM_RUN with a guest's fpstate", key=nr)


@invariant("guest-features-backed", "corruption", ("INV-06", "PERM"), ops=(VmEnter, GuestOp))
def guest_features_backed(view: View) -> Iterator[Broken]:
    """Whatever dynamic feature the guest can use, enabled in XCR0 and not disabled by XFD, has room in its fpstate:
    there is no second chance to allocate it, and its state is lost at the first save."""
    k = view.k
    nr = view.vcpu_nr
    if not k.this_cpu.guest or isinstance(view.step.op, GuestInterrupt):
        return
    if k.vcpus[nr].arch.guest_state_protected:
        return  # the processor keeps its registers
    if not k.vcpus[nr].arch.cr4_osxsave:
        return  # it runs with the host's XCR0, but every instruction that would use it is a #UD
    usable = k.regs.xcr0 & ~k.regs.xfd & k.XFEATURE_MASK_USER_DYNAMIC
    gfpu = k.vcpus[nr].arch.guest_fpu
    missing = usable & ~(k.fpstates[gfpu.fpstate].xfeatures & gfpu.xfeatures)
    if missing:
        yield Broken(f"v{nr} can use components {xf.format_mask(missing)}, which its fpstate has no room for", "guest")
