"""What minimising takes and brings: `python -m bench.minimise [--revision R]... [--seeds N] [--examples N]`.

Searches each revision with several seeds and minimises again what the campaigns gave to minimise().  Prints for each
revision: CPU milliseconds and candidates a finding, ops before and after, and how often a seed that came across a
bucket again ended at a program that another seed had; and of how many buckets that several seeds met all of them did.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean
from typing import NamedTuple

from xfdfuzz.engines.judge.minimise import Shows, reduce
from xfdfuzz.engines.search.hunt import KINDS, discoveries
from xfdfuzz.engines.search.plan import STEPS, Budget, Spent
from xfdfuzz.engines.search.violations import ViolationCampaign
from xfdfuzz.invariants.loading import load
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision, resolve


class Given(NamedTuple):
    program: Program
    bucket: str


@dataclass(kw_only=True)
class Noting(ViolationCampaign):
    """A campaign that notes what it gives to minimise()."""

    given: list[Given] = field(default_factory=list)

    def minimise(self, program: Program, bucket: str) -> Program:
        self.given.append(Given(program, bucket))
        return super().minimise(program, bucket)


class Measured(NamedTuple):
    bucket: str
    seconds: float
    candidates: int
    before: int
    after: Program


def given(revision: Revision, seed: int, examples: int) -> list[Given]:
    campaign = Noting(revision=revision)
    budget = Budget(examples=examples)
    engine = KINDS["both"](campaign, seed, STEPS)
    try:
        with campaign.after_each_example(budget.spend_example):
            while True:
                list(discoveries(campaign, engine))
    except Spent:
        return campaign.given


def measured(revision: Revision, findings: list[Given]) -> Iterator[Measured]:
    for program, bucket in findings:
        shows, candidates = Shows(revision, bucket), 0

        def still(candidate: Program, shows: Shows = shows) -> bool:
            nonlocal candidates
            candidates += 1
            return shows(candidate)

        began = time.process_time()
        small = reduce(program, still)
        yield Measured(bucket, time.process_time() - began, candidates, len(program.ops), small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=2000)
    options = parser.parse_args()
    load()
    for name in options.revision or ["amx-v1", "v5.17"]:
        revision = resolve(name)
        findings = [one for seed in range(options.seeds) for one in given(revision, seed, options.examples)]
        rows = [*measured(revision, findings)]
        ends: dict[str, list[Program]] = defaultdict(list)
        for row in rows:
            ends[row.bucket].append(row.after)
        again = sum(len(programs) - 1 for programs in ends.values())
        same = sum(len(programs) - len(set(programs)) for programs in ends.values())
        met = [programs for programs in ends.values() if len(programs) > 1]
        one = sum(len(set(programs)) == 1 for programs in met)
        print(
            f"{name}: {len(rows)} findings, {mean(row.seconds for row in rows) * 1000:.1f} ms, "
            f"{mean(row.candidates for row in rows):.0f} candidates, "
            f"{mean(row.before for row in rows):.2f} ops before, "
            f"{mean(len(row.after.ops) for row in rows):.2f} after, {same} of {again} the same as another seed's, "
            f"{one} of {len(met)} buckets one program"
        )


if __name__ == "__main__":
    main()
