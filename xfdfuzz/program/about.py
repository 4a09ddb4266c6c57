"""Which object an op is about."""

from __future__ import annotations

from xfdfuzz.program.ops.run import KvmRunReturns
from xfdfuzz.program.step import Step

#: The field of an op that has the number, by what reports call the objects.
NUMBERED = {"v": "vcpu", "t": "task", "cpu": "cpu", "vm": "vm"}


def about(step: Step, of: str) -> int | None:
    """The number of the vCPU (``of`` is ``v``), task (``t``), CPU (``cpu``) or VM (``vm``) that an op is about; None if
    it is about none.

    Where KVM_RUN returns, that is the vCPU that the task was running.
    """
    number: int | None = getattr(step.op, NUMBERED.get(of, ""), None)
    if number is None and of == "v" and isinstance(step.op, KvmRunReturns):
        return step.before.tasks[step.op.task].kvm_run - 1
    return number
