"""What a search has reached, and by which programs first: those are worth beginning the next search with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import result_class


class First(NamedTuple):
    """A program, and what no program before it had reached."""

    news: frozenset[str]
    program: Program


class Reached:
    """What was reached is a text for each op with a class of its results (``GuestWrmsr exit``), and a goal's name."""

    def __init__(self, before: Iterable[str] = ()) -> None:
        self.all = set(before)
        self._firsts: list[First] = []
        self._stats: Stats | None = None
        self._size = 0
        self._pairs: set[tuple[type[Op], int | str]] = set()

    def look(self, stats: Stats, program: Callable[[], Program]) -> None:
        """Keep the program so far if its last step, which ``stats`` have counted, reached anything new."""
        size = len(stats.seen) + len(stats.goals)
        if size == self._size and stats is self._stats:
            return  # as after nearly every step
        self._size, self._stats = size, stats
        new = self._news(stats)
        if new:
            self.add(First(frozenset(new), program()))

    def add(self, first: First) -> None:
        """Keep a program, unless another one has reached the same; in place of the last one if it only goes on from
        that."""
        if first.news <= self.all:
            return
        self.all |= first.news
        if self._firsts and _goes_on(first.program, self._firsts[-1].program):
            first = First(first.news | self._firsts.pop().news, first.program)
        self._firsts.append(first)

    def take(self) -> list[First]:
        """Those that were kept since the last call."""
        taken, self._firsts = self._firsts, []
        return taken

    def _news(self, stats: Stats) -> set[str]:
        pairs = stats.seen.keys() - self._pairs
        self._pairs |= pairs
        return {*(f"{op.__name__} {result_class(ret)}" for op, ret in pairs), *stats.goals} - self.all


def _goes_on(program: Program, before: Program) -> bool:
    return program.machine == before.machine and program.ops[: len(before.ops)] == before.ops
