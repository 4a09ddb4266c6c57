"""A program as a list of actions for a real machine, with what the model expects of each.

Who acts in an :class:`Action` is a task: t0 is the process that begins, t1 another one that is there from the start,
the others come of fork and clone.  Tasks take turns: each action begins when the one before is over.  Only the
``rivals`` of an action run while it does, which user space cannot order any further.

What the model expects stands there twice: ``model`` on the revision that was asked for, and ``good`` on one that does
not break anything, where there is one.  A machine that shows ``good`` is right, whatever the revision shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.native.control import EXACT, MOVED, OVERLAP, Control, control_of
from xfdfuzz.native.guestcode import Insn, Stream
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops import Op, guest, host, processes, run, signals
from xfdfuzz.program.ops.base import GuestOp, VcpuRunOp
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED, PANIC, Result
from xfdfuzz.program.text import format_op

#: How a KVM_RUN ends: the guest's OUT or HLT, a signal while the guest waits, KVM_RUN that never enters the guest
#: (immediate_exit), or the end of what the guest has to do.
OUT, HLT, SIGNAL, NEVER_ENTERED, DONE = "out", "hlt", "signal", "never-entered", "done"


class Expected(NamedTuple):
    """One op of the program: its number from 1, its line, what it should come to.

    ``added``: it is not the program's, but looks at what is left.

    A result is None where the program does not say (it ends before), ``not-enabled`` where the op cannot happen.
    """

    number: int
    op: Op
    line: str
    model: Result | None
    good: Result | None
    added: bool = False

    @property
    def control(self) -> Control:
        """How far user space controls it."""
        return control_of(self.op)

    @property
    def wanted(self) -> Result | None:
        """What a machine that is right shows: ``good``, or ``model`` where no kernel is known to be good."""
        return self.good if self.good is not None else self.model


class Guest(NamedTuple):
    """An instruction of the guest with the op that it is, None for one that waits.

    ``model`` and ``good`` of the op are what becomes of it in the end: an instruction that exits is done, or faults,
    when the guest runs again.
    """

    insn: Insn
    expected: Expected | None


@dataclass(frozen=True)
class Action:
    """``task`` does it; ``expected`` are the ops that it stands for, the first one says what it is.

    ``run``: the KVM_RUN, if it is one.  ``rivals`` act at the same time.  ``control``: how close it comes.
    """

    task: int
    expected: tuple[Expected, ...]
    rivals: tuple[Action, ...] = ()
    run: Run | None = None
    control: Control = EXACT

    @property
    def op(self) -> Op:
        """What it is."""
        return self.expected[0].op

    @property
    def last(self) -> Expected:
        """The op whose result is the action's."""
        return self.expected[-1]


@dataclass(frozen=True)
class Run:
    """One KVM_RUN: ``vcpu`` goes through ``guest`` and leaves by ``end``.

    With SIGNAL it leaves when the last of ``guest`` waits for the byte at ``flag`` to be written.
    """

    vcpu: int
    guest: tuple[Guest, ...]
    end: str
    flag: int = 0


@dataclass(frozen=True)
class Script:
    """All of it.  ``tasks``: all that act, ascending.  ``died``: the host dies on the revision, says the model."""

    program: Program
    actions: tuple[Action, ...]
    streams: tuple[Stream, ...]
    tasks: tuple[int, ...]
    died: bool

    def flat(self) -> Iterator[Action]:
        """Every action, rivals behind the one that they meet."""
        yield from _flat(self.actions)


def script_of(program: Program, kernel: type[Kernel], good: type[Kernel] | None, added: int = 0) -> Script:
    """The script of ``program``, whose last ``added`` ops were added to look at what is left.

    ``kernel`` is the revision, ``good`` one that breaks nothing.  Raises ValueError if an op is not user space's to
    control (:func:`~xfdfuzz.native.control.unfit`).
    """
    results = _results(program, kernel)
    return _Reader(program, results, None if good is None else _results(program, good), added).script()


