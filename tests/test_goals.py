"""Reachability goals: each means what it says, and none is dead."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from xfdfuzz.engines.search.goals import ENOUGH, GoalCounter
from xfdfuzz.engines.search.scout import Scout
from xfdfuzz.engines.search.violations import JudgedRun, ViolationCampaign
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.sometimes import AREAS, GOALS, goals_for, sometimes
from xfdfuzz.invariants.vocabulary import View
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops import host, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve
from xfdfuzz.strategies.scopes import SCOPES

load()

_VM = """
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
"""
_AMX_VM = f"""
t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
{_VM}
t0 ioctl(v0, KVM_SET_CPUID2, {{xcr0: x87|sse|avx|xtile, xfd, amx}})
"""
_AMX_RUNS = f"""
{_AMX_VM}
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtile)
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
"""
_RUNS = f"""
{_VM}
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
"""
_TILES = """
t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
t0 ldtilecfg(1)
t0 tileload(1)
"""

#: For each goal a program whose last op meets it on v7.3, and cannot do without any of the others.
PROGRAMS = {
    "another-vcpu-gets-what-was-kept": f"""
        {_VM}
        t0 ioctl(vm0, KVM_CREATE_VCPU, 1)
        t0 ioctl(v0, KVM_SET_CPUID2, {{xcr0: x87|sse|avx}})
        t0 ioctl(v0, KVM_SET_XSAVE, {{xstate_bv: avx, data: 1}})
        t0 ioctl(v0, KVM_GET_XSAVE2) keep
        t0 ioctl(v1, KVM_SET_XSAVE) of v0
        """,
    "changed-register-is-written-back": """
        t0 ptrace(PTRACE_GETREGSET, t1, NT_X86_XSTATE) keep
        t0 ptrace(PTRACE_SETREGSET, t1, NT_X86_XSTATE) of t1 {xstate_bv: +avx, avx: 2}
        """,
    "new-tenant-is-entered": f"""
        {_VM}
        v0 reset for another tenant
        t0 ioctl(v0, KVM_RUN) ...
        v0 vmenter
        """,
    "sealed-guest-had-registers-set": """
        t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM)
        t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
        t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: avx, data: 1})
        t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA)
        """,
    "softirq-hits-a-protected-guests-exit": """
        t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_TDX_VM)
        t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
        t0 ioctl(v0, KVM_RUN) ...
        cpu0 softirq kernel_fpu_begin
        """,
    "guest-has-room-for-tiles": f"""
        {_AMX_VM}
        t0 ioctl(v0, KVM_RUN) ...
        v0 vmenter
        """,
    "guest-holds-tiles-under-xfd": f"""
        {_AMX_RUNS}
        v0 ldtilecfg(1)
        v0 tileload(1)
        v0 wrmsr(IA32_XFD, 0x40000)
        v0 handle
        v0 vmenter
        """,
    "guest-sets-xfd-unseen": f"""
        {_AMX_VM}
        t0 ioctl(v0, KVM_SET_MSRS, {{IA32_XFD: 0x40000}})
        t0 ioctl(v0, KVM_RUN) ...
        v0 vmenter
        v0 wrmsr(IA32_XFD, 0)
        """,
    "softirq-in-exit-finds-tiles-under-xfd": f"""
        {_AMX_RUNS}
        v0 ldtilecfg(1)
        v0 tileload(1)
        v0 wrmsr(IA32_XFD, 0x40000)
        v0 handle
        v0 vmenter
        v0 interrupt kernel_fpu_begin
        """,
    "l1-gets-the-nm": f"""
        {_AMX_RUNS}
        v0 wrmsr(IA32_XFD, 0x40000)
        v0 handle
        v0 vmenter
        v0 vmlaunch intercept-nm
        v0 handle
        v0 vmenter
        v0 tileload(1)
        v0 handle
        """,
    "nm-waits-with-its-xfd-err": f"""
        {_AMX_RUNS}
        v0 wrmsr(IA32_XFD, 0x40000)
        v0 handle
        v0 vmenter
        v0 tileload(1)
        """,
    "exit-waits-while-registers-are-anothers": f"""
        {_RUNS}
        v0 hlt
        cpu0 schedule(t1)
        t1 user
        cpu0 schedule(t0)
        v0 handle
        """,
    "vcpu-moves-to-another-cpu": f"""
        machine cpus=2
        {_RUNS}
        v0 interrupt
        cpu0 schedule(kthread)
        cpu1 schedule(t0)
        v0 vmenter
        """,
    "vcpu-enters-after-losing-its-registers": f"""
        {_VM}
        t0 ioctl(v0, KVM_RUN) ...
        cpu0 softirq kernel_fpu_begin
        v0 vmenter
        """,
    "exception-outlives-its-run": f"""
        {_AMX_RUNS}
        v0 wrmsr(IA32_XFD, 0x40000)
        v0 handle
        v0 vmenter
        v0 tileload(1)
        v0 handle
        t0 ... KVM_RUN
        """,
    "guest-buffer-cannot-grow": f"""
        t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
        {_VM}
        host fail_alloc(1)
        t0 ioctl(v0, KVM_SET_CPUID2, supported)
        """,
    "xsave-is-set-under-xfd": f"""
        {_AMX_VM}
        t0 ioctl(v0, KVM_SET_MSRS, {{IA32_XFD: 0x40000}})
        t0 ioctl(v0, KVM_SET_XSAVE, {{xstate_bv: xtile, data: 1}})
        """,
    "xsave-is-set-before-xcr0": f"""
        {_AMX_VM}
        t0 ioctl(v0, KVM_SET_XSAVE, {{xstate_bv: xtile, data: 1}})
        """,
    "xsave-is-read-with-tiles": f"""
        {_AMX_VM}
        t0 ioctl(v0, KVM_SET_XSAVE, {{xstate_bv: xtile, data: 1}})
        t0 ioctl(v0, KVM_GET_XSAVE2)
        """,
    "suspend-takes-tiles": f"{_TILES} t0 suspend",
    "cpu-goes-offline-in-kvm-run": """
        machine cpus=2
        t0 ioctl(kvm, KVM_CREATE_VM)
        t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
        cpu0 schedule(kthread)
        cpu1 schedule(t0)
        t0 ioctl(v0, KVM_RUN) ...
        cpu1 hotplug
        """,
    "cpu-idles-with-tiles": f"""
        {_TILES}
        cpu0 schedule(kthread)
        cpu0 idle
        """,
    "task-comes-back-to-a-cpu-it-left": """
        machine cpus=2
        cpu0 schedule(kthread)
        cpu1 schedule(t0)
        t0 user
        cpu1 schedule(kthread)
        cpu0 schedule(t0)
        """,
    "frame-holds-tiles": f"{_TILES} t0 signal ...",
    "signal-delivery-is-preempted": """
        t0 signal ...
        cpu0 schedule(kthread)
        cpu0 schedule(t0)
        t0 ... signal
        """,
    "sigreturn-brings-tiles": f"""
        {_TILES}
        t0 signal ...
        t0 ... signal
        t0 sigreturn
        """,
    "sigreturn-refuses-its-frame": """
        t0 signal ...
        t0 ... signal
        t0 sigframe({xstate_bv: x87|0x400000000000, data: 1})
        t0 sigreturn
        """,
    "registers-come-from-a-made-frame": """
        t0 sigframe(new)
        t0 sigframe({xstate_bv: x87|sse|avx, data: 1}) own
        t0 sigframe(sw_reserved, {magic1: 1, extended_size: 836, xfeatures: avx, xstate_size: 832, magic2: 832}) own
        t0 sigreturn own
        """,
    "tracer-sets-tiles": """
        cpu0 schedule(t1)
        t1 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
        t1 tileload(1)
        cpu0 schedule(t0)
        t0 ptrace(PTRACE_SETREGSET, t1, {xstate_bv: xtile, data: 2})
        """,
    "tracer-reads-tiles": """
        cpu0 schedule(t1)
        t1 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
        t1 ldtilecfg(1)
        t1 tileload(1)
        cpu0 schedule(t0)
        t0 ptrace(PTRACE_GETREGSET, t1, NT_X86_XSTATE)
        """,
    "core-dump-has-tiles": """
        t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
        t0 ldtilecfg(1)
        t0 tileload(1)
        t0 coredump(t0, NT_X86_XSTATE)
        """,
    "first-use-grows-the-buffer": """
        t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
        t0 tileload(1)
        """,
    "first-use-finds-no-memory": """
        t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
        host fail_alloc(1)
        t0 tileload(1)
        """,
    "restore-is-skipped": """
        cpu0 schedule(kthread)
        cpu0 schedule(t0)
        t0 user
        """,
    "fork-copies-tiles-in-use": f"{_TILES} t0 fork",
    "exec-drops-a-grown-buffer": """
        t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
        t0 tileload(1)
        t0 execve ...
        """,
    "exec-is-preempted": """
        t0 execve ...
        cpu0 schedule(kthread)
        cpu0 schedule(t0)
        t0 ... execve
        """,
    "leader-exits-before-its-threads": """
        t0 clone(CLONE_THREAD)
        t0 exit
        """,
    "vm-outlives-its-process": """
        t0 ioctl(kvm, KVM_CREATE_VM)
        t0 fork
        t0 exit
        """,
}


def parsed(text: str) -> Program:
    machine = "" if text.strip().startswith("machine") else "machine cpus=1\n"
    return parse(f"# xfdfuzz program 1\n{machine}{text}")


def meets(name: str, machine: Machine, ops: tuple[Op, ...]) -> bool:
    """Whether the last op meets a goal, every op having happened."""
    executor, goal = Executor(resolve("v7.3").kernel, machine), GOALS[name]
    for step in executor.run(ops):
        if step.result.ret == NOT_ENABLED:
            return False
    return isinstance(step.op, goal.ops) and goal.predicate(View(executor.kernel, step))


@pytest.mark.parametrize("name", GOALS)
def test_a_goal_is_met_by_its_program_and_by_none_of_an_op_less(name: str) -> None:
    program = parsed(PROGRAMS[name])
    ops = program.ops
    assert meets(name, program.machine, ops)
    for left_out in range(len(ops) - 1):
        assert not meets(name, program.machine, ops[:left_out] + ops[left_out + 1 :]), ops[left_out]


def test_no_area_is_without_a_goal() -> None:
    assert {goal.area for goal in GOALS.values()} == {*AREAS}


def test_a_scope_is_asked_for_what_it_has_the_ops_and_cpus_for() -> None:
    def asked(name: str) -> set[str]:
        scope = SCOPES[name]
        return {goal.name for goal in goals_for(scope.ops, scope.machine.cpus)}

    assert "guest-holds-tiles-under-xfd" in asked("tiny") & asked("migration")
    assert "guest-buffer-cannot-grow" in asked("tiny") - asked("small")  # FailAlloc
    assert "exit-waits-while-registers-are-anothers" in asked("small") - asked("tiny")  # another task
    assert "vcpu-moves-to-another-cpu" in asked("migration") - asked("small")  # a second CPU
    assert "exec-is-preempted" in asked("host") - asked("signals")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("mine", {"area": "engine", "ops": (host.Suspend,)}, "area 'engine' is none of coredump, guest, "),
        ("mine", {"area": "host", "ops": ()}, "no op can bring it about"),
        ("suspend-takes-tiles", {"area": "host", "ops": (host.Suspend,)}, "exists already"),
    ],
)
def test_a_goal_that_cannot_be_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"goal {name}: {message}|goal {name} {message}"):

        @sometimes(name, **given)
        def mine(view: View) -> bool:
            """My own."""
            return True


# -- counted in campaigns ----------------------------------------------------------------------------------------------


def test_counting_ends_when_it_is_enough() -> None:
    counter = GoalCounter([GOALS["restore-is-skipped"], GOALS["exec-is-preempted"]])
    executor = Executor(resolve("v7.3").kernel, Machine(cpus=1))
    for times in range(1, ENOUGH + 3):
        for step in executor.run(parsed(PROGRAMS["restore-is-skipped"]).ops):
            counter.look(executor.kernel, step)
            counter.look(executor.kernel, executor.execute(tasks.ReturnToUser(1)))  # not enabled
        assert counter.met == {"restore-is-skipped": min(times, ENOUGH)}
        assert counter.never == ["exec-is-preempted"]


class Enough(Exception):
    """A campaign has seen enough."""


@dataclass(kw_only=True)
class Watched(ViolationCampaign):
    """Nothing is judged, every step is looked at, until every goal is met or ``steps`` are done."""

    counter: GoalCounter
    steps: int

    def start(self, machine: Machine) -> JudgedRun:
        return WatchedRun(self, machine)


class WatchedRun(JudgedRun):
    campaign: Watched

    def execute(self, op: Op) -> None:
        step = self.executor.execute(op)
        if step.result.ret == NOT_ENABLED:
            return
        self.done(step)
        self.campaign.counter.look(self.kernel, step)
        self.campaign.steps -= 1
        if not (self.campaign.steps and self.campaign.counter.never):
            raise Enough

    def look_at_end(self) -> None:
        pass


def test_a_short_campaign_meets_nearly_every_goal() -> None:
    """The last few take a search of minutes; that none of them is dead, the programs above show."""
    counter = GoalCounter(GOALS.values())
    with suppress(Enough):
        Scout(Watched(revision=resolve("v7.3"), counter=counter, steps=60_000), 1, 50).search()
    assert len(counter.never) <= 5
