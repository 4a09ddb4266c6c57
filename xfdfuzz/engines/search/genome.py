"""Programs before they meet a state: rules and the small numbers they get, as the scout keeps them.

What a number means is looked up when its rule runs, so a program that was cut stays legal: a rule that nothing enables
at its place is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from xfdfuzz.engines.rules import EveryRule, Rule
from xfdfuzz.engines.search.campaign import Campaign, Discovered
from xfdfuzz.strategies.boots import BOOTS
from xfdfuzz.strategies.machines import MACHINES


class Gene(NamedTuple):
    """One rule and a value for each of its parameters."""

    rule: Rule
    arguments: tuple[int, ...]


class Genome(NamedTuple):
    """A whole program; ``machine`` and ``boot`` are places in MACHINES and BOOTS."""

    machine: int
    boot: int
    genes: Sequence[Gene] = ()


class Walker(EveryRule):
    """The rules on runs of a campaign, with nothing around them."""

    def __init__(self, campaign: Campaign[Any]) -> None:
        super().__init__()
        self._campaign = campaign

    def power_on(self, genome: Genome) -> None:
        """Be where the genome's first gene comes; raises Discovered for something new in the boot."""
        self.go_on(self._campaign.begin(MACHINES[genome.machine], BOOTS[genome.boot]))

    def in_time(self) -> bool:
        """Whether there is time for another program."""
        return self._campaign.in_time()

    def enabled(self, rule: Rule) -> bool:
        """Whether it can be performed now."""
        return rule.condition in self.now.possible

    def perform(self, gene: Gene) -> None:
        """Execute what it means now; raises Discovered for something new."""
        gene.rule.method(self, *gene.arguments)

    def discovery(self, genome: Genome) -> Discovered | None:
        """What a whole program shows that is new, and the ops up to it; None if there is nothing."""
        try:
            self.power_on(genome)
            for gene in genome.genes:
                if self.enabled(gene.rule):
                    self.perform(gene)
            self.run.finish()
        except Discovered as found:
            return found
        return None


def shortened(walker: Walker, genome: Genome) -> Genome:
    """What is left when no gene can be left out without losing the discovery; ``genome`` itself must show one."""
    genes = list(genome.genes)
    length = max(len(genes) // 2, 1)
    while True:
        before = len(genes)
        for start in range(before - length, -length, -length):
            fewer = genes[: max(start, 0)] + genes[start + length :]
            if walker.in_time() and walker.discovery(genome._replace(genes=fewer)):
                genes = fewer
        if length == 1 and len(genes) == before:
            return genome._replace(genes=tuple(genes))
        length = max(length // 2, 1)
