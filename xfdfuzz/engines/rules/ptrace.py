"""What others see of a task."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, one
from xfdfuzz.program.ops import ptrace


class PtraceRules(Rules):
    """What others see of a task: ptrace of one that is stopped, and /proc."""

    ptrace_get_xstate = one(ptrace.PtraceGetXstate, on="traces")
    read_arch_status = one(ptrace.ReadArchStatus, on="lookups")
    read_arch_status_of_kthread = one(ptrace.ReadArchStatusOfKthread, on="kthread_lookups")
    ptrace_set_xstate = one(ptrace.PtraceSetXstate, on="traces")
    ptrace_get_fpregs = one(ptrace.PtraceGetFpregs, on="traces")
    ptrace_set_fpregs = one(ptrace.PtraceSetFpregs, on="traces")
    ptrace_get_xfpregs = one(ptrace.PtraceGetXfpregs, on="ia32_traces")
    ptrace_set_xfpregs = one(ptrace.PtraceSetXfpregs, on="ia32_traces")
    ptrace_old_get_fpregs = one(ptrace.PtraceOldGetFpregs, on="ia32_traces")
    ptrace_old_set_fpregs = one(ptrace.PtraceOldSetFpregs, on="ia32_traces")
    ptrace_old_get_xfpregs = one(ptrace.PtraceOldGetXfpregs, on="ia32_traces")
    ptrace_old_set_xfpregs = one(ptrace.PtraceOldSetXfpregs, on="ia32_traces")
    ptrace_get_ssp = one(ptrace.PtraceGetSsp, on="cet_traces")
    ptrace_set_ssp = one(ptrace.PtraceSetSsp, on="cet_traces")
