"""What tracers, checkpoints and run-times do with a task's registers: what they mean, keep and write.

As with VMMs (``vmm.py``), what they mean are ops that write the ghost alone.  None of these is drawn: a search looks
for the kernel's mistakes, which what is kept and written may show.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fpu.regset import NT_X86_XSTATE
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.memory.cstruct import assign, copy_of
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import INNERMOST, FrameNr, ImageChange, Meant, Nr
from xfdfuzz.program.ops.base import OK, Op, op
from xfdfuzz.program.ops.ptrace import Ptrace
from xfdfuzz.program.ops.signals import FrameOp
from xfdfuzz.program.step import Result, image_of

# -- what is meant -----------------------------------------------------------------------------------------------------


def _no_task(k: Kernel, nr: int) -> str:
    """That there is no such user task; nothing if there is."""
    if nr >= st.USER_TASKS:
        return f"t{nr} is a kernel thread"
    task = k.tasks[nr]
    return "" if task.exists and not task.exit_state else f"there is no t{nr}"


def _not_begun(k: Kernel, nr: int) -> str:
    """That nothing is meant with a user task so far; nothing if something is."""
    begun = k.system.ghost.tracers[nr].intent
    return "" if begun else f"no `t{nr} invisible from here` or `copy of` comes before"


class _Intent(Op):
    __slots__ = ()
    DRAWN = False
    task: int

    def hindrance(self, k: Kernel) -> str:
        return _no_task(k, self.task)


@op("t{task} invisible from here")
class TaskInvisible(_Intent):
    """What is done to the task's registers from here to ``goes on`` must not show, be it done by a tracer, by a signal
    handler or by code that was made to run in its place."""

    DRAWN = False
    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        ghost.promise_task(k, self.task, self.task, st.INTENT_INVISIBLE)
        return OK


@op("t{task} copy of t{source}")
class TaskCopy(_Intent):
    """The task is made another one, from where that is now, as a checkpoint is restored: at ``goes on`` it has the
    registers that the other one has here."""

    DRAWN = False
    task: Nr = 0
    source: Nr = 1

    def hindrance(self, k: Kernel) -> str:
        itself = f"t{self.task} is itself" if self.task == self.source else ""
        return itself or _no_task(k, self.source) or _Intent.hindrance(self, k)

    def run(self, k: Kernel) -> Result:
        ghost.promise_task(k, self.task, self.source, st.INTENT_COPY)
        return OK


@op("t{task} to find {meant}")
class TaskToFind(_Intent):
    """What is changed is meant: at ``goes on`` the task finds these contents, in place of what was promised so far."""

    DRAWN = False
    task: Nr = 0
    meant: Meant = Meant(((xf.SSE, 1),))

    def hindrance(self, k: Kernel) -> str:
        return _Intent.hindrance(self, k) or _not_begun(k, self.task)

    def run(self, k: Kernel) -> Result:
        ghost.means(k.system.ghost.tracers[self.task].promise, self.meant, partial(ghost.task_token, self.task))
        return OK


@op("t{task} goes on")
class TaskGoesOn(_Intent):
    """Whoever has been at the task is done with it: from here on its own code has to find what was meant."""

    DRAWN = False
    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        return _Intent.hindrance(self, k) or _not_begun(k, self.task)

    def run(self, k: Kernel) -> Result:
        k.system.ghost.tracers[self.task].intent = st.INTENT_NONE
        return OK


# -- what is kept, and written of that ---------------------------------------------------------------------------------


def _not_kept(k: Kernel, source: int) -> str:
    """That there is no image of a task; nothing if there is."""
    kept = source < st.USER_TASKS and k.system.ghost.tracers[source].kept
    return "" if kept else f"nothing that PTRACE_GETREGSET gave was kept of t{source}"


class _Whole(Ptrace):
    __slots__ = ()

    def given(self, k: Kernel) -> int:
        return self.regset(k).whole


@op("t{task} ptrace(PTRACE_GETREGSET, t{tracee}, NT_X86_XSTATE) keep")
class KeepXstate(_Whole):
    """Read the whole XSAVE image of a stopped task and keep it."""

    call = "PtraceGetXstate"
    NOTE_TYPE = NT_X86_XSTATE
    task: Nr = 0
    tracee: Nr = 1

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        size = k.regset_get_alloc(k.ptrace_regset(self.tracee, NT_X86_XSTATE, None))
        if size < 0:
            return Result(size)
        ret, area = k.xstateregs_get(self.tracee, size)
        if area is None:
            return Result(ret)
        tracer = k.system.ghost.tracers[self.tracee]
        assign(tracer.image, area)
        assign(tracer.honest, k.system.ghost.tasks[self.tracee])
        tracer.kept = 1
        return Result(ret, image_of(area))


@op("t{task} ptrace(PTRACE_SETREGSET, t{tracee}, NT_X86_XSTATE) of t{source} {change}")
class LoadXstate(_Whole):
    """Write the XSAVE image that was kept of a task, to that task or to another, or what the tracer has made of it."""

    call = "PtraceSetXstate"
    NOTE_TYPE = NT_X86_XSTATE
    task: Nr = 0
    tracee: Nr = 1
    source: Nr = 1
    change: ImageChange = ImageChange()

    def hindrance(self, k: Kernel) -> str:
        return _not_kept(k, self.source) or Ptrace.hindrance(self, k)

    def area(self, k: Kernel) -> XsaveArea:
        """The image that the kernel gets."""
        image: XsaveArea = copy_of(k.system.ghost.tracers[self.source].image)
        images.change(image, self.change, partial(ghost.task_token, self.tracee))
        return image

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        size = k.ptrace_regset(self.tracee, NT_X86_XSTATE, None)
        ret = size if size < 0 else k.xstateregs_set(self.tracee, self.area(k), size)
        if not ret:
            kept, own = k.system.ghost.tracers[self.source], partial(ghost.task_token, self.tracee)
            ghost.become(k, self.tracee, ghost.changed(k, kept.honest, kept.image, self.change, own))
        return Result(ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_change(self.change)


@op("t{task} sigframe(image, t{source}) {frame}")
class SigframeOf(FrameOp):
    """The task writes the XSAVE image that was kept of a task into its frame, as a checkpoint's restorer does; what
    surrounds the image stays."""

    DRAWN = False
    task: Nr = 0
    source: Nr = 1
    frame: FrameNr = INNERMOST

    def hindrance(self, k: Kernel) -> str:
        return _not_kept(k, self.source) or FrameOp.hindrance(self, k)

    def touched(self, k: Kernel, frame: SigFrame) -> int:
        return images.size_of((), k.system.ghost.tracers[self.source].image.xstate_bv, k.machine.cpuid)

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        images.fill_frame(frame, k.system.ghost.tracers[self.source].image, k.machine.cpuid)
        return OK
