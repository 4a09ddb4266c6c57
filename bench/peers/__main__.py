"""amx-v1's reallocation request in SPIN and in `xfdfuzz explore`, side by side: `python -m bench.peers`.

Checks that both have the same model, then runs them by turns and prints what each took, medians of all rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers import agreement, spin
from xfdfuzz.cli.arguments import positive

_ROOT = Path(__file__).parents[2]
DISAGREE, NOT_HERE = 1, 4

#: A pan takes milliseconds, so each round has that many; the wide one has a hash table for a million states.
_PANS, _WIDE_HASH = 20, 21


def explored(revision: str, *options: str) -> dict[str, Any]:
    """What an explorer in a fresh process says."""
    run = spin.timed([sys.executable, "-m", "bench.peers.explorer", revision, *options], _ROOT)
    data: dict[str, Any] = json.loads(run.output.splitlines()[-1])
    return data


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5)
    options = parser.parse_args(argv)
    tool = spin.missing()
    if tool:
        print(f"bench.peers: {tool} is not here: install {' and '.join(spin.TOOLS)}", file=sys.stderr)
        return NOT_HERE
    with tempfile.TemporaryDirectory() as name:
        try:
            _agree(Path(name))
        except agreement.DisagreementError as error:
            print(f"bench.peers: {error}", file=sys.stderr)
            return DISAGREE
        _compare(Path(name), options.rounds)
    return 0


def _agree(directory: Path) -> None:
    for revision in spin.DEFINES:
        print(f"{revision}:")
        runs = agreement.Explored(explored(revision, "--no-pruning"), explored(revision))
        for line in agreement.compare(directory, revision, runs):
            print(f"  {line}", flush=True)


def _compare(directory: Path, rounds: int) -> None:
    exhaustive = spin.verifier(directory, "exhaustive", [], ["-DSAFETY"])
    wide = spin.verifier(directory, "wide", ["-DWIDE"], ["-DSAFETY"])
    runs: list[spin.Run] = []
    starts: list[spin.Run] = []
    wides: list[spin.Run] = []
    reduced: list[dict[str, Any]] = []
    unpruned: list[dict[str, Any]] = []
    for _ in range(rounds):
        for _ in range(_PANS):
            runs.append(exhaustive.run())
            starts.append(exhaustive.run("-m1"))
        wides.append(wide.run("-m100000", slots=_WIDE_HASH))
        reduced.append(explored("amx-v1"))
        unpruned.append(explored("amx-v1", "--no-pruning"))
    print(f"\n{'amx-v1, exhausted':42}{'states':>9}{'transitions':>13}{'seconds':>10}{'per second':>12}{'MB':>8}")
    # what the search itself takes: a run, less one that ends at depth 1
    _spin_row("SPIN", runs, median(run.seconds for run in starts))
    _spin_row("  counting KVM_RUNs", wides)
    _explore_row("explore", reduced)
    _explore_row("  going on after corruption and leaks", unpruned)
    _explore_row("  --no-reduction (one run)", [explored("amx-v1", "--no-reduction")])


def _spin_row(name: str, runs: Sequence[spin.Run], start: float = 0.0) -> None:
    run, seconds = runs[0], median(run.seconds for run in runs) - start
    _row(name, run.states, run.transitions, seconds, run.megabytes)


def _explore_row(name: str, runs: Sequence[dict[str, Any]]) -> None:
    seconds, megabytes = (float(median(run[key] for run in runs)) for key in ("seconds", "megabytes"))
    _row(name, runs[0]["states"], runs[0]["transitions"], seconds, megabytes)


def _row(name: str, states: int, transitions: int, seconds: float, megabytes: float) -> None:
    rate = f"{transitions / seconds:,.0f}" if seconds > 0 else "-"
    print(f"{name:42}{states:9,}{transitions:13,}{seconds:10.4f}{rate:>12}{megabytes:8.1f}")


if __name__ == "__main__":
    sys.exit(main())
