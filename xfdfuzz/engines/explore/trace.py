"""From a path of canonical states back to a program.

A canonical state may have other names than the one that a program leads to, so the path is followed on a real system:
of the scope's ops the one is taken that leads to a state of the next one's canonical form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xfdfuzz.engines.explore.expand import Expander
from xfdfuzz.engines.explore.states import Hop
from xfdfuzz.engines.judge.finding import NotReproducibleError
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program


class Tracer:
    """Follows paths on the system of an expander."""

    def __init__(self, expander: Expander) -> None:
        self._expander = expander

    def program(self, path: Sequence[Hop], bucket: str = "", last: int = 0) -> Program:
        """The program that takes the path and, with ``bucket``, ends with an op that breaks it, such as ``last``.

        Raises NotReproducibleError.
        """
        self._expander.restart()
        ops = [self._hop(hop) for hop in path]
        if bucket:
            ops.append(self._breaking(bucket, last))
        return Program(self._expander.scope.machine, tuple(ops))

    def _hop(self, hop: Hop) -> Op:
        for op in self._candidates(hop.op):
            raw = self._expander.now()
            if self._expander.perform(op) and self._expander.form_now() == hop.digest:
                return op
            self._expander.load(raw)
        raise NotReproducibleError("a path of the state graph cannot be followed")

    def _breaking(self, bucket: str, last: int) -> Op:
        for op in self._candidates(last):
            raw = self._expander.now()
            if any(violation.bucket == bucket for violation in self._expander.judged(op)):
                return op
            self._expander.load(raw)
        raise NotReproducibleError(f"{bucket} does not show at the end of its path")

    def _candidates(self, first: int) -> Iterable[Op]:
        """The op that was taken, then those that another numbering may have made of it."""
        ops = self._expander.scope.ops
        return (ops[first], *(op for number, op in enumerate(ops) if number != first))
