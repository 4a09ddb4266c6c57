"""Ops of user threads on the host: system calls, instructions, processes, signals, ptrace, scheduling."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.live import agent, images
from xfdfuzz.engines.live.host import Host, carries
from xfdfuzz.engines.live.ioctls import (
    SS_AUTODISARM,
    SS_DISABLE,
    SYS_ARCH_PRCTL,
    SYS_EXIT,
    SYS_GETPID,
    SYS_SCHED_SETAFFINITY,
    SYS_SIGALTSTACK,
)
from xfdfuzz.engines.live.tasks import (
    BEHIND,
    CLONE_FILES,
    CLONE_FS,
    CLONE_PARENT,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
    FPSTATE,
    PATIENCE,
    SW_RESERVED,
    UC_STACK,
    Frame,
    Hung,
    Task,
)
from xfdfuzz.kernel.fpu import xstate
from xfdfuzz.kernel.fpu.regset import NT_PRFPREG, NT_X86_XSTATE
from xfdfuzz.kernel.fpu.signal import FP_XSTATE_MAGIC1, components_at_magic2
from xfdfuzz.native.contents import mxcsr
from xfdfuzz.native.usercode import user_insn
from xfdfuzz.native.values import STORED, Value, value_of
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import INNERMOST, NULL_FPSTATE, OWN, IovLen, UserImage
from xfdfuzz.program.images import lost
from xfdfuzz.program.ops import host as around
from xfdfuzz.program.ops import processes, ptrace, signals, tasks
from xfdfuzz.program.ops.base import OK, OPS, TaskOp
from xfdfuzz.program.step import Content, FpuState, Result, SwBytes

_MAGIC2 = 0x46505845
#: More than any frame has, and less than what is mapped behind it.
_LARGEST_FRAME = 0x4000
_PTRACE_GETREGSET, _PTRACE_SETREGSET = 0x4204, 0x4205
_PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
#: Nobody's memory.
_BAD_POINTER = 8

_LIBC = ctypes.CDLL(None, use_errno=True)

# -- arch_prctl() -----------------------------------------------------------------------------------------------------

_READS: dict[type[tasks.GetXcompSupp | tasks.GetXcompPerm | tasks.GetXcompGuestPerm], int] = {
    tasks.GetXcompSupp: xstate.ARCH_GET_XCOMP_SUPP,
    tasks.GetXcompPerm: xstate.ARCH_GET_XCOMP_PERM,
    tasks.GetXcompGuestPerm: xstate.ARCH_GET_XCOMP_GUEST_PERM,
}


@carries(*_READS)
def _get_permissions(
    host: Host, op: tasks.GetXcompSupp | tasks.GetXcompPerm | tasks.GetXcompGuestPerm, expected: Result
) -> Result:
    task = host.task(op.task)
    here = host.crew.scratch(task, bytes(8))
    ret = host.crew.syscall(task, SYS_ARCH_PRCTL, _READS[type(op)], _BAD_POINTER if op.pointer else here)
    return Result(ret, None if ret else struct.unpack("<Q", host.crew.bytes_at(here, 8))[0])


@carries(tasks.ReqXcompPerm)
def _request(host: Host, op: tasks.ReqXcompPerm, expected: Result) -> Result:
    return Result(host.crew.syscall(host.task(op.task), SYS_ARCH_PRCTL, xstate.ARCH_REQ_XCOMP_PERM, op.facility))


@carries(tasks.ReqXcompGuestPerm)
def _request_for_guests(host: Host, op: tasks.ReqXcompGuestPerm, expected: Result) -> Result:
    return Result(host.crew.syscall(host.task(op.task), SYS_ARCH_PRCTL, xstate.ARCH_REQ_XCOMP_GUEST_PERM, op.facility))


def _new_stack(host: Host, task: Task, size: int) -> int:
    """Where an alternate stack of that size lies."""
    place = host.crew.allocate(task, size + BEHIND) if size else 0
    # its end is aligned, as the model takes it to be
    return place + (-(place + size) & 63)


@carries(tasks.Sigaltstack)
def _sigaltstack(host: Host, op: tasks.Sigaltstack, expected: Result) -> Result:
    task = host.task(op.task)
    stack = _stack_t(_new_stack(host, task, op.size), op.size, SS_AUTODISARM if op.autodisarm else 0)
    return Result(host.crew.syscall(task, SYS_SIGALTSTACK, host.crew.scratch(task, stack), 0))


@carries(tasks.ReturnToUser)
def _user(host: Host, op: tasks.ReturnToUser, expected: Result) -> Result:
    host.crew.syscall(host.task(op.task), SYS_GETPID)
    return OK


# -- instructions ----------------------------------------------------------------------------------------------------


@carries(*(op for op in OPS.values() if user_insn(op()) is not None))
def _instruction(host: Host, op: TaskOp, expected: Result) -> Result:
    """An instruction with its operand, as machine code: ``ok`` with what it read, or the signal that it ends in."""
    task, insn = host.task(op.task), user_insn(op)
    assert insn is not None
    room = bytearray(insn.room)
    if isinstance(op, tasks.UserXsave | tasks.UserXsavec):
        room[images.MXCSR] = mxcsr(0).to_bytes(4, "little")  # it may not be stored, and nobody has changed it then
    here = host.crew.image(task, _operand(host, op) or insn.data or bytes(room))
    value = host.crew.execute(task, insn.bytes, here)
    ended = host.crew.signal_of(task)
    if ended:
        return Result(ended)
    stored = host.crew.bytes_at(here, insn.room)
    match value_of(op):
        case Value.CONTENT if isinstance(op, tasks.UserStmxcsr):
            return Result("ok", Content(images.mxcsr_in(stored)))
        case Value.CONTENT if isinstance(op, tasks.UserRdpkru):
            return Result("ok", Content(images.token_in(xf.PKRU, (value & 0xFFFFFFFF).to_bytes(4, "little"))))
        case Value.CONTENT:
            return Result("ok", Content(images.token_in(STORED[type(op)], stored)))
        case Value.IMAGE:
            return Result("ok", host.images.stored(stored, whole=not isinstance(op, tasks.UserFxsave)))
        case Value.FEATURES | Value.IN_USE:
            return Result("ok", value)
    return OK


def _operand(host: Host, op: TaskOp) -> bytes:
    """The image that an instruction loads; none if it is no such one."""
    own = partial(ghost.task_token, op.task)
    if isinstance(op, tasks.UserFxrstor):
        return images.legacy(images.fpu(op.image, own))
    return host.images.restored(op, own) if isinstance(op, tasks.UserXrstor) else b""


# -- processes --------------------------------------------------------------------------------------------------------


@carries(processes.CloneThread, processes.CloneVm, processes.Fork)
def _clone(host: Host, op: processes.CloneThread | processes.CloneVm | processes.Fork, expected: Result) -> Result:
    assert isinstance(expected.ret, str)
    nr = int(expected.ret.removeprefix("t"))
    # a process that is no thread becomes our child, as those are that it comes from
    flags = {
        processes.CloneThread: THREAD,
        processes.CloneVm: CLONE_VM | CLONE_FILES | CLONE_PARENT | signal.SIGCHLD,
        processes.Fork: CLONE_PARENT | signal.SIGCHLD,
    }[type(op)]
    return Result(host.crew.clone(host.task(op.task), nr, flags) or f"t{nr}")


@carries(processes.Execve)
def _execve(host: Host, op: processes.Execve, expected: Result) -> Result:
    host.executed[op.task] = host.crew.execve(host.task(op.task))
    return OK


@carries(processes.ExecveReturns)
def _execve_returns(host: Host, op: processes.ExecveReturns, expected: Result) -> Result:
    return Result(host.executed.pop(op.task))


@carries(processes.Exit)
def _exit(host: Host, op: processes.Exit, expected: Result) -> Result:
    task = host.task(op.task)
    host.crew.order(task, agent.address("syscall"), 0, rax=SYS_EXIT)
    deadline = time.monotonic() + PATIENCE
    while _runs(task):
        if time.monotonic() > deadline:
            raise Hung(f"t{op.task} does not exit")
        select.select([task.pidfd], [], [], 0.0002)
    return OK


def _runs(task: Task) -> bool:
    with suppress(OSError):
        status = Path(f"/proc/{task.pid}/task/{task.tid}/stat").read_bytes()
        return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return False


# -- signals ----------------------------------------------------------------------------------------------------------


@carries(signals.Signal, signals.SignalNotOnstack)
def _signal(host: Host, op: signals.Signal | signals.SignalNotOnstack, expected: Result) -> Result:
    task = host.task(op.task)
    came = host.crew.interrupt(task, op.SA_ONSTACK)
    if came != "ok":
        return Result(came)
    return Result("ok", host.images.read(_image(host, task, task.frames[-1])))


def _image(host: Host, task: Task, frame: Frame) -> bytes:
    """The image, and the magic behind it."""
    address = _fpstate(host, task, frame)
    legacy = host.crew.fetch(task, address, 512)
    magic1, extended_size = struct.unpack_from("<II", legacy, SW_RESERVED)
    return host.crew.fetch(task, address, extended_size) if magic1 == FP_XSTATE_MAGIC1 else legacy + bytes(64)


def _fpstate(host: Host, task: Task, frame: Frame) -> int:
    """Where the image of a frame lies, whether its context says so or not."""
    return frame.hidden or host.crew.fpstate(task, frame.ucontext)


def _frame(host: Host, task: Task, number: int) -> Frame:
    """The frame that an op means, as it stands in memory."""
    if number == OWN:
        assert task.own is not None
        return task.own
    frame = task.frames[task.handlers - 1 if number == INNERMOST else number]
    host.crew.put_back(task, frame)
    return frame


def _place_to_write(host: Host, task: Task, frame: Frame) -> int:
    """Where the image of a frame lies that is to be changed: where what goes beyond its end hits no other frame, nor
    anything else hits it."""
    if (len(task.frames) > 1 or frame.left) and not frame.elsewhere:
        _copied(host, task, frame, frame, _LARGEST_FRAME)
    return _fpstate(host, task, frame)


def _copied(host: Host, task: Task, frame: Frame, source: Frame, size: int) -> None:
    """A frame's context points to memory of its own, with as many bytes of a frame's image as there are."""
    copy = host.crew.allocate(task, 2 * BEHIND) + frame.misaligned
    alone = source.elsewhere or len(task.frames) == 1
    size = size if alone else min(size, source.image_size)
    if size:
        host.crew.call(task, "copy", copy, _fpstate(host, task, source), size)
    frame.magic2, frame.elsewhere = source.magic2, True
    _points_to(host, task, frame, copy, null=bool(frame.hidden))


def _points_to(host: Host, task: Task, frame: Frame, image: int, *, null: bool) -> None:
    """A frame's context says where its image is, or that there is none."""
    host.crew.store(task, frame.ucontext + FPSTATE, struct.pack("<Q", 0 if null else image))
    frame.hidden = image if null else 0
    if frame.left:
        frame.left = host.crew.fetch(task, frame.lowest, frame.size)


