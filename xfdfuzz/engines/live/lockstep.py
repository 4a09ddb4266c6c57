"""A program on the host and on the model at once: each op is done by both, and what came of it is compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.live import kvm as _kvm  # noqa: F401  (what carries ops out)
from xfdfuzz.engines.live import user as _user  # noqa: F401
from xfdfuzz.engines.live.danger import Danger, Lookout
from xfdfuzz.engines.live.facts import Facts
from xfdfuzz.engines.live.guest import Machine as Guests
from xfdfuzz.engines.live.guest import Vcpu
from xfdfuzz.engines.live.host import CARRIED, Host
from xfdfuzz.engines.live.quirks import Quirk
from xfdfuzz.engines.live.tasks import Crew, Hung, TaskDied
from xfdfuzz.kernel.errno import EAGAIN, ENOMEM
from xfdfuzz.kernel.fpu.signal import components_at_magic2
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import may_overflow
from xfdfuzz.native.agreement import same
from xfdfuzz.native.control import control_of
from xfdfuzz.native.guestcode import Insn
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops import guest, host, kvm, processes, run, signals, tasks, xsave
from xfdfuzz.program.ops.base import GuestOp, Op, TaskOp, VcpuIoctl, VmIoctl
from xfdfuzz.program.step import NOT_ENABLED, Mask, Result


class Verdict(Enum):
    """What came of holding an op on the host against the model."""

    EQUAL = "equal"
    DIFFERENT = "different"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Compared:
    """One op, counted from 1: what the model and the host show; ``reason`` why it was not done, on either."""

    number: int
    op: Op
    verdict: Verdict
    model: Result | None = None
    host: Result | None = None
    reason: str = ""


@dataclass
class _Reached:
    """An instruction of the guest in a program, and what the model says that becomes of it in the end."""

    number: int
    op: Op
    insn: Insn
    model: Result | None = None
    out: int | None = None


@dataclass
class _Running:
    """A KVM_RUN that has begun in the model: the host does it when it is over there."""

    task: int
    vcpu: Vcpu
    reached: list[_Reached] = field(default_factory=list)
    entered: bool = False


class Lockstep:
    """One program, an op at a time; use it as a context manager, for it has processes.

    Without a ``lookout`` everything is done, however dangerous.
    """

    def __init__(
        self,
        facts: Facts,
        kernel: type[Kernel],
        machine: Machine,
        quirks: tuple[Quirk, ...],
        lookout: Lookout | None,
        device: str,
    ) -> None:
        self.facts, self.quirks, self.lookout = facts, quirks, lookout
        self.executor = Executor(kernel, machine)
        self.number = 0
        self._crew = Crew()
        self._device = device
        self._running: dict[int, _Running] = {}

    def __enter__(self) -> Lockstep:
        self.host = Host(self._crew.__enter__(), self._device, self.kernel.machine.cpuid)
        self.guests = Guests(self.host)
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.close()

    @property
    def kernel(self) -> Kernel:
        """The model's."""
        return self.executor.kernel

    def execute(self, op: Op) -> Iterator[Compared]:
        """Do an op on both.  What a guest does is told when its KVM_RUN is over.

        Raises :class:`Refused` for an op that may not be done.
        """
        self.number += 1
        reason = self._cannot(op)
        if reason:
            yield Compared(self.number, op, Verdict.SKIPPED, reason=reason)
            return
        if self.lookout is not None:
            danger = self.lookout.ahead(op)
            if danger is not None:
                raise Refused(self.number, op, danger)
        before = self.executor.kernel.state
        expected = self.executor.execute(op).result
        reason = "the model has no room for another one" if _is_limit(op, expected) else self._ends(op, expected)
        if reason:
            self.executor.load(before)
            yield Compared(self.number, op, Verdict.SKIPPED, reason=reason)
            return
        try:
            yield from self._carry(op, expected)
        except (TaskDied, Hung) as error:
            yield Compared(self.number, op, Verdict.DIFFERENT, expected, Result(str(error)))
        self.host.follow(self.kernel)

    def check(self, ops: Sequence[Op]) -> None:
        """Raise :class:`Refused` for the first of the ops that may not be done."""
        if self.lookout is None:
            return
        for number, op in enumerate(ops, 1):
            danger = None if control_of(op).no else self.lookout.ahead(op)
            if danger is not None:
                raise Refused(number, op, danger)
        self.lookout.again()

    def finish(self) -> Iterator[Compared]:
        """The program is over: let the guests run that have begun to."""
        for nr in [*self._running]:
            yield from self._run(nr, None)

    def _cannot(self, op: Op) -> str:
        """Why an op is left out, on both sides; "" if it is not."""
        control = control_of(op)
        if control.no:
            return control.no
        if type(op) not in CARRIED and not isinstance(op, _OF_RUNS):
            return "a host cannot be told to"
        for quirk in self.quirks:
            if quirk.masks(op, self.kernel):
                return quirk.name
        if isinstance(op, host.Schedule | host.ScheduleKthread) and op.cpu >= len(self.host.cpus):
            return f"the host has {len(self.host.cpus)} CPUs"
        if not op.enabled(self.kernel):
            return "it cannot happen here"
        if isinstance(op, tasks.UserTileload | tasks.UserTilestore) and not self._has_tiles(op.task):
            return "without a tile configuration processors differ: #UD or #NM comes first"
        if isinstance(op, xsave.KvmSetFpu | xsave.KvmGetFpu) and self.kernel.vcpus[op.vcpu].last_vmentry_cpu != -1:
            return "it depends on what the processor called in use when the guest ran"
        if isinstance(op, signals.SigframeSwReserved) and self._overwrites(op.sw.magic2 or 0):
            return "the magic would overwrite a part of a component, of which contents are told as a whole"
        return "" if self._has_open(op) else "a descriptor that was opened after the fork is not there"

    def _ends(self, op: Op, expected: Result) -> str:
        """Why an op ends its task on a host, for which there is no op; "" if it does not.

        Programs name a signal and go on.  Here it is handled, and there has to be room for that.
        """
        if not (isinstance(op, TaskOp) and isinstance(expected.ret, str) and expected.ret.startswith("SIG")):
            return ""
        k = self.kernel
        k.on_cpu(k.tasks[op.task].on_cpu - 1)
        has_room = not may_overflow(k.system, op.task) and k.get_sigframe_place(sa_onstack=False) is not None
        return "" if has_room else "the alternate stack has no room to handle the signal on, which ends the task"

    def _has_tiles(self, nr: int) -> bool:
        return bool(self.kernel.system.ghost.tasks[nr].data[xf.XTILE_CFG])

    def _overwrites(self, magic2: int) -> int:
        return components_at_magic2(magic2, self.host.cpuid) & self.kernel.machine.user_xfeatures

    def _has_open(self, op: Op) -> bool:
        """The model asks for the VM alone."""
        if isinstance(op, VcpuIoctl | run.KvmRun):
            return op.vcpu in self.host.task(op.task).files.vcpus
        return not isinstance(op, VmIoctl) or op.vm in self.host.task(op.task).files.vms

    # -- doing it on the host --------------------------------------------------------------------------------------

    def _carry(self, op: Op, expected: Result) -> Iterator[Compared]:
        match op:
            case run.KvmRun():
                yield from self._begin(op, expected)
            case run.VmEnter():
                self._entered(op.vcpu, expected)
            case run.HandleExit():
                self._handled(op.vcpu, expected)
            case run.KvmRunReturns():
                nr = next(nr for nr, running in self._running.items() if running.task == op.task)
                yield from self._run(nr, (op, expected))
            case GuestOp():
                self._reached(op, expected)
            case _:
                found = self.host.carry(op, expected)
                if isinstance(op, kvm.KvmCreateVcpu) and isinstance(found.ret, str):
                    self.guests.forget(int(found.ret.removeprefix("v")))
                yield self._compared(self.number, op, expected, found)

    def _compared(self, number: int, op: Op, model: Result, found: Result) -> Compared:
        if isinstance(model.out, Mask) and isinstance(found.out, int):
            found = found._replace(out=type(model.out)(found.out))
        verdict = Verdict.EQUAL if same(op, model, found) else Verdict.DIFFERENT
        return Compared(number, op, verdict, model, found)

    def _begin(self, op: run.KvmRun, expected: Result) -> Iterator[Compared]:
        task = self.host.task(op.task)
        if expected.ret != "ok":
            vcpu = self.guests.vcpu(task, op.vcpu)
            yield self._compared(self.number, op, expected, self.guests.run(task, vcpu, [], enter=False))
            return
        self._running[op.vcpu] = _Running(op.task, self.guests.vcpu(task, op.vcpu))

    def _reached(self, op: GuestOp, expected: Result) -> None:
        if isinstance(op, guest.GuestInterrupt | guest.GuestInterruptKernelFpu):
            return  # interrupts come by themselves
        running = self._running[op.vcpu]
        one = _Reached(self.number, op, running.vcpu.stream.add(op))
        one.model = None if expected.ret == "exit" else expected
        running.reached.append(one)

    def _handled(self, nr: int, expected: Result) -> None:
        """The exit of the last instruction."""
        one = self._last(nr)
        if one is not None and expected.ret == "exit":
            one.model = Result("ok")
        elif one is not None:
            one.out = expected.out if isinstance(expected.out, int) else None

    def _entered(self, nr: int, expected: Result) -> None:
        self._running[nr].entered = True
        one = self._last(nr)
        if one is not None:
            faulted = isinstance(expected.ret, str) and expected.ret.startswith("#")
            one.model = expected if faulted else Result("ok", one.out)

    def _last(self, nr: int) -> _Reached | None:
        """The last instruction, if it is not known yet what becomes of it."""
        reached = self._running[nr].reached
        return reached[-1] if reached and reached[-1].model is None else None

    def _run(self, nr: int, returns: tuple[Op, Result] | None) -> Iterator[Compared]:
        running = self._running.pop(nr)
        task, vcpu = self.host.task(running.task), running.vcpu
        insns = [one.insn for one in running.reached]
        leaves = bool(running.reached) and isinstance(running.reached[-1].op, guest.GuestHlt | guest.GuestOut)
        if running.entered and not leaves:
            insns.append(vcpu.stream.done())
        ended = self.guests.run(task, vcpu, insns, enter=running.entered)
        for one in running.reached:
            found = self.guests.outcome(vcpu, one.insn)
            if one.model is not None:
                yield self._compared(one.number, one.op, one.model, found or Result(f"not reached: {ended}"))
        if returns is not None:
            yield self._compared(self.number, *returns, ended)


class Refused(Exception):
    """An op is dangerous."""

    def __init__(self, number: int, op: Op, danger: Danger) -> None:
        super().__init__(str(danger))
        self.number, self.op, self.danger = number, op, danger


#: What belongs to a KVM_RUN.
_OF_RUNS = (run.KvmRun, run.VmEnter, run.HandleExit, run.KvmRunReturns, GuestOp)


def _is_limit(op: Op, expected: Result) -> bool:
    """Whether the model, other than a host, has no room for one more."""
    if isinstance(op, kvm.KvmCreateVm | kvm.KvmCreateVcpu):
        return expected.ret == -ENOMEM
    clones = isinstance(op, processes.CloneThread | processes.CloneVm | processes.Fork)
    return expected.ret == NOT_ENABLED or (clones and expected.ret == -EAGAIN)
