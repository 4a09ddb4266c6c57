"""Signal frames: what user space finds on its stack, and gets back."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.vocabulary import Broken, View, component_site, invariant
from xfdfuzz.program.fields import INNERMOST
from xfdfuzz.program.ghost import content
from xfdfuzz.program.ops.signals import Signal, SignalFaultIn, SignalPkey, frame_of


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
