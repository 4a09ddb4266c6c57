"""What a campaign takes beside an empty machine: `python -m bench.fuzz_overhead [--revision R]`.

The same campaign runs three ways.  Once it is only watched: how many slots each rule was drawn from, and which rule
came.  Then, in turns, it is timed as `xfdfuzz fuzz` runs it and as an empty RuleBasedStateMachine with the same rules
and argument strategies, which draws the same numbers with the same seed, as often, and whose rules do nothing.  Prints
the wall-clock and the CPU time of both, and the ratios.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, NamedTuple

from hypothesis import seed as seeded
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy

from bench.model import ContentCampaign
from xfdfuzz.engines.search.hypothesis_machine import KernelMachine, every_example_anew, search_settings
from xfdfuzz.engines.search.plan import STEPS, Budget, Spent
from xfdfuzz.invariants.loading import load
from xfdfuzz.revisions import Revision, resolve


@dataclass
class Drawn:
    """A step of the watched campaign: the largest number that could be drawn, and what was drawn then.

    ``rule`` is None where Hypothesis stopped the example in the middle of the arguments.
    """

    largest: int
    arguments: list[SearchStrategy[Any]]
    rule: str | None = None


class Watched(SearchStrategy[Any]):
    """Notes what the strategy draws that it stands in for."""

    def __init__(self, strategy: SearchStrategy[Any], drawn: list[Drawn]) -> None:
        super().__init__()
        self._strategy = strategy
        self._drawn = drawn

    def do_draw(self, data: Any) -> Any:
        chosen, arguments = self._strategy.do_draw(Witness(data, self._drawn))  # type: ignore[arg-type]
        self._drawn[-1].rule = chosen.function.__name__
        return chosen, arguments


class Witness:
    """Hypothesis' data, as far as a strategy for rules uses it."""

    def __init__(self, data: Any, drawn: list[Drawn]) -> None:
        self._data = data
        self._drawn = drawn

    def draw_integer(self, low: int, high: int) -> Any:
        assert low == 0
        self._drawn.append(Drawn(high, []))
        return self._data.draw_integer(low, high)

    def draw(self, strategy: SearchStrategy[Any]) -> Any:
        self._drawn[-1].arguments.append(strategy)
        return self._data.draw(strategy)


class WatchedMachine(KernelMachine):
    """The fuzzer's machine, watched."""

    drawn: ClassVar[list[Drawn]]
    #: What Hypothesis knows of the rules, from the last machine made.
    every_rule: ClassVar[list[Any]]
    initial: ClassVar[list[Any]]

    def __init__(self) -> None:
        super().__init__()
        watched: Any = type(self)
        watched.every_rule, watched.initial = list(self.rules), list(self._initialize_rules_to_run)
        self._rules_strategy = Watched(self._rules_strategy, self.drawn)  # type: ignore[assignment]


class Replayed(SearchStrategy[Any]):
    """Draws the same numbers as the watched campaign, and finds the same rules."""

    def __init__(self, machine: RuleBasedStateMachine, drawn: Iterator[Drawn]) -> None:
        super().__init__()
        self._rules = {one.function.__name__: one for one in machine.rules}
        self._drawn = drawn

    def do_draw(self, data: Any) -> Any:
        drawn = next(self._drawn)
        data.draw_integer(0, drawn.largest)
        if drawn.rule is None:
            for strategy in drawn.arguments:
                data.draw(strategy)
        chosen = self._rules[str(drawn.rule)]
        return chosen, {name: data.draw(chosen.arguments_strategies[name]) for name in chosen.arguments}


def watched(revision: Revision, seed: int, examples: int) -> type[Any]:
    """The class of the watched machine, after its campaign."""
    machine: Any = type("Watched", (WatchedMachine,), {"campaign": ContentCampaign(revision=revision), "drawn": []})
    with machine.campaign.after_each_example(Budget(examples=examples).spend_example):
        run(machine, seed)
    return machine  # type: ignore[no-any-return]


def empty(seen: Any, examples: int) -> type[RuleBasedStateMachine]:
    """The machine whose rules do nothing."""
    drawn = iter(seen.drawn)
    budget = Budget(examples=examples)

    def __init__(self: Any) -> None:  # noqa: N807
        RuleBasedStateMachine.__init__(self)
        self._rules_strategy = Replayed(self, drawn)

    def teardown(self: Any) -> None:
        budget.spend_example()

    body: dict[str, Any] = {"__init__": __init__, "teardown": teardown, "drawn": drawn}
    kinds: list[tuple[Any, list[Any]]] = [(rule, seen.every_rule), (initialize, seen.initial)]
    for marks, rules in kinds:
        for one in rules:
            name = one.function.__name__
            body[name] = marks(**one.arguments)(_named(name))
    return type("Empty", (RuleBasedStateMachine,), body)


def _named(name: str) -> Callable[..., None]:
    def function(self: Any, **arguments: Any) -> None:
        pass

    function.__name__ = name
    return function


def run(machine: Any, seed: int) -> None:
    seeded(seed)(machine)
    with suppress(Spent), every_example_anew():
        run_state_machine_as_test(machine, settings=search_settings(STEPS))


class Took(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float


def timed(machine: Any, seed: int) -> Took:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    run(machine, seed)
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="v7.3")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    revision = resolve(options.revision)
    load()
    seen: Any = watched(revision, options.seed, options.examples)
    print(f"{options.examples} examples, {len(seen.drawn)} draws of {len(seen.every_rule)} rules")
    gc.freeze()
    ratios = []
    for number in range(options.runs):
        real: Any = type("Real", (KernelMachine,), {"campaign": ContentCampaign(revision=revision)})
        idle: Any = empty(seen, options.examples)
        with real.campaign.after_each_example(Budget(examples=options.examples).spend_example):
            ours = timed(real, options.seed)
        bare = timed(idle, options.seed)
        if next(idle.drawn, None) is not None:
            raise SystemExit("the empty machine did not draw all that the watched one drew")
        steps = real.campaign.stats.steps
        ratios.append((ours.wall / bare.wall, ours.cpu / bare.cpu))
        print(
            f"run {number + 1}: {steps} steps in {ours.wall:.2f} s ({ours.cpu:.2f} s CPU), empty {bare.wall:.2f} s "
            f"({bare.cpu:.2f} s CPU): {ratios[-1][0]:.2f} times, {ratios[-1][1]:.2f} times the CPU time"
        )
    walls, cpus = zip(*ratios, strict=True)
    print(f"median: {median(walls):.2f} times, {median(cpus):.2f} times the CPU time")


if __name__ == "__main__":
    main()
