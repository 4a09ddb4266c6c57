"""The ops, by who acts: user threads, the VMM's ioctls, KVM_RUN, the guest, the host around them."""

from xfdfuzz.program.ops import (
    coredump,
    guest,
    host,
    kvm,
    processes,
    protected,
    ptrace,
    run,
    signals,
    tasks,
    tracer,
    vmm,
    xsave,
)
from xfdfuzz.program.ops.base import OPS, Op

__all__ = [
    "OPS",
    "Op",
    "coredump",
    "guest",
    "host",
    "kvm",
    "processes",
    "protected",
    "ptrace",
    "run",
    "signals",
    "tasks",
    "tracer",
    "vmm",
    "xsave",
]