@carries(signals.SignalDelivered)
def _delivered(host: Host, op: signals.SignalDelivered, expected: Result) -> Result:
    return OK


@carries(signals.SigframeRead)
def _read_frame(host: Host, op: signals.SigframeRead, expected: Result) -> Result:
    task = host.task(op.task)
    address = _fpstate(host, task, _frame(host, task, op.frame))
    magic1, _, xfeatures, size = host.crew.software(task, address)
    magic2 = struct.unpack("<I", host.crew.fetch(task, address + size, 4))[0] if size < BEHIND else 0
    return Result("ok", SwBytes(magic1 == FP_XSTATE_MAGIC1, xfeatures, size, magic2 == _MAGIC2))


@carries(signals.SigframeLegacy)
def _write_legacy(host: Host, op: signals.SigframeLegacy, expected: Result) -> Result:
    task = host.task(op.task)
    address = _place_to_write(host, task, _frame(host, task, op.frame))
    wanted = UserImage(0, 0, ((op.part, op.contents),))
    image = host.images.made(wanted, partial(ghost.task_token, op.task))
    places = [images.MXCSR] if op.part == xf.MXCSR else host.images.places(1 << op.part)
    for place in places:
        host.crew.store(task, address + place.start, image[place])
    return OK


@carries(signals.SigframeWrite)
def _write_frame(host: Host, op: signals.SigframeWrite, expected: Result) -> Result:
    task = host.task(op.task)
    frame = _frame(host, task, op.frame)
    address = _place_to_write(host, task, frame)
    image = host.images.made(op.image, partial(ghost.task_token, op.task))
    written = op.image.xstate_bv | xf.mask_of(*(i for i, _ in op.image.contents if i != xf.MXCSR))
    places = (images.MXCSR, images.HEADER, *host.images.places(written))
    size = max(place.stop for place in places)
    if not frame.elsewhere and size > max(host.crew.software(task, address)[3], images.HEADER.stop):
        # what lies behind it on the stack is somebody's
        _copied(host, task, frame, frame, _LARGEST_FRAME)
        address = _fpstate(host, task, frame)
    area = bytearray(host.crew.fetch(task, address, size))
    for place in places:
        area[place] = image[place]
    host.crew.store(task, address, bytes(area))
    if components_at_magic2(frame.magic2, host.cpuid) & written:
        frame.magic2 = 0
    return OK


