"""ptrace: a tracer sees and sets the registers of its tracee."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.vocabulary import Broken, View, component_site, invariant
from xfdfuzz.program.ghost import content
from xfdfuzz.program.images import has_reserved_mxcsr
from xfdfuzz.program.ops.ptrace import PtraceGetXstate, PtraceSetXstate
from xfdfuzz.program.step import Image


@invariant("ptrace-reads-the-registers", "corruption", ("HSTATE", "ABI"), ops=(PtraceGetXstate,))
def ptrace_reads_the_registers(view: View) -> Iterator[Broken]:
    """PTRACE_GETREGSET of NT_X86_XSTATE gives what the tracee has in its registers, dynamic features included, or what
    a tracer has written there; debuggers and checkpoints rely on it."""
    op, image = view.step.op, view.step.result.out
    assert isinstance(op, PtraceGetXstate)
    if not isinstance(image, Image):
        return
    ideal = view.k.system.ghost.tasks[op.tracee]
    tokens = dict(image.tokens)
    for i in (*xf.components_in(view.k.machine.user_xfeatures), xf.MXCSR):
        if tokens.get(i, 0) != ideal.data[i] and not ideal.undefined >> i & 1:
            found = f"t{op.tracee}: {xf.CONTENTS[i]} reads {content(tokens.get(i, 0))}, it is {content(ideal.data[i])}"
            yield Broken(found, component_site(i))


@invariant("ptrace-write-is-taken", "abi", ("HSTATE", "ABI"), ops=(PtraceSetXstate,))
def ptrace_write_is_taken(view: View) -> Iterator[Broken]:
    """PTRACE_SETREGSET takes an image of features that the tracee has, in the standard format, and no other: what it
    has no room for would be written beyond its buffer."""
    op, ret = view.step.op, view.step.result.ret
    assert isinstance(op, PtraceSetXstate)
    if not view.k.use_xsave:
        return
    image, has = op.image, view.k.fpstates[view.k.tasks[op.tracee].fpu.fpstate].xfeatures
    needs_mxcsr = image.xstate_bv & (xf.MASK_FPSSE | xf.MASK_YMM)
    good = not (image.xcomp_bv or image.reserved or (needs_mxcsr and has_reserved_mxcsr(image.contents)))
    fits = not image.xstate_bv & ~(has & view.k.machine.user_xfeatures)
    if (ret == 0) != (good and fits):
        given, there = xf.format_mask(image.xstate_bv), xf.format_mask(has)
        yield Broken(f"an image of {given} gives {view.step.result}, the tracee has {there}")
