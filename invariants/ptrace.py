"""ptrace: a tracer sees and sets the registers of its tracee."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.arch.xsave import MXCSR_RESERVED
from xfdfuzz.invariants.vocabulary import Broken, View, component_site, invariant
from xfdfuzz.kernel.errno import EINVAL, ENODEV, ENOMEM
from xfdfuzz.kernel.event import ALLOC_FAILED
from xfdfuzz.kernel.fpu.regset import I387_IA32_SIZE
from xfdfuzz.program.fields import TOKENS
from xfdfuzz.program.ghost import content
from xfdfuzz.program.images import has_reserved_mxcsr, lost
from xfdfuzz.program.ops import ptrace
from xfdfuzz.program.ops.ptrace import PtraceGetSsp, PtraceGetXstate, PtraceSetSsp, PtraceSetXstate
from xfdfuzz.program.ops.tracer import KeepXstate, LoadXstate
from xfdfuzz.program.step import FpuState, Image, format_ret

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
    if not isinstance(read, Image | FpuState):
        return
    ideal, tokens = view.k.system.ghost.tasks[op.tracee], dict(read.tokens)
    if isinstance(read, Image):
        size = view.k.fpu_user_cfg.max_size if read.iov_len is None else read.iov_len
        all_parts = (*xf.components_in(view.k.machine.user_xfeatures), xf.MXCSR) if size >= HEADER_END else ()
        parts = [i for i in all_parts if not lost(size, view.k.machine.cpuid) >> i & 1]
    else:
        parts = [*tokens]
    for i in parts:
        if tokens.get(i, 0) != ideal.data[i] and not ideal.undefined >> i & 1:
            found = f"t{op.tracee}: {xf.CONTENTS[i]} reads {content(tokens.get(i, 0))}, it is {content(ideal.data[i])}"
            yield Broken(found, component_site(i))


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