@carries(signals.SigframeSwReserved)
def _write_software(host: Host, op: signals.SigframeSwReserved, expected: Result) -> Result:
    task, sw = host.task(op.task), op.sw
    frame = _frame(host, task, op.frame)
    if not frame.elsewhere and (sw.magic2 or 0) >= frame.image_size:
        _copied(host, task, frame, frame, _LARGEST_FRAME)
    address = _place_to_write(host, task, frame)
    magic1, extended, xfeatures, size = host.crew.software(task, address)
    if sw.magic1 is not None:
        magic1 = FP_XSTATE_MAGIC1 if sw.magic1 else 0
    extended = extended if sw.extended_size is None else sw.extended_size
    xfeatures = xfeatures if sw.xfeatures is None else sw.xfeatures
    new_size = size if sw.xstate_size is None else sw.xstate_size
    if sw.magic2 is not None:
        if frame.magic2:
            host.crew.store(task, address + frame.magic2, bytes(4))
        frame.magic2 = sw.magic2
        if sw.magic2:
            host.crew.store(task, address + sw.magic2, struct.pack("<I", _MAGIC2))
    software = struct.pack("<IIQI", magic1, extended, xfeatures, new_size)
    host.crew.store(task, address + SW_RESERVED, software)
    return OK


@carries(signals.SigframeCopy)
def _copy_frame(host: Host, op: signals.SigframeCopy, expected: Result) -> Result:
    """The context points to the copy; what is behind the image on the stack is copied, too, if that much is wanted."""
    task = host.task(op.task)
    frame = _frame(host, task, op.frame)
    _copied(host, task, frame, frame, min(op.size, _LARGEST_FRAME))
    return OK


