"""The scout: programs straight on the model, without Hypothesis around every step.

It draws rules from the same slots and arguments from the same declarations as the Hypothesis machine, so nearly all of
its time goes to the model and the invariants.
"""

from __future__ import annotations

from random import Random
from typing import Any

from xfdfuzz.engines.rules import Rule
from xfdfuzz.engines.rules.selection import FULL, SWARMS, chosen, enabled_rules, weights
from xfdfuzz.engines.search.campaign import Campaign, Discovered
from xfdfuzz.engines.search.genome import Gene, Genome, Walker
from xfdfuzz.strategies.boots import BOOTS
from xfdfuzz.strategies.machines import MACHINES


class Scout(Walker):
    """A search of one campaign.  The same seed gives the same programs."""

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        super().__init__(campaign)
        self._draw = Random(seed).random
        #: as many rules as the Hypothesis machine runs, whose first step powers on
        self._rules = max(steps - 1, 1)
        self._start = Genome(0, 0)
        self._genes: list[Gene] = []
        self._weights = weights(0)

    @property
    def genome(self) -> Genome:
        """The program so far."""
        return self._start._replace(genes=tuple(self._genes))

    def search(self) -> Discovered:
        """Up to the first program that shows something new, which is then the genome; what ends an example passes."""
        try:
            while True:
                self._begin()
                while len(self._genes) < self._rules and "alive" in self.now.possible:
                    gene = self._any_gene()
                    self._genes.append(gene)
                    self.perform(gene)
                self.run.finish()
        except Discovered as found:
            return found

    def _begin(self) -> None:
        self._weights = weights(self._number(SWARMS))
        self._start = Genome(self._number(len(MACHINES)), self._number(len(BOOTS)))
        self._genes = []
        self.power_on(self._start)

    def _any_gene(self) -> Gene:
        enabled = enabled_rules(self.now.possible)
        return self._gene(chosen(enabled, self._number(len(enabled) * FULL), self._weights))

    def _gene(self, rule: Rule) -> Gene:
        draw = self._draw
        return Gene(rule, tuple([values[int(draw() * len(values))] for values in rule.values]))

    def _number(self, end: int) -> int:
        return int(self._draw() * end)