def _results(program: Program, kernel: type[Kernel]) -> list[Result]:
    return [step.result for step in Executor(kernel, program.machine).run(program.ops)]


class _Reader:
    """Goes through the ops once; an op belongs to the action that claims it."""

    def __init__(self, program: Program, model: list[Result], good: list[Result] | None, added: int) -> None:
        self.program = program
        self.steps = [
            Expected(
                number,
                op,
                format_op(op),
                model[number - 1],
                None if good is None else good[number - 1],
                number > len(program.ops) - added,
            )
            for number, op in enumerate(program.ops, 1)
        ]
        for step in self.steps:
            if step.control.no:
                raise ValueError(f"{step.line}: {step.control.no}")
        self.claimed = [False] * len(self.steps)
        self.streams: dict[int, Stream] = {}
        self.turn = 0

    def script(self) -> Script:
        actions = tuple(self._actions(range(len(self.steps))))
        tasks = sorted({action.task for action in _flat(actions)})
        died = any(step.model is not None and step.model.ret == PANIC for step in self.steps)
        return Script(self.program, actions, tuple(self.streams.values()), tuple(tasks), died)

    def _actions(self, where: Sequence[int]) -> Iterator[Action]:
        for index in where:
            if self.claimed[index]:
                continue
            self.claimed[index] = True
            action = self._action(index)
            if action is not None:
                yield action

    def _action(self, index: int) -> Action | None:
        step = self.steps[index]
        match step.op:
            case run.KvmRun():
                return self._run(index, step.op)
            case processes.Execve(task=task):
                return self._span(index, task, processes.ExecveReturns)
            case signals.Signal(task=task):
                return self._span(index, task, signals.SignalDelivered)
            case host.Schedule(task=task):
                self.turn = task
            case signals.Sigreturn(task=task):
                self.turn = task
                rivals = self._while_away(index, task)
                return Action(task, (step,), rivals, control=OVERLAP if rivals else EXACT)
            case _ if isinstance(step.op, run.VmEnter | run.HandleExit | run.KvmRunReturns | GuestOp):
                return None  # it has no KVM_RUN, so it cannot happen
            case _:
                self.turn = getattr(step.op, "task", self.turn)
        return Action(self.turn, (step,), control=step.control)

    def _while_away(self, index: int, task: int) -> tuple[Action, ...]:
        """Instructions of other tasks since the last op of this one.

        In programs a task that was preempted before its sigreturn is taken to have been inside that system call.
        """
        found: list[Action] = []
        for step in reversed(self.steps[:index]):
            actor = getattr(step.op, "task", None)
            if actor == task and not isinstance(step.op, host.Schedule):
                break
            if type(step.op).__name__.startswith("User"):
                found.insert(0, Action(actor or 0, (step,)))
        return tuple(found)

    def _span(self, index: int, task: int, closes: type[Op]) -> Action:
        """An op in two halves, with what others do between them."""
        end = self._closed(index, task, closes)
        own = (self.steps[index], *([] if end is None else [self.steps[end]]))
        if end is not None:
            self.claimed[end] = True
        rivals = self._rivals(index, end)
        self.turn = task
        return Action(task, own, rivals, control=OVERLAP if rivals else EXACT)

    def _run(self, index: int, op: run.KvmRun) -> Action:
        end = self._closed(index, op.task, run.KvmRunReturns)
        own = [
            i
            for i in self._open(index)
            if (end is None or i <= end) and (i == end or _of_vcpu(self.steps[i].op, op.vcpu))
        ]
        for i in own:
            self.claimed[i] = True
        chunk = self._chunk(op.vcpu, own, end)
        rivals = self._rivals(index, end)
        self.turn = op.task
        expected = (self.steps[index], *(self.steps[i] for i in own))
        kinds = {self.steps[i].control for i in own} - {EXACT}
        control = _met(rivals) if rivals else min(kinds) if kinds else EXACT
        return Action(op.task, expected, rivals, chunk, control)

    def _closed(self, index: int, task: int, closes: type[Op]) -> int | None:
        """Where the task comes to the end of what it begins at ``index``."""
        return next(
            (i for i in self._open(index) if self.steps[i].op == closes(task=task)),  # type: ignore[call-arg]
            None,
        )

    def _open(self, index: int) -> Iterator[int]:
        return (i for i in range(index + 1, len(self.steps)) if not self.claimed[i])

    def _rivals(self, index: int, end: int | None) -> tuple[Action, ...]:
        return tuple(self._actions(range(index + 1, len(self.steps) if end is None else end)))

    def _chunk(self, vcpu: int, own: list[int], end: int | None) -> Run:
        stream = self.streams.setdefault(vcpu, Stream(vcpu))
        insns = [i for i in own if isinstance(self.steps[i].op, GuestOp)]
        entered = any(isinstance(self.steps[i].op, run.VmEnter) for i in own)
        how = self._end(insns, entered, end is not None)
        if how == SIGNAL and insns and _waits(self.steps[insns[-1]]):
            insns.pop()  # that signal is the interrupt
        guests = [self._guest(stream, i) for i in insns]
        flag = 0
        if how == SIGNAL:
            insn, flag = stream.hold()
            guests.append(Guest(insn, None))
        elif how == DONE:
            guests.append(Guest(stream.done(), None))
        return Run(vcpu, tuple(guests), how, flag)

    def _end(self, insns: list[int], entered: bool, returns: bool) -> str:
        last = self.steps[insns[-1]].op if insns else None
        if isinstance(last, guest.GuestOut):
            return OUT
        if isinstance(last, guest.GuestHlt):
            return HLT
        if not entered:
            return NEVER_ENTERED
        return SIGNAL if returns else DONE

    def _guest(self, stream: Stream, index: int) -> Guest:
        step = self.steps[index]
        if _waits(step):
            return Guest(stream.wait(), None)
        later = [self.steps[i] for i in range(index + 1, len(self.steps)) if _of_vcpu(self.steps[i].op, stream.vcpu)]
        model = _settled(step.model, [(s.op, s.model) for s in later])
        good = None if step.good is None else _settled(step.good, [(s.op, s.good) for s in later])
        return Guest(stream.add(step.op), step._replace(model=model, good=good))


