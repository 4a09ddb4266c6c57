"""The state graph, in what the Promela model has of a state: xfdfuzz's, made here, and SPIN's, read from its output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bench.peers.scope import PEERS
from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.explore.canonical import Canonical, clear_dead
from xfdfuzz.invariants.amx_v1 import request
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.event import WARN, XRSTOR_FAULT
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.step import PANIC, Step, format_ret
from xfdfuzz.revisions import Revision
from xfdfuzz.revisions.amx_v1 import XFD_ERR_GUEST_DISABLED, XFD_ERR_GUEST_SAVED

#: What the numbers of results in amx_v1.pml mean.
RESULTS = (
    *("0", "1", "ok", "exit", "resume", "-EINVAL", "-EBUSY", "-ENOMEM", "-EEXIST", "-EINTR", "-EFAULT"),
    *("KVM_EXIT_FPU_REALLOC", "#GP", "#NM", "#UD", PANIC, "vm0", "vm1", "v0"),
)
_CFG, _DATA = xf.MASK_XTILE_CFG, xf.MASK_XTILE_DATA
_EXITS = {(st.EXIT_XSETBV, PEERS.machine.user_xfeatures): 1, (st.EXIT_MSR_WRITE, 0): 2, (st.EXIT_MSR_WRITE, _DATA): 3}
_XFD_ERRS = {
    0: 0,
    XFD_ERR_GUEST_DISABLED: 1,
    XFD_ERR_GUEST_SAVED: 2,
    XFD_ERR_GUEST_SAVED | _DATA: 3,
}


class State(NamedTuple):
    """A state as two numbers: SYSTEM_A and SYSTEM_B of amx_v1.pml."""

    a: int
    b: int


#: Where a WARN or a fault of XRSTORS can be, by the function that amx_v1.pml numbers so.
SITES = {
    "kvm_set_msr_common": 1,
    "fpu_guest_realloc_fpstate": 2,
    "switch_fpu_return": 3,
    "fpu_swap_kvm_fpstate": 4,
    "fpstate_realloc": 5,
}

#: A dead host is one state.
DEAD = State(0, 0)


class Arc(NamedTuple):
    """One op, by its number, from a state to a state; ``met`` is the bitmap of sites that warned or faulted."""

    source: State
    op: int
    result: str
    met: int
    target: State


@dataclass(frozen=True)
class Graph:
    """All arcs that can be reached, and of how many states ``whole`` they are the picture."""

    arcs: frozenset[Arc]
    whole: int

    @property
    def states(self) -> set[State]:
        """The states, the dead host among them."""
        return {state for arc in self.arcs for state in (arc.source, arc.target)}


def _packed(fields: Iterable[tuple[int, int]]) -> int:
    """Values with the bits that each takes, the lowest first."""
    number = place = 0
    for value, bits in fields:
        assert value < 1 << bits, "amx_v1.pml has too little room for a field"
        number |= value << place
        place += bits
    return number


def state_of(k: Kernel) -> State:
    """What the Promela model has of the system's state."""
    task, cpu, vcpu = k.tasks[0], k.cpus[0], k.vcpus[0]
    perm, nr = task.fpu.guest_perm.state_perm, vcpu.arch.guest_fpu.fpstate
    a = (
        bool(perm & _DATA),
        bool(perm & st.FPU_GUEST_PERM_LOCKED),
        task.user_mode,
        task.tif_need_fpu_load,
        bool(vcpu.exists and task.fpu.fpstate == nr),
        k.vms[0].exists,
        vcpu.exists,
        cpu.fpu_fpregs_owner_ctx == 1,
        bool(cpu.regs.xfd),
        bool(cpu.xfd_state),
        bool(cpu.regs.xfd_err),
        bool(cpu.regs.xinuse & _CFG),
        bool(cpu.regs.xinuse & _DATA),
        k.system.alloc_failures,
    )
    return State(_packed((int(value), 1) for value in a), _packed(_vcpu_fields(k)))


def _vcpu_fields(k: Kernel) -> Iterator[tuple[int, int]]:
    vcpu = k.vcpus[0]
    arch = vcpu.arch
    host = k.fpstates[st.FIRST_EMBEDDED]
    # without a vCPU the model's second fpstate is as it began, with init_xfd
    guest = k.fpstates[arch.guest_fpu.fpstate] if vcpu.exists else st.Fpstate(xfd=_DATA)
    for mask in (
        *(fpstate.xfeatures & _DATA for fpstate in (host, guest)),
        *(fpstate.xfd for fpstate in (host, guest)),
        *(fpstate.regs.xstate_bv & component for component in (_CFG, _DATA) for fpstate in (host, guest)),
    ):
        yield int(bool(mask)), 1
    yield vcpu.mode, 2
    yield _EXITS[vcpu.exit_pending, vcpu.exit_value] if vcpu.exit_pending else 0, 2
    yield _XFD_ERRS[arch.guest_fpu.xfd_err], 2
    for flag in (
        arch.cpuid_amx,
        arch.xcr0 & _DATA,
        request(vcpu),
        arch.xfd_no_write_intercept,
        vcpu.exists and vcpu.last_vmentry_cpu != -1,
        vcpu.run_over,
        arch.complete_userspace_io,
        arch.exception_pending,
    ):
        yield int(bool(flag)), 1


def of_xfdfuzz(revision: Revision) -> Graph:
    """Every op on every state that can be reached, whatever it breaks: `explore` does not go on from some of that."""
    executor = Executor(revision.kernel, PEERS.machine)
    k, canonical = executor.kernel, Canonical(PEERS)
    waiting = [k.state]
    seen = set(waiting)
    arcs = set()
    while waiting:
        raw = waiting.pop()
        for number, op in enumerate(PEERS.ops):
            k.load(raw)
            if not op.enabled(k):
                continue
            source = state_of(k)
            step = executor.perform(op)
            result = format_ret(step.result.ret)
            arcs.add(Arc(source, number, result, _met(step), _target(k, source, step)))
            if step.result.ret == PANIC or k.vms[1].exists:
                continue
            for vcpu, ideal in zip(k.vcpus, k.system.ghost.vcpus, strict=True):
                clear_dead(vcpu, ideal)
            form = canonical.form(k.state)
            if form not in seen:
                seen.add(form)
                waiting.append(form)
    return Graph(frozenset(arcs), len(seen))


def _met(step: Step) -> int:
    """The sites; the WARN that the kernel says farewell with belongs to the fault."""
    met = 0
    for event in step.events:
        if event.kind in (WARN, XRSTOR_FAULT) and event.site != "handle_xfd_event":
            met |= 1 << next(SITES[name] for name in event.trace if name in SITES)
    return met


def _target(k: Kernel, source: State, step: Step) -> State:
    """A dead host is one state, and a second VM is not gone on from."""
    if step.result.ret == PANIC:
        return DEAD
    return source if k.vms[1].exists else state_of(k)


def of_spin(output: str) -> Graph:
    """The arcs that a pan compiled with -DPRINTF printed."""
    arcs = set()
    for line in output.splitlines():
        if line.startswith("step "):
            from_a, from_b, op, result, met, to_a, to_b = map(int, line.split()[1:])
            arcs.add(Arc(State(from_a, from_b), op, RESULTS[result], met, State(to_a, to_b)))
    return Graph(frozenset(arcs), len({state for arc in arcs for state in (arc.source, arc.target)}))
