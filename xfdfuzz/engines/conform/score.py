"""Judging recordings: every recorded operation against what the model does."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.conform import guest, host, ioctls, lines  # noqa: F401 - they register their translators
from xfdfuzz.engines.conform.choices import LIMIT, Choices
from xfdfuzz.engines.conform.fields import Field, NotCompared, NothingSelected, Stopped
from xfdfuzz.engines.conform.nesting import SWITCH, in_order
from xfdfuzz.engines.conform.recording import (
    BadRecording,
    Explanation,
    Fields,
    Malformed,
    NoFields,
    Operation,
    Recording,
)
from xfdfuzz.engines.conform.session import MACHINE, HostDied, Session
from xfdfuzz.engines.conform.translator import TRANSLATORS
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.errno import EAGAIN
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.ops.tasks import ReturnToUser
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision
from xfdfuzz.revisions.releases import release_of
from xfdfuzz.revisions.table import model_of as model_of_release

#: What Python says to a recording whose parts contradict each other, or that is more than the model can hold.
_DOES_NOT_FIT = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RecursionError)

#: What an operation can come to; ``compared`` is the sum of the others.
OUTCOMES = ("compared", "equal", "scheduled", "explained", "different")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing on which a real kernel and its model disagree.

    ``program`` is what was executed up to there; ``reason`` is why it cannot matter, if that was explained.
    """

    recording: Recording
    operation: Operation
    field: Field
    program: Program
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RecordedViolation:
    """An invariant that a recorded program breaks on the model, whatever the comparison came to.

    ``operation`` is where, None for the drained end; ``program`` is what was executed up to there.
    """

    recording: Recording
    operation: Operation | None
    violation: Violation
    program: Program


@dataclass(frozen=True)
class Judgement:
    """What one recording came to: operations by outcome, the differences, and why operations were not compared.

    ``scheduled`` operations are equal as well, but only if what happened fell as ``schedule`` says, which the recording
    leaves open.  ``violations`` are those that the revision is not known to have; ``known`` counts the others by
    bucket.  ``cut``: the end of the recording was not compared.
    """

    recording: Recording
    revision: str
    compared: int = 0
    equal: int = 0
    explained: int = 0
    differences: tuple[Difference, ...] = ()
    not_compared: Counter[str] = field(default_factory=Counter)
    violations: tuple[RecordedViolation, ...] = ()
    known: Counter[str] = field(default_factory=Counter)
    cut: bool = False
    scheduled: int = 0
    schedule: tuple[str, ...] = ()
    outcomes: Mapping[int, str] = field(default_factory=dict)

    @property
    def different(self) -> int:
        """Operations with a difference that nobody explained."""
        return self.compared - self.equal - self.scheduled - self.explained

    @property
    def holds(self) -> bool:
        """Whether there is no difference, up to the end."""
        return not (self.different or self.cut)

    def instead_of(self, likely: Judgement, schedule: tuple[str, ...]) -> Judgement:
        """The same, as the judgement under a schedule, where the likely one did not hold."""
        owed = [nr for nr, outcome in self.outcomes.items() if outcome == "equal" != likely.outcomes.get(nr)]
        return replace(self, equal=self.equal - len(owed), scheduled=len(owed), schedule=schedule)


class Score:
    """The sum of judgements, as a whole and by kernel; ``not_judged`` says of each other recording why it is none."""

    def __init__(self) -> None:
        self.judgements: list[Judgement] = []
        self.not_judged: list[str] = []

    def add(self, judgement: Judgement) -> None:
        """Count one more."""
        self.judgements.append(judgement)

    @property
    def differences(self) -> list[Difference]:
        """All of them, in order."""
        return [difference for judgement in self.judgements for difference in judgement.differences]

    @property
    def not_compared(self) -> Counter[str]:
        """How many operations were not, by kind and reason."""
        return sum((judgement.not_compared for judgement in self.judgements), Counter())

    @property
    def violations(self) -> list[RecordedViolation]:
        """Those that are not known, in order."""
        return [violation for judgement in self.judgements for violation in judgement.violations]

    @property
    def known(self) -> Counter[str]:
        """How often each bucket was broken by a kernel that is known to break it."""
        return sum((judgement.known for judgement in self.judgements), Counter())

    def counts(self, kernel: str = "") -> dict[str, int]:
        """Operations by outcome, of one kernel or of all."""
        chosen = [judgement for judgement in self.judgements if kernel in ("", judgement.recording.kernel)]
        return {name: sum(getattr(judgement, name) for judgement in chosen) for name in OUTCOMES}

    def models(self) -> dict[str, list[str]]:
        """On which revisions each recorded version was judged."""
        found: dict[str, dict[str, None]] = {}
        for judgement in self.judgements:
            found.setdefault(judgement.recording.kernel, {})[judgement.revision] = None
        return {kernel: list(revisions) for kernel, revisions in found.items()}

    def kernels(self) -> list[str]:
        """Those that were recorded, in order."""
        return list(dict.fromkeys(judgement.recording.kernel for judgement in self.judgements))


