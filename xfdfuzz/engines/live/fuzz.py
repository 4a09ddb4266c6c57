"""The rules that user space can control, on the host and the model in lockstep: each is the other's oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis.errors import Flaky

from xfdfuzz.engines.judge.finding import NotReproducibleError
from xfdfuzz.engines.judge.lockstep import Difference
from xfdfuzz.engines.judge.minimise import reduce
from xfdfuzz.engines.live.lockstep import Compared, Lockstep, Refused, Verdict
from xfdfuzz.engines.live.session import Session
from xfdfuzz.engines.search.campaign import Campaign, Discovered, Run
from xfdfuzz.engines.search.hunt import Shrunk, hunt
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Result, format_ret
from xfdfuzz.strategies.boots import Boot


@dataclass
class Tally:
    """What was done on the host: ops that came out equal, those left out by their reason, and refused for danger."""

    equal: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    #: A line for each difference that its own program does not show again.
    flaky: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class LiveCampaign(Campaign[Difference]):
    """A host under comparison with its model."""

    session: Session
    tally: Tally = field(default_factory=Tally)
    error_name = "DifferenceFound"

    def begin(self, machine: Machine, boot: Boot | None = None) -> LiveRun:
        """An example has processes of its own, and the host's machine, whatever was drawn."""
        run = LiveRun(self, self.session.machine)
        for op in boot(self.session.machine) if boot else ():
            run.execute(op)
        return run

    def shown(self, program: Program) -> list[Difference]:
        """The first difference, up to which the two go together."""
        different = self.session.judge(program).different
        return [difference(different)] if different else []

    def minimise(self, program: Program, key: str) -> Program:
        """The plainest program that still differs so, with the model's results."""

        def still(candidate: Program) -> bool:
            same_machine = candidate.machine == program.machine
            return same_machine and self.in_time() and any(one.bucket == key for one in self.shown(candidate))

        return self._with_results(reduce(program, still))

    def _with_results(self, program: Program) -> Program:
        compared = self.session.judge(program).compared
        results = {one.number: str(one.model) for one in compared if one.model is not None}
        return replace(program, results=tuple(results.get(n) for n in range(1, len(program.ops) + 1)))


class LiveRun(Run):
    """One example on the host and on the model."""

    def __init__(self, campaign: LiveCampaign, machine: Machine) -> None:
        super().__init__(campaign, machine)
        self._tally = campaign.tally
        self._lockstep: Lockstep = campaign.session.lockstep(machine).__enter__()

    @property
    def kernel(self) -> Kernel:
        """The model's."""
        return self._lockstep.kernel

    def execute(self, op: Op) -> None:
        """Do it on both; what cannot or may not be done on the host is left out."""
        try:
            compared = [*self._lockstep.execute(op)]
        except Refused:
            self._tally.refused += 1
            return
        if any(one.verdict is Verdict.SKIPPED for one in compared):
            self._tally.skipped.update(one.reason for one in compared)
            return
        self.ops.append(op)
        self._judged(compared)

    def _judged(self, compared: list[Compared]) -> None:
        for one in compared:
            assert one.model is not None
            self.campaign.stats.count(one.op, one.model)
            self._tally.equal += one.verdict is Verdict.EQUAL
        different = [difference(one) for one in compared if one.verdict is Verdict.DIFFERENT]
        try:
            self.judge(different)
        except BaseException:
            self.close()
            raise
        if different:  # it is known, but the two have parted
            self.kernel.system.dead = 1

    def look_at_end(self) -> None:
        """Guests that have begun to run do so now."""
        if self.alive:
            self._judged([*self._lockstep.finish()])

    def finish(self) -> None:
        """Its processes end."""
        try:
            super().finish()
        finally:
            self.close()

    def close(self) -> None:
        """End its processes."""
        self._lockstep.__exit__()


def difference(one: Compared) -> Difference:
    """What differs, by the kind of results."""
    assert one.model is not None
    assert one.host is not None
    what = "value" if one.model.ret == one.host.ret else f"gives {_kind(one.model)} | {_kind(one.host)}"
    return Difference(type(one.op).__name__, what, str(one.model), str(one.host), one.number)


def _kind(result: Result) -> str:
    if isinstance(result.ret, int):
        return format_ret(result.ret) if result.ret <= 0 else "a number"
    return result.ret.rstrip("0123456789")


def _first_line(error: Exception) -> str:
    """What did not show again; Hypothesis tells of several runs of one example in a group of errors."""
    for one in getattr(error, "exceptions", ()):
        if isinstance(one, Discovered):
            return str(one)
    return str(error).partition("\n")[0]


def fuzz(
    session: Session,
    plan: Plan,
    on_progress: Callable[[LiveCampaign], None],
    on_found: Callable[[Shrunk[Difference]], None],
) -> tuple[LiveCampaign, bool]:
    """Search as planned; the campaign, and whether Ctrl-C ended it."""
    campaign = LiveCampaign(session=session)
    budget = plan.budget()
    while True:
        rest = replace(plan, seed=plan.seed + len(campaign.tally.flaky), seconds=budget.rest)
        try:
            return campaign, hunt(campaign, rest, lambda: on_progress(campaign), on_found)
        except (NotReproducibleError, Flaky) as error:
            campaign.tally.flaky.append(_first_line(error))
            if not budget.in_time():
                return campaign, False
