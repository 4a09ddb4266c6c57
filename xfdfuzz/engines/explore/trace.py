"""From a path of canonical states back to a program.

A canonical state may have other names than the one that a program leads to, so the path is followed on a real system:
of the scope's ops the one is taken that leads to a state of the next one's canonical form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xfdfuzz.engines.explore.canonical import clear_dead, clear_stale
from xfdfuzz.engines.explore.expand import Expander, digest_of
from xfdfuzz.engines.explore.store import Transition
from xfdfuzz.engines.judge.finding import NotReproducibleError
from xfdfuzz.invariants.vocabulary import View, Violation
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED


class Walker:
    """A system of an expander's, on which ops are executed one at a time; states here are a whole system's bytes."""

    def __init__(self, expander: Expander) -> None:
        self._expander = expander
        self._executor = expander.executor
        self._kernel = expander.executor.kernel

    def restart(self) -> None:
        """Boot the system."""
        self.load(self._expander.packing.unpack(self._expander.first))

    def now(self) -> bytes:
        """The state that the system is in."""
        return self._kernel.state

    def load(self, state: bytes) -> None:
        """Let the system be in that state."""
        self._kernel.load(state)

    def perform(self, op: Op) -> bool:
        """Execute an op; whether it could happen."""
        return self._executor.execute(op).result.ret != NOT_ENABLED

    def possible(self, op: Op) -> bool:
        """Whether an op can happen now."""
        return op.enabled(self._kernel)

    def judged(self, op: Op) -> list[Violation]:
        """Execute an op; what it broke."""
        before = self.now()
        step = self._executor.execute(op)
        if step.result.ret == NOT_ENABLED:
            return []
        selection, view = self._expander.selection, View(self._kernel, step)
        broken = selection.broken_in(view)
        found = selection.of_step(view)
        if broken:
            after = self.now()
            self.load(before)
            known = selection.broken_in(View(self._kernel, step))
            self.load(after)
            found += selection.newly_broken(step, broken, known)
        return found

    def digest(self) -> bytes:
        """The digest of the canonical form of the state that the system is in, which stays as it is."""
        k, expander = self._kernel, self._expander
        state = k.state
        if expander.question.reduced:
            for vcpu, ideal in [*zip(k.vcpus, k.system.ghost.vcpus, strict=True)][: expander.scope.vcpus]:
                clear_dead(vcpu, ideal)
            for nr in expander.scope.sigframes if expander.scope.returns_inside_out else ():
                clear_stale(k.system.sigframes[nr])
        found = digest_of(expander.packing.pack(expander.form(k.state)))
        self.load(state)
        return found


class Tracer:
    """Makes programs of paths."""

    def __init__(self, expander: Expander) -> None:
        self._scope = expander.scope
        self._walker = Walker(expander)

    def program(self, path: Sequence[Transition], key: str = "", last: int = 0) -> Program:
        """The program that takes the path and, with ``key``, a bucket or a kind, ends with an op that breaks it, such
        as ``last``.

        Raises NotReproducibleError.
        """
        self._walker.restart()
        ops = [self._taken(transition) for transition in path]
        if key:
            ops.append(self._breaking(key, last))
        return Program(self._scope.machine, tuple(ops))

    def program_to(self, path: Sequence[Transition], last: int) -> Program:
        """The program that takes the path and ends with an op like ``last``, which is not executed."""
        before = self.program(path)
        can = (op for op in self._candidates(last) if self._walker.possible(op))
        return Program(before.machine, (*before.ops, next(can, self._scope.ops[last])))

    def _taken(self, transition: Transition) -> Op:
        walker = self._walker
        for op in self._candidates(transition.op):
            state = walker.now()
            if walker.perform(op) and walker.digest() == transition.digest:
                return op
            walker.load(state)
        raise NotReproducibleError("a path of the state graph cannot be followed")

    def _breaking(self, key: str, last: int) -> Op:
        walker = self._walker
        for op in self._candidates(last):
            state = walker.now()
            if any(key in (violation.bucket, violation.kind) for violation in walker.judged(op)):
                return op
            walker.load(state)
        raise NotReproducibleError(f"{key} does not show at the end of its path")

    def _candidates(self, first: int) -> Iterable[Op]:
        """The op that was taken, then those that another numbering may have made of it."""
        ops = self._scope.ops
        return (ops[first], *(op for number, op in enumerate(ops) if number != first))
