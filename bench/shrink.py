"""What a shrunk program costs, through Hypothesis and on the program itself: `python -m bench.shrink`.

For each seed the same first violation is found twice; once Hypothesis shrinks it, once engines.minimise does.  Prints
seconds and the length of the results.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

from hypothesis import Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from xfdfuzz.engines.campaign import NewsFound
from xfdfuzz.engines.fuzz import ViolationCampaign
from xfdfuzz.engines.hunt import STEPS
from xfdfuzz.engines.machine import machine_for, search_settings
from xfdfuzz.engines.minimise import minimise
from xfdfuzz.invariants.loading import load
from xfdfuzz.revisions import Revision, resolve


def first_violation(
    revision: Revision, known: set[str], seed: int, phases: tuple[Phase, ...]
) -> tuple[NewsFound, float]:
    campaign = ViolationCampaign(revision=revision, known=set(known))
    machine = machine_for(campaign)
    seeded(seed)(machine)
    start = time.process_time()
    try:
        with_phases = settings(search_settings(STEPS), phases=phases)
        run_state_machine_as_test(machine, settings=with_phases)
    except NewsFound as found:
        return found, time.process_time() - start
    raise SystemExit("nothing found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    load()
    revision = resolve("amx-v1")
    known = {"permission-only-grows@guest", "permission-only-grows@host", "permission-request-truthful@task"}
    through, directly = [], []
    for seed in range(options.seeds):
        found, finding = first_violation(revision, known, seed, (Phase.generate,))
        start = time.process_time()
        program = minimise(found.program, revision, found.news.bucket)
        minimising = time.process_time() - start
        shrunk, both = first_violation(revision, known, seed, (Phase.generate, Phase.shrink))
        through.append(both - finding)
        directly.append(minimising)
        print(
            f"seed {seed}: {found.news.bucket}, {len(found.program.ops)} ops; "
            f"Hypothesis {both - finding:.2f} s to {len(shrunk.program.ops)} ops, "
            f"minimise {minimising:.2f} s to {len(program.ops)} ops"
        )
    print(f"median: Hypothesis {median(through):.2f} s, minimise {median(directly):.2f} s")


if __name__ == "__main__":
    main()
