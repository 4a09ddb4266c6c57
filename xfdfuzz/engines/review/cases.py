"""Every case of every op of a scope, executed once.

An op that finds the same in all that it reads does the same again.  So of all that can happen in the states of a scope,
which has been looked up so far, a few thousand executions are left to be watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from xfdfuzz.engines.explore.expand import Expander
from xfdfuzz.engines.explore.footprint_cache import FootprintCache
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.memory.traced import Footprint, Place, traced
from xfdfuzz.program.executor import perform


def nothing(memory: bytearray) -> Iterable[Place]:
    """No place counts as read but those that are."""
    return ()


class Cases:
    """The ops of a scope on a kernel that is watched.

    ``decisive`` are places of a memory that count as read by every op: cases that differ there are two.
    ``after`` is called when an op was executed, with the numbers of the state and the op.
    """

    def __init__(
        self,
        expander: Expander,
        kernel: Kernel,
        footprint: Footprint,
        decisive: Callable[[bytearray], Iterable[Place]] = nothing,
        after: Callable[[int, int], None] = lambda state, op: None,
    ) -> None:
        self._expander, self._kernel, self._footprint, self._decisive = expander, kernel, footprint, decisive
        self._after = after
        system = traced(st.System, footprint.now)
        kernel.bind(system, system)
        self._known: list[FootprintCache[bool]] = [FootprintCache() for _ in expander.scope.ops]
        #: The state and the op, by their numbers, that are being executed; None in between.
        self.now: tuple[int, int] | None = None

    def look(self, state: int, packed: bytes) -> None:
        """Execute what was not executed so far, of all that can happen in a state."""
        for op in self._expander.transitions.enabled(packed):
            if self._known[op].find(packed) is None:
                self._execute(state, op, packed)

    def _execute(self, state: int, op: int, packed: bytes) -> None:
        packing, footprint = self._expander.packing, self._footprint
        footprint.begin(packing.unpack(packed))
        self._kernel.on_cpu(0)
        for place in self._decisive(footprint.now.memory):
            footprint.now.read(*place)
        self.now = state, op
        try:
            perform(self._expander.scope.ops[op], self._kernel)
        finally:
            self.now = None
        self._known[op].learn(packed, packing.packed(footprint.reads), True)
        self._after(state, op)
