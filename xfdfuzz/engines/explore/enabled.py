"""Which ops of a scope can happen in a state, remembered by the few bytes that decide it.

A state has some seventy ops to ask, and a search hardly ever meets a new answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from xfdfuzz.arch.cstruct import Regions
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.ops.base import Op

#: All that any Op.enabled() looks at, beside the machine; tests/test_explore.py holds it against the ops.
DECIDING = Regions(
    st.System,
    *(f"tasks[].{name}" for name in ("exists", "exit_state", "in_execve", "in_signal", "vm_fds", "mm", "on_cpu")),
    *(f"tasks[].{name}" for name in ("kvm_run", "pf_kthread", "group_leader")),
    *("sigframes[].valid", "cpus[].current", "cpus[].guest"),
    *(f"vcpus[].{name}" for name in ("exists", "vm", "mode", "task", "exit_pending", "run_over")),
    *("vcpus[].arch.guest_mode", "vcpus[].arch.init_pending"),
)
#: So many answers are remembered; more are forgotten all at once.
_MANY = 50_000


class Enabled:
    """The ops of a scope, by number, that can happen on a kernel's system."""

    def __init__(self, ops: Sequence[Op], kernel: Kernel) -> None:
        self._ops, self._kernel = [*enumerate(ops)], kernel
        self._known: dict[tuple[bytes, ...], list[tuple[int, Op]]] = {}

    def __call__(self, state: bytes) -> list[tuple[int, Op]]:
        """Those of the state, which the kernel has loaded; nobody changes the list."""
        key = DECIDING(state)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MANY:
                self._known.clear()
            found = self._known[key] = [(number, op) for number, op in self._ops if op.enabled(self._kernel)]
        return found
