"""ptrace: a tracer sees and sets the registers of its tracee; core dumps show what they were."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.arch.xsave import MXCSR_RESERVED
from xfdfuzz.invariants.vocabulary import Broken, View, component_site, invariant
from xfdfuzz.kernel.errno import EINVAL, ENODEV, ENOMEM
from xfdfuzz.kernel.event import ALLOC_FAILED
from xfdfuzz.kernel.fpu.regset import I387_IA32_SIZE, NT_X86_SHSTK
from xfdfuzz.program.fields import TOKENS
from xfdfuzz.program.ghost import content
from xfdfuzz.program.images import has_reserved_mxcsr, lost
from xfdfuzz.program.ops import ptrace
from xfdfuzz.program.ops.coredump import CoredumpLayout, CoredumpOfThread, CoredumpSsp, CoredumpXfpregs, CoredumpXstate
from xfdfuzz.program.ops.ptrace import PtraceGetSsp, PtraceGetXstate, PtraceSetSsp, PtraceSetXstate
from xfdfuzz.program.ops.tracer import KeepXstate, LoadXstate
from xfdfuzz.program.step import FpuState, Image, Layout, format_ret

_READS = (
    *(PtraceGetXstate, KeepXstate),
    *(ptrace.PtraceGetFpregs, ptrace.PtraceGetXfpregs),
    *(ptrace.PtraceOldGetFpregs, ptrace.PtraceOldGetXfpregs),
)
_WRITES = (
    *(PtraceSetXstate, LoadXstate),
    *(ptrace.PtraceSetFpregs, ptrace.PtraceSetXfpregs),
    *(ptrace.PtraceOldSetFpregs, ptrace.PtraceOldSetXfpregs),
)


@invariant("ptrace-reads-the-registers", "corruption", ("HSTATE", "ABI"), ops=_READS)
def ptrace_reads_the_registers(view: View) -> Iterator[Broken]:
    """PTRACE_GETREGSET of NT_X86_XSTATE, NT_PRFPREG and NT_PRXFPREG gives what the tracee has in its registers, dynamic
    features included, or what a tracer has written there; debuggers and checkpoints rely on it.  A small buffer gets
    its beginning.  PTRACE_GETFPREGS and PTRACE_GETFPXREGS give the same."""
    op, read = view.step.op, view.step.result.out
    assert isinstance(op, _READS)
    if isinstance(read, Image | FpuState):
        yield from _differing(view, op.tracee, read)


def _differing(view: View, nr: int, read: Image | FpuState) -> Iterator[Broken]:
    """What of a task's registers reads as something else."""
    ideal, tokens = view.k.system.ghost.tasks[nr], dict(read.tokens)
    if isinstance(read, Image):
        size = view.k.fpu_user_cfg.max_size if read.iov_len is None else read.iov_len
        all_parts = (*xf.components_in(view.k.machine.user_xfeatures), xf.MXCSR) if size >= HEADER_END else ()
        parts = [i for i in all_parts if not lost(size, view.k.machine.cpuid) >> i & 1]
    else:
        parts = [*tokens]
    for i in parts:
        if tokens.get(i, 0) != ideal.data[i] and not ideal.undefined >> i & 1:
            found = f"t{nr}: {xf.CONTENTS[i]} reads {content(tokens.get(i, 0))}, it is {content(ideal.data[i])}"
            yield Broken(found, component_site(i))


@invariant("core-dump-shows-the-registers", "corruption", ("HSTATE", "ABI"), ops=(CoredumpOfThread,))
def core_dump_shows_the_registers(view: View) -> Iterator[Broken]:
    """A core file has what each thread had in its registers when the process died, as a tracer would have seen it:
    NT_X86_XSTATE wherever there is XSAVE, NT_PRFPREG always, NT_PRXFPREG of a 32-bit program, NT_X86_SHSTK of a thread
    with a shadow stack.  What there is no memory for is left out of it."""
    op, result = view.step.op, view.step.result
    assert isinstance(op, CoredumpOfThread)
    ssp = view.k.system.ghost.tasks[op.thread].data[xf.CET_USER]
    if isinstance(result.out, Image | FpuState):
        yield from _differing(view, op.thread, result.out)
    elif isinstance(op, CoredumpSsp) and result.out is not None and result.out != ssp:
        yield Broken(f"t{op.thread}: the shadow stack pointer reads {result.out}, it is {content(ssp)}")
    elif result.out is None and _has_note(view, op, ssp) and not any(view.events(ALLOC_FAILED)):
        yield Broken(f"t{op.thread} has no such note")


