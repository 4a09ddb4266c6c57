"""The tasks of one program on the host: fresh processes and threads that do one thing at a time, as they are told.

Each program has processes of its own, because permissions cannot be taken back.  Nothing of them outlives
:meth:`Crew.close`, and when the one that tells them what to do is gone, they end.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from xfdfuzz.engines.live import agent

#: Tasks that there can be.
TASKS = 5
#: Where a slot has room for what ioctls read and write, and for an image, in bytes from its beginning.
SCRATCH, IMAGE, IMAGE_SIZE = 0x400, 0x1000, 0xF000
#: Seconds that one order may take.
PATIENCE = 30.0
#: Descriptors of ours begin here, so that those that tasks get by number are free.
_OURS = 300
_EXECVEAT, _AT_EMPTY_PATH = 322, 0x1000
_RT_SIGACTION, _SA_FLAGS = 13, 0x4 | 0x04000000 | 0x40000000  # SA_SIGINFO, SA_RESTORER, SA_NODEFER
_SA_ONSTACK = 0x08000000
_FAULTS = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE)
_MMAP, _MMAP_FLAGS = 9, 0x4022  # MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
_CLONE, _GETTID, _TGKILL, _GETPID = 56, 186, 234, 39
_STACK_SIZE = 0x4_0000
#: Threads that are traced, too.
_WALL = 0x4000_0000
#: What is kept of a stack below a frame, in bytes.
_BELOW = 16
#: Where a context tells of the alternate stack, of RSP and what is behind, and of the image, and where in that
#: software's bytes begin.
UC_STACK, _RSP, FPSTATE, SW_RESERVED = 0x10, 0xA0, 0xE0, 464
#: Where the image lies in the memory of a frame that a task has made.
_OWN_IMAGE = 0x1000
#: What is mapped behind a stack: the kernel looks for the end of a frame where it would be if it were larger.
BEHIND = 0x1_0000
CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND = 0x100, 0x200, 0x400, 0x800
CLONE_PARENT, CLONE_THREAD, CLONE_SYSVSEM = 0x8000, 0x10000, 0x40000


class TaskDied(Exception):
    """A task is gone that should have answered; the text says how."""


class Hung(Exception):
    """A task does not answer."""


@dataclass
class Files:
    """What a process has open, by the numbers of programs: VMs, vCPUs with their VM's number; ``kvm`` is /dev/kvm."""

    vms: dict[int, int] = field(default_factory=dict)
    vcpus: dict[int, tuple[int, int]] = field(default_factory=dict)
    kvm: int | None = None

    def vcpu(self, nr: int) -> int:
        """A vCPU's descriptor."""
        return self.vcpus[nr][1]

    def copy(self) -> Files:
        """What a forked process gets."""
        return Files(dict(self.vms), dict(self.vcpus), self.kvm)


@dataclass
class Frame:
    """A signal frame: where it lies and how large it is with what stands just below, in bytes, and the context in it.

    ``image_size`` is that of its image with the magic behind, ``magic2`` where that is.  ``elsewhere``: the image was
    copied to memory of its own.  ``misaligned`` is how far that is from a multiple of 64; ``hidden`` is where it lies
    if its context says that there is none.  ``left``, of one whose handler has ended, is what stood there: a signal
    that an order ends in is handled on the same stack.
    """

    address: int
    ucontext: int
    size: int
    image_size: int
    magic2: int
    elsewhere: bool = False
    misaligned: int = 0
    hidden: int = 0
    left: bytes = b""

    @property
    def lowest(self) -> int:
        """Where it begins with what stands below: the return address of what its handler has called."""
        return self.address - _BELOW


@dataclass
class Task:
    """One of them: its process, its files, the frames on its stack, outermost first, and how many handlers it is in.

    ``own`` is the frame that it has made itself.
    ``given`` is how much of its room for code is used.  ``release``, if it was stopped, lets it go on.
    """

    nr: int
    pid: int
    tid: int
    pidfd: int
    files: Files
    frames: list[Frame] = field(default_factory=list)
    handlers: int = 0
    own: Frame | None = None
    stack: int = 0
    given: int = 0
    release: Callable[[], None] | None = None


