"""The Hypothesis state machine: the front end for pytest, the engine that shrinks, and one of those that search.

This module is the only one that relies on how Hypothesis works inside; tests/test_machine.py notices when that changes.

* Hypothesis evaluates the preconditions of all rules at every step and draws a flag for each; with one rule per op that
  costs more than everything else together.  So ``RuleBasedStateMachine._rules_strategy``, a strategy that gives (rule,
  arguments), is replaced by one that draws a number among the slots of the enabled ones (:mod:`engines.selection`).
* Every program is drawn anew, not made from the one before: ``ConjectureRunner.generate_mutations_from()`` is left out.
* A program that another engine has found becomes the sequence of choices that Hypothesis would have made, and is handed
  over as an entry of its example database: one under the secondary key is replayed and then shrunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.database import ExampleDatabase, choices_to_bytes
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy

from xfdfuzz.engines.campaign import Campaign, NewsFound, Stats
from xfdfuzz.engines.genome import Genome, Walker, shortened
from xfdfuzz.engines.rules import RULES, EveryRule, Rule
from xfdfuzz.engines.selection import SWARMS, chosen, left_out, slots
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.strategies.boots import BOOTS, Boot
from xfdfuzz.strategies.machines import MACHINES


class KernelMachine(EveryRule, RuleBasedStateMachine):
    """Every rule as one of Hypothesis'.

    ``campaign`` says what is under test, counts, and decides what is news; a subclass sets it
    (:func:`xfdfuzz.engines.fuzz.state_machine`).
    """

    campaign: ClassVar[Campaign[Any]]

    def __init__(self) -> None:
        super().__init__()
        self._started = False
        #: the rules that this program does without
        self.without = left_out(0)
        self._rules_strategy = SituatedRules(self)  # type: ignore[assignment]

    # one parameter: of several, Hypothesis would also draw the order
    @initialize(start=st.tuples(st.sampled_from(MACHINES), st.sampled_from(BOOTS), st.integers(0, SWARMS - 1)))
    def power_on(self, start: tuple[Machine, Boot, int]) -> None:
        """Boot the kernel on a machine, with a first stretch of a program, which belongs to a swarm."""
        machine, boot, swarm = start
        self.without = left_out(swarm)
        self.go_on(self.campaign.begin(machine, boot))
        self._started = True

    def teardown(self) -> None:
        """Drain the program and count it."""
        if self._started:
            self.run.finish()


def _for_hypothesis(declared: Rule) -> Any:
    """The method with Hypothesis' marks."""
    strategies: dict[str, Any] = {name: argument.strategy for name, argument in declared.arguments.items()}
    drawn: Any = rule(**strategies)
    return precondition(lambda machine: declared.condition in machine.now.possible)(drawn(declared.method))


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
        enabled = slots(self._machine.now.possible)
        declared = chosen(enabled, data.draw_integer(0, len(enabled) - 1), self._machine.without)
        rule = self._rules[declared.name]
        return rule, {name: data.draw(rule.arguments_strategies[name]) for name in declared.arguments}


def machine_for(campaign: Campaign[Any], **attributes: Any) -> type[KernelMachine]:
    """The state machine that runs on a campaign."""
    machine: Any = type("KernelMachine", (KernelMachine,), {"campaign": campaign, **attributes})
    return machine  # type: ignore[no-any-return]


def search(campaign: Campaign[Any], seed: int, steps: int) -> NewsFound | None:
    """One run of Hypothesis: up to the first program that shows something new, which is not shrunk."""
    machine = machine_for(campaign)
    seeded(seed)(machine)
    try:
        with every_example_anew():
            run_state_machine_as_test(machine, settings=search_settings(steps))
    except NewsFound as found:
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
    find the known bugs several times faster (docs/performance.md).
    """
    mutate = ConjectureRunner.generate_mutations_from
    ConjectureRunner.generate_mutations_from = lambda self, data: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConjectureRunner.generate_mutations_from = mutate  # type: ignore[method-assign]


# -- hand-over ---------------------------------------------------------------------------------------------------------


def shrunk(campaign: Campaign[Any], genome: Genome, bucket: str) -> NewsFound | None:
    """A program of another engine, which shows ``bucket``, shrunk by Hypothesis; None if its machine does not show it.

    That happens to programs of thousands of rules, for which Hypothesis has no room.
    """
    quiet = replace(campaign, only=bucket, stats=Stats(), deadline=None, max_examples=None, turn_ends=None)
    genome = shortened(quiet, genome)
    machine = machine_for(quiet)
    seeded(0)(machine)
    handed = HandedOver(choices(quiet, genome))
    # one step more, which powers on
    shrinking = settings(search_settings(len(genome.genes) + 1), phases=(Phase.reuse, Phase.shrink), database=handed)
    try:
        run_state_machine_as_test(machine, settings=shrinking)
    except NewsFound as found:
        return found
    return None


def choices(campaign: Campaign[Any], genome: Genome) -> list[int]:
    """What Hypothesis would have drawn for a program: before each rule whether to stop, then its slot and arguments.

    It belongs to the swarm that has every rule.
    """
    drawn: list[int] = [False, genome.machine, genome.boot, 0]
    walker = Walker(campaign)
    with suppress(NewsFound):
        walker.power_on(genome)
        for gene in genome.genes:
            if walker.enabled(gene.rule):
                drawn += [False, slots(walker.now.possible).index(gene.rule), *gene.arguments]
                walker.perform(gene)
    return [*drawn, True]


class HandedOver(ExampleDatabase):
    """A database with one entry, under whatever secondary key is asked for; it keeps nothing."""

    def __init__(self, choices: Iterable[int]) -> None:
        super().__init__()
        self._entry = choices_to_bytes(choices)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """The entry, or nothing."""
        return [self._entry] if key.endswith(b".secondary") else []

    def save(self, key: bytes, value: bytes) -> None:
        """Nothing: what comes of it is raised."""

    def delete(self, key: bytes, value: bytes) -> None:
        """Nothing."""
