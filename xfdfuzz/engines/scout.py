"""The scout: programs straight on the model, without Hypothesis around every step.

It draws rules from the same slots and arguments from the same declarations as the Hypothesis machine.
"""

from __future__ import annotations

from random import Random
from typing import Any

from xfdfuzz.engines.campaign import Campaign, NewsFound
from xfdfuzz.engines.genome import Gene, Genome, Walker
from xfdfuzz.engines.selection import slots
from xfdfuzz.strategies.boots import BOOTS
from xfdfuzz.strategies.machines import MACHINES


class Scout(Walker):
    """A search of one campaign.  The same seed gives the same programs."""

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        super().__init__(campaign)
        self._draw = Random(seed).random
        #: as many rules as the Hypothesis machine runs, whose first step powers on
        self._rules = max(steps - 1, 1)
        self._genes: list[Gene] = []
        self._genome = Genome(0, 0)

    @property
    def genome(self) -> Genome:
        """The program so far."""
        return self._genome._replace(genes=tuple(self._genes))

    def search(self) -> NewsFound:
        """Up to the first program that shows something new, which is then the genome; OutOfTime and TurnOver pass."""
        try:
            while True:
                self._fresh()
                self.run.finish()
        except NewsFound as found:
            return found

    def _fresh(self) -> None:
        """A random program."""
        self._genome = Genome(self._number(len(MACHINES)), self._number(len(BOOTS)))
        self._genes = []
        self.power_on(self._genome)
        for _ in range(self._rules):
            self._step()

    def _step(self) -> None:
        """A random rule."""
        draw = self._draw
        enabled = slots(self.now.possible())
        rule = enabled[int(draw() * len(enabled))]
        gene = Gene(rule, tuple([values[int(draw() * len(values))] for values in rule.values]))
        self._genes.append(gene)
        self.perform(gene)

    def _number(self, end: int) -> int:
        return int(self._draw() * end)
