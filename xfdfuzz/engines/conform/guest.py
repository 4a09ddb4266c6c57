"""Translation of guest code: KVM_RUN, and in it the harness' tokens, one after another (:mod:`tokens`)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from xfdfuzz.engines.conform.fields import Field, Stopped, returned
from xfdfuzz.engines.conform.recording import Fields, Malformed, Operation, number
from xfdfuzz.engines.conform.session import GuestProgram, Session
from xfdfuzz.engines.conform.tokens import NOT_REACHED, Guest, Outcome, check, enter, mask_of
from xfdfuzz.engines.conform.translator import translates
from xfdfuzz.kernel.errno import EINTR, EIO
from xfdfuzz.program.fields import Sregs
from xfdfuzz.program.ops import guest, kvm, run


@translates("setup_guest")
def setup_guest(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_SREGS and KVM_SET_SREGS."""
    assert o.result is not None
    refused = -returned(o.result) if "ret" in o.result else 0
    yield from _set_up(s, s.vcpu, o.result, refused)


@translates("get_sregs")
def get_sregs(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_SREGS, of which nothing but that it worked is compared."""
    assert o.result is not None
    yield Field("ret", returned(o.result) if "ret" in o.result else 0, _guards(s, s.vcpu))


@translates("run_imm")
def run_immediate_exit(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_RUN with immediate_exit, of a new program."""
    assert o.result is not None
    vcpu, recorded = s.vcpu, o.result
    yield from _begin(s, vcpu, o)
    if vcpu in s.programs:
        result = s.do(run.KvmRun(s.now.task, vcpu))
        if result.ret == "ok":
            result = s.do(run.KvmRunReturns(s.now.task))
        yield Field("ret", returned(recorded), result.ret)


@translates("run_guest", "run_stop", "run_sig")
def run_guest(s: Session, o: Operation) -> Iterator[Field]:
    """Set the vCPU up if that has not been done, and run new code: to its HLT, or until anything else ends KVM_RUN."""
    vcpu = s.vcpu
    yield from _begin(s, vcpu, o)
    if vcpu in s.programs:
        yield from _Running(s, vcpu, o).run()


@translates("run_cont")
def run_on(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_RUN again, where the program was left."""
    vcpu = s.vcpu
    if vcpu not in s.programs:
        raise Stopped("run_cont without a program")
    yield from _Running(s, vcpu, o).run()


def _guards(s: Session, vcpu: int) -> int | str:
    """What any ioctl on a vCPU meets before it does something."""
    return s.do(kvm.KvmGetXcrs(s.now.task, vcpu)).ret


def _begin(s: Session, vcpu: int, o: Operation) -> Iterator[Field]:
    """New code for the vCPU, to be run from its start; none if a call before KVM_RUN failed."""
    recorded = o.result or Fields()
    s.programs.pop(vcpu, None)
    if recorded.get("failed_call") == "get_sregs":
        yield Field("get_sregs", -number(recorded["errno"]), _guards(s, vcpu))
        return
    if not s.vcpus[vcpu].set_up and recorded.get("failed_call") != "set_regs":
        refused = number(recorded["errno"]) if recorded.get("failed_call") == "set_sregs" else 0
        yield from _set_up(s, vcpu, recorded, refused)
        if not s.vcpus[vcpu].set_up:
            return
    set_regs = s.do(kvm.KvmSetRegs(s.now.task, vcpu)).ret
    if set_regs or "failed_call" in recorded:
        yield Field(
            "set_regs", -number(recorded["errno"]) if recorded.get("failed_call") == "set_regs" else 0, set_regs
        )
        return
    if s.vcpus[vcpu].vm in s.irqchips:
        raise Stopped("a guest whose HLT waits in the kernel")
    s.programs[vcpu] = GuestProgram(o.args)


def _set_up(s: Session, vcpu: int, recorded: Fields, refused: int) -> Iterator[Field]:
    """KVM_SET_SREGS with CR4.OSXSAVE, or without if that is refused; ``refused`` is the recorded errno, or 0."""
    osxsave = True
    with_osxsave = s.do(kvm.KvmSetSregs(s.now.task, vcpu, Sregs(True))).ret
    result = with_osxsave
    if with_osxsave not in (0, -EIO):
        osxsave = False
        result = s.do(kvm.KvmSetSregs(s.now.task, vcpu, Sregs(False))).ret
    if recorded:
        yield Field("set_sregs with OSXSAVE", -number(recorded.get("set_sregs_osxsave_errno", 0)), with_osxsave)
        yield Field("set_sregs", -refused, result)
    known = s.vcpus[vcpu]
    known.set_up = result == 0
    known.reset_control_registers(osxsave)


class _Running:
    """One operation that runs a guest's code until something ends KVM_RUN for the harness.

    The one that killed the host has no result; it is executed all the same.
    """

    def __init__(self, s: Session, vcpu: int, o: Operation) -> None:
        self.s = s
        self.guest = Guest(s, vcpu)
        self.program = s.programs[vcpu]
        self.op = o.op
        self.recorded = o.result or Fields()
        self.begun = self.program.at
        self.entries = self._entries()
        self.ports: list[int] = []
        self.interrupted = bool(self.recorded.get("interrupted"))

    def _entries(self) -> list[dict[str, Any] | None]:
        """What was recorded of each token of the whole program; None where nothing was."""
        count = len(self.program.tokens)
        if not self.recorded:
            return [None] * count
        entries = self.recorded["guest"]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Malformed("result with guest, a list of objects")
        if self.op == "run_cont" and len(entries) < count:  # those that were left, or none
            entries = [None] * (count - len(entries)) + entries
        if len(entries) != count:
            raise Malformed(f"result with guest, {count} entries")
        return [None if entry is None else Fields(entry) for entry in entries]

    def run(self) -> Iterator[Field]:
        """Execute it, and compare what ended it."""
        started = self.s.do(run.KvmRun(self.s.now.task, self.guest.vcpu))
        if started.ret != "ok":
            self.s.programs.pop(self.guest.vcpu)
            recorded = self.recorded.get("exit", -number(self.recorded.get("errno", 0)))
            yield Field("KVM_RUN", recorded, started.ret)
            return
        yield from self._earlier()
        ended = yield from self._code()
        if self.recorded:
            yield from self._end(ended)

    def _earlier(self) -> Iterator[Field]:
        """What had been recorded of the code before stands there still, but for an OUT, which is over now."""
        for place, outcome in enumerate(self.program.outcomes[: self.begun]):
            yield from self._compare(place, outcome)

    def _code(self) -> Generator[Field, None, int | str]:
        """The tokens from where the program was left; gives what KVM_RUN came to."""
        program, guest_ = self.program, self.guest
        if self._enter_first() != "ok":
            raise Stopped("an exception that no instruction caused")
        where = self._interruption()
        while program.at < len(program.tokens):
            token = program.tokens[program.at]
            check(token)
            if self._ends_here():
                yield from self._interrupt(token)
                return self._returns()
            if where in (_EVERYWHERE, program.at):
                yield from self._begin_anew()
            port = self._port(token)
            if port is not None:
                self.ports.append(port)
                if self._stops():
                    return (yield from self._left())
            outcome = guest_.execute(token)
            yield from self._done(outcome)
        return self._halt()

    def _enter_first(self) -> int | str:
        """VM entry; an OUT that user space has served is completed by it."""
        entered = enter(self.s, self.guest.vcpu)
        if self.program.left_in_out:
            self.program.left_in_out = False
            self.program.outcomes.append(Outcome("ok"))
            self.program.at += 1
        return entered

    def _done(self, outcome: Outcome) -> Iterator[Field]:
        self.program.outcomes.append(outcome)
        yield from self._compare(self.program.at, outcome)
        self.program.at += 1

    # -- what ends KVM_RUN -------------------------------------------------------------------------------------------

    def _port(self, token: str) -> int | None:
        name, *words = token.split(":")
        return number(words[0]) if name == "out" and words else None

    def _stops(self) -> bool:
        """Whether the harness does not go on after an exit for I/O."""
        return self.op == "run_stop" or self.recorded.get("exit") == "IO"

    def _left(self) -> Generator[Field, None, int | str]:
        """OUT exits to user space, which leaves the guest there: what follows has not been reached."""
        nr = self.guest.vcpu
        self.s.do(guest.GuestOut(nr))
        self.s.do(run.HandleExit(nr))
        self.program.left_in_out = True
        for place in range(self.program.at + 1, len(self.program.tokens)):
            yield from self._compare(place, Outcome(NOT_REACHED))
        return self._returns()

    def _halt(self) -> int | str:
        nr = self.guest.vcpu
        self.s.do(guest.GuestHlt(nr))
        self.s.do(run.HandleExit(nr))
        return self._returns()

    def _returns(self) -> int | str:
        return self.s.do(run.KvmRunReturns(self.s.now.task)).ret

    def _end(self, ended: int | str) -> Iterator[Field]:
        failed = number(self.recorded["ret"]) != 0
        exit_ = f"KVM_EXIT_{self.recorded.get('exit', '?')}"
        yield Field("exit", -number(self.recorded["errno"]) if failed else exit_, ended)
        if "io_ports" in self.recorded:
            yield Field("io_ports", [number(port) for port in self.recorded["io_ports"]], self.ports)

    # -- signals -----------------------------------------------------------------------------------------------------

    def _ends_here(self) -> bool:
        """Whether a signal ended KVM_RUN before this token had its result written."""
        entry = self.entries[self.program.at]
        failed = number(self.recorded.get("ret", 0)) == -1 and number(self.recorded.get("errno", 0)) == EINTR
        return failed and entry is not None and entry["status"] == NOT_REACHED

    def _interrupt(self, token: str) -> Iterator[Field]:
        """Before the instruction, or after it and before its result was written; or what it raised is still queued."""
        nr = self.guest.vcpu
        question = f"the signal at {token}"
        when = self.s.choices.choose(question, "before the instruction", "after it", "while its exit was handled")
        if when == 1:
            self.guest.execute(token)
        if when != 2 or not self.guest.leave_after(token):
            self.s.do(guest.GuestInterrupt(nr))
        for place in range(self.program.at, len(self.program.tokens)):
            yield from self._compare(place, Outcome(NOT_REACHED))

    def _interruption(self) -> int:
        """Before which token a signal was handled, where run_sig says that one was: -1 for nowhere."""
        if not self.interrupted:
            return -1
        left = range(self.program.at, len(self.program.tokens))
        answers = ("where it makes no difference", "before each", *(f"before {self.program.tokens[n]}" for n in left))
        taken = self.s.choices.choose("a signal interrupted KVM_RUN", *answers)
        return (-1, _EVERYWHERE)[taken] if taken < 2 else left[taken - 2]

    def _begin_anew(self) -> Iterator[Field]:
        """KVM_RUN returns with EINTR, and the harness calls it again."""
        nr = self.guest.vcpu
        self.s.do(guest.GuestInterrupt(nr))
        yield Field("interrupted", -EINTR, self._returns())
        self.s.do(run.KvmRun(self.s.now.task, nr))
        enter(self.s, nr)

    # -- comparing ---------------------------------------------------------------------------------------------------

    def _compare(self, place: int, outcome: Outcome) -> Iterator[Field]:
        entry, token = self.entries[place], self.program.tokens[place]
        if entry is None:
            return
        status = {"ok": "ok", "fault": entry.get("exception")}.get(entry["status"], entry["status"])
        yield Field(token, status, outcome.status)
        if status == outcome.status == "ok":
            for name, shown in (("value", outcome.value), ("value2", outcome.value2)):
                if shown is not None:
                    yield Field(f"{token} {name}", number(entry[name]) & mask_of(token, name), shown)


#: Before every token.
_EVERYWHERE = -2
