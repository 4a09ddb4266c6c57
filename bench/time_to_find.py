"""When a campaign finds what: `python -m bench.time_to_find REVISION`.

Prints a line for each finding: wall-clock seconds since the campaign began, ops of the shrunk program, bucket.  With
--until a seed's campaign ends with that bucket, and only its line is printed.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import fuzz
from xfdfuzz.engines.stream.events import Event, Found
from xfdfuzz.revisions import Revision, resolve


class Reached(Exception):
    """The bucket that was looked for, after so many seconds."""


def campaign(revision: Revision, seed: int, seconds: float, until: str | None) -> float | None:
    began = time.monotonic()

    def tell(event: Event) -> None:
        if not isinstance(event, Found):
            return
        bucket = event.outcome.bucket
        if until in (None, bucket):
            after = time.monotonic() - began
            print(f"seed {seed}: {after:5.1f} s, {len(event.outcome.program.ops):2} ops, {bucket}", flush=True)
        if bucket == until:
            raise Reached

    try:
        report = fuzz(revision, Plan(seed=seed, seconds=seconds), tell=tell)
    except Reached:
        return time.monotonic() - began
    stats = report.stats
    found = len(report.found)
    print(f"seed {seed}: {found} findings in {stats.examples} examples, {stats.steps} steps, {stats.seconds:.0f} s")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision")
    parser.add_argument("--apply", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--until", metavar="BUCKET")
    options = parser.parse_args()
    revision = resolve(options.revision, options.apply)
    times = [campaign(revision, seed, options.seconds, options.until) for seed in range(options.seeds)]
    hits = [seconds for seconds in times if seconds is not None]
    if hits:
        print(f"{len(hits)} of {len(times)} seeds: {min(hits):.1f} to {max(hits):.1f} s, median {median(hits):.1f} s")


if __name__ == "__main__":
    main()
