"""Translation of what processes do outside KVM: permissions, fork, exec and exit, AMX in user mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.conform.contents import TILE_CONFIGURATION
from xfdfuzz.engines.conform.fields import Field, NotCompared, Stopped, returned
from xfdfuzz.engines.conform.ioctls import MSRS
from xfdfuzz.engines.conform.memory import TILE_SIZE, TILES, with_tile
from xfdfuzz.engines.conform.nesting import SWITCH
from xfdfuzz.engines.conform.recording import Fields, Operation, number
from xfdfuzz.engines.conform.session import Files, HarnessProcess, Names, Session
from xfdfuzz.engines.conform.translator import translates
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.fpu import xstate
from xfdfuzz.program import ghost
from xfdfuzz.program.ops import host, processes, signals, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Result

#: arch_prctl codes of things that are not modelled: FS and GS, CPUID faulting, the vDSO, LAM and shadow stacks
#: (arch/x86/include/uapi/asm/prctl.h).
_OTHER_CODES = frozenset(
    code
    for start, count in ((0x1001, 4), (0x1011, 2), (0x2001, 3), (0x4001, 4), (0x5001, 5))
    for code in range(start, start + count)
)
_READS = {
    xstate.ARCH_GET_XCOMP_SUPP: tasks.GetXcompSupp,
    xstate.ARCH_GET_XCOMP_PERM: tasks.GetXcompPerm,
    xstate.ARCH_GET_XCOMP_GUEST_PERM: tasks.GetXcompGuestPerm,
}
#: Nothing is mapped below (vm.mmap_min_addr).
_LOWEST_ADDRESS = 4096

# -- permissions -------------------------------------------------------------------------------------------------------


@translates("get_supp", "get_perm", "get_guest_perm")
def get_permissions(s: Session, o: Operation) -> Iterator[Field]:
    """ARCH_GET_XCOMP_*."""
    op = {"get_supp": tasks.GetXcompSupp, "get_perm": tasks.GetXcompPerm, "get_guest_perm": tasks.GetXcompGuestPerm}
    result = s.do(op[o.op](s.now.task))
    assert o.result is not None
    yield Field("ret", returned(o.result), result.ret)
    if not o.result["ret"]:
        yield Field("val", number(o.result["val"]), result.out)


@translates("req_perm", "req_guest_perm")
def request_permission(s: Session, o: Operation) -> Iterator[Field]:
    """ARCH_REQ_XCOMP_*."""
    op = tasks.ReqXcompPerm if o.op == "req_perm" else tasks.ReqXcompGuestPerm
    assert o.result is not None
    yield Field("ret", returned(o.result), s.do(op(s.now.task, o.number(0))).ret)


@translates("arch_prctl")
def arch_prctl(s: Session, o: Operation) -> Iterator[Field]:
    """Any code, with an address of the harness' own unless an argument is given."""
    code, recorded = o.number(0), o.result
    assert recorded is not None
    if code in _OTHER_CODES:
        raise NotCompared(o.text)
    op: Op
    if code in (xstate.ARCH_REQ_XCOMP_PERM, xstate.ARCH_REQ_XCOMP_GUEST_PERM):
        if len(o.args) < 2:
            raise NotCompared(f"{o.text}, of an address")
        make = tasks.ReqXcompPerm if code == xstate.ARCH_REQ_XCOMP_PERM else tasks.ReqXcompGuestPerm
        op = make(s.now.task, o.number(1))
    elif code in _READS:
        pointer = len(o.args) > 1
        if pointer and o.number(1) >= _LOWEST_ADDRESS:
            raise NotCompared(f"{o.text}, of an address")
        op = _READS[code](s.now.task, pointer)
    else:
        # do_arch_prctl_64() and do_arch_prctl_common(): all others (arch/x86/kernel/process.c, process_64.c)
        yield Field("ret", returned(recorded), -EINVAL)
        return
    result = s.do(op)
    yield Field("ret", returned(recorded), result.ret)
    if not recorded["ret"] and code in _READS:
        yield Field("val", number(recorded["val"]), result.out)


@translates("sigaltstack")
def sigaltstack(s: Session, o: Operation) -> Iterator[Field]:
    """An alternate stack of so many bytes."""
    assert o.result is not None
    yield Field("ret", returned(o.result), s.do(tasks.Sigaltstack(s.now.task, o.number(0))).ret)


