"""What a worker and the one that coordinates it tell each other, in bytes and in the latter's time (docs/scale.md)."""

from __future__ import annotations

import argparse
import pickle
import time
from functools import partial

from xfdfuzz.engines.search.parallel import Gain, Share, take
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.reached import Reached
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.search.violations import campaign_on

#: Seconds of a share.
SECONDS = 5.0
MERGES = 1_000


def main() -> None:
    """Let this process do a few shares."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--revision", default="v7.3-cured")
    parser.add_argument("--shares", type=int, default=4)
    args = parser.parse_args()
    recipe = partial(campaign_on, args.revision, ())
    reached = Reached()
    for number in range(1, args.shares + 1):
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
