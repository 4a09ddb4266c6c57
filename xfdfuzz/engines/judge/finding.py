"""What a search comes to: findings, each with the plainest program that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xfdfuzz.engines.judge.lockstep import Difference, Pair
from xfdfuzz.invariants.vocabulary import SEVERITIES, Violation
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision


class NotReproducibleError(Exception):
    """Something that its own program does not show again: the model is not deterministic, which is a bug of ours."""


@dataclass(frozen=True)
class Finding:
    """A violation with the plainest program that shows it; ``file`` once it was saved.

    ``engine`` found the first program with it.  ``shown``: whether replaying the program breaks the invariant, as it
    does but for a cycle that only going round for ever makes bad.
    """

    violation: Violation
    program: Program
    revision: Revision
    file: Path | None = None
    engine: str = "hypothesis"
    shown: bool = True

    @property
    def bucket(self) -> str:
        """What makes it the same finding again."""
        return self.violation.bucket

    @property
    def rank(self) -> tuple[int, int, str]:
        """Orders findings: the worst first, then the shortest."""
        return SEVERITIES.index(self.violation.severity), len(self.program.ops), self.bucket


@dataclass(frozen=True)
class Discrepancy:
    """A difference with the plainest program that shows it, which has the first revision's results.

    ``also`` is what else the same op shows, such as the reports that come with a result.
    """

    difference: Difference
    program: Program
    pair: Pair
    also: tuple[Difference, ...] = ()
    file: Path | None = None

    @property
    def bucket(self) -> str:
        """What makes it the same difference again."""
        return self.difference.bucket
