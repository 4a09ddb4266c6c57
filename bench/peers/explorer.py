"""One exploration of the scope in a process of its own, as a JSON line: `python -m bench.peers.explorer REVISION`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from unittest import mock

from bench.peers import scope
from xfdfuzz.engines.explore import expand
from xfdfuzz.engines.explore.exploration import Exploration, begin, explore
from xfdfuzz.engines.explore.search import Limits
from xfdfuzz.engines.processes.workers import workers
from xfdfuzz.engines.stream.events import Event, Found
from xfdfuzz.invariants.loading import load
from xfdfuzz.revisions import resolve


def run(revision: str, *, reduced: bool = True, prune: bool = True) -> dict[str, Any]:
    """Exhaust the scope.  ``prune``: do not go on from what broke badly, as `xfdfuzz explore` does not.

    ``found`` is how many ops the program of each bucket has.
    """
    scope.register()
    load()
    found: dict[str, int] = {}

    def tell(event: Event) -> None:
        if isinstance(event, Found):
            found[event.outcome.bucket] = len(event.outcome.program.ops)

    search = begin(resolve(revision), scope.PEERS.name, reduced=reduced)
    leaves = expand.LEAF_SEVERITIES if prune else frozenset()
    with mock.patch.object(expand, "LEAF_SEVERITIES", leaves), workers(1, here_if_one=True) as pool:
        report = explore(search, pool, Limits(), tell=tell)
    return _data(report, found)


def _data(report: Exploration, found: dict[str, int]) -> dict[str, Any]:
    return {
        "states": report.states,
        "transitions": report.transitions,
        "seconds": report.seconds,
        "exhausted": report.exhausted,
        "found": found,
        "lassos": [[len(lasso.finding.program.ops), len(lasso.loop)] for lasso in report.lassos],
        "megabytes": _megabytes(),
    }


def _megabytes() -> float:
    """The peak of this program's memory; getrusage() counts what its parent had before exec as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision")
    parser.add_argument("--no-reduction", action="store_true")
    parser.add_argument("--no-pruning", action="store_true")
    options = parser.parse_args()
    print(json.dumps(run(options.revision, reduced=not options.no_reduction, prune=not options.no_pruning)))


if __name__ == "__main__":
    main()
