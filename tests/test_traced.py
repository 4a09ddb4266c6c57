"""A traced structure behaves like the one that it stands for; what was done depends on its footprint alone."""

from __future__ import annotations

import ctypes
from pathlib import Path
from random import Random
from typing import Any

import pytest

from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import System, Vcpu, Vm
from xfdfuzz.memory.cstruct import Regions, assign, copy_of
from xfdfuzz.memory.traced import Footprint, Place, Watched, traced
from xfdfuzz.program.executor import Executor, perform
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Result
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

CORPUS = Path(__file__).parents[1] / "corpus"
SIZE: int = ctypes.sizeof(System)  # type: ignore[arg-type]


@pytest.fixture
def footprint() -> Footprint:
    found = Footprint(SIZE)
    found.begin(bytes(SIZE))
    return found


def place(path: str) -> tuple[int, int]:
    ((start, size),) = Regions(System, path).places
    return start, size


def test_reads_are_noted_once_and_in_order(footprint: Footprint) -> None:
    system = traced(System, footprint.now)
    assert (system.vcpus[1].arch.xcr0, system.dead, system.vcpus[1].arch.xcr0) == (0, 0, 0)
    assert footprint.reads == [place("vcpus[1].arch.xcr0"), place("dead")]


def test_what_was_written_before_it_is_read_depends_on_nothing(footprint: Footprint) -> None:
    system, before = traced(System, footprint.now), traced(System, footprint.before)
    system.alloc_failures = 3
    assert (system.alloc_failures, footprint.reads) == (3, [])
    assert footprint.changes() == [place("alloc_failures")]
    # but what was there before has to be read
    assert (before.alloc_failures, footprint.reads) == (0, [place("alloc_failures")])


def test_writing_what_is_there_for_sure_is_no_change(footprint: Footprint) -> None:
    system = traced(System, footprint.now)
    system.dead = 0
    assert footprint.changes() == [place("dead")]
    footprint.begin(bytes(SIZE))
    system.dead = system.dead
    assert footprint.changes() == []


def test_numbers_are_cut_to_their_size_and_keep_their_sign(footprint: Footprint) -> None:
    plain, system = System(), traced(System, footprint.now)
    for one in (plain, system):
        one.vcpus[0].last_vmentry_cpu = -1
        one.vcpus[0].mode = 0x1FF
        one.ghost.tasks[4].data[21] = 0x107
        one.cpus[3].regs.xfd = -1
    assert system.vcpus[0].last_vmentry_cpu == -1
    assert bytes(system) == bytes(plain)


def test_bytes_copies_and_regions_note_what_they_read(footprint: Footprint) -> None:
    system = traced(System, footprint.now)
    assert bytes(system.vms[1]) == bytes(Vm())
    assert copy_of(system.vcpus[2]).exists == 0
    assert Regions(System, "cpus[].guest", "dead")(system) == (b"\0",) * 5
    for path in ("vms[1]", "vcpus[2]", "dead", "cpus[3].guest"):
        start, size = place(path)
        assert all(footprint.now.known[start : start + size])
    assert sum(size for _, size in footprint.reads) == place("vms[1]")[1] + place("vcpus[2]")[1] + 5


def test_assigning_from_and_to_a_traced_structure(footprint: Footprint) -> None:
    system = traced(System, footprint.now)
    assign(system.vcpus[0], Vcpu(exists=1, id=2))
    plain = Vcpu()
    assign(plain, system.vcpus[0])
    assign(system.vcpus[1], system.vcpus[0])
    assert (plain.id, system.vcpus[1].id, footprint.reads) == (2, 2, [])


def test_nothing_reads_its_memory_unnoticed(footprint: Footprint) -> None:
    system: Any = traced(System, footprint.now)
    for unnoticed in (ctypes.addressof, memoryview, System.from_buffer_copy):  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            unnoticed(system)


def test_the_state_before_is_not_to_be_changed(footprint: Footprint) -> None:
    with pytest.raises(TypeError, match="nobody's to change"):
        traced(System, footprint.before).dead = 1