def model_of(recording: Recording) -> str:
    """The name of the revision that models the recorded kernel best; raises :class:`BadRecording`."""
    release = release_of(recording.kernel)
    found = model_of_release(release) if release else None
    if found is None:
        known = "kernel, a version from 5.16 on: what is older is not modelled"
        raise BadRecording(f"{recording.file}:{recording.line}: expected {known}")
    return found


def judge(
    recording: Recording,
    revision: Revision,
    explanations: Iterable[Explanation] = (),
    known: Callable[[Revision], Collection[str]] = lambda revision: (),
) -> Judgement:
    """Execute the recorded program on ``revision``, compare, and ask the invariants.

    ``known`` gives the buckets that a revision is known to break; it is asked when something is broken.  Raises
    :class:`BadRecording` for a recording that cannot be judged.
    """
    load_once()
    explained = tuple(explanations)

    def run(choices: Choices) -> Judgement:
        return _Judge(recording, revision, explained, known, choices).judge()

    choices = Choices()
    likely = run(choices)
    if likely.holds:
        return likely
    untried = deque(choices.others())
    for _ in range(LIMIT):
        if not untried:
            break
        choices = Choices(untried.popleft())
        judgement = run(choices)
        if judgement.holds:
            return judgement.instead_of(likely, choices.unlikely)
        untried.extend(choices.others())
    return likely