def _has_note(view: View, op: CoredumpOfThread, ssp: int) -> bool:
    """Whether there is something to be said of the thread in that note; the shadow stack's is there since 6.6."""
    if isinstance(op, CoredumpSsp):
        return bool(ssp) and NT_X86_SHSTK in view.k.x86_64_regsets()
    if isinstance(op, CoredumpXfpregs):
        return bool(view.before.tasks[op.task].ia32)
    return view.k.use_xsave if isinstance(op, CoredumpXstate) else True


@invariant("core-dump-can-be-read", "abi", ("ABI",), ops=(CoredumpLayout,))
def core_dump_can_be_read(view: View) -> Iterator[Broken]:
    """A core file is whole, and its NT_X86_XSAVE_LAYOUT, where there is one, says of each extended user component where
    CPUID has it in the standard format: a debugger on another machine reads NT_X86_XSTATE by nothing else."""
    result, cpuid = view.step.result, view.k.machine.cpuid
    if result.ret == "truncated":
        yield Broken("the file ends before the process' memory")
    if not isinstance(result.out, Layout):
        return
    said = {i: (size, offset) for i, size, offset in result.out.components}
    for i in xf.components_in(view.k.fpu_user_cfg.max_features & ~xf.MASK_FPSSE):
        component = cpuid.components[i]
        if said.get(i) != (component.size, component.offset):
            yield Broken(
                f"{xf.CONTENTS[i]} is {component.size} at {component.offset}, not {said.get(i)}", component_site(i)
            )


@invariant("ptrace-write-is-taken", "abi", ("HSTATE", "ABI"), ops=_WRITES)
def ptrace_write_is_taken(view: View) -> Iterator[Broken]:
    """PTRACE_SETREGSET takes a whole image of features that the tracee has, in the standard format, and no other: what
    it has no room for would be written beyond its buffer.  So it does the whole of NT_PRFPREG and NT_PRXFPREG, and
    PTRACE_SETFPREGS and PTRACE_SETFPXREGS do.  It fails where there is no memory for the image."""
    op, ret = view.step.op, view.step.result.ret
    assert isinstance(op, _WRITES)
    regset, size = op.regset(view.k), op.given(view.k)
    if isinstance(op, PtraceSetXstate | LoadXstate):
        if not view.k.use_xsave:
            return
        area = op.area(view.k)
        has = view.k.fpstates[view.k.tasks[op.tracee].fpu.fpstate].xfeatures & view.k.machine.user_xfeatures
        bad_mxcsr = area.data[xf.MXCSR] == MXCSR_RESERVED and area.xstate_bv & (xf.MASK_FPSSE | xf.MASK_YMM)
        good = not (area.xcomp_bv or area.reserved or area.xstate_bv & ~has or bad_mxcsr)
        given, there = xf.format_mask(area.xstate_bv), xf.format_mask(has)
    else:
        bad_mxcsr = regset.whole > I387_IA32_SIZE and has_reserved_mxcsr(op.image.contents)
        good, given, there = regset.whole > 0 and not bad_mxcsr, "x87 and SSE", "both"
    whole = size >= regset.whole and size % regset.size == 0
    if (ret == 0) != (good and whole and not any(view.events(ALLOC_FAILED))):
        yield Broken(f"{size} bytes with {given} give {view.step.result}, the tracee has {there}")


@invariant("ptrace-sees-the-shadow-stack", "abi", ("HSTATE", "ABI"), ops=(PtraceGetSsp, PtraceSetSsp))
def ptrace_sees_the_shadow_stack(view: View) -> Iterator[Broken]:
    """PTRACE_GETREGSET of NT_X86_SHSTK gives the pointer to the tracee's shadow stack, PTRACE_SETREGSET takes one in
    user space that is aligned, and both say ENODEV of a task that has no shadow stack."""
    op, result = view.step.op, view.step.result
    assert isinstance(op, PtraceGetSsp | PtraceSetSsp)
    regset, size = op.regset(view.k), op.given(view.k)
    if not regset.whole or size % regset.size:
        wanted = -EINVAL
    elif not view.before.ghost.tasks[op.tracee].data[xf.CET_USER]:
        wanted = -ENODEV
    else:
        refused = isinstance(op, PtraceSetSsp) and (op.ssp > TOKENS or size < regset.whole)
        wanted = -EINVAL if refused else 0
    # what is read goes through a buffer
    if any(view.events(ALLOC_FAILED)):
        wanted = -ENOMEM
    ssp = view.k.system.ghost.tasks[op.tracee].data[xf.CET_USER]
    if result.ret != wanted:
        yield Broken(f"it gives {result}, not {format_ret(wanted)}: t{op.tracee}'s shadow stack is {content(ssp)}")
    elif result.out is not None and result.out != ssp:
        yield Broken(f"t{op.tracee}: the shadow stack pointer reads {result.out}, it is {content(ssp)}")
