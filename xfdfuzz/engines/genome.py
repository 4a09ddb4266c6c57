"""Programs before they meet a state: rules and the small numbers they get, as an engine keeps and changes them.

What a number means is looked up when its rule runs, so a program that was cut, spliced or changed stays legal: a rule
that nothing enables at its place is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from xfdfuzz.arch.machine import Machine
from xfdfuzz.engines.campaign import Campaign, NewsFound, Run
from xfdfuzz.engines.rules import EveryRule, Rule
from xfdfuzz.strategies.boots import BOOTS, Boot
from xfdfuzz.strategies.machines import MACHINES
from xfdfuzz.strategies.values import domains


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
    """The rules on runs of a campaign, with nothing around them.

    A machine is powered on once, and a boot executed once on it; after that both are memory copies.
    """

    def __init__(self, campaign: Campaign[Any]) -> None:
        super().__init__()
        self._campaign = campaign
        self._runs: dict[Machine, Run] = {}
        self._booted: dict[tuple[Machine, Boot | None], Any] = {}

    def power_on(self, genome: Genome) -> None:
        """Be where the genome's first gene comes; a violation in the boot that is news raises."""
        machine, boot = MACHINES[genome.machine], BOOTS[genome.boot]
        if machine not in self._runs:
            self._runs[machine] = self._campaign.start(machine)
            self._booted[machine, None] = self._runs[machine].save()
        self.run = self._runs[machine]
        if (machine, boot) not in self._booted:
            self.run.restore(self._booted[machine, None])
            for op in boot(machine):
                self.run.execute(op)
            self._booted[machine, boot] = self.run.save()
        self.resume(genome, self._booted[machine, boot])

    def resume(self, genome: Genome, saved: Any) -> None:
        """Be where a run of the genome once was."""
        machine = MACHINES[genome.machine]
        self.run = self._runs[machine]
        self.domains = domains(machine)
        self.run.restore(saved)
        self._now = None

    def enabled(self, rule: Rule) -> bool:
        """Whether it can be performed now."""
        return rule.condition in self.now.possible

    def perform(self, gene: Gene) -> None:
        """Execute what it means now; a violation that is news raises."""
        gene.rule.method(self, *gene.arguments)

    def shows(self, genome: Genome) -> bool:
        """Whether a whole program shows something that is news."""
        try:
            self.power_on(genome)
            for gene in genome.genes:
                if self.enabled(gene.rule):
                    self.perform(gene)
            self.run.finish()
        except NewsFound:
            return True
        return False


def shortened(campaign: Campaign[Any], genome: Genome) -> Genome:
    """What is left when no gene can be left out without losing the news; ``genome`` itself must show some."""
    walker = Walker(campaign)
    genes = list(genome.genes)
    length = max(len(genes) // 2, 1)
    while True:
        before = len(genes)
        for start in range(before - length, -length, -length):
            fewer = genes[: max(start, 0)] + genes[start + length :]
            if walker.shows(genome._replace(genes=fewer)):
                genes = fewer
        if length == 1 and len(genes) == before:
            return genome._replace(genes=tuple(genes))
        length = max(length // 2, 1)
