"""How many steps several workers make, and what it costs to coordinate them (docs/scale.md).

Steps are also given for a second of CPU time, which another user of the machine takes nothing of.
"""

from __future__ import annotations

import argparse
import pickle
import resource
import time
from functools import partial

from xfdfuzz.engines.processes.cluster import cluster
from xfdfuzz.engines.search.parallel import Gain, Share, take
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.reached import Reached
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.search.violations import campaign_on, fuzz

#: Seconds of a share.
SECONDS = 5.0
MERGES = 1_000


def main() -> None:
    """Let this process do a few shares, or some workers a campaign."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--revision", default="v7.3-cured")
    parser.add_argument("--time", type=float, default=15.0)
    parser.add_argument("--workers", type=int, help="a campaign by so many")
    parser.add_argument("--executor", help="a campaign by that cluster, dask://HOST:PORT")
    args = parser.parse_args()
    if args.workers or args.executor:
        campaign(args.revision, Plan(1, seconds=args.time, workers=args.workers or 1, executor=args.executor))
    else:
        messages(args.revision)


def campaign(revision: str, plan: Plan) -> None:
    """How many steps a campaign makes."""
    before = _cpu(plan)
    stats = fuzz(revision, plan).stats
    ours, theirs = (after - then for after, then in zip(_cpu(plan), before, strict=True))
    print(
        f"{stats.steps / stats.seconds:.0f} steps/s, {stats.steps / (ours + theirs):.0f} for a second of CPU time, "
        f"of which the coordinating process had {ours / (ours + theirs):.1%}"
    )


def _cpu(plan: Plan) -> tuple[float, float]:
    """Seconds of CPU time that this process has had, and all that work for it."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs = children.ru_utime + children.ru_stime
    if plan.executor:
        with cluster(plan.executor) as members:
            theirs += sum(member.submit(time.process_time).result() for member in members)
    return time.process_time(), theirs


def messages(revision: str) -> None:
    """What a worker and the one that coordinates it tell each other, in bytes and in the latter's time."""
    recipe = partial(campaign_on, revision, ())
    reached = Reached()
    for number in range(1, 5):
        plan = Plan(7, seconds=SECONDS, examples=2_100)
        share = Share("bench", recipe, plan, frozenset(), None, (), frozenset(reached.all))
        gain = take(share)
        plain = share._replace(reached=None), gain._replace(reached=frozenset(), firsts=())
        print(
            f"share {number}: {_size(plain[0])} bytes out, {_size(plain[1])} back; with a database "
            f"{_size(share)} and {_size(gain)}; {_milliseconds(share, gain):.2f} ms to merge"
        )
        reached.all |= gain.reached


def _size(message: Share | Gain) -> int:
    return len(pickle.dumps(message))


def _milliseconds(share: Share, gain: Gain) -> float:
    """CPU time of one who coordinates for a report and the next share."""
    report, total, began = pickle.dumps(gain), Stats(), time.process_time()
    for _ in range(MERGES):
        total.add(pickle.loads(report).stats)
        _ = total.pairs
        pickle.dumps(share)
    return (time.process_time() - began) / MERGES * 1_000


if __name__ == "__main__":
    main()
