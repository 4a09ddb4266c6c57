"""What detection is also measured with: not for campaigns, but to see what their engines are worth."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from xfdfuzz.engines.explore.exploration import begin
from xfdfuzz.engines.explore.search import Breach, Limits, Search
from xfdfuzz.engines.explore.trace import Tracer
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.processes.workers import workers
from xfdfuzz.engines.rules.selection import enabled_rules
from xfdfuzz.engines.search.genome import Gene
from xfdfuzz.engines.search.scout import Scout
from xfdfuzz.revisions import Revision
from xfdfuzz.strategies.scopes import SCOPES


class RandomWalk(Scout):
    """The scout without swarms: of the rules that are enabled, any."""

    def _any_gene(self) -> Gene:
        enabled = enabled_rules(self.now.possible)
        return self._gene(enabled[self._number(len(enabled))])


@dataclass(frozen=True)
class Exhaustion:
    """What exploring came to: CPU seconds, states, and the bucket of what it found, or nothing."""

    seconds: float
    states: int
    bucket: str


class _Counts(Exception):
    """A violation that the sound kernel does not show."""


class _OutOfTime(Exception):
    """The CPU time is used up."""


def exhaust(broken: Revision, sound: Revision, buckets: Collection[str], seconds: float) -> Exhaustion:
    """Explore one scope after the other, smallest first, until something counts, as it would for a fuzz engine."""
    began = time.process_time()
    states = 0

    def watch(search: Search) -> None:
        if time.process_time() - began >= seconds:
            raise _OutOfTime

    with workers(1, here_if_one=True) as here:
        for scope in SCOPES:
            search = begin(broken, scope)
            found: list[str] = []

            def look(breach: Breach, search: Search = search, found: list[str] = found) -> None:
                bucket = breach.violation.bucket
                if buckets and bucket not in buckets:
                    return
                program = Tracer(search.expander).program(search.store.path(breach.state), bucket, breach.op)
                if bucket not in judge(program, sound, expectations=False).buckets:
                    found.append(bucket)
                    raise _Counts

            try:
                search.run(here, Limits(), watch, look)
            except _Counts:
                return Exhaustion(time.process_time() - began, states + len(search.store), found[0])
            except _OutOfTime:
                return Exhaustion(time.process_time() - began, states + len(search.store), "")
            states += len(search.store)
    return Exhaustion(time.process_time() - began, states, "")