@carries(signals.SigframeCopyOf)
def _copy_other_frame(host: Host, op: signals.SigframeCopyOf, expected: Result) -> Result:
    task = host.task(op.task)
    _copied(host, task, _frame(host, task, op.frame), _frame(host, task, op.source), _LARGEST_FRAME)
    return OK


@carries(signals.SigframeNew)
def _make_frame(host: Host, op: signals.SigframeNew, expected: Result) -> Result:
    task = host.task(op.task)
    place, flags, size = _stack(host, task)
    if op.ss_size.size not in (None, size):
        size, flags = op.ss_size.size, 0
        place = _new_stack(host, task, size)
    host.crew.make_frame(task, _stack_t(place, size, flags & SS_AUTODISARM))
    return OK


def _stack(host: Host, task: Task) -> tuple[int, int, int]:
    """Where the task's alternate stack is, its flags, and its size; 0 without one."""
    here = host.crew.scratch(task, bytes(24))
    host.crew.syscall(task, SYS_SIGALTSTACK, 0, here)
    place, flags, size = struct.unpack("<QIxxxxQ", host.crew.bytes_at(here, 24))
    return place, flags, size


def _stack_t(place: int, size: int, flags: int) -> bytes:
    return struct.pack("<QIxxxxQ", place, flags | (0 if size else SS_DISABLE), size)


