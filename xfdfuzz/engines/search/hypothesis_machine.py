"""The Hypothesis state machine: the front end for pytest, and one of the engines that search.

This module is the only one that relies on how Hypothesis works inside; tests/test_hypothesis_machine.py notices when
that changes.

* Hypothesis evaluates the preconditions of all rules at every step and draws a flag for each; with one rule per op that
  costs more than everything else together.  So ``RuleBasedStateMachine._rules_strategy``, a strategy that gives (rule,
  arguments), is replaced by one that draws a number among the slots of the enabled ones (engines/rules/selection.py).
* Every program is drawn anew, not made from the one before: ``ConjectureRunner.generate_mutations_from()`` is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy

from xfdfuzz.engines.rules import RULES, EveryRule, Rule
from xfdfuzz.engines.rules.selection import FULL, SWARMS, chosen, enabled_rules, weights
from xfdfuzz.engines.search.campaign import Campaign, Discovered
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.strategies.boots import BOOTS, Boot
from xfdfuzz.strategies.machines import MACHINES


class KernelMachine(EveryRule, RuleBasedStateMachine):
    """Every rule as one of Hypothesis'.

    ``campaign`` says what is under test, counts, and decides what is new; a subclass sets it
    (:func:`xfdfuzz.testing.state_machine`).
    """

    campaign: ClassVar[Campaign[Any]]

    def __init__(self) -> None:
        super().__init__()
        self._started = False
        #: how often the rules come in this program
        self.weights = weights(0)
        self._rules_strategy = SituatedRules(self)  # type: ignore[assignment]

    # one parameter: of several, Hypothesis would also draw the order
    @initialize(start=st.tuples(st.sampled_from(MACHINES), st.sampled_from(BOOTS), st.integers(0, SWARMS - 1)))
    def power_on(self, start: tuple[Machine, Boot, int]) -> None:
        """Boot the kernel on a machine, with a first stretch of a program, which belongs to a swarm."""
        machine, boot, swarm = start
        self.weights = weights(swarm)
        self.go_on(self.campaign.begin(machine, boot))
        self._started = True

    def teardown(self) -> None:
        """Drain the program and count it."""
        if self._started:
            self.run.finish()


def _for_hypothesis(declared: Rule) -> Any:
    """A method that performs the rule, with Hypothesis' marks."""

    def perform(machine: KernelMachine, **numbers: int) -> None:
        declared.method(machine, *numbers.values())

    perform.__name__ = declared.name
    strategies: dict[str, Any] = {name: argument.strategy for name, argument in declared.arguments.items()}
    drawn: Any = rule(**strategies)
    return precondition(lambda machine: declared.condition in machine.now.possible)(drawn(perform))


for _rule in RULES.values():
    setattr(KernelMachine, _rule.name, _for_hypothesis(_rule))


class SituatedRules(SearchStrategy[Any]):
    """Draws an enabled rule and its arguments for one machine instance."""

    def __init__(self, machine: KernelMachine) -> None:
        super().__init__()
        self._machine = machine
        self._rules = {rule.function.__name__: rule for rule in machine.rules}

    def do_draw(self, data: Any) -> Any:
        """(rule, arguments), as hypothesis.stateful.RuleStrategy gives them."""
        enabled = enabled_rules(self._machine.now.possible)
        slot = data.draw_integer(0, len(enabled) * FULL - 1)
        declared = chosen(enabled, slot, self._machine.weights)
        rule = self._rules[declared.name]
        return rule, {name: data.draw(rule.arguments_strategies[name]) for name in declared.arguments}


def machine_for(campaign: Campaign[Any], **attributes: Any) -> type[KernelMachine]:
    """The state machine that runs on a campaign."""
    machine: Any = type("KernelMachine", (KernelMachine,), {"campaign": campaign, **attributes})
    return machine  # type: ignore[no-any-return]


def search(campaign: Campaign[Any], seed: int, steps: int) -> Discovered | None:
    """One run of Hypothesis: up to the first program that shows something new, which is not shrunk."""
    machine = machine_for(campaign)
    seeded(seed)(machine)
    try:
        with every_example_anew():
            run_state_machine_as_test(machine, settings=search_settings(steps))
    except Discovered as found:
        return found
    return None


def search_settings(steps: int) -> settings:
    """For the command line: no end of its own, no database, and no shrinking, which minimise() does faster."""
    return settings(
        max_examples=10_000_000,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def every_example_anew() -> Iterator[None]:
    """Hypothesis follows each example with up to six that repeat a piece of it in another place.

    So six programs of seven begin on the machine, with the boot and mostly with the ops of another; drawn anew, they
    find the known bugs several times faster.
    """
    mutate = ConjectureRunner.generate_mutations_from
    ConjectureRunner.generate_mutations_from = lambda self, data: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConjectureRunner.generate_mutations_from = mutate  # type: ignore[method-assign]