def test_every_access_to_a_watched_place_is_told_and_read_once() -> None:
    watched, told = place("vcpus[1].arch.xcr0"), []
    footprint = Watched(SIZE, [watched], lambda where, new: told.append((where, new)))
    footprint.begin(bytes(SIZE))
    vcpu = traced(System, footprint.now).vcpus[1]
    assert (vcpu.arch.xcr0, vcpu.arch.xcr0, vcpu.arch.ia32_xss) == (0, 0, 0)
    vcpu.arch.xcr0 = 7
    assert vcpu.arch.xcr0 == 7
    assert told == [(watched, None), (watched, None), (watched, b"\7".ljust(8, b"\0")), (watched, None)]
    assert footprint.reads == [watched, place("vcpus[1].arch.ia32_xss")]
    assert footprint.changes() == [watched]
    # a copy of all of it, and one over all of it
    told.clear()
    assign(vcpu, copy_of(vcpu))
    assert told == [(watched, None), (watched, b"\7".ljust(8, b"\0"))]


def test_watching_changes_nothing_of_what_is_noted() -> None:
    """Of programs that write to all that is watched: CPUs' XFD, guests' requests, buffers in use."""
    draw = Random(2)
    places: list[Place] = [
        *(place(f"cpus[{nr}].regs.xfd") for nr in range(2)),
        *(place(f"vcpus[{nr}].arch.guest_fpu.realloc_request") for nr in range(2)),
        *(place(f"fpstates[{nr}].in_use") for nr in range(20)),
    ]
    told: list[Place] = []
    for program in draw.sample([parse(file.read_text()) for file in sorted(CORPUS.rglob("*.xfd"))], 30):
        executor = Executor(resolve("amx-v1").kernel, program.machine)
        kernel, footprint = on_footprint("amx-v1", program.machine)
        watching = Watched(SIZE, places, lambda where, new: told.append(where))
        other = resolve("amx-v1").kernel(program.machine)
        system = traced(System, watching.now)
        other.bind(system, system)
        for op in program.ops:
            if executor.kernel.system.dead or not op.enabled(executor.kernel):
                continue
            before = executor.kernel.state
            executor.perform(op)
            assert ran(other, watching, op, before) == ran(kernel, footprint, op, before), op
            assert watching.now.memory == footprint.now.memory, op
            assert bytes_of(watching.reads) == bytes_of(footprint.reads), op
            assert watching.now.written == footprint.now.written, op
    assert set(told) <= set(places)
    assert len(set(told)) > 5


def bytes_of(places: list[Place]) -> list[int]:
    return sorted(at for start, size in places for at in range(start, start + size))


def on_footprint(revision: str, machine: Machine) -> tuple[Kernel, Footprint]:
    kernel, footprint = resolve(revision).kernel(machine), Footprint(SIZE)
    system = traced(System, footprint.now)
    kernel.bind(system, system)
    return kernel, footprint


def ran(kernel: Kernel, footprint: Footprint, op: Op, state: bytes) -> tuple[Result, object]:
    footprint.begin(state)
    kernel.on_cpu(0)
    return perform(op, kernel), tuple(kernel.events)


@pytest.mark.parametrize("revision", ["amx-v1", "amx-review-a", "v5.16", "v7.3"])
def test_a_kernel_does_the_same_on_it_and_depends_on_its_footprint_alone(revision: str) -> None:
    """In every byte that an op did not read there may be anything: it does the same, and leaves that alone."""
    draw = Random(revision)
    programs = [parse(file.read_text()) for file in sorted(CORPUS.rglob("*.xfd"))]
    for program in draw.sample(programs, 30):
        executor = Executor(resolve(revision).kernel, program.machine)
        kernel, footprint = on_footprint(revision, program.machine)
        for op in program.ops:
            if executor.kernel.system.dead or not op.enabled(executor.kernel):
                continue
            before = executor.kernel.state
            step = executor.perform(op)
            found = ran(kernel, footprint, op, before)
            assert found == (step.result, step.events), op
            assert footprint.now.memory == executor.kernel.state, op
            reads, writes = footprint.reads, footprint.changes()
            other = bytearray(draw.randbytes(SIZE))
            for start, size in reads:
                other[start : start + size] = before[start : start + size]
            assert ran(kernel, footprint, op, bytes(other)) == found, op
            assert (footprint.reads, footprint.changes()) == (reads, writes), op
            for start, size in writes:
                other[start : start + size] = executor.kernel.state[start : start + size]
            assert footprint.now.memory == other, op
