"""What the scout executes beside Hypothesis: `python -m bench.scout [--revision R]`.

In turns, both engines search the same revision for nothing (every violation counts as known), each with examples enough
for a second or more.  Prints examples and steps a second of CPU time, and the scout's steps as a multiple.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from statistics import median

from bench.model import ContentCampaign
from xfdfuzz.engines.search.hunt import KINDS, imports_out_of_the_collectors_way
from xfdfuzz.engines.search.plan import STEPS, Budget, Spent
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.invariants.loading import load
from xfdfuzz.revisions import Revision, resolve


def searched(engine: str, revision: Revision, seed: int, examples: int) -> tuple[Stats, float]:
    """What was executed, in how many CPU seconds."""
    campaign = ContentCampaign(revision=revision)
    budget = Budget(examples=examples, clock=time.process_time)
    with (
        suppress(Spent),
        imports_out_of_the_collectors_way(),
        campaign.after_each_example(budget.spend_example),
    ):
        KINDS[engine](campaign, seed, STEPS).find()
    return campaign.stats, budget.elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="v7.3")
    parser.add_argument("--examples", type=int, default=200, help="Hypothesis'; the scout gets ten times as many")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    load()
    revision = resolve(options.revision)
    ratios = []
    for seed in range(options.runs):
        rates = []
        for engine, examples in (("hypothesis", options.examples), ("scout", 10 * options.examples)):
            stats, seconds = searched(engine, revision, seed, examples)
            rates.append(stats.steps / seconds)
            print(f"seed {seed}: {engine}: {stats.examples / seconds:.0f} examples/s, {rates[-1]:.0f} steps/s")
        ratios.append(rates[1] / rates[0])
    print(f"the scout's steps/s are {median(ratios):.1f} times Hypothesis' (median)")


if __name__ == "__main__":
    main()