@carries(signals.SigframeFpstate)
def _point(host: Host, op: signals.SigframeFpstate, expected: Result) -> Result:
    task = host.task(op.task)
    frame = _frame(host, task, op.frame)
    if op.fpstate == NULL_FPSTATE:
        _points_to(host, task, frame, _fpstate(host, task, frame), null=True)
        return OK
    frame.misaligned = op.fpstate
    _copied(host, task, frame, frame, _LARGEST_FRAME)
    _points_to(host, task, frame, _fpstate(host, task, frame), null=False)
    return OK


@carries(signals.Siglongjmp)
def _siglongjmp(host: Host, op: signals.Siglongjmp, expected: Result) -> Result:
    task = host.task(op.task)
    host.crew.jump(task, task.handlers - 1 if op.frame == INNERMOST else op.frame)
    return OK


@carries(signals.Sigreturn)
def _sigreturn(host: Host, op: signals.Sigreturn, expected: Result) -> Result:
    task = host.task(op.task)
    frame = _frame(host, task, op.frame)
    if op.frame == OWN:
        place, _, size = _stack(host, task)
        if size == struct.unpack("<Q", host.crew.fetch(task, frame.ucontext + UC_STACK + 16, 8))[0]:
            host.crew.store(task, frame.ucontext + UC_STACK, struct.pack("<Q", place))  # it may be another one by now
        host.crew.sigreturn_own(task, frame)
    else:
        host.crew.sigreturn(task, frame)
    return Result(host.crew.signal_of(task) or "ok")


# -- ptrace -----------------------------------------------------------------------------------------------------------


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


def stop(task: Task) -> None:
    """Trace and stop a task until it is told something: else it would be in user mode between two looks at it.

    Raises OSError where ptrace() is not allowed.
    """
    if task.release is not None:
        return
    _check(_PTRACE_SEIZE, task.tid)
    _check(_PTRACE_INTERRUPT, task.tid)
    os.waitpid(task.tid, _WALL)
    task.release = partial(_check, _PTRACE_DETACH, task.tid)


def _check(request: int, tid: int) -> None:
    if _ptrace(request, tid, 0, 0):
        raise OSError(ctypes.get_errno(), f"ptrace of {tid}")


def _registers(task: Task, request: int, kind: int, data: ctypes.Array[ctypes.c_char], size: int) -> tuple[int, int]:
    """PTRACE_GETREGSET or PTRACE_SETREGSET with a buffer: 0 or a negative errno, and how many bytes."""
    vector = _IoVec(ctypes.addressof(data), size)
    ret = _ptrace(request, task.tid, kind, ctypes.addressof(vector))
    return (-ctypes.get_errno() if ret else 0), vector.len


def _ptrace(request: int, tid: int, address: int, data: int) -> int:
    arguments = [ctypes.c_long(request), ctypes.c_long(tid), ctypes.c_void_p(address), ctypes.c_void_p(data)]
    ret: int = _LIBC.ptrace(*arguments)
    return ret


