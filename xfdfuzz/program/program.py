"""A program: the machine it needs, its ops, and what it is expected to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op


@dataclass(frozen=True, slots=True)
class Expectation:
    """One ``# expect:`` line.

    ``revisions`` is a revision or a range as written (``amx-v1``, ``v5.18..``, ``amx-v1..amx-review-c``, ``*`` for
    every revision).  ``kind`` is ``clean`` (no violation at all), ``violates`` (at least those in ``invariants``) or
    ``result`` (op number ``op``, counted from 1, gives ``result`` on these revisions).  ``line`` is where it stands;
    ``columns`` are those of the revisions and of each invariant, for messages.
    """

    revisions: str
    kind: str
    invariants: tuple[str, ...] = ()
    op: int = 0
    result: str = ""
    line: int = field(default=0, compare=False)
    columns: tuple[int, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        if self.kind == "result":
            return f"{self.revisions} result {self.op} = {self.result}"
        return " ".join((self.revisions, self.kind, *self.invariants))


@dataclass(frozen=True, slots=True)
class Program:
    """A list of ops and the set-up they need; the unit of replay, of the corpus and of reproduction.

    ``results[i]`` is the expected result of op i as text, or None; too short a tuple is filled up with None, and a
    result that has no op raises ValueError.  ``apply`` names patches that every revision it is judged on gets,
    ``revert`` those that are left out where a revision has them.
    ``comments`` are the free comment lines of the header, without ``#``; ``notes`` are those further down, in order,
    each with the number of ops that stand before it.  ``lines[i]`` is the line of the file that op i came from;
    ``patch_places`` has line and column of every patch in ``apply`` and then in ``revert``.
    """

    machine: Machine
    ops: tuple[Op, ...]
    results: tuple[str | None, ...] = ()
    title: str = ""
    expect: tuple[Expectation, ...] = ()
    apply: tuple[str, ...] = ()
    revert: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    notes: tuple[tuple[int, str], ...] = ()
    lines: tuple[int, ...] = field(default=(), compare=False)
    patch_places: tuple[tuple[int, int], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        missing = len(self.ops) - len(self.results)
        if any(result is not None for result in self.results[len(self.ops) :]):
            raise ValueError(f"{len(self.results)} results for {len(self.ops)} ops")
        object.__setattr__(self, "results", self.results[: len(self.ops)] + (None,) * missing)
