"""ptrace of a stopped task."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.program.ops import ptrace
from xfdfuzz.strategies.values import picks, targets


class PtraceRules(Rules):
    """ptrace of a stopped task."""

    @on("traces", n=targets)
    def ptrace_get_xstate(self, n: int) -> None:
        """PTRACE_GETREGSET."""
        self.do(ptrace.PtraceGetXstate(*self.now.traces[n % len(self.now.traces)]))

    @on("traces", n=targets, image=picks)
    def ptrace_set_xstate(self, n: int, image: int) -> None:
        """PTRACE_SETREGSET."""
        tracer, tracee = self.now.traces[n % len(self.now.traces)]
        self.do(ptrace.PtraceSetXstate(tracer, tracee, self.domains.image.value(image)))
