"""How fast the exhaustive engine is: `python -m bench.explore [--revision R]... [--scope NAME]... [--every]`.

Explores each scope of each revision to its end, in a process of its own, so that its peak memory counts.  Times are CPU
time of that one process: transitions and new states per second on one core, and what a million states take beyond what
the process has before it begins.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

from xfdfuzz.engines.explore.exploration import begin
from xfdfuzz.engines.explore.search import Limits, peak_memory
from xfdfuzz.engines.processes.workers import workers
from xfdfuzz.invariants.loading import load
from xfdfuzz.revisions import names, resolve


class Measured(NamedTuple):
    states: int
    transitions: int
    depth: int
    seconds: float
    memory: int
    exhausted: bool


def measure(revision: str, scope: str, limit: float) -> Measured:
    load()
    with workers(1, here_if_one=True) as here:
        search = begin(resolve(revision), scope)
        before, began = peak_memory(), time.process_time()
        search.run(here, Limits(seconds=limit))
        seconds = time.process_time() - began
    used = peak_memory() - before
    return Measured(len(search.store), search.transitions, search.depth, seconds, used, search.exhausted)


def line(revision: str, scope: str, found: Measured) -> str:
    rate, new = found.transitions / found.seconds, found.states / found.seconds
    per_million = found.memory / found.states * 1e6 / 2**20
    ended = "" if found.exhausted else "  (not exhausted)"
    return (
        f"{revision:14} {scope:10} {found.states:9,} {found.transitions:11,} {found.depth:6} {found.seconds:8.1f}"
        f" {rate:13,.0f} {new:9,.0f} {per_million:9.0f}{ended}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revision", action="append", default=[])
    parser.add_argument("--scope", action="append", default=[])
    parser.add_argument("--every", action="store_true", help="every named revision")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each")
    args = parser.parse_args()
    revisions = names() if args.every else args.revision or ["v7.3", "amx-v1"]
    print("revision       scope         states transitions  depth    CPU s transitions/s  states/s MB/million")
    for scope in args.scope or ["tiny", "small"]:
        for revision in revisions:
            with workers(1) as process:  # a new one for each: peak memory never goes down
                found = process.submit(measure, revision, scope, args.limit).result()
            print(line(revision, scope, found), flush=True)


if __name__ == "__main__":
    main()
