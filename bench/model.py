"""What a step costs: `python -m bench.model [--revision R]`.

Executes a fixed set of programs several times: every program of the corpus, and what a fuzz campaign with a fixed seed
generates (the same rules, weights and boot sequences as `xfdfuzz fuzz`).  Of each step the quickest time counts, of the
model (`Executor.execute`) and of the invariants (`Checker.check`) each, so other work on the machine hardly matters.
Prints the mean by op, the ops that take most of the time first, and the mean of all steps.
"""

from __future__ import annotations

import argparse
import gc
import timeit
from collections import defaultdict
from pathlib import Path
from time import perf_counter_ns

from xfdfuzz.engines.search.campaign import Discovery
from xfdfuzz.engines.search.hunt import hunt
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import JudgedRun, ViolationCampaign
from xfdfuzz.invariants.checker import Checker
from xfdfuzz.invariants.loading import load
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import Revision, resolve

#: Run from the root of the project.
CORPUS = Path("corpus")


class ContentCampaign(ViolationCampaign):
    """A campaign that takes nothing for new, and so never stops an example before its end."""

    def is_new(self, found: Discovery) -> bool:
        return False


class RecordingRun(JudgedRun):
    """A run that keeps its program when it ends."""

    campaign: RecordingCampaign

    def finish(self) -> None:
        self.campaign.programs.append(Program(self.machine, tuple(self.ops)))
        super().finish()


class RecordingCampaign(ContentCampaign):
    """A campaign that keeps every program."""

    def __init__(self, revision: Revision) -> None:
        super().__init__(revision=revision)
        self.programs: list[Program] = []

    def start(self, machine: Machine) -> RecordingRun:
        return RecordingRun(self, machine)


def generated(revision: Revision, seed: int, examples: int) -> list[Program]:
    """The programs of a campaign."""
    campaign = RecordingCampaign(revision)
    plan = Plan(seed, "hypothesis", examples=examples)
    hunt(campaign, plan, on_progress=lambda: None, on_discovery=lambda shrunk: None)
    return campaign.programs


def corpus() -> list[Program]:
    """Every program of the corpus."""
    return [parse(file.read_text()) for file in sorted(CORPUS.rglob("*.xfd"))]


#: Of each step of a program: its op's name, ns of the model, ns of the invariants.
Times = list[tuple[str, int, int]]


def run(program: Program, revision: Revision) -> Times:
    """Execute and judge it, and take the time of every step that happens."""
    executor = Executor(revision.kernel, program.machine)
    checker = Checker(executor.kernel, revision.name)
    times = []
    for op in program.ops:
        start = perf_counter_ns()
        step = executor.execute(op)
        executed = perf_counter_ns()
        checker.check(step)
        judged = perf_counter_ns()
        if step.result.ret != NOT_ENABLED:
            times.append((type(op).__name__, executed - start, judged - executed))
    return times


def quickest(programs: list[Program], revision: Revision, repeats: int) -> Times:
    """The quickest of several times for each step, less what looking at the clock takes."""
    looking = round(min(timeit.repeat(perf_counter_ns, number=10_000)) / 10_000 * 1e9)
    # all programs, then all again: what disturbs for a while does not disturb every time
    runs = [[time for program in programs for time in run(program, revision)] for _ in range(repeats)]
    found: Times = []
    for same_step in zip(*runs, strict=True):
        names, models, invariants = zip(*same_step, strict=True)
        found.append((names[0], min(models) - looking, min(invariants) - looking))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="v7.3")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=100, help="how many programs the fuzzer generates")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--top", type=int, default=20, help="how many ops to print")
    options = parser.parse_args()
    revision = resolve(options.revision)
    load()
    sets = {"corpus": corpus(), "fuzz": generated(revision, options.seed, options.examples)}
    gc.freeze()
    all_times: Times = []
    for name, programs in sets.items():
        times = quickest(programs, revision, options.repeats)
        print(f"{name}: {len(programs)} programs, {_mean(times)}")
        all_times += times
    print(f"all: {_mean(all_times)}\n")
    _print_by_op(all_times, options.top)


def _mean(times: Times) -> str:
    model, invariants = sum(time[1] for time in times), sum(time[2] for time in times)
    count = len(times) * 1000
    return (
        f"{len(times)} steps, model {model / count:.2f} us, invariants {invariants / count:.2f} us, "
        f"together {(model + invariants) / count:.2f} us a step"
    )


def _print_by_op(times: Times, top: int) -> None:
    by_op: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for name, model, invariants in times:
        by_op[name].append((model, invariants))
    total = sum(time[1] + time[2] for time in times)
    print(f"{'op':28}{'steps':>7}{'share':>8}{'ns model':>10}{'invariants':>12}{'together':>10}")
    rows = sorted(by_op.items(), key=lambda row: -sum(map(sum, row[1])))
    for name, spent in rows[:top]:
        model, invariants = (sum(part) / len(spent) for part in zip(*spent, strict=True))
        share = sum(map(sum, spent)) / total
        print(f"{name:28}{len(spent):7}{share:8.1%}{model:10.0f}{invariants:12.0f}{model + invariants:10.0f}")
    rest = rows[top:]
    if rest:
        share = sum(sum(map(sum, spent)) for _, spent in rest) / total
        print(f"{f'{len(rest)} more':28}{sum(len(spent) for _, spent in rest):7}{share:8.1%}")


if __name__ == "__main__":
    main()