class Crew:
    """The tasks of one program, t0 and t1 at first; use it as a context manager."""

    def __init__(self) -> None:
        self._memory = os.memfd_create("xfdfuzz-live")
        os.ftruncate(self._memory, agent.ARENA_SIZE)
        self.arena = mmap.mmap(self._memory, agent.ARENA_SIZE)
        self.arena[agent.CODE : agent.CODE + len(agent.AGENT)] = agent.AGENT
        for nr in range(TASKS):
            struct.pack_into("<Q", self.arena, nr * agent.SLOT + agent.SOCKET, agent.FIRST_SOCKET + nr)
        self._program = os.memfd_create("xfdfuzz-task")
        os.write(self._program, agent.program())
        pairs = [socket.socketpair() for _ in range(TASKS)]
        self._sockets = [ours for ours, _ in pairs]
        self._theirs = [theirs for _, theirs in pairs]
        self.tasks: dict[int, Task] = {}
        self._groups: list[int] = []

    def __enter__(self) -> Crew:
        try:
            for nr in range(2):
                self._spawn(nr)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all of them."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            with suppress(ChildProcessError):
                while True:
                    os.waitpid(-group, _WALL)
        while self.tasks:
            os.close(self.tasks.popitem()[1].pidfd)
        for one in (*self._sockets, *self._theirs):
            one.close()
        if not self.arena.closed:
            self.arena.close()
            os.close(self._memory)
            os.close(self._program)

    # -- orders ------------------------------------------------------------------------------------------------------

    def call(self, task: Task, function: str, *arguments: int, rax: int = 0) -> int:
        """What a function of the agent's returns in a task; raises :class:`TaskDied` or :class:`Hung`."""
        self.order(task, agent.address(function), *arguments, rax=rax)
        return self.answer(task)

    def execute(self, task: Task, code: bytes, operand: int = 0) -> int:
        """What is in RAX behind some instructions, with RDI at their operand."""
        # never twice at one place: a processor may have looked at what stood there
        size = (len(code) + 1 + 63) & ~63
        task.given = task.given if task.given + size <= agent.GIVEN_SIZE else 0
        place = agent.GIVEN + task.nr * agent.GIVEN_SIZE + task.given
        task.given += size
        self.arena[place : place + len(code) + 1] = code + b"\xc3"
        self.order(task, agent.ARENA + place, operand)
        return self.answer(task)

    def order(self, task: Task, function: int, *arguments: int, rax: int = 0) -> None:
        """Begin the function at an address, and do not wait; a task that is stopped goes on."""
        self._release(task)
        values = (function, rax, *arguments, *(0,) * (6 - len(arguments)))
        base = task.nr * agent.SLOT
        struct.pack_into("<8Q", self.arena, base, *(value & (1 << 64) - 1 for value in values))
        struct.pack_into("<Q", self.arena, base + agent.SIGNAL, 0)
        self._sockets[task.nr].send(b"!")

    def _release(self, task: Task) -> None:
        if task.release is not None:
            task.release()
            task.release = None

    def answer(self, task: Task) -> int:
        """Wait until it is done."""
        ours = self._sockets[task.nr]
        ready, _, _ = select.select([ours.fileno(), task.pidfd], [], [], PATIENCE)
        if ours.fileno() in ready:
            ours.recv(1)
            return self.field(task, agent.RET)
        if task.pidfd in ready:
            raise TaskDied(f"t{task.nr} is gone")
        raise Hung(f"t{task.nr} does not answer")

    def field(self, task: Task, offset: int) -> int:
        """A number of a task's slot."""
        value: int = struct.unpack_from("<q", self.arena, task.nr * agent.SLOT + offset)[0]
        return value

    def signal_of(self, task: Task) -> str | None:
        """The signal that its last order ended in."""
        number = self.field(task, agent.SIGNAL)
        return signal.Signals(number).name if number else None

    def syscall(self, task: Task, number: int, *arguments: int) -> int:
        """What a system call returns."""
        return self.call(task, "syscall", *arguments, rax=number)

    # -- memory ------------------------------------------------------------------------------------------------------

    def scratch(self, task: Task, data: bytes, offset: int = 0) -> int:
        """Put bytes where a task's system call can find them; the address."""
        place = task.nr * agent.SLOT + SCRATCH + offset
        self.arena[place : place + len(data)] = data
        return agent.ARENA + place

    def image(self, task: Task, data: bytes) -> int:
        """The same with the room for an image."""
        place = task.nr * agent.SLOT + IMAGE
        self.arena[place : place + len(data)] = data
        return agent.ARENA + place

    def bytes_at(self, address: int, size: int) -> bytes:
        """What stands in the shared memory."""
        place = address - agent.ARENA
        return bytes(self.arena[place : place + size])

    def fetch(self, task: Task, address: int, size: int) -> bytes:
        """What stands in a task's own memory."""
        here = self.image(task, b"")
        self.call(task, "copy", here, address, size)
        return self.bytes_at(here, size)

    def store(self, task: Task, address: int, data: bytes) -> None:
        """Write to a task's own memory."""
        self.call(task, "copy", address, self.image(task, data), len(data))

    def allocate(self, task: Task, size: int) -> int:
        """Memory of its own, which it does not have to fill; raises MemoryError."""
        found = self.syscall(task, _MMAP, 0, size, 3, _MMAP_FLAGS, -1, 0)
        if -4096 < found < 0:
            raise MemoryError
        return found

    # -- how tasks come and go -----------------------------------------------------------------------------------------

    def _spawn(self, nr: int) -> None:
        inherited = [(self._memory, agent.ARENA_FD), (self._program, agent.PROGRAM_FD)]
        inherited += [(theirs.fileno(), agent.FIRST_SOCKET + n) for n, theirs in enumerate(self._theirs)]
        raised = [(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OURS), place) for fd, place in inherited]
        try:
            actions = [(os.POSIX_SPAWN_DUP2, fd, place) for fd, place in raised]
            path = f"/proc/self/fd/{agent.PROGRAM_FD}"
            pid = os.posix_spawn(path, [str(nr)], {}, file_actions=actions, setpgroup=0)
        finally:
            for fd, _ in raised:
                os.close(fd)
        self._groups.append(pid)
        task = self.tasks[nr] = Task(nr, pid, pid, os.pidfd_open(pid), Files())
        self.answer(task)
        self._settle(task)

    def _settle(self, task: Task) -> None:
        """A program that begins: its handlers."""
        task.stack = self._stack(task)
        self.jump(task, 0)
        for number in (*_FAULTS, signal.SIGUSR1, signal.SIGUSR2):
            handler = agent.address("fault" if number in _FAULTS else "handler")
            flags = _SA_FLAGS | (_SA_ONSTACK if number == signal.SIGUSR1 else 0)
            act = self.scratch(task, struct.pack("<4Q", handler, flags, agent.address("sigreturn"), 0))
            self.syscall(task, _RT_SIGACTION, number, act, 0, 8)

    def _stack(self, task: Task) -> int:
        """The top of a new one."""
        return self.allocate(task, _STACK_SIZE + BEHIND) + _STACK_SIZE

    def clone(self, parent: Task, nr: int, flags: int) -> int:
        """clone() of a task with that number; 0 or a negative errno."""
        stack = 0
        if flags & CLONE_VM:
            stack = self._stack(parent)
        slot = agent.ARENA + nr * agent.SLOT
        ret = self.call(parent, "clone", flags, stack, 0, 0, 0, slot, rax=_CLONE)
        if ret < 0:
            return ret
        shares = flags & CLONE_FILES
        leader = parent.pid if flags & CLONE_THREAD else ret
        files = parent.files if shares else parent.files.copy()
        child = self.tasks[nr] = Task(nr, leader, ret, os.pidfd_open(leader), files)
        child.stack = stack or parent.stack
        struct.pack_into("<Q", self.arena, nr * agent.SLOT + agent.STACK, child.stack)
        if not flags & CLONE_VM:
            child.frames, child.handlers = [replace(frame) for frame in parent.frames], parent.handlers
            child.own = parent.own and replace(parent.own)
        return 0

    def execve(self, task: Task) -> int:
        """execve() of the program itself; 0 or a negative errno."""
        for other in self.tasks.values():
            if other.pid == task.pid:  # it would wait for ever for a thread that is killed, but traced
                self._release(other)
        empty = self.scratch(task, b"\0" * 8)
        digit = self.scratch(task, str(task.nr).encode() + b"\0", 16)
        argv = self.scratch(task, struct.pack("<QQQ", digit, 0, 0), 32)
        ret = self.syscall(task, _EXECVEAT, agent.PROGRAM_FD, empty, argv, argv + 8, _AT_EMPTY_PATH)
        if ret:
            return ret
        # it is the leader now, whatever it was
        task.files, task.frames, task.handlers, task.own, task.tid = Files(), [], 0, None, task.pid
        self._settle(task)
        return 0

    def forget(self, nr: int) -> None:
        """It is gone."""
        os.close(self.tasks.pop(nr).pidfd)

    # -- signals -----------------------------------------------------------------------------------------------------

    def interrupt(self, task: Task, sa_onstack: bool) -> str:
        """Send it a signal that it handles: ``ok`` once it is in its handler, or the signal that came of it instead."""
        number = signal.SIGUSR1 if sa_onstack else signal.SIGUSR2
        self.syscall(task, _TGKILL, self.syscall(task, _GETPID), self.syscall(task, _GETTID), number)
        name = self.signal_of(task)
        if name != number.name:
            return name or "no signal"
        address, ucontext = self.field(task, agent.FRAME), self.field(task, agent.UCONTEXT)
        image = self.fpstate(task, ucontext)
        _, extended, _, xstate_size = self.software(task, image)
        size = image + extended - address + _BELOW
        task.frames[task.handlers :] = [Frame(address, ucontext, size, extended, xstate_size)]
        task.handlers += 1
        return "ok"

    def fpstate(self, task: Task, ucontext: int) -> int:
        """Where a context says that the image is; 0 for nowhere."""
        address: int = struct.unpack("<Q", self.fetch(task, ucontext + FPSTATE, 8))[0]
        return address

    def software(self, task: Task, image: int) -> tuple[int, int, int, int]:
        """struct _fpx_sw_bytes of an image: magic1, extended_size, xfeatures, xstate_size."""
        found: tuple[int, int, int, int] = struct.unpack("<IIQI", self.fetch(task, image + SW_RESERVED, 20))
        return found

    def jump(self, task: Task, handlers: int) -> None:
        """Leave all handlers but that many of the outermost."""
        self.leave(task, handlers)
        struct.pack_into("<Q", self.arena, task.nr * agent.SLOT + agent.STACK, self._top(task, handlers))
        self.call(task, "longjmp")
        task.handlers = handlers

    def _top(self, task: Task, handlers: int) -> int:
        """Where its stack pointer is between orders, in so many handlers."""
        return task.frames[handlers - 1].address if handlers else task.stack

    def make_frame(self, task: Task, altstack: bytes) -> None:
        """A frame in memory of its own, all 0 but for the alternate stack that it brings back."""
        base = self.allocate(task, 2 * BEHIND)
        frame = task.own = Frame(base, base + 8, 0, 0, 0, elsewhere=True)
        self.store(task, frame.ucontext + UC_STACK, altstack)
        self.store(task, frame.ucontext + FPSTATE, struct.pack("<Q", base + _OWN_IMAGE))

    def sigreturn_own(self, task: Task, frame: Frame) -> None:
        """Return by that one, to where the task is: as the function does that it is told to execute."""
        state = struct.pack(
            "<QQQHHHH", self._top(task, task.handlers) - 8, agent.address("return"), 0x202, 0x33, 0, 0, 0x2B
        )
        self.store(task, frame.ucontext + _RSP, state)
        self.call(task, "sigreturn", frame.address, frame.ucontext)

    def leave(self, task: Task, handlers: int) -> None:
        """Remember what stands in the frames of all handlers but that many of the outermost, which are about to end."""
        for frame in task.frames[handlers : task.handlers]:
            frame.left = self.fetch(task, frame.lowest, frame.size)

    def put_back(self, task: Task, frame: Frame) -> None:
        """Let stand again what stood in a frame, whatever came there since its handler ended."""
        if frame.left:
            self.store(task, frame.lowest, frame.left)

    def sigreturn(self, task: Task, frame: Frame) -> None:
        """Return by a frame; the handlers outside it go on, if they had ended, too."""
        depth = task.frames.index(frame)
        self.leave(task, depth)
        for one in task.frames[: depth + 1]:
            self.put_back(task, one)
        self.call(task, "sigreturn", frame.address, frame.ucontext)
        task.handlers = depth
        for one in task.frames[:depth]:
            one.left = b""