def _get(host: Host, task: int, tracee: int, kind: int, wanted: IovLen) -> tuple[int, bytes]:
    """0 or a negative errno, and what a tracer got."""
    host.crew.syscall(host.task(task), SYS_GETPID)
    data = ctypes.create_string_buffer(_LARGEST_FRAME)
    stop(host.task(tracee))
    whole = wanted.bytes_of(_LARGEST_FRAME)
    ret, size = _registers(host.task(tracee), _PTRACE_GETREGSET, kind, data, whole)
    return ret, data.raw[:size]


def _set(host: Host, task: int, tracee: int, kind: int, image: bytes, wanted: IovLen) -> Result:
    """Of an image as large as the kernel has it, or so much of it as the program says."""
    host.crew.syscall(host.task(task), SYS_GETPID)
    data = ctypes.create_string_buffer(image.ljust(_LARGEST_FRAME, b"\0"), _LARGEST_FRAME)
    stop(host.task(tracee))
    room = ctypes.create_string_buffer(_LARGEST_FRAME)
    _, size = _registers(host.task(tracee), _PTRACE_GETREGSET, kind, room, _LARGEST_FRAME)
    return Result(_registers(host.task(tracee), _PTRACE_SETREGSET, kind, data, wanted.bytes_of(size))[0])


@carries(ptrace.PtraceGetXstate)
def _get_xstate(host: Host, op: ptrace.PtraceGetXstate, expected: Result) -> Result:
    ret, data = _get(host, op.task, op.tracee, NT_X86_XSTATE, op.iov_len)
    if ret:
        return Result(ret)
    image, behind = host.images.read(data.ljust(images.SIZE, b"\0")), lost(len(data), host.cpuid)
    tokens = tuple((i, token) for i, token in image.tokens if not behind >> i & 1)
    return Result(ret, image._replace(tokens=tokens, iov_len=None if op.iov_len.size is None else len(data)))


@carries(ptrace.PtraceSetXstate)
def _set_xstate(host: Host, op: ptrace.PtraceSetXstate, expected: Result) -> Result:
    image = host.images.made(op.image, partial(ghost.task_token, op.tracee))
    return _set(host, op.task, op.tracee, NT_X86_XSTATE, image, op.iov_len)


@carries(ptrace.PtraceGetFpregs)
def _get_fpregs(host: Host, op: ptrace.PtraceGetFpregs, expected: Result) -> Result:
    ret, data = _get(host, op.task, op.tracee, NT_PRFPREG, op.iov_len)
    if ret:
        return Result(ret)
    behind, state = lost(len(data), host.cpuid), images.read_legacy(data.ljust(512, b"\0"))
    return Result(ret, FpuState(tuple((i, token) for i, token in state.tokens if not behind >> i & 1)))


@carries(ptrace.PtraceSetFpregs)
def _set_fpregs(host: Host, op: ptrace.PtraceSetFpregs, expected: Result) -> Result:
    image = images.legacy(images.fpu(op.image, partial(ghost.task_token, op.tracee)))
    return _set(host, op.task, op.tracee, NT_PRFPREG, image, op.iov_len)


# -- scheduling -------------------------------------------------------------------------------------------------------


@carries(around.Schedule)
def _schedule(host: Host, op: around.Schedule, expected: Result) -> Result:
    """The task moves to the CPU, and is the next one to be told something."""
    task = host.task(op.task)
    mask = host.crew.scratch(task, struct.pack("<128s", (1 << host.cpus[op.cpu]).to_bytes(128, "little")))
    ret = host.crew.syscall(task, SYS_SCHED_SETAFFINITY, 0, 128, mask)
    return Result(ret or "ok")


@carries(around.ScheduleKthread)
def _schedule_kthread(host: Host, op: around.ScheduleKthread, expected: Result) -> Result:
    """Every task sleeps until it is told something."""
    return OK