class _Judge:
    def __init__(
        self,
        recording: Recording,
        revision: Revision,
        explanations: Iterable[Explanation],
        known: Callable[[Revision], Collection[str]],
        choices: Choices,
    ) -> None:
        self.recording = recording
        self.revision = revision
        self.known = known
        machine = recording.machine or MACHINE
        self.session = Session(revision, choices, recording.timing_dependent, machine)
        self.reasons = {
            (e.op, e.field): e.reason
            for e in explanations
            if e.kernel in ("*", recording.kernel) and e.program == recording.program
        }
        self.outcomes: dict[int, str] = {}
        self.differences: list[Difference] = []
        self.not_compared: Counter[str] = Counter()
        self.violations: list[RecordedViolation] = []
        self.known_violations: Counter[str] = Counter()

    def judge(self) -> Judgement:
        """All operations, as far as the state is known; the rest is not compared."""
        reached, cut = 0, False
        self._begin()
        try:
            for operation in in_order(self.recording, self.session.choices):
                reached += not _is_marker(operation)
                try:
                    lives = self._operation(operation)
                finally:
                    self._violations(operation)
                if not lives:
                    break
        except Stopped as why:
            cut = True
            self._rest(str(why), reached)
        self.session.drain()
        self._violations(None)
        return Judgement(
            self.recording,
            self.revision.label,
            len(self.outcomes),
            self._count_of("equal"),
            self._count_of("explained"),
            tuple(self.differences),
            self.not_compared,
            tuple(self.violations),
            self.known_violations,
            cut,
            outcomes=self.outcomes,
        )

    def _count_of(self, outcome: str) -> int:
        return sum(one == outcome for one in self.outcomes.values())

    def _begin(self) -> None:
        """Recordings of one kernel share a boot, and IA32_XFD_ERR stays as it was left until something clears it."""
        if not any(_reads_xfd_err(operation) for operation in self.recording.operations):
            return
        if self.session.choices.choose("IA32_XFD_ERR at the start", "0", "XTILEDATA, left by an earlier program"):
            self.session.aside("IA32_XFD_ERR holds XTILEDATA, which an earlier program has left there", _leave_xfd_err)
            self.session.do(ReturnToUser(0))
            self.session.violations()  # of that program, not of this one

    def _operation(self, operation: Operation) -> bool:
        """Judge one; whether the host lives on both sides."""
        dies = self.recording.panic == operation.index
        unseen = operation.result is None
        if unseen:
            operation = replace(operation, result=NoFields())
        fields: list[Field] = []
        died = False
        try:
            for found in self._fields(operation, executed=dies or not unseen or operation.op == "exec"):
                if not unseen:
                    fields.append(found)
        except HostDied:
            died = True
        except NothingSelected:
            fields.append(Field("call", "none" if _made_no_call(operation) else "made", "none"))
        except Stopped as why:
            self._count(operation, fields)
            if not fields:
                self.not_compared[f"from here on: {why}"] += 1
            raise
        except NotCompared as why:
            if not fields:
                self.not_compared[f"{operation.op}: {why}"] += 1
        except Malformed as what:
            raise self._bad(operation, f"expected {what}") from None
        except _DOES_NOT_FIT as error:
            said = f"expected what fits what was recorded before it ({type(error).__name__}: {error})"
            raise self._bad(operation, said[:200]) from error
        if dies or died:
            fields.append(Field("host", "dead" if dies else "alive", "dead" if died else "alive"))
            if dies and died and self.recording.panic_site:
                fields.append(Field("panic in", self.recording.panic_site, self._panic_site()))
        self._count(operation, fields)
        return not (dies or died)

    def _nothing_for(self, operation: Operation) -> bool:
        """Whether the harness has nothing selected, of the kind that it says it would need."""
        assert operation.result is not None
        now = self.session.now
        return (now.vcpu if "vcpu" in str(operation.result["skipped"]) else now.vm) is None

    def _bad(self, operation: Operation, what: str) -> BadRecording:
        place = f"{self.recording.file}:{self.recording.line}: ops[{operation.index}] {operation.op}"
        return BadRecording(f"{place}: {what}")

    def _fields(self, operation: Operation, executed: bool) -> Iterator[Field]:
        translate = TRANSLATORS.get(operation.op)
        if translate is None:
            raise Stopped(f"{operation.op} is not translated")
        if executed and "skipped" in (operation.result or {}):
            return iter([Field("call", "none", "none" if self._nothing_for(operation) else "made")])
        if executed:
            return translate(self.session, operation)
        if _is_marker(operation):
            return iter(())
        raise NotCompared("not executed")

    def _count(self, operation: Operation, fields: list[Field]) -> None:
        if not fields:
            return
        wrong = [found for found in fields if not found.equal]
        reasons = [self.reasons.get((operation.index, found.name), "") for found in wrong]
        outcome = "equal" if not wrong else "explained" if all(reasons) else "different"
        self.outcomes[operation.index] = max(self.outcomes.get(operation.index, outcome), outcome, key=_WORSE.index)
        for found, reason in zip(wrong, reasons, strict=True):
            program = self._program(operation.text)
            self.differences.append(Difference(self.recording, operation, found, program, reason))

    def _violations(self, operation: Operation | None) -> None:
        """Note what the operation, or the drained end, has broken."""
        for found in self.session.violations():
            if found.bucket in self.known(self.revision):
                self.known_violations[found.bucket] += 1
            else:
                program = self._program(operation.text if operation else "its end")
                self.violations.append(RecordedViolation(self.recording, operation, found, program))

    def _program(self, end: str) -> Program:
        title = f"{self.recording.program} of {self.recording.kernel} up to {end}"
        return self.session.program(" ".join(title.split()))

    def _panic_site(self) -> str:
        """The recorded function if the model died in it too, else where it did."""
        last = self.session.last
        trace = last.events[-1].trace if last is not None and last.events else ("?",)
        return self.recording.panic_site if self.recording.panic_site in trace else trace[0]

    def _rest(self, why: str, reached: int) -> None:
        """What comes after the point from which on nothing is known."""
        left = sum(not _is_marker(o) for o in self.recording.operations) - reached
        if left:
            self.not_compared[f"from here on: {why}"] += left


#: The outcomes of one operation that was compared in parts.
_WORSE = ("equal", "explained", "different")


def _reads_xfd_err(operation: Operation) -> bool:
    words = (operation.op, *operation.args) if operation.op == "host_rdmsr" else operation.args
    return operation.op in ("host_rdmsr", *_RUNS) and any(word == "0x1c5" or word == "rdmsr:0x1c5" for word in words)


_RUNS = ("run_guest", "run_stop", "run_sig", "run_cont")


def _leave_xfd_err(k: Kernel) -> None:
    k.regs.xfd_err = xf.MASK_XTILE_DATA


def _made_no_call(operation: Operation) -> bool:
    """Whether the harness says that it had nothing to act on: in so many words, or by an EAGAIN that no call gives."""
    result = operation.result or Fields()
    return "skipped" in result or (result.get("ret") == -1 and result.get("errno") == EAGAIN)


def _is_marker(operation: Operation) -> bool:
    """A begin or end, which has no result of its own."""
    return operation.op.removeprefix("end") in ("fork", "thread", "clonevm", "thread_bg", SWITCH)
