"""How much of a fuzz campaign's CPU time the model and the invariants take: `python -m bench.campaign_share`.

Runs three campaigns with different seeds and prints, of the process' CPU time, the share of the model (executing ops),
of the invariants (judging steps) and of everything else, which is Hypothesis and the rules around it.
"""

from __future__ import annotations

import argparse
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from xfdfuzz.engines.fuzz import JudgedRun, fuzz
from xfdfuzz.engines.replay import judge
from xfdfuzz.invariants.checker import Checker
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import Revision, resolve


class Stopwatch:
    """Accumulates the CPU time spent in a method that it replaces, less what looking at the clock takes.

    What another stopwatch measures inside counts there alone.
    """

    _running: ClassVar[list[Stopwatch]] = []

    def __init__(self, owner: type, name: str) -> None:
        self.seconds = 0.0
        self._looking = min(timeit.repeat(time.process_time, number=10_000)) / 10_000
        self._original: Callable[..., Any] = getattr(owner, name)
        setattr(owner, name, self._timed())

    def _timed(self) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._running.append(self)
            start = time.process_time()
            try:
                return self._original(*args, **kwargs)
            finally:
                spent = time.process_time() - start
                self._running.pop()
                self.seconds += spent - self._looking
                if self._running:
                    self._running[-1].seconds -= spent + self._looking

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="v5.16")
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    model, boot = Stopwatch(Executor, "execute"), Stopwatch(JudgedRun, "__init__")
    check, end = Stopwatch(Checker, "check"), Stopwatch(Checker, "finish")
    revision = resolve(options.revision, _fixes(options.revision))
    known = _known(revision)
    for number in range(options.runs):
        model.seconds = boot.seconds = check.seconds = end.seconds = 0.0
        start = time.process_time()
        report = fuzz(revision, seed=number, examples=options.examples, known=known)
        total = time.process_time() - start
        ours = model.seconds + boot.seconds + check.seconds + end.seconds
        print(
            f"run {number + 1}: {report.stats.steps} steps in {total:.1f} s CPU; model {model.seconds / total:.1%}, "
            f"boot {boot.seconds / total:.1%}, invariants {check.seconds / total:.1%}, at the end "
            f"{end.seconds / total:.1%}, together {ours / total:.1%}; "
            f"{ours / report.stats.steps * 1e6:.1f} us a step"
        )


def _fixes(revision: str) -> list[str]:
    return ["063452fd94d1"] if revision in ("v5.16", "v5.17") else []


def _known(revision: Revision) -> set[str]:
    """What the open findings break: shrinking them again would count as the model's share."""
    programs = [parse(file.read_text()) for file in Path("corpus/open").glob("*.xfd")]
    return {bucket for program in programs for bucket in judge(program, revision, expectations=False).buckets}


if __name__ == "__main__":
    main()