# -- processes ---------------------------------------------------------------------------------------------------------


@translates("fork", "thread", "clonevm")
def begin_block(s: Session, o: Operation) -> Iterator[Field]:
    """A child or thread begins, and runs until the end of its block."""
    op = {"fork": processes.Fork, "thread": processes.CloneThread, "clonevm": processes.CloneVm}[o.op]
    if not s.has_free_task:
        _finish_exits(s)
    child = s.do(op(s.now.task))
    if not isinstance(child.ret, str):
        raise Stopped("more tasks than the model has")
    s.begin(o.op, int(child.ret.removeprefix("t")))
    yield from ()


@translates("thread_bg")
def begin_in_background(s: Session, o: Operation) -> Iterator[Field]:
    """A thread begins with the selection of now, and this one goes on."""
    parent = s.now
    yield from begin_block(s, replace(o, op="thread"))
    thread = s.processes.pop()
    thread.background = True
    s.processes.remove(parent)
    s.processes += [thread, parent]
    s.schedule(parent.task)


@translates("endfork", "endthread", "endclonevm")
def end_block(s: Session, o: Operation) -> Iterator[Field]:
    """It exits, and the one that began it goes on."""
    assert o.result is not None
    ended = s.now
    if f"end{ended.kind}" != o.op or len(s.processes) == 1:
        raise Stopped(f"{o.op} in {ended.kind}")
    if ended.kind == "clonevm":
        s.close_own()
    late = s.timing_dependent and ended.kind == "thread"
    if late and s.choices.choose("pthread_join() returns", "when the thread has exited", "before it leaves its group"):
        s.exiting.append(ended.task)
    else:
        s.do(processes.Exit(ended.task))
    s.processes.pop()
    s.forget_closed()
    s.schedule(s.now.task)
    if "wait_status" in o.result:
        yield Field("wait_status", number(o.result["wait_status"]), ended.status << 8)


@translates("exit")
def leave(s: Session, o: Operation) -> Iterator[Field]:
    """_exit(): the process ends here; what was to follow in its block has no results."""
    if s.now.kind == "thread":
        raise Stopped("exit, with which a thread ends its process")
    s.now.status = o.number(0) & 0xFF
    yield from ()


@translates("exec")
def execve(s: Session, o: Operation) -> Iterator[Field]:
    """The other threads of the process are gone, and this one takes their place; it has no files."""
    while s.now.kind == "thread":
        thread = s.processes.pop()
        s.processes[-1] = HarnessProcess(s.now.kind, thread.task, thread.files, thread.names)
    if s.now.kind == "clonevm":
        s.close_own()
    s.do(processes.Execve(s.now.task))
    s.do(processes.ExecveReturns(s.now.task))
    now = s.now
    now.files, now.names, now.vm, now.vcpu = Files(), Names(), None, None
    s.forget_closed()
    yield from ()


def _finish_exits(s: Session) -> None:
    """Threads that have been joined leave their groups at last."""
    task = s.now.task
    for nr in s.exiting:
        s.schedule(nr)
        s.do(processes.Exit(nr))
    s.exiting.clear()
    s.schedule(task)


@translates(SWITCH)
def switch_to(s: Session, o: Operation) -> Iterator[Field]:
    """The main thread or one of those in the background goes on; results do not say which of several."""
    background = o.args[0] == "thread"
    if not background and not s.now.background:
        return
    others = [process for process in s.processes if process.background == background]
    if not others:
        raise Stopped(f"a result of {o.args[0]}, which is not there")
    others.sort(key=lambda process: process is not s.now)  # most likely who ran before
    answers = [f"t{process.task}" for process in others]
    chosen = others[s.choices.choose("the thread in the background", *answers) if len(others) > 1 else 0]
    s.processes.remove(chosen)
    s.processes.append(chosen)
    s.schedule(chosen.task)
    yield from ()


@translates("join")
def join(s: Session, o: Operation) -> Iterator[Field]:
    """All threads in the background exit."""
    for _ in [process for process in s.processes if process.background]:
        yield from switch_to(s, Operation(o.index, SWITCH, ("thread",), Fields()))
        yield from end_block(s, Operation(o.index, "endthread", (), Fields()))
    yield from switch_to(s, Operation(o.index, SWITCH, ("main",), Fields()))


