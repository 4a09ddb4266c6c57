"""Signals and their handlers."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.kernel.fpu.signal import FP_XSTATE_MAGIC2_SIZE
from xfdfuzz.program.fields import OWN, ImageChange, Mapped, SwReserved, UserImage
from xfdfuzz.program.ops import signals, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, flags, picks, targets


class SignalRules(Rules):
    """Signals and their handlers."""

    SHARE = 3

    signal = one(signals.Signal, on="signalable")
    signal_delivered = one(signals.SignalDelivered, on="signalled")

    @on("signalable", n=targets)
    def signal_on_the_same_stack(self, n: int) -> Iterator[Op]:
        """A handler without SA_ONSTACK, whatever stack there is."""
        yield signals.SignalNotOnstack(self.choice("signalable", n))

    @on("signalable", n=targets, how=Range(0, 3))
    def signal_faults(self, n: int, how: int) -> Iterator[Op]:
        """A frame meets a page that is not there, whatever comes before it is; or memory that may not be written."""
        task = self.choice("signalable", n)
        if how == 0:
            yield signals.SignalUnwritable(task)
        elif how == 1:
            yield signals.SignalHalfUnwritable(task)
        else:
            yield signals.SignalFaults(task)

    @on("entering_altstack", n=targets, opens=flags)
    def signal_pkey(self, n: int, opens: int) -> Iterator[Op]:
        """A protection key guards the alternate stack, if there are such, and the handler opens it."""
        task, machine = self.choice("entering_altstack", n), self.run.machine
        keys = machine.xsave and machine.pku and not machine.nopku
        yield signals.SignalPkey(task) if keys else signals.Signal(task)
        if opens and task in self.now.signalled:
            yield signals.SignalDelivered(task)
            yield tasks.UserWrpkru(task, 0)

    @on("framing", n=targets, gone=Range(0, 3))
    def signal_fault_in(self, n: int, gone: int) -> Iterator[Op]:
        """The page of a frame is there, mostly."""
        task = self.choice("framing", n)
        yield signals.SignalGone(task) if gone == 3 else signals.SignalFaultIn(task)

    sigframe_read = one(signals.SigframeRead, on="handlers")
    sigframe_write = one(signals.SigframeWrite, on="handlers")
    sigframe_sw_reserved = one(signals.SigframeSwReserved, on="handlers")
    sigframe_copy = one(signals.SigframeCopy, on="handlers")
    sigframe_change = one(signals.SigframeChange, on="handlers")
    sigframe_legacy = one(signals.SigframeLegacy, on="long_mode_handlers")
    sigframe_fsave = one(signals.SigframeFsave, on="ia32_handlers")
    siglongjmp = one(signals.Siglongjmp, on="handlers")

    @on("signalable", n=targets)
    def siglongjmp_at_once(self, n: int) -> Iterator[Op]:
        """A handler is left as soon as it is entered: the registers are initial, and memory holds what they were."""
        task = self.choice("signalable", n)
        yield signals.Signal(task)
        if task in self.now.signalled:
            yield signals.SignalDelivered(task)
            yield signals.Siglongjmp(task)

    sigreturn = one(signals.Sigreturn, on="handlers")
    sigreturn_faults = one(signals.SigreturnFaults, on="long_mode_handlers")
    sigreturn_fault_in = one(signals.SigreturnFaultIn, on="faulting")
    sigreturn_gone = one(signals.SigreturnGone, on="faulting")

    @on("nesting", n=targets)
    def signal_in_handler(self, n: int) -> Iterator[Op]:
        """A signal interrupts a handler, and its own begins."""
        task = self.choice("nesting", n)
        yield signals.Signal(task)
        if task in self.now.signalled:
            yield signals.SignalDelivered(task)

    @on("left_frames", n=targets)
    def siglongjmp_outwards(self, n: int) -> Iterator[Op]:
        """Leave several handlers at once."""
        task, frame = self.choice("left_frames", n)
        yield signals.Siglongjmp(task, frame)

    @on("copies", n=targets)
    def sigframe_copy_of(self, n: int) -> Iterator[Op]:
        """Come back by what another frame has."""
        task, frame = self.choice("copies", n)
        yield signals.SigframeCopyOf(task, frame)

    @on("frames", n=targets)
    def sigreturn_of_frame(self, n: int) -> Iterator[Op]:
        """Come back by another frame than the innermost: an outer one, or one that was used before."""
        task, frame = self.choice("frames", n)
        yield signals.Sigreturn(task, frame)

    sigframe_new = one(signals.SigframeNew, on="tasks")
    sigframe_fpstate = one(signals.SigframeFpstate, on="handlers")

    @on("own_frames", n=targets, what=Range(0, 3), value=picks)
    def sigframe_own(self, n: int, what: int, value: int) -> Iterator[Op]:
        """Change the frame that a task has made."""
        task = self.choice("own_frames", n)
        if what == 0:
            yield signals.SigframeWrite(task, self.domains[UserImage].value(value), OWN)
        elif what == 1:
            yield signals.SigframeSwReserved(task, self._software(value), OWN)
        elif what == 2:
            yield signals.SigframeCopy(task, self.domains["frame size"].value(value), OWN)
        else:
            yield signals.SigframeFpstate(task, self.domains["fpstate"].value(value), OWN)

    def _software(self, value: int) -> SwReserved:
        """What surrounds an image; with all features where it says that there is one, as nothing is there yet."""
        sw: SwReserved = self.domains[SwReserved].value(value)
        if sw.magic1 and sw.xfeatures is None:
            sw = sw._replace(xfeatures=self.run.machine.user_xfeatures)
        return sw

    def _fitting(self, image: UserImage) -> SwReserved:
        """What surrounds an image that has just what its XSTATE_BV names."""
        mask = image.xstate_bv & self.run.machine.user_xfeatures | xf.MASK_FPSSE
        size = self.run.machine.cpuid.standard_size(mask)
        return SwReserved(1, size + FP_XSTATE_MAGIC2_SIZE, mask, size, size)

    @on("own_copies", n=targets)
    def sigframe_own_copy(self, n: int) -> Iterator[Op]:
        """Copy a frame that the kernel has written to one that the task has made."""
        task, frame = self.choice("own_copies", n)
        yield signals.SigframeCopyOf(task, frame, OWN)

    @on("own_returns", n=targets, absent=Range(0, 3))
    def sigreturn_own(self, n: int, absent: int) -> Iterator[Op]:
        """Come back by the frame that the task has made, in a handler or outside of one; a page of it may be absent."""
        task = self.choice("own_returns", n)
        if absent == 3 and task in self.now.long_mode:
            yield signals.SigreturnFaults(task, self.run.machine.user_xfeatures, OWN)
        else:
            yield signals.Sigreturn(task, OWN)

    @on("makers", n=targets, image=picks, fits=flags, sw=picks, ends=flags, absent=flags)
    def restore_by_made_frame(self, n: int, image: int, fits: int, sw: int, ends: int, absent: int) -> Iterator[Op]:
        """As CRIU gives a task its registers: make a frame with an image, and return by it.

        What surrounds the image may fit it, memory may end behind that, and a page of it may have to be read in.
        """
        task, what = self.choice("makers", n), self.domains[UserImage].value(image)
        around = self._fitting(what) if fits else self._software(sw)
        size = (around.extended_size or 0) + 63 & -64
        end = size if ends and size >= HEADER_END else 0
        yield signals.SigframeNew(task, mapped=Mapped(end))
        # where there is no memory for the image its header may speak of it all the same
        whole = not end or self.run.machine.cpuid.standard_size(what.xstate_bv) <= end
        said = ImageChange(set=what.xstate_bv & self.run.machine.user_xfeatures)
        yield signals.SigframeWrite(task, what, OWN) if whole else signals.SigframeChange(task, said, OWN)
        yield signals.SigframeSwReserved(task, around, OWN)
        if absent and task in self.now.long_mode:
            yield signals.SigreturnFaults(task, self.run.machine.user_xfeatures, OWN)
        else:
            yield signals.Sigreturn(task, OWN)
        if task in self.now.faulting:
            yield signals.SigreturnFaultIn(task)
