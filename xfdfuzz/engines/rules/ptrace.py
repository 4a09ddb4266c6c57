"""ptrace of a stopped task."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, one
from xfdfuzz.program.ops import ptrace


class PtraceRules(Rules):
    """ptrace of a stopped task."""

    ptrace_get_xstate = one(ptrace.PtraceGetXstate, on="traces")
    ptrace_set_xstate = one(ptrace.PtraceSetXstate, on="traces")
    ptrace_get_fpregs = one(ptrace.PtraceGetFpregs, on="traces")
    ptrace_set_fpregs = one(ptrace.PtraceSetFpregs, on="traces")
