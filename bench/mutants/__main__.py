"""Whether `xfdfuzz conform tests/traces` notices mistakes in the model: `python -m bench.mutants`, ten minutes or so.

Each mutant is a function of the model with one mistake in one line.  Prints those that change a result and are not
noticed, and how many came to what (docs/conform.md); exit code 1 where less than 90 % were noticed.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.mutants.recordings import (
    BROKEN,
    NOT_REACHED,
    NOTICED,
    OUTCOMES,
    SURVIVES,
    known_on,
    learn,
    shown_by,
)
from bench.mutants.source import Mutant, Source
from xfdfuzz.cli.arguments import natural, positive, seconds
from xfdfuzz.invariants.loading import load_once

TRACES = Path(__file__).parents[2] / "tests" / "traces"
#: The FPU core and KVM's FPU path, and what changed them in the recorded kernels.
MODULES = (
    *(f"kernel.fpu.{name}" for name in ("core", "guest", "init", "regset", "signal", "xstate")),
    *(f"kernel.kvm.{name}" for name in ("cpuid", "msrs", "x86", "xsave")),
    *("revisions.amx_series", "revisions.amx_v6"),
    *(f"revisions.mainline.{name}" for name in ("cpuid", "features", "guest_fpu", "host", "kvm", "permissions")),
    *(f"revisions.mainline.{name}" for name in ("pkru", "sigframe", "uabi", "user_xfeatures")),
)
#: Of the mutants that change a result.
GOAL = 0.9


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    end = time.monotonic() + args.time
    load_once()
    sources = [Source(importlib.import_module(f"xfdfuzz.{name}")) for name in args.module or MODULES]
    recordings = list(learn(sorted(args.traces.rglob("*.jsonl")), [source.file for source in sources]))
    for known in recordings:
        known_on(known.revision)
    counts: Counter[str] = Counter()
    for source, mutant in _in_turn(sources, args.seed):
        if time.monotonic() > end or counts.total() - counts[NOT_REACHED] == args.number:
            break
        with source.executing(mutant):
            shown = shown_by(recordings, mutant)
        counts[shown.outcome] += 1
        if args.all or shown.outcome == SURVIVES:
            print(f"{shown.outcome:36} {mutant.text}  ({shown.where})", flush=True)
    return _told(counts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--module", action="append", metavar="NAME", help="below xfdfuzz, such as kernel.fpu.core; repeatable")
    add(
        "--number",
        type=positive,
        default=500,
        metavar="N",
        help="so many that are executed, and of each function as many as of others (default: 500)",
    )
    add("--seed", type=natural, default=0, metavar="N", help="which ones are drawn (default: 0)")
    add("--time", type=seconds, default=900.0, metavar="SECONDS", help="until then (default: 900)")
    add("--traces", type=Path, default=TRACES, metavar="DIR", help="the recordings (default: those of the project)")
    add("--all", action="store_true", help="print every mutant")
    return parser


def _in_turn(sources: Sequence[Source], seed: int) -> Iterator[tuple[Source, Mutant]]:
    """One of each function, then another one of each that has more, and so on."""
    every = [(source, place) for source in sources for place in range(len(source.places))]
    random.Random(seed).shuffle(every)
    of_function: Counter[tuple[str, str]] = Counter()
    rounds = []
    for source, place in every:
        function = (source.module, source.places[place])
        rounds.append((of_function[function], source, place))
        of_function[function] += 1
    print(f"{len(every)} mutants of {len(of_function)} functions")
    for _, source, place in sorted(rounds, key=lambda mutant: mutant[0]):
        mutant = source.mutant(place)
        if mutant is not None:
            yield source, mutant


def _told(counts: Counter[str]) -> int:
    """Print what all came to; the exit code."""
    for outcome in OUTCOMES:
        print(f"{counts[outcome]:5} {outcome}")
    noticed = counts[NOTICED] + counts[BROKEN]
    changing = noticed + counts[SURVIVES]
    print(f"{noticed} of {changing} that change a result were noticed")
    return 0 if noticed >= GOAL * changing else 1


if __name__ == "__main__":
    sys.exit(main())
