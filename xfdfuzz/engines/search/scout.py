"""The scout: programs straight on the model, without Hypothesis around every step.

It draws rules from the same slots and arguments from the same declarations as the Hypothesis machine.  What it adds is
memory: where a program passes a landmark that none has passed before, the run is kept.  Others go on from there, at the
cost of a memory copy, or repeat what led there with changes.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from xfdfuzz.engines.rules import Rule
from xfdfuzz.engines.rules.selection import SWARMS, chosen, left_out, slots
from xfdfuzz.engines.search.campaign import Campaign, NewsFound
from xfdfuzz.engines.search.genome import Gene, Genome, Walker
from xfdfuzz.engines.search.landmarks import Landmark
from xfdfuzz.strategies.boots import BOOTS
from xfdfuzz.strategies.machines import MACHINES

#: Of all programs, those that begin anew, and those that go on from a kept run; the rest repeat one with changes.
_FRESH, _GOING_ON = 0.7, 0.2
#: A run is kept if so many rules at least can follow.
_ROOM = 8
#: So many runs are kept, 5 KB or so each; then a new one takes the place of any.
_MANY = 5_000
#: One gene in so many is changed when a program is repeated.
_CHANGED = 8


class Kept(NamedTuple):
    """A run that others begin with: the program that led there, and where it is."""

    genome: Genome
    saved: Any


class Scout(Walker):
    """A search of one campaign.  The same seed gives the same programs."""

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        super().__init__(campaign)
        self._draw = Random(seed).random
        #: as many rules as the Hypothesis machine runs, whose first step powers on
        self._rules = max(steps - 1, 1)
        self._start = Genome(0, 0)
        self._genes: list[Gene] = []
        self._without = left_out(0)
        self._passed: set[Landmark] = set()
        self.kept: list[Kept] = []

    @property
    def genome(self) -> Genome:
        """The program so far."""
        return self._start._replace(genes=tuple(self._genes))

    def search(self) -> NewsFound:
        """Up to the first program that shows something new, which is then the genome; OutOfTime and TurnOver pass."""
        try:
            while True:
                self._begin()
                while len(self._genes) < self._rules and "alive" in self.now.possible:
                    self._run(self._any_gene())
                self._campaign.stats.landmarks = len(self._passed)
                self.run.finish()
        except NewsFound as found:
            return found

    def _begin(self) -> None:
        """A program's beginning: nothing but a boot, a kept run, or the changed repetition of one."""
        self._without = left_out(self._number(SWARMS))
        way = self._draw()
        if way < _FRESH or not self.kept:
            self._power_on(Genome(self._number(len(MACHINES)), self._number(len(BOOTS))))
            return
        kept = self.kept[self._number(len(self.kept))]
        if way < _FRESH + _GOING_ON:
            self._start = kept.genome
            self._genes = [*kept.genome.genes]
            self.resume(*kept)
        else:
            self._power_on(kept.genome)
            self._repeat(kept.genome)

    def _power_on(self, genome: Genome) -> None:
        self._start = genome
        self._genes = []
        self.power_on(genome)

    def _repeat(self, genome: Genome) -> None:
        """The genes of a program, some left out, some with other arguments, some with another rule before them."""
        for gene in genome.genes:
            change = self._number(3 * _CHANGED)
            if change == 0:
                continue
            if change == 1:
                self._run(self._any_gene())
            if self.enabled(gene.rule) and len(self._genes) < self._rules:
                self._run(self._gene(gene.rule) if change == 2 else gene)

    def _run(self, gene: Gene) -> None:
        self._genes.append(gene)
        self.perform(gene)
        landmarks = self.run.landmarks()
        if not self._passed.issuperset(landmarks):
            self._passed.update(landmarks)
            if len(self._genes) <= self._rules - _ROOM:
                self._keep(Kept(self.genome, self.run.save()))

    def _keep(self, kept: Kept) -> None:
        if len(self.kept) < _MANY:
            self.kept.append(kept)
        else:
            self.kept[self._number(_MANY)] = kept

    def _any_gene(self) -> Gene:
        enabled = slots(self.now.possible)
        return self._gene(chosen(enabled, self._number(len(enabled)), self._without))

    def _gene(self, rule: Rule) -> Gene:
        draw = self._draw
        return Gene(rule, tuple([values[int(draw() * len(values))] for values in rule.values]))

    def _number(self, end: int) -> int:
        return int(self._draw() * end)
