"""Who can do what: what the lists say can happen can, and what was seen is remembered by all that was read."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any
from weakref import WeakSet

import pytest

from xfdfuzz.engines.rules import situation
from xfdfuzz.engines.rules.base import Rules
from xfdfuzz.engines.rules.situation import Situation
from xfdfuzz.engines.search.campaign import Run
from xfdfuzz.engines.search.plan import Budget, Spent
from xfdfuzz.engines.search.scout import Scout
from xfdfuzz.engines.search.violations import ViolationCampaign
from xfdfuzz.invariants.loading import load
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.memory.cstruct import Regions, merged
from xfdfuzz.memory.traced import Footprint, Place, traced
from xfdfuzz.program.ops.base import OPS, Op
from xfdfuzz.revisions import resolve
from xfdfuzz.strategies.machines import MACHINES


class Content(ViolationCampaign):
    """Nothing is new to it, so it goes on."""

    def is_new(self, found: object) -> bool:
        return False


def walk(revision: str, examples: int) -> Content:
    """A seeded search, which looks at the situation before every rule."""
    load()
    searched = Content(revision=resolve(revision))
    budget = Budget(examples=examples)
    with pytest.raises(Spent), searched.after_each_example(budget.spend_example):
        Scout(searched, 1, 50).search()
    return searched


@pytest.mark.parametrize(("revision", "examples"), [("amx-v1", 300), ("v7.3", 1500)])
def test_no_rule_makes_an_op_that_cannot_happen(revision: str, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rules and machines, so many examples that all are drawn on one kernel."""
    begun = set()
    do = Rules.do

    def checked(rules: Rules, op: Op) -> None:
        run: Any = rules.run
        begun.add(run.machine)
        assert not run.kernel.system.dead
        assert op.enabled(run.kernel), op
        do(rules, op)

    monkeypatch.setattr(Rules, "do", checked)
    searched = walk(revision, examples)
    if revision == "v7.3":
        assert begun == set(MACHINES)
        assert {op for op, _ in searched.stats.seen} == {op for op in OPS.values() if op.DRAWN}


def test_whether_an_op_can_happen_is_declared_by_what_hinders_it() -> None:
    """So that none is left out without a word of why."""
    assert [name for name, cls in OPS.items() if cls.enabled is not Op.enabled] == []


def test_a_situation_that_is_remembered_is_the_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = Run.situation
    looked = 0

    def both(run: Run) -> Situation:
        nonlocal looked
        looked += 1
        now = remembered(run)
        assert vars(now) == vars(Situation.of(run.kernel))
        return now

    monkeypatch.setattr(Run, "situation", both)
    steps = walk("v7.3", 150).stats.steps
    assert looked > steps / 2


def test_a_search_that_has_seen_much_forgets_it_and_goes_on_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is as large after a night as after minutes."""
    before = walk("v7.3", 60).stats
    alive: WeakSet[Situation] = WeakSet()
    together, sizes = situation._together, []

    def counted(*looks: Any) -> Situation:
        made = together(*looks)
        alive.add(made)
        sizes.append(len(alive))
        return made

    monkeypatch.setattr(situation, "_MANY", 40)
    monkeypatch.setattr(situation, "_together", counted)
    assert walk("v7.3", 60).stats.seen == before.seen
    assert len(sizes) > 400
    assert max(sizes) <= 45


def test_a_look_is_remembered_by_all_that_it_reads_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: dict[Callable[[st.System], object], Regions] = {
        situation.look_at_tasks: situation.READ_BY_TASKS,
        situation.look_at_vcpus: situation.READ_BY_VCPUS,
        partial(situation.look_at_cpus, MAX_CPUS): situation.READ_BY_CPUS,
    }
    remembered = Run.situation
    footprint = Footprint(ctypes.sizeof(st.System))  # type: ignore[arg-type]
    system = traced(st.System, footprint.now)
    read: dict[object, set[Place]] = {look: set() for look in looks}

    def note(state: bytes) -> None:
        for look in looks:
            footprint.begin(state)
            look(system)
            read[look].update(footprint.reads)

    def noting(run: Run) -> Situation:
        note(run.kernel.state)
        return remembered(run)

    monkeypatch.setattr(Run, "situation", noting)
    walk("v7.3", 250)
    for state in (*_in_kvm_run(), *_with_frames()):  # the last vCPU and the last task seldom are
        note(state)
    assert {look: merged(places) for look, places in read.items()} == {look: r.places for look, r in looks.items()}


def _in_kvm_run() -> Iterator[bytes]:
    for nr, task, mode in product(range(st.NR_VCPUS), range(st.USER_TASKS), (st.VCPU_EXITED, st.VCPU_IN_GUEST)):
        system = st.System()
        system.tasks[task].on_cpu = 1
        vcpu = system.vcpus[nr]
        vcpu.exists, vcpu.mode, vcpu.task, vcpu.vm = 1, mode, task + 1, nr % st.NR_VMS
        yield bytes(system)
    for nr in range(st.NR_VCPUS):  # and its VMM seldom keeps anything
        system = st.System()
        system.vcpus[nr].exists = system.ghost.vmms[nr].kept = 1
        yield bytes(system)
    for nr, vm in product(range(st.NR_VCPUS), range(st.NR_VMS)):  # of application processors few are there
        system = st.System()
        vcpu = system.vcpus[nr]
        system.tasks[0].on_cpu = vcpu.exists = vcpu.task = vcpu.arch.init_pending = system.vms[vm].irqchip_in_kernel = 1
        vcpu.vm, vcpu.mode = vm, st.VCPU_EXITED
        yield bytes(system)
        vcpu.arch.mp_state, vcpu.arch.init_pending = st.KVM_MP_STATE_INIT_RECEIVED, 0
        yield bytes(system)


def _with_frames() -> Iterator[bytes]:
    for task in range(st.USER_TASKS):
        system = st.System()
        system.tasks[task].exists = system.tasks[task].on_cpu = 1
        system.tasks[task].group_leader = task
        for vcpu in system.vcpus:
            vcpu.exists = 1
        st.sigframes_of(system, task)[0].stale = 1
        yield bytes(system)
        for frame in st.sigframes_of(system, task):  # handlers on an alternate stack
            frame.valid, frame.stale, frame.on_altstack = 1, 0, 1
            yield bytes(system)
