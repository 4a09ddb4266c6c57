"""What a host did, as a recording that `xfdfuzz conform` reads (docs/conform.md)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from xfdfuzz.engines.live.lockstep import Compared, Verdict
from xfdfuzz.engines.live.session import Outcome, Session
from xfdfuzz.native.agreement import plain
from xfdfuzz.program.ops import kvm, xsave
from xfdfuzz.program.ops.base import Op, VcpuIoctl, VmIoctl
from xfdfuzz.program.ops.run import KvmRun
from xfdfuzz.program.text import format_op

#: What a recording calls an op of a program.
OPERATION = "xfd"
_ON_KVM = (VmIoctl, VcpuIoctl, KvmRun, kvm.KvmCreateVm, kvm.KvmGetSupportedCpuid, kvm.KvmGetDeviceAttr)
_ON_DEVICE = (kvm.KvmHasDeviceAttr, kvm.KvmGetMsrIndexList, xsave.KvmCheckXsave2)


def recorded(session: Session, outcome: Outcome) -> dict[str, Any]:
    """The recording of a program, as an object of JSON.

    It ends before the first op that a recording cannot speak of: what guests do, and on a host with quirks that change
    the model all of KVM.  What was left out on the host is left out here.
    """
    version = re.match(r"\d+\.\d+(\.\d+)?", session.facts.release)
    return {
        "program": Path(outcome.name).stem,
        "kernel": version[0] if version else session.facts.release,
        "machine": " ".join(session.machine_for(outcome.program).words()),
        "quirks": [quirk.name for quirk in session.quirks],
        "ops": [_operation(one) for one in _told(session, outcome)],
        "panic": None,
    }


def _told(session: Session, outcome: Outcome) -> list[Compared]:
    changed = any(quirk.model for quirk in session.quirks)
    told: list[Compared] = []
    for one in sorted(outcome.compared, key=lambda one: one.number):
        if one.verdict is Verdict.SKIPPED:
            continue
        if isinstance(one.op, KvmRun) or (changed and _is_on_kvm(one.op)):
            break
        told.append(one)
    return told


def _is_on_kvm(op: Op) -> bool:
    return isinstance(op, _ON_KVM + _ON_DEVICE)


def _operation(one: Compared) -> dict[str, Any]:
    assert one.host is not None
    return {"op": OPERATION, "args": [format_op(one.op)], "result": {"gives": str(plain(one.op, one.host))}}
