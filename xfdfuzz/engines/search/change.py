"""What a change breaks: one revision searched for violations that the one it stands on does not have as well."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.minimise import Shows, reduce, with_results
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.processes.workers import invariant_files, load_invariants
from xfdfuzz.engines.search.campaign import Discovery
from xfdfuzz.engines.search.database import Database
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.violations import JudgedRun, ViolationCampaign, search_violations
from xfdfuzz.engines.stream.events import Listener, unheard
from xfdfuzz.engines.stream.known import Known
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.revisions import Revision, resolve


@dataclass(kw_only=True)
class ChangeCampaign(ViolationCampaign):
    """One revision under test.  A violation is news where the op that shows it happens on ``base`` too, and the program
    does not break the bucket there.

    So a bucket that the base has hides nothing of what the change does to other programs, and one that the base would
    show if its program had come so far is not the change's.
    """

    base: Revision
    _shows: dict[str, Shows] = field(default_factory=dict, init=False, repr=False)

    def start(self, machine: Machine) -> ChangeRun:
        """Boot the revision."""
        return ChangeRun(self, machine)

    def shown(self, program: Program) -> tuple[Violation, ...]:
        """What it violates on the revision alone, in order."""
        below = judge(program, self.base, expectations=False)
        happened = [judged.step is None or judged.step.result.ret != NOT_ENABLED for judged in below.trace]
        return tuple(
            found
            for judged, comparable in zip(
                judge(program, self.revision, expectations=False).trace, happened, strict=False
            )
            for found in judged.violations
            if comparable and found.bucket not in below.buckets
        )

    def minimise(self, program: Program, key: str) -> Program:
        """The plainest program that still violates it on the revision alone."""
        shows = Shows(self.revision, key)

        def still(one: Program) -> bool:
            return self.in_time() and shows(one) and self.alone(self._written(one), key)

        return self._written(reduce(program, still))

    def _written(self, program: Program) -> Program:
        """With its results, so without the ops that do not happen, which may happen on the base and matter there."""
        return with_results(program, judge(program, self.revision, expectations=False).results)

    def alone(self, program: Program, key: str) -> bool:
        """Whether the program violates that bucket, or kind, on the revision alone; mostly it does on the base, which
        is seen soon."""
        if key not in self._shows:
            self._shows[key] = Shows(self.base, key)
        if self._shows[key](program):
            return False
        return any(key in (found.bucket, found.kind) for found in self.shown(program))


class ChangeRun(JudgedRun):
    """One example: what is broken is held against what the same ops break on the base."""

    campaign: ChangeCampaign

    def judge(self, found: Iterable[Discovery]) -> None:
        """As for any run, without what is new but not the change's."""
        campaign = self.campaign
        super().judge(
            one for one in found if not campaign.is_new(one) or campaign.alone(self.program(), campaign.key(one))
        )


def fuzz_change(
    revision: Revision,
    base: Revision,
    plan: Plan,
    known: Known | Collection[str] = (),
    tell: Listener = unheard,
    databases: Sequence[Database] = (),
) -> Report[Finding]:
    """Search a revision for what ``base`` does not violate; all else is as in :func:`~.violations.fuzz`."""
    load()
    known = Known.of(known)
    campaign = ChangeCampaign(revision=revision, base=base, known=set(known.keys), by_shape=known.replayed)
    recipe = partial(campaign_on_change, revision.address, base.address, invariant_files(), known.replayed)
    return search_violations(campaign, recipe, plan, tell, databases, known)


def campaign_on_change(address: str, base: str, invariants: tuple[str, ...], by_shape: bool = False) -> ChangeCampaign:
    """A campaign on the revision with that address, in whatever process; ``invariants`` are the users' files."""
    load_invariants(invariants)
    return ChangeCampaign(revision=resolve(address), base=resolve(base), by_shape=by_shape)
