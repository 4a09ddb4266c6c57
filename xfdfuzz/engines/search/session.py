"""A whole search: made as planned, in this process or in several, and what it found confirmed by a fresh one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xfdfuzz.engines.judge.confirm import doubts
from xfdfuzz.engines.processes.workers import workers
from xfdfuzz.engines.search.campaign import Campaign
from xfdfuzz.engines.search.hunt import Shrunk, hunt
from xfdfuzz.engines.search.parallel import Recipe, hunt_together
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.report import F, Report
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.revisions import Revision


def search(
    campaign: Campaign[Any],
    plan: Plan,
    revisions: tuple[Revision, ...],
    outcome: Callable[[Shrunk[Any]], F],
    recipe: Recipe,
    on_progress: Callable[[Stats, list[F]], None],
    on_found: Callable[[F], None],
) -> Report[F]:
    """Search as planned; ``outcome`` makes of a discovery what is given to ``on_found`` at once.

    ``recipe`` makes the campaign in other processes.  Ctrl-C ends the search in an orderly way.
    """
    found: list[F] = []

    def progress() -> None:
        on_progress(campaign.stats, found)

    def discovered(shrunk: Shrunk[Any]) -> None:
        found.append(outcome(shrunk))
        on_found(found[-1])

    if plan.workers == 1:
        interrupted = hunt(campaign, plan, progress, discovered)
    else:
        with workers(plan.workers) as pool:
            interrupted = hunt_together(campaign, plan, progress, discovered, recipe=recipe, pool=pool)
    try:
        unsure = doubts([(one.bucket, one.program) for one in found], *revisions)
    except KeyboardInterrupt:
        interrupted = True
        unsure = ["interrupted before a fresh process had confirmed what was found"]
    return Report(revisions, plan, campaign.stats, tuple(found), interrupted, tuple(unsure))
