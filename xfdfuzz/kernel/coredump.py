"""Core dumps: what a process that dies of a signal leaves of its threads' registers (fs/coredump.c, fs/binfmt_elf.c;
v5.16).

Of the file there are the notes that the FPU has a part in: each thread's register sets, and since 6.12 what says where
the components of an image lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.exec import Exec
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.fpu.regset import NT_PRFPREG, NT_X86_SHSTK, NT_X86_XSTATE, UserRegset
from xfdfuzz.kernel.state import USER_TASKS

#: What a thread's note holds: an image, x87 alone as FNSAVE stores it, or a shadow stack pointer.
Note = XsaveArea | int


class XfeatComponent(NamedTuple):
    """struct x86_xfeat_component; its flags are always 0."""

    type: int
    size: int
    offset: int


@dataclass(slots=True)
class CoreFile:
    """A core file: each thread's notes by their types, and the descriptors of NT_X86_XSAVE_LAYOUT, None without it.

    ``whole``: nothing made the kernel stop before the end, where the process' memory stands.
    """

    threads: dict[int, dict[int, Note]] = field(default_factory=dict)
    layout: tuple[XfeatComponent, ...] | None = None
    whole: bool = False


class Coredump(Exec):
    """How a process dies of a signal whose action is to dump core."""

    def get_signal(self) -> CoreFile:
        """A fatal one of current's: the core is dumped, and the whole process is gone (kernel/signal.c).

        prepare_creds() in do_coredump() may sleep, and so may what opens the file.
        """
        self.current.user_mode = 0
        self.might_sleep()
        core = self.elf_core_dump(self.coredump_wait())
        self.do_group_exit()
        return core

    def coredump_wait(self) -> list[int]:
        """The other threads, workers among them, are killed, and stay off the CPUs until the dump is over, with their
        registers in memory (fs/coredump.c; kernel/exit.c, coredump_task_exit()).

        Who dumps sleeps until then, where there is another one.
        """
        me, cpu = self.current_nr, self.cpu
        others = self.thread_group()
        for nr in others:
            if self.tasks[nr].on_cpu:
                self.on_cpu(self.tasks[nr].on_cpu - 1)
                self.schedule(USER_TASKS + self.cpu)
        self.on_cpu(cpu)
        if others:
            self.schedule(USER_TASKS + cpu)
            self.schedule(me)
        return others

    def elf_core_dump(self, others: list[int]) -> CoreFile:
        """The notes of all threads, the dumping one's first, then those that the architecture adds; if these cannot be
        written, nothing more is (fs/binfmt_elf.c)."""
        core = CoreFile()
        for nr in (self.current_nr, *others):
            core.threads[nr] = self.fill_thread_core_info(nr)
        core.whole = not self.elf_coredump_extra_notes_write(core)
        return core

    def fill_thread_core_info(self, nr: int) -> dict[int, Note]:
        """A note for each register set that is active, that there is memory for, and that can be read, by the kind of
        program that dumps (fs/binfmt_elf.c)."""
        notes: dict[int, Note] = {}
        for note_type, regset in self.task_user_regset_view(self.current_nr).items():
            if self.regset_active(nr, note_type, regset) and self.regset_get_alloc(regset.whole) >= 0:
                ret, note = self.regset_get(nr, note_type, regset)
                if not ret and note is not None:
                    notes[note_type] = note
        return notes

    @seam
    def regset_active(self, nr: int, note_type: int, regset: UserRegset) -> bool:
        """regset->active(): regset_fpregs_active() and xstateregs_active() give how many there are, which without XSAVE
        are none of the latter (fpu/regset.c)."""
        return self.ssp_active(nr) if note_type == NT_X86_SHSTK else regset.whole > 0

    @seam
    def regset_get(self, nr: int, note_type: int, regset: UserRegset) -> tuple[int, Note | None]:
        """All of it, by regset->regset_get() (kernel/regset.c, __regset_get())."""
        if note_type == NT_X86_XSTATE:
            return self.xstateregs_get(nr, regset.whole)
        if note_type == NT_X86_SHSTK:
            return self.ssp_get(nr)
        if note_type == NT_PRFPREG and regset.whole != FXSAVE_SIZE:
            return 0, self.fpregs_get(nr)
        return 0, self.xfpregs_get(nr)

    def elf_coredump_extra_notes_write(self, core: CoreFile) -> int:
        """x86 has none before ba386777a30b (6.12; include/linux/elfcore.h)."""
        return 0

    @seam
    def xsave_layout_failed(self, num_records: int) -> bool:
        """Whether ba386777a30b takes that many descriptors for a dump_emit() that failed (fpu/xstate.c)."""
        return not num_records

    def do_group_exit(self) -> None:
        """All threads of the process end (kernel/exit.c)."""
        for nr in self.thread_group():
            self.kill(nr)
        self.do_exit()