@translates("usleep", "yield", "spin", "echo", "itimer")
def pause(s: Session, o: Operation) -> Iterator[Field]:
    """Time passes, or a timer is set, which the model does not know: recorded results tell where signals fell."""
    yield from ()


@translates("vmalloc")
def count_memory(s: Session, o: Operation) -> Iterator[Field]:
    """Totals of the whole machine."""
    raise NotCompared("totals of the machine's memory")


@translates("rlimit_nofile")
def limit_descriptors(s: Session, o: Operation) -> Iterator[Field]:
    """No more descriptors, or enough of them."""
    s.now.descriptors = o.number(0) > 0
    yield from ()


# -- AMX in user mode --------------------------------------------------------------------------------------------------


def _signal(s: Session, o: Operation, result: Result) -> Field:
    """What an instruction ended in.  A signal's handler leaves by siglongjmp(), with the registers as it got them."""
    assert o.result is not None
    if result.ret in ("SIGILL", "SIGSEGV"):
        delivered = s.do(signals.Signal(s.now.task))
        if delivered.ret == "ok":
            s.do(signals.SignalDelivered(s.now.task))
            s.do(signals.Siglongjmp(s.now.task))
    return Field("signal", o.result.get("signal", "ok"), result.ret)


def _token(s: Session, component: int, data: bytes) -> int:
    return s.token(partial(ghost.task_token, s.now.task), {component: data})


def _load_configuration(s: Session) -> Result:
    return s.do(tasks.UserLdtilecfg(s.now.task, _token(s, xf.XTILE_CFG, TILE_CONFIGURATION)))


@translates("host_tileload")
def host_tileload(s: Session, o: Operation) -> Iterator[Field]:
    """LDTILECFG, then TILELOADD of one tile."""
    result = _load_configuration(s)
    if result.ret == "ok":
        tiles = with_tile(bytes(TILES * TILE_SIZE), 0, bytes([o.number(0) & 0xFF]) * TILE_SIZE)
        result = s.do(tasks.UserTileload(s.now.task, _token(s, xf.XTILE_DATA, tiles)))
    yield _signal(s, o, result)


@translates("host_tilestore")
def host_tilestore(s: Session, o: Operation) -> Iterator[Field]:
    """TILESTORED of the first tile."""
    result = s.do(tasks.UserTilestore(s.now.task))
    yield _signal(s, o, result)
    assert o.result is not None
    if result.ret == "ok" and "signal" not in o.result:
        assert isinstance(result.out, int)
        tiles = s.contents.bytes_of(xf.XTILE_DATA, result.out)
        yield Field("first", number(o.result["first"]), tiles[0])
        yield Field("last", number(o.result["last"]), tiles[TILE_SIZE - 1])


@translates("host_ldtilecfg")
def host_ldtilecfg(s: Session, o: Operation) -> Iterator[Field]:
    """LDTILECFG."""
    yield _signal(s, o, _load_configuration(s))


@translates("host_tilerelease")
def host_tilerelease(s: Session, o: Operation) -> Iterator[Field]:
    """TILERELEASE."""
    yield _signal(s, o, s.do(tasks.UserTilerelease(s.now.task)))


@translates("host_xgetbv")
def host_xgetbv(s: Session, o: Operation) -> Iterator[Field]:
    """XGETBV; of what is in use only tiles and PKRU: the harness' own use of the rest is not recorded."""
    index = o.number(0)
    if index > 1:
        raise NotCompared(f"XGETBV({index})")
    assert o.result is not None
    result = s.do(tasks.UserXgetbv(s.now.task, index))
    mask = xf.MASK_XTILE | xf.MASK_PKRU if index else xf.U64_MAX
    assert isinstance(result.out, int)
    yield Field("val", number(o.result["val"]) & mask, result.out & mask)


@translates("host_rdmsr")
def host_rdmsr(s: Session, o: Operation) -> Iterator[Field]:
    """The msr driver reads an MSR of the CPU, in a system call of this thread."""
    assert o.result is not None
    if o.number(0) not in MSRS:
        raise NotCompared(o.text)
    s.do(tasks.ReturnToUser(s.now.task))
    yield Field("val", number(o.result["val"]), s.do(host.HostRdmsr(0, o.number(0))).out)
