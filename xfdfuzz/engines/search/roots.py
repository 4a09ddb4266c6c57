"""Which findings of a search are consequences of which others, so that a few causes are shown and not all that follows.

A finding is a consequence of another one where every program that shows it breaks the other one by then, at an earlier op
or at the same one.  All that the search has executed was looked at (precedence.py); here is looked for a program, or a
kernel, that shows the one without the other.  If there is one, the finding stands alone:

* the findings' own programs;
* a kernel on which a patch cures the other one, and this one's program shows it all the same.  So what every program has
  to do first, such as asking for a permission, is the cause of nothing although it breaks something each time;
* the program on other machines, and with something else in place of the op that breaks the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from random import Random
from typing import NamedTuple

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.minimise import Shows
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.rules.selection import FULL, chosen, enabled_rules, weights
from xfdfuzz.engines.search.campaign import Campaign, Discovered
from xfdfuzz.engines.search.genome import Gene, Walker
from xfdfuzz.engines.search.precedence import Precedence
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision, RevisionError, in_order, resolve
from xfdfuzz.strategies.machines import MACHINES

#: So many programs with something else in an op's place are tried, of at most so many rules there.
_VARIANTS, _RULES = 40, 3


def roots(
    campaign: Campaign[Violation],
    found: Sequence[Finding],
    key: Callable[[Violation], str],
    in_time: Callable[[], bool],
) -> dict[Finding, Finding]:
    """For each consequence among the findings its root.

    ``campaign`` has what was executed, ``key`` gives what a violation is known by.  What is not refuted ``in_time``
    stands.
    """
    of = {key(one.violation): one for one in found}
    for one in found:
        _own_program(campaign.precedence, one, key)
    after = campaign.precedence.among(of)
    for refute in (_by_cures, _by_variants):
        refute(campaign, of, after, key, in_time)
    named = _named(after, sorted(of, key=lambda name: of[name].rank))
    return {of[name]: of[root] for name, root in named.items()}


def _named(after: Mapping[str, set[str]], ranked: Sequence[str]) -> dict[str, str]:
    """The root of each that has one.  Of those that never show without each other the first in rank stands for all."""

    def ahead(name: str) -> Iterator[str]:
        for other in ranked:
            if other in after[name] and (name not in after[other] or ranked.index(other) < ranked.index(name)):
                yield other

    alone = {name for name in ranked if not any(ahead(name))}
    found: dict[str, str] = {}
    for name in ranked:
        if name in alone:
            continue
        seen, waiting = {name}, [name]
        while waiting and name not in found:
            others = [other for one in waiting for other in ahead(one) if other not in seen]
            seen.update(others)
            waiting = others
            found.update({name: other for other in others[::-1] if other in alone})
    return found


# -- what shows one without the other ------------------------------------------------------------------------------


def _own_program(precedence: Precedence, found: Finding, key: Callable[[Violation], str]) -> None:
    before: set[str] = set()
    for judged in judge(found.program, found.revision, expectations=False).trace:
        broken = [key(violation) for violation in judged.violations]
        if broken:
            precedence.note(broken, before)
            before.update(broken)


def _by_cures(
    campaign: Campaign[Violation],
    of: Mapping[str, Finding],
    after: dict[str, set[str]],
    key: Callable[[Violation], str],
    in_time: Callable[[], bool],
) -> None:
    """Where a patch cures what comes first, and not the finding."""
    causes = sorted({cause for causes in after.values() for cause in causes})
    # the one that most seem to follow from is mostly what every program has to do
    for cause in sorted(causes, key=lambda one: -sum(one in causes for causes in after.values())):
        for kernel in _cures(of[cause], cause, in_time):
            for name in [name for name in of if cause in after[name]]:
                if not in_time():
                    return
                shown = {key(one) for one in judge(of[name].program, kernel, expectations=False).violations}
                if name in shown and cause not in shown:
                    after[name].discard(cause)


def _cures(found: Finding, key: str, in_time: Callable[[], bool]) -> Iterator[Revision]:
    for kernel in _patched(found.revision.address):
        if not in_time():
            return
        if not Shows(kernel, key)(found.program):
            yield kernel


@cache
def _patched(address: str) -> tuple[Revision, ...]:
    """The revision with one patch more, of the queue or proposed, for each that fits."""
    revision, found = resolve(address), []
    for patch in in_order():
        if patch not in revision.patches:
            try:
                found.append(resolve(address, apply=[patch.commit]))
            except RevisionError:
                continue
    return tuple(found)


def _by_variants(
    campaign: Campaign[Violation],
    of: Mapping[str, Finding],
    after: dict[str, set[str]],
    key: Callable[[Violation], str],
    in_time: Callable[[], bool],
) -> None:
    """Where another program shows the finding, and not what comes first."""
    for name in sorted(of, key=lambda name: of[name].rank):
        if not after[name]:
            continue
        variants = _Variants(campaign.looking_for(name), of[name], key)
        for variant in variants.all(after[name]):
            if not in_time() or not after[name]:
                break
            variants.execute(variant)
            after[name] &= campaign.precedence.always[name]


class _Variant(NamedTuple):
    """A program with so many rules, drawn when they are performed, between its two parts."""

    machine: Machine
    begin: Sequence[Op]
    rules: int = 0
    end: Sequence[Op] = ()


class _Variants(Walker):
    """Programs that are like a finding's, but for one thing."""

    def __init__(self, campaign: Campaign[Violation], found: Finding, key: Callable[[Violation], str]) -> None:
        super().__init__(campaign)
        self._found, self._key = found, key
        self._random = Random(0)

    def all(self, causes: set[str]) -> Iterator[_Variant]:
        """All that are tried."""
        program = self._found.program
        for machine in MACHINES:
            if machine != program.machine and machine.cpus >= program.machine.cpus:
                yield _Variant(machine, program.ops)
        places = self._places(causes)
        for _ in range(_VARIANTS if places else 0):
            place = self._random.choice(places)
            rules = self._random.randint(1, _RULES)
            yield _Variant(program.machine, program.ops[:place], rules, program.ops[place + 1 :])

    def _places(self, causes: set[str]) -> list[int]:
        """Where the ops stand that break the causes."""
        judged = judge(self._found.program, self._found.revision, expectations=False).trace
        broken = [{self._key(violation) for violation in one.violations} for one in judged if one.step]
        last = len(broken) - 1
        return [place for place, keys in enumerate(broken) if keys & causes and place < last]

    def execute(self, variant: _Variant) -> None:
        """Execute it up to what is looked for; the campaign notes what showed."""
        try:
            run = self._campaign.begin(variant.machine)
            self.go_on(run)
            for op in variant.begin:
                self.do(op)
            for _ in range(variant.rules):
                if run.alive:
                    self.perform(self._any())
            for op in variant.end:
                self.do(op)
            run.finish()
        except Discovered:
            return

    def _any(self) -> Gene:
        enabled = enabled_rules(self.now.possible)
        rule = chosen(enabled, self._random.randrange(len(enabled) * FULL), weights(0))
        return Gene(rule, tuple(self._random.choice(values) for values in rule.values))