def _met(rivals: tuple[Action, ...]) -> Control:
    """How it is tried that an action meets these."""
    moves = all(isinstance(rival.op, host.Schedule | host.ScheduleKthread) for rival in rivals)
    return MOVED if moves else OVERLAP


def _waits(step: Expected) -> bool:
    return isinstance(step.op, guest.GuestInterrupt | guest.GuestInterruptKernelFpu)


def _of_vcpu(op: Op, vcpu: int) -> bool:
    return isinstance(op, GuestOp | VcpuRunOp) and op.vcpu == vcpu


def _settled(result: Result | None, later: list[tuple[Op, Result | None]]) -> Result | None:
    """What becomes of an instruction: the result of one that exits comes with its handling, or with the next entry."""
    if result is None or result.ret == NOT_ENABLED:
        return None
    if result.ret != "exit":
        return result
    value = None
    for op, what in later:
        if what is None or what.ret == PANIC:
            return None
        if what.ret == NOT_ENABLED:
            continue
        if isinstance(op, run.HandleExit):
            if what.ret not in ("resume", "exit"):
                return None
            if what.ret == "exit":
                return Result("ok")
            value = what.out
        elif isinstance(op, run.VmEnter):
            return what if isinstance(what.ret, str) and what.ret.startswith("#") else Result("ok", value)
    return None


def _flat(actions: Sequence[Action]) -> Iterator[Action]:
    for action in actions:
        yield action
        yield from _flat(action.rivals)
