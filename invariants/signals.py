"""Signal frames: what user space finds on its stack, and gets back."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.arch.xsave import MXCSR_RESERVED
from xfdfuzz.invariants.vocabulary import Broken, View, component_site, invariant
from xfdfuzz.kernel.fpu.signal import FP_XSTATE_MAGIC2_SIZE
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.program.fields import INNERMOST
from xfdfuzz.program.ghost import content
from xfdfuzz.program.ops.signals import (
    Signal,
    SignalFaultIn,
    SignalPkey,
    Sigreturn,
    SigreturnFaultIn,
    SigreturnFaults,
    frame_of,
    returned_by,
)


@invariant("sigframe-is-true", "corruption", ("SIG", "HSTATE"), ops=(Signal, SignalFaultIn, SignalPkey))
def sigframe_is_true(view: View) -> Iterator[Broken]:
    """The image in a signal frame holds the registers that the signal interrupted, all of them, and those alone: the
    handler looks at it, and sigreturn brings it back.  A 32-bit frame has x87 in its header as well."""
    op = view.step.op
    assert isinstance(op, Signal | SignalFaultIn | SignalPkey)
    if view.step.result.ret != "ok":
        return
    frame, ideal = frame_of(view.k, op.task, INNERMOST), view.k.system.ghost.tasks[op.task]
    shown = frame.area.xstate_bv if view.k.use_xsave else xf.MASK_FPSSE
    user = view.k.machine.user_xfeatures if view.k.use_xsave else xf.MASK_FPSSE
    for i in (*xf.components_in(user), xf.MXCSR):
        found = frame.area.data[i] if (shown | xf.MASK_MXCSR) >> i & 1 else 0
        if ideal.undefined >> i & 1:
            continue
        if found != ideal.data[i]:
            yield Broken(
                f"t{op.task}'s frame has {content(found)} in {xf.CONTENTS[i]}, it was {content(ideal.data[i])}",
                component_site(i),
            )
    held = content(ideal.data[xf.X87])
    if view.k.tasks[op.task].ia32 and frame.fsave != ideal.data[xf.X87] and not ideal.undefined & xf.MASK_X87:
        yield Broken(f"t{op.task}'s frame has {content(frame.fsave)} in its header, x87 was {held}", "header")


@invariant("sigframe-describes-itself", "abi", ("SIG",), ops=(Signal, SignalFaultIn, SignalPkey))
def sigframe_describes_itself(view: View) -> Iterator[Broken]:
    """sw_reserved of a signal frame says how large the image is and what may be in it: user space copies frames by it,
    and the magic number behind the image must not be overwritten."""
    op = view.step.op
    assert isinstance(op, Signal | SignalFaultIn | SignalPkey)
    if view.step.result.ret != "ok" or not view.k.use_xsave:
        return
    frame = frame_of(view.k, op.task, INNERMOST)
    needed = view.k.machine.cpuid.standard_size(frame.xfeatures)
    if needed > frame.xstate_size:
        yield Broken(f"t{op.task}'s frame says {frame.xstate_size} bytes, its features take {needed}", "size")
    if frame.area.xstate_bv & ~(frame.xfeatures | xf.MASK_FPSSE):
        held, said = xf.format_mask(frame.area.xstate_bv), xf.format_mask(frame.xfeatures)
        yield Broken(f"t{op.task}'s frame holds {held}, it says {said}", "xfeatures")


@invariant("sigreturn-comes-to-an-end", "abi", ("SIG",), ops=(SigreturnFaultIn,))
def sigreturn_comes_to_an_end(view: View) -> Iterator[Broken]:
    """A system call that waits for nobody ends: what it tries again, with nothing changed since, comes to the same for
    ever.  Here the memory of the frame was faulted in, and XRSTOR meets a page that is not there once more: no signal
    but a fatal one, and no other thread, ends that."""
    op = view.step.op
    assert isinstance(op, SigreturnFaultIn)
    if view.step.result.ret == "#PF" and not view.step.changed():
        yield Broken(f"t{op.task} tries XRSTOR again and again, in the state that it tried it in")


@invariant("whole-frame-is-accepted", "abi", ("SIG",), ops=(Sigreturn, SigreturnFaults, SigreturnFaultIn))
def whole_frame_is_accepted(view: View) -> Iterator[Broken]:
    """What a frame has to have is in arch/x86/include/uapi/asm/sigcontext.h: FP_XSTATE_MAGIC1, sizes, and
    FP_XSTATE_MAGIC2 where its image ends.  sigreturn needs no memory behind that, however large frames of the kernel's
    are: checkpoints and run-times bring frames of other processors along, and make their own."""
    op = view.step.op
    assert isinstance(op, Sigreturn | SigreturnFaults | SigreturnFaultIn)
    frame = returned_by(view.before, op)
    if frame.pkey or frame.null or not (view.k.use_xsave and _is_whole(view, op.task, frame)):
        return
    if view.step.result.ret == "SIGSEGV":
        yield Broken(f"t{op.task}'s frame of {frame.xstate_size} bytes is whole, and it is SIGSEGV")


def _is_whole(view: View, task: int, frame: SigFrame) -> bool:
    """Whether it is a frame with extended state, in memory that is there, of components that the task has enabled, and
    as large as those that it speaks of ("based on the xfeatures saved in the layout", sigcontext.h)."""
    enabled = view.before.fpstates[view.before.tasks[task].fpu.fpstate].user_xfeatures
    area, size_of = frame.area, view.k.machine.cpuid.standard_size
    sized = HEADER_END <= frame.xstate_size <= frame.extended_size and frame.magic2 == frame.xstate_size
    there = not frame.mapped or frame.xstate_size + FP_XSTATE_MAGIC2_SIZE <= frame.mapped
    named = not area.xstate_bv & ~(frame.xfeatures & enabled) and not frame.xfeatures & ~view.k.machine.user_xfeatures
    loads = not (frame.misaligned or area.xcomp_bv or area.reserved) and area.data[xf.MXCSR] != MXCSR_RESERVED
    return bool(frame.magic1 and sized and there and named and loads) and size_of(frame.xfeatures) <= frame.xstate_size
