"""What a recording leaves open: where a signal or a preemption fell, which of several threads ran.

A translator asks for a decision where it matters; who judges tries the others if the first ones do not explain what was
recorded, each in a run of its own from the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: So many runs one recording may take.
LIMIT = 96


class Decision(NamedTuple):
    """What was asked, the answers that there are, the most likely first, and the one that was taken."""

    question: str
    answers: tuple[str, ...]
    taken: int

    @property
    def text(self) -> str:
        """Both."""
        return f"{self.question}: {self.answers[self.taken]}"


class Choices:
    """The decisions of one run: the first ones as given, the others the most likely."""

    def __init__(self, given: Sequence[int] = ()) -> None:
        self.given = given
        self.made: list[Decision] = []

    def choose(self, question: str, *answers: str) -> int:
        """Which of the answers holds in this run."""
        place = len(self.made)
        taken = self.given[place] if place < len(self.given) else 0
        self.made.append(Decision(question, answers, min(taken, len(answers) - 1)))
        return self.made[-1].taken

    @property
    def unlikely(self) -> tuple[str, ...]:
        """The decisions that are not the most likely ones."""
        return tuple(decision.text for decision in self.made if decision.taken)

    def others(self) -> Iterator[tuple[int, ...]]:
        """The same decisions with one more that is not the most likely one, the first places first."""
        taken = [decision.taken for decision in self.made]
        for place in range(len(self.given), len(self.made)):
            for answer in range(1, len(self.made[place].answers)):
                yield (*taken[:place], answer)
