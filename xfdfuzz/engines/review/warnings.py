"""Can this WARN fire?  Asked of every one at once, in scopes that are exhausted and in the fuzzer's programs."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from xfdfuzz.engines.explore.exploration import begin
from xfdfuzz.engines.explore.search import Search
from xfdfuzz.engines.review.cases import Cases
from xfdfuzz.engines.review.lookout import Sight, look_out
from xfdfuzz.engines.review.sites import Sightings, Site, noting, sites, sources
from xfdfuzz.engines.review.space import Space, end_if_interrupted, in_shares, others, walk, way
from xfdfuzz.engines.review.survival import Break, Checked, broken_by
from xfdfuzz.engines.search.hunt import Shrunk
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.memory.traced import Footprint
from xfdfuzz.program.step import Step
from xfdfuzz.revisions import Revision
from xfdfuzz.revisions.sources import Source


@dataclass(frozen=True)
class Verdict:
    """What is known of a site: what makes it fire, if anything does; whether it was ``reached``, None where the model
    does not tell."""

    site: Site
    source: Source | None
    fires: Break | None
    reached: bool | None


@dataclass(frozen=True)
class Warnings:
    """All of them, and where was looked until the end, or until an interrupt."""

    revision: Revision
    verdicts: tuple[Verdict, ...]
    checked: tuple[Checked, ...]
    seconds: float
    interrupted: bool


def warnings(
    revision: Revision,
    plan: Plan,
    first: str | Space = "tiny",
    *,
    elsewhere: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda what: None,
) -> Warnings:
    """Look for each: in the scope ``first`` whatever that takes, or in one that was explored, ``elsewhere`` in half of
    the plan's time, in all other scopes if none is named, and by the fuzzer in the other half.

    Ctrl-C ends it with what there is.
    """
    inquiry = _Inquiry(revision)
    try:
        _look_everywhere(inquiry, plan, first, elsewhere, tell)
    except KeyboardInterrupt:
        return inquiry.result(interrupted=True)
    return inquiry.result()


def warnings_met(space: Space) -> Warnings:
    """What the states show that were explored before an interrupt."""
    inquiry = _Inquiry(space.revision)
    inquiry.look(space)
    return inquiry.result(interrupted=True)


def _look_everywhere(
    inquiry: _Inquiry,
    plan: Plan,
    first: str | Space,
    elsewhere: Sequence[str] | None,
    tell: Callable[[str], None],
) -> None:
    half = replace(plan, seconds=plan.seconds and plan.seconds / 2)
    if isinstance(first, Space):
        inquiry.look(first)
        first = first.scope.name
    else:
        tell(f"exploring {first}")
        inquiry.explore(first, None)
    for name, share in in_shares(others(first, elsewhere), half.seconds):
        tell(f"exploring {name}")
        inquiry.explore(name, share)
    tell("looking for programs")
    inquiry.fuzz(half)


class _Inquiry:
    """What was found so far."""

    def __init__(self, revision: Revision) -> None:
        self._revision, self._began = revision, time.monotonic()
        self._sightings = Sightings(sites(revision))
        self._kernel = noting(revision.kernel, self._sightings)
        self._fires: dict[Site, Break] = {}
        self._checked: list[Checked] = []

    def explore(self, name: str, seconds: float | None) -> None:
        """Everything that a scope allows, or what there is time for."""
        search = begin(self._revision, name)
        watch = _Watch(search, self._kernel(search.expander.scope.machine), self._sightings)
        walk(search, watch, seconds)
        self._note(watch, search)
        end_if_interrupted(search)

    def look(self, space: Space) -> None:
        """Everything that was explored of a scope."""
        watch = _Watch(space.search, self._kernel(space.scope.machine), self._sightings)
        for number in range(len(space.states)):
            watch.state(number, space.states[number])
        self._note(watch, space.search)

    def _note(self, watch: _Watch, search: Search) -> None:
        name = search.expander.scope.name
        for site, (state, op) in watch.found.items():
            if site not in self._fires:
                self._fires[site] = broken_by(name, way(search, state, op), self._revision)
        self._checked.append(Checked(name, len(search.store), search.exhausted))

    def fuzz(self, plan: Plan) -> None:
        """Programs of the fuzzer, for those that have not fired."""
        open_sites = {str(number): site for number, site in enumerate(self._sightings.sites) if site not in self._fires}
        names = {site: name for name, site in open_sites.items()}

        def look(kernel: Kernel, step: Step) -> Iterator[Sight]:
            fired = sorted(names[site] for site in self._sightings.fired if site in names)
            self._sightings.fired.clear()
            yield from (Sight(name, str(open_sites[name])) for name in fired)

        def seen(shrunk: Shrunk[Sight]) -> None:
            site = open_sites[shrunk.discovery.bucket]
            self._fires[site] = broken_by("fuzz", shrunk.program, self._revision)

        self._sightings.fired.clear()
        looked = look_out(self._kernel, look, plan, seen)
        self._checked.append(Checked("fuzz", looked.stats.steps))
        looked.end_if_interrupted()

    def result(self, *, interrupted: bool = False) -> Warnings:
        """What is known in the end."""
        where, reached = sources(self._revision, self._sightings.sites), self._sightings.reached
        verdicts = [
            Verdict(site, where.get(site), self._fires.get(site), site in reached if site.tells else None)
            for site in self._sightings.sites
        ]
        seconds = time.monotonic() - self._began
        return Warnings(self._revision, tuple(verdicts), tuple(self._checked), seconds, interrupted)


class _Watch:
    """Executes every case of what a search meets on a kernel that tells of its sites."""

    def __init__(self, search: Search, kernel: Kernel, sightings: Sightings) -> None:
        size: int = ctypes.sizeof(st.System)  # type: ignore[arg-type]
        self._sightings = sightings
        self._cases = Cases(search.expander, kernel, Footprint(size), after=self._executed)
        self.found: dict[Site, tuple[int, int]] = {}
        sightings.fired.clear()
        self.state(0, search.expander.first)

    def state(self, number: int, packed: bytes) -> None:
        """A state was met."""
        self._cases.look(number, packed)

    def arc(self, source: int, op: int, ret: int | str, target: int) -> None:
        """What an op leads to is a state, or known."""

    def _executed(self, state: int, op: int) -> None:
        for site in self._sightings.fired:
            self.found.setdefault(site, (state, op))
        self._sightings.fired.clear()
