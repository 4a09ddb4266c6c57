"""A process dies of a signal that dumps core, and somebody looks at the file."""

from __future__ import annotations

from typing import ClassVar

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.coredump import CoreFile, Note
from xfdfuzz.kernel.fpu.regset import NT_PRFPREG, NT_PRXFPREG, NT_X86_SHSTK, NT_X86_XSTATE
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.fields import Nr
from xfdfuzz.program.ops.base import TaskOp, inside, op
from xfdfuzz.program.step import Content, FpuState, Layout, Result, image_of

#: There is no such note.
NONE = Result("none")


def legacy_of(area: XsaveArea) -> FpuState:
    """x87, SSE and MXCSR of an image."""
    return FpuState(tuple((i, area.data[i]) for i in xf.LEGACY))


class Coredump(TaskOp):
    """A signal of the task's is fatal, and all threads of its process end with it.

    None of the others is inside a call that is cut in two (the SIGKILL takes them out first).
    """

    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        if found := TaskOp.hindrance(self, k):
            return found
        leader = k.tasks[self.task].group_leader
        threads = ((nr, task) for nr, task in enumerate(k.tasks) if task.exists and task.group_leader == leader)
        return next(filter(None, (inside(task, nr) for nr, task in threads)), "")

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        return self.look(k, k.get_signal())

    def look(self, k: Kernel, core: CoreFile) -> Result:
        """What is looked at."""
        raise NotImplementedError


class CoredumpOfThread(Coredump):
    """A note of one thread."""

    __slots__ = ()
    NOTE_TYPE: ClassVar[int]
    thread: Nr

    def hindrance(self, k: Kernel) -> str:
        thread = k.tasks[self.thread]
        if not thread.exists or thread.exit_state or thread.group_leader != k.tasks[self.task].group_leader:
            return f"t{self.thread} is no thread of t{self.task}'s process"
        return Coredump.hindrance(self, k)

    def look(self, k: Kernel, core: CoreFile) -> Result:
        note = core.threads[self.thread].get(self.NOTE_TYPE)
        return NONE if note is None else self.shown(note)

    def shown(self, note: Note) -> Result:
        """What it says."""
        raise NotImplementedError


@op("t{task} coredump(t{thread}, NT_X86_XSTATE)")
class CoredumpXstate(CoredumpOfThread):
    """A signal of the task's dumps core: the value is the XSAVE image of one of its process' threads, workers among
    them, in the file.  The process is gone."""

    NOTE_TYPE = NT_X86_XSTATE
    task: Nr = 0
    thread: Nr = 0

    def shown(self, note: Note) -> Result:
        assert not isinstance(note, int)
        return Result("ok", image_of(note))


@op("t{task} coredump(t{thread}, NT_PRFPREG)")
class CoredumpFpregs(CoredumpOfThread):
    """The same; the value is x87, SSE and MXCSR of a thread, or x87 of a 32-bit one."""

    NOTE_TYPE = NT_PRFPREG
    task: Nr = 0
    thread: Nr = 0

    def shown(self, note: Note) -> Result:
        if isinstance(note, int):
            return Result("ok", FpuState(((xf.X87, note),)))
        return Result("ok", legacy_of(note))


@op("t{task} coredump(t{thread}, NT_PRXFPREG)")
class CoredumpXfpregs(CoredumpOfThread):
    """The same; the value is x87, SSE and MXCSR of a thread, in the core file of a 32-bit program."""

    NOTE_TYPE = NT_PRXFPREG
    task: Nr = 0
    thread: Nr = 0

    def shown(self, note: Note) -> Result:
        assert not isinstance(note, int)
        return Result("ok", legacy_of(note))


@op("t{task} coredump(t{thread}, NT_X86_SHSTK)")
class CoredumpSsp(CoredumpOfThread):
    """The same; the value is the shadow stack pointer of a thread."""

    NOTE_TYPE = NT_X86_SHSTK
    task: Nr = 0
    thread: Nr = 0

    def shown(self, note: Note) -> Result:
        assert isinstance(note, int)
        return Result("ok", Content(note))


@op("t{task} coredump(NT_X86_XSAVE_LAYOUT)")
class CoredumpLayout(Coredump):
    """The same; the value is where the components of the images lie, by the file itself.  ``truncated``: the file ends
    there, without the process' memory."""

    task: Nr = 0

    def look(self, k: Kernel, core: CoreFile) -> Result:
        if not core.whole:
            return Result("truncated")
        return NONE if core.layout is None else Result("ok", Layout(core.layout))
