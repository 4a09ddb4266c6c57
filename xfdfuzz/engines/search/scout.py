"""The scout: programs straight on the model, without Hypothesis around every step.

It draws rules from the same slots and arguments from the same declarations as the Hypothesis machine, so nearly all of
its time goes to the model and the invariants.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from xfdfuzz.engines.rules import Rule
from xfdfuzz.engines.rules.selection import FULL, SWARMS, chosen, enabled_rules, weights
from xfdfuzz.engines.search.campaign import Campaign, Discovered, Run
from xfdfuzz.engines.search.genome import Gene, Genome, Walker
from xfdfuzz.strategies.boots import BOOTS
from xfdfuzz.strategies.machines import MACHINES


class Parting(NamedTuple):
    """Where two kernels came into different states: the program, where its run was, how many programs are to go on."""

    genome: Genome
    saved: Any
    left: int


class Scout(Walker):
    """A search of one campaign.  The same seed gives the same programs.

    Where two kernels are compared, half of the programs go on from where their states had come to differ: that is rare
    where one line of a function does, and what a user sees of it takes more.
    """

    #: So many programs go on from each place.
    _PROGRAMS = 16
    #: Places are kept as long as no more than one program of so many leads to one.
    _RARE = 16

    run: Run

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        super().__init__(campaign)
        self._draw = Random(seed).random
        #: as many rules as the Hypothesis machine runs, whose first step powers on
        self._rules = max(steps - 1, 1)
        self._start = Genome(0, 0)
        self._genes: list[Gene] = []
        self._weights = weights(0)
        self._partings: list[Parting] = []
        self._parted = False
        self._begun = self._kept = 0
        self._end = self._rules

    @property
    def genome(self) -> Genome:
        """The program so far."""
        return self._start._replace(genes=tuple(self._genes))

    def search(self) -> Discovered:
        """Up to the first program that shows something new, which is then the genome; what ends an example passes."""
        try:
            while True:
                self._begin()
                while len(self._genes) < self._end and "alive" in self.now.possible:
                    gene = self._any_gene()
                    self._genes.append(gene)
                    self.perform(gene)
                    self._keep_parting()
                self.run.finish()
        except Discovered as found:
            return found

    def _begin(self) -> None:
        self._weights = weights(self._number(SWARMS))
        if self._partings and self._number(2):
            self._go_on_from_parting(self._number(len(self._partings)))
            return
        self._begun += 1
        self._start = Genome(self._number(len(MACHINES)), self._number(len(BOOTS)))
        self._genes = []
        self._end = self._rules
        self.power_on(self._start)
        self._parted = self.run.parted

    def _go_on_from_parting(self, number: int) -> None:
        genome, saved, left = self._partings[number]
        self._start, self._genes = genome._replace(genes=()), list(genome.genes)
        self._end = len(self._genes) + self._rules
        self.go_on(self._campaign.again(MACHINES[genome.machine], saved))
        self._parted = True
        if left > 1:
            self._partings[number] = Parting(genome, saved, left - 1)
        else:
            del self._partings[number]

    def _keep_parting(self) -> None:
        before, self._parted = self._parted, self.run.parted
        if self._parted and not before and self._kept * self._RARE <= self._begun:
            self._kept += 1
            self._partings.append(Parting(self.genome, self.run.save(), self._PROGRAMS))

    def _any_gene(self) -> Gene:
        enabled = enabled_rules(self.now.possible)
        return self._gene(chosen(enabled, self._number(len(enabled) * FULL), self._weights))

    def _gene(self, rule: Rule) -> Gene:
        draw = self._draw
        return Gene(rule, tuple([values[int(draw() * len(values))] for values in rule.values]))

    def _number(self, end: int) -> int:
        return int(self._draw() * end)
