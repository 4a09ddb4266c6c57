"""Guards what xfdfuzz.engines.search.hypothesis_machine relies on inside Hypothesis."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, RuleStrategy, initialize, rule, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy, integers

from xfdfuzz.engines.search.hypothesis_machine import every_example_anew
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import fuzz
from xfdfuzz.revisions import resolve


def test_a_machine_chooses_its_rules_through_the_attribute_that_is_replaced() -> None:
    drawn: list[str] = []

    class OnlyB(SearchStrategy[Any]):
        def __init__(self, machine: Any) -> None:
            super().__init__()
            self.rules = {r.function.__name__: r for r in machine.rules}

        def do_draw(self, data: Any) -> Any:
            chosen = self.rules["b"]
            assert data.draw_integer(0, 3) in range(4)
            return chosen, {name: data.draw(strategy) for name, strategy in chosen.arguments_strategies.items()}

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            assert isinstance(self._rules_strategy, RuleStrategy)
            self._rules_strategy = OnlyB(self)  # type: ignore[assignment]

        @rule()
        def a(self) -> None:
            drawn.append("a")

        @rule(n=integers(0, 9))
        def b(self, n: int) -> None:
            drawn.append(f"b{n}")

    quick = settings(max_examples=5, database=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Machine, settings=quick)
    assert drawn
    assert "a" not in drawn


def test_every_example_is_drawn_anew() -> None:
    """Left alone, Hypothesis makes examples from each other, which then begin alike."""
    begun: list[int] = []

    class Machine(RuleBasedStateMachine):
        @initialize(first=integers(0, 1 << 60))
        def begin(self, first: int) -> None:
            begun.append(first)

        @rule(n=integers(0, 9))
        def go_on(self, n: int) -> None:
            pass

    many = settings(max_examples=300, stateful_step_count=3, database=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Machine, settings=many)
    alike = len(begun) - len(set(begun))
    begun.clear()
    with every_example_anew():
        run_state_machine_as_test(Machine, settings=many)
    assert len(begun) - len(set(begun)) < alike / 4


def test_a_campaign_ends_soon_after_its_time() -> None:
    """Spent is a BaseException that Hypothesis must let through; were it swallowed, this would run for ever."""
    start = time.monotonic()
    report = fuzz(resolve("v5.16", ["063452fd94d1"]), Plan(seed=1, engine="hypothesis", seconds=1))
    assert not report.interrupted
    assert report.stats.examples
    assert time.monotonic() - start < 60
