"""ptrace: a tracer sees and sets the registers of its tracee."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.invariants.vocabulary import Broken, View, component_site, invariant
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.fpu.regset import REGSET_UNIT
from xfdfuzz.program.ghost import content
from xfdfuzz.program.images import has_reserved_mxcsr, lost
from xfdfuzz.program.ops.ptrace import PtraceGetFpregs, PtraceGetXstate, PtraceSetFpregs, PtraceSetXstate
from xfdfuzz.program.step import FpuState, Image


@invariant("ptrace-reads-the-registers", "corruption", ("HSTATE", "ABI"), ops=(PtraceGetXstate, PtraceGetFpregs))
def ptrace_reads_the_registers(view: View) -> Iterator[Broken]:
    """PTRACE_GETREGSET of NT_X86_XSTATE and NT_PRFPREG gives what the tracee has in its registers, dynamic features
    included, or what a tracer has written there; debuggers and checkpoints rely on it.  A small buffer gets its
    beginning."""
    op, read = view.step.op, view.step.result.out
    assert isinstance(op, PtraceGetXstate | PtraceGetFpregs)
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


@invariant("ptrace-write-is-taken", "abi", ("HSTATE", "ABI"), ops=(PtraceSetXstate, PtraceSetFpregs))
def ptrace_write_is_taken(view: View) -> Iterator[Broken]:
    """PTRACE_SETREGSET takes a whole image of features that the tracee has, in the standard format, and no other: what
    it has no room for would be written beyond its buffer.  So it does the whole of NT_PRFPREG."""
    op, ret = view.step.op, view.step.result.ret
    assert isinstance(op, PtraceSetXstate | PtraceSetFpregs)
    whole = FXSAVE_SIZE if isinstance(op, PtraceSetFpregs) else view.k.xstateregs_size()
    size = op.iov_len.bytes_of(whole)
    if isinstance(op, PtraceSetXstate):
        if not view.k.use_xsave:
            return
        has = view.k.fpstates[view.k.tasks[op.tracee].fpu.fpstate].xfeatures & view.k.machine.user_xfeatures
        needs_mxcsr = op.image.xstate_bv & (xf.MASK_FPSSE | xf.MASK_YMM)
        good = not (op.image.xcomp_bv or op.image.reserved or op.image.xstate_bv & ~has)
        given, there = xf.format_mask(op.image.xstate_bv), xf.format_mask(has)
    else:
        needs_mxcsr, good, given, there = 1, True, "x87 and SSE", "both"
    good &= not (needs_mxcsr and has_reserved_mxcsr(op.image.contents))
    if (ret == 0) != (good and size >= whole and size % REGSET_UNIT == 0):
        yield Broken(f"{size} bytes with {given} give {view.step.result}, the tracee has {there}")
