"""A bound structure is the same memory as the one that it was made from, whatever kernels do to it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz.kernel.state import System, Vcpu
from xfdfuzz.memory.cstruct import assign, bound, copy_of
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

CORPUS = Path(__file__).parents[1] / "corpus"


def test_what_is_written_to_one_is_read_from_the_other() -> None:
    system = System()
    ready = bound(system)
    ready.vcpus[1].arch.guest_fpu.xfd = 0x40000
    system.ghost.tasks[2].data[9] = 7
    assert system.vcpus[1].arch.guest_fpu.xfd == 0x40000
    assert ready.ghost.tasks[2].data[9] == 7
    assert bytes(ready) == bytes(system)


def test_a_copy_shares_nothing_with_it() -> None:
    ready = bound(System())
    copy = copy_of(ready)
    ready.vcpus[1].arch.xcr0 = 7
    part = copy_of(ready.vcpus[1])
    ready.vcpus[1].arch.xcr0 = 3
    assert (copy.vcpus[1].arch.xcr0, part.arch.xcr0) == (0, 7)


def test_assigning_changes_what_is_read_through_a_nested_structure() -> None:
    ready = bound(System())
    arch = ready.vcpus[0].arch
    other = Vcpu()
    other.arch.xcr0 = 7
    assign(ready.vcpus[0], other)
    assert arch.xcr0 == ready.vcpus[0].arch.xcr0 == 7


def test_a_part_keeps_the_memory() -> None:
    part = bound(System()).vcpus[0].arch
    # memory that were given back would be taken again by one of these
    others = [System(*[0xFF]) for _ in range(1000)]
    assert not any(bytes(part)), len(others)


def test_an_array_of_structures_takes_no_other() -> None:
    with pytest.raises(TypeError):
        bound(System()).vcpus[0] = Vcpu()


@pytest.mark.parametrize("revision", ["v7.3", "v5.17", "amx-v1", "amx-tglx"])
def test_no_kernel_binds_the_name_of_a_part_to_something_else(revision: str) -> None:
    for file in sorted(CORPUS.rglob("*.xfd")):
        program = parse(file.read_text())
        executor = Executor(resolve(revision).kernel, program.machine)
        for _ in executor.run(program.ops):
            pass
        system: Any = executor.kernel.system
        _in_place(system, ctypes.addressof(system), file.name)


def _in_place(value: Any, address: int, where: str) -> None:
    assert ctypes.addressof(value) == address, where
    plain: Any = type(value).__mro__[1]
    for name, _ in getattr(plain, "_fields_", ()):
        member = getattr(value, name)
        at = address + getattr(plain, name).offset
        if isinstance(member, tuple):
            for i, one in enumerate(member):
                _in_place(one, at + i * ctypes.sizeof(one), f"{where}: {name}[{i}]")
        elif not isinstance(member, int):
            _in_place(member, at, f"{where}: {name}")
