"""Which findings of a search are consequences of which others, so that causes are shown and not all that follows.

A finding is a consequence of another one where every program that shows it breaks the other one by then, at an earlier
op or at the same one.  All that the search has executed was looked at (precedence.py); here is looked for what shows
the one without the other.  If there is anything, the finding stands alone:

* the findings' own programs;
* a kernel on which a patch cures the other one, and this one's program shows it all the same.  So what every program
  has to do first, such as asking for a permission, is the cause of nothing although it breaks something each time;
* programs that are like the finding's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from random import Random

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.minimise import Shows
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.rules.selection import FULL, chosen, enabled_rules, weights
from xfdfuzz.engines.search.campaign import Campaign
from xfdfuzz.engines.search.genome import Gene, Walker
from xfdfuzz.engines.search.precedence import Precedence, nearest_roots
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision, RevisionError, in_order, resolve

#: So many programs like each finding's are tried; how likely a rule comes before an op of theirs, and the op stays.
_VARIANTS, _MORE, _KEPT = 12, 0.25, 0.9


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
    _by_cures(of, after, key, in_time)
    _by_variants(campaign, of, after, in_time)
    named = nearest_roots(after, sorted(of, key=lambda name: of[name].rank))
    return {of[name]: of[root] for name, root in named.items()}


# -- what shows one without the other ------------------------------------------------------------------------------


def _own_program(precedence: Precedence, found: Finding, key: Callable[[Violation], str]) -> None:
    before: set[str] = set()
    for judged in judge(found.program, found.revision, expectations=False).trace:
        broken = [key(violation) for violation in judged.violations]
        if broken:
            precedence.note(broken, before)
            before.update(broken)


def _by_cures(
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
            behind = [name for name in of if cause in after[name]]
            if not behind:
                break
            for name in behind:
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
    in_time: Callable[[], bool],
) -> None:
    """Where a program like the finding's shows it, and not what comes first."""
    variants = _Variants(campaign.looking_for(""))
    for _ in range(_VARIANTS):
        for name in sorted(name for name in of if after[name]):
            if not in_time():
                return
            variants.execute(of[name].program)
            for one in after:
                after[one] &= campaign.precedence.always[one]


class _Variants(Walker):
    """Programs that are like others, but for ops that are left out and rules that come in between."""

    def __init__(self, campaign: Campaign[Violation]) -> None:
        super().__init__(campaign)
        self._random = Random(0)

    def execute(self, program: Program) -> None:
        """Execute one; the campaign notes what it shows."""
        draw = self._random.random
        self.go_on(self._campaign.begin(program.machine))
        for op in program.ops:
            if self.run.alive and draw() < _MORE:
                self.perform(self._any())
            if self.run.alive and draw() < _KEPT:
                self.do(op)
        self.run.finish()

    def _any(self) -> Gene:
        enabled = enabled_rules(self.now.possible)
        rule = chosen(enabled, self._random.randrange(len(enabled) * FULL), weights(0))
        return Gene(rule, tuple(self._random.choice(values) for values in rule.values))
