"""amx-v1's reallocation request in SPIN and in `xfdfuzz explore`, side by side: `python -m bench.peers`.

Checks that both have the same model, then runs them by turns and prints what each took, medians of all rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers import agreement, effort, spin
from xfdfuzz.cli.arguments import positive

_ROOT = Path(__file__).parents[2]
DISAGREE, NOT_HERE = 1, 4
#: Whose shortest programs are timed: the review's WARN, and the host's death behind 17 ops.
_TIMED = ("fpu_guest_realloc_fpstate", "fpu_swap_kvm_fpstate")

#: A pan takes milliseconds, so each round has that many; the wide one has a hash table for a million states.
_PANS, _WIDE_HASH = 20, 21


@dataclass
class Pans:
    """SPIN's verifiers and their runs."""

    exhaustive: spin.Verifier
    wide: spin.Verifier
    shortest: dict[str, spin.Verifier]
    cycle: spin.Verifier
    runs: list[spin.Run] = field(default_factory=list)
    starts: list[spin.Run] = field(default_factory=list)
    wides: list[spin.Run] = field(default_factory=list)
    found: dict[str, list[spin.Run]] = field(default_factory=lambda: {name: [] for name in (*_TIMED, "cycle")})

    @classmethod
    def make(cls, directory: Path) -> Pans:
        return cls(
            spin.verifier(directory, "exhaustive", [], ["-DSAFETY"]),
            spin.verifier(directory, "wide", ["-DWIDE"], ["-DSAFETY"]),
            {name: spin.at_site(directory, "amx-v1", name) for name in _TIMED},
            spin.verifier(directory, "cycle", [*spin.DEFINES["amx-review-a"], "-DLIVE"], []),
        )

    def round(self) -> None:
        for _ in range(_PANS):
            self.runs.append(self.exhaustive.run())
            self.starts.append(self.exhaustive.run("-m1"))
        self.wides.append(self.wide.run("-m100000", slots=_WIDE_HASH))
        for name, verifier in self.shortest.items():
            self.found[name].append(verifier.run())
        self.found["cycle"].append(self.cycle.run("-a"))

    def seconds(self) -> float:
        """What the search itself takes: a run, less one that ends at depth 1."""
        return median(run.cpu for run in self.runs) - median(run.cpu for run in self.starts)


def explored(revision: str, *options: str) -> dict[str, Any]:
    """What an explorer in a fresh process says, with what the process took."""
    began = time.time()
    run = spin.timed([sys.executable, "-m", "bench.peers.explorer", revision, *options], _ROOT)
    data: dict[str, Any] = json.loads(run.output.splitlines()[-1])
    data["found"] = {bucket: (when - began, ops) for bucket, (when, ops) in data["found"].items()}
    return {**data, "total": run.seconds}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--unreduced", action="store_true", help="one exploration without reduction, minutes")
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
        _compare(Path(name), options.rounds, options.unreduced)
    return 0


def _agree(directory: Path) -> None:
    for revision in spin.DEFINES:
        print(f"{revision}:")
        runs = agreement.Explored(explored(revision, "--no-pruning"), explored(revision))
        for line in agreement.compare(directory, revision, runs):
            print(f"  {line}", flush=True)


def _compare(directory: Path, rounds: int, unreduced: bool) -> None:
    pans = Pans.make(directory)
    ours: dict[str, list[dict[str, Any]]] = {"reduced": [], "unpruned": [], "review": []}
    for _ in range(rounds):
        pans.round()
        ours["reduced"].append(explored("amx-v1"))
        ours["unpruned"].append(explored("amx-v1", "--no-pruning"))
        ours["review"].append(explored("amx-review-a"))
    if unreduced:
        ours["unreduced"] = [explored("amx-v1", "--no-reduction")]
    _print_searches(pans, ours)
    _print_found(pans, ours)
    _print_effort()


def _print_searches(pans: Pans, ours: dict[str, list[dict[str, Any]]]) -> None:
    print(f"\n{'amx-v1, exhausted':42}{'states':>9}{'transitions':>13}{'seconds':>10}{'per second':>12}{'MB':>8}")
    run, seconds = pans.runs[0], pans.seconds()
    _row("SPIN", run.states, run.transitions, seconds, run.megabytes)
    run = pans.wides[0]
    _row("  counting KVM_RUNs", run.states, run.transitions, median(one.cpu for one in pans.wides), run.megabytes)
    names = {
        "reduced": "xfdfuzz explore",
        "unpruned": "  going on after corruption and leaks",
        "unreduced": "  --no-reduction (one run)",
    }
    for kind, name in names.items():
        if kind in ours:
            first = ours[kind][0]
            _row(name, first["states"], first["transitions"], _of(ours[kind], "seconds"), _of(ours[kind], "megabytes"))


def _row(name: str, states: int, transitions: int, seconds: float, megabytes: float) -> None:
    rate = f"{transitions / seconds:,.0f}" if seconds > 0 else "-"
    print(f"{name:42}{states:9,}{transitions:13,}{seconds:10.4f}{rate:>12}{megabytes:8.1f}")


def _of(runs: Iterable[dict[str, Any]], key: str) -> float:
    return float(median(run[key] for run in runs))


def _print_found(pans: Pans, ours: dict[str, list[dict[str, Any]]]) -> None:
    columns = ("ops", "spin -a", "gcc", "pan", "SPIN", "explore")
    print(f"\n{'seconds from the start of the command':46}" + "".join(f"{column:>9}" for column in columns))
    for name in _TIMED:
        bucket = agreement.BUCKETS[name]
        ops = ours["reduced"][0]["found"][bucket][1]
        when = median(run["found"][bucket][0] for run in ours["reduced"])
        _found(bucket, str(ops), pans.shortest[name], pans.found[name], when)
    _found("amx-review-a's cycle", "", pans.cycle, pans.found["cycle"], _of(ours["review"], "total"))


def _found(what: str, ops: str, verifier: spin.Verifier, runs: list[spin.Run], when: float) -> None:
    generating, compiling, verifying = verifier.generating, verifier.compiling, median(run.seconds for run in runs)
    whole = generating + compiling + verifying
    figures = (generating, compiling, verifying, whole, when)
    print(f"{what:46}{ops:>9}" + "".join(f"{figure:9.3f}" for figure in figures))


def _print_effort() -> None:
    lines, tracing = effort.promela()
    print(f"\nlines with code: amx_v1.pml {lines}, {tracing} of them for the comparison")
    rooms = effort.python("amx-v1")
    print("functions that exploring calls: " + ", ".join(f"{room} {count}" for room, count in sorted(rooms.items())))


if __name__ == "__main__":
    sys.exit(main())
