"""Fewer programs that show the same: what earlier searches of a revision saved, and what they kept to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.minimise import for_ever, minimise
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.campaign import Discovered
from xfdfuzz.engines.search.reached import Reached
from xfdfuzz.engines.search.violations import ViolationCampaign
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision

K = TypeVar("K")


class Saved(NamedTuple):
    """A program that shows a violation of this invariant, or did so once."""

    program: Program
    invariant: str


class Pruned(NamedTuple, Generic[K]):
    """``kept`` is a finding for each bucket and shape, as plain as it gets.

    ``needless`` are those that show nothing but these, ``silent`` those that do not violate their invariant any more.
    """

    kept: tuple[Finding, ...]
    needless: tuple[K, ...]
    silent: tuple[K, ...]


def prune(saved: Mapping[K, Saved], revision: Revision, in_time: Callable[[], bool] = for_ever) -> Pruned[K]:
    """Of each bucket and shape the plainest program; the shortest one is made plainer as long as it is ``in_time``."""
    shown = {key: _own(one, revision) for key, one in saved.items()}
    shortest: dict[str, Program] = {}
    for key in sorted(saved, key=lambda key: len(saved[key].program.ops)):
        for violation in shown[key]:
            shortest.setdefault(violation.kind, saved[key].program)
    kept = []
    for kind, program in sorted(shortest.items()):
        plainest = minimise(program, revision, kind, in_time)
        again = judge(plainest, revision, expectations=False).violations
        kept += [Finding(found, plainest, revision, engine="prune") for found in again if found.kind == kind][:1]
    return Pruned(
        tuple(kept),
        tuple(key for key, found in shown.items() if found),
        tuple(key for key, found in shown.items() if not found),
    )


def _own(saved: Saved, revision: Revision) -> list[Violation]:
    """What a program violates of its own invariant."""
    found = judge(saved.program, revision, expectations=False).violations
    return [violation for violation in found if violation.invariant == saved.invariant]


def needless(programs: Iterable[Program], revision: Revision) -> list[Program]:
    """Those that neither reach nor violate anything that the others, the shorter ones first, do not."""
    campaign = ViolationCampaign(revision=revision, reached=Reached(), vmms=True)
    return [program for program in sorted(programs, key=lambda one: len(one.ops)) if not _adds(campaign, program)]


def _adds(campaign: ViolationCampaign, program: Program) -> bool:
    """Whether the program shows anything new to the campaign, which knows it from then on."""
    known = len(campaign.known)
    while True:
        try:
            campaign.replay(program)
            break
        except Discovered as found:  # it comes again for what else it shows behind that
            campaign.learn([found.discovery.bucket])
    firsts = campaign.reached.take() if campaign.reached else []
    return bool(firsts) or len(campaign.known) > known
