"""Every field of the modelled system: what kind of number it is, what reports call it and how they write its value."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz.arch.kinds import FLAG, TOKEN, XFD, XFEATURES, Enumeration, Kind, Mask, Reference
from xfdfuzz.engines.explore.canonical import Canonical
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import Field, fields, fields_of
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.kernel.state import System
from xfdfuzz.memory.cstruct import U8, Regions, Struct, struct
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ghost import task_token, vcpu_token
from xfdfuzz.program.text import parse
from xfdfuzz.report import changes
from xfdfuzz.report.values import text
from xfdfuzz.revisions import resolve
from xfdfuzz.strategies.scopes import CONTENTS

CORPUS = Path(__file__).parents[1] / "corpus"
BY_PATH = {field.path: field for field in fields()}


# -- what there is -----------------------------------------------------------------------------------------------------


def leaves(ctype: Any, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where the numbers of a type are, and its arrays of numbers: start and size."""
    if issubclass(ctype, ctypes.Structure):
        for name, member in ctype._fields_:
            yield from leaves(member, start + getattr(ctype, name).offset)
    elif issubclass(ctype, ctypes.Array) and issubclass(ctype._type_, ctypes.Structure):
        for nr in range(ctype._length_):
            yield from leaves(ctype._type_, start + nr * ctypes.sizeof(ctype._type_))
    else:
        yield start, ctypes.sizeof(ctype)


def test_every_number_of_the_system_has_one_kind_and_a_path_of_its_own() -> None:
    assert [(field.start, field.size) for field in fields()] == [*leaves(System)]
    assert all(isinstance(field.kind, Kind) for field in fields())
    assert len(BY_PATH) == len(fields())


def test_a_field_is_where_its_member_is() -> None:
    for field in fields():
        assert Regions(System, field.member).places == [(field.start, field.size)]


@pytest.mark.parametrize(
    ("path", "member", "kind", "declared_by"),
    [
        ("host.dead", "dead", "flag", "System"),
        ("cpu0.xfd_state", "cpus[0].xfd_state", "MSR value, mask of components", "Cpu"),
        ("cpu1.MSR_IA32_XFD_ERR", "cpus[1].regs.xfd_err", "MSR value, mask of components", "CpuRegs"),
        ("cpu0.regs", "cpus[0].regs.data", "register content", "CpuRegs"),
        ("t0.fpu.fpstate", "tasks[0].fpu.fpstate", "fpstate", "Fpu"),
        ("t0.TIF_NEED_FPU_LOAD", "tasks[0].tif_need_fpu_load", "flag", "Task"),
        ("k1.on_cpu", f"tasks[{st.USER_TASKS + 1}].on_cpu", "cpu+1", "Task"),
        ("t4.sigframe.area.xstate_bv", "sigframes[4].area.xstate_bv", "mask of components", "XsaveArea"),
        ("t1.sigframe-own.magic1", "sigframes[16].magic1", "flag", "SigFrame"),
        ("init_fpstate.size", "fpstates[1].size", "size in bytes", "Fpstate"),
        ("t0.fpu.__fpstate.regs", "fpstates[2].regs.data", "register content", "XsaveArea"),
        ("fpstate#12.regs.header.reserved", "fpstates[12].regs.reserved", "flag", "XsaveArea"),
        ("vm2.mm", "vms[2].mm", "mm", "Vm"),
        ("v0.guest_fpu.realloc_request", "vcpus[0].arch.guest_fpu.realloc_request", "mask of components", "FpuGuest"),
        ("v1.exit_pending", "vcpus[1].exit_pending", "VM exit", "Vcpu"),
        ("ghost.v2.regs.undefined", "ghost.vcpus[2].regs.undefined", "mask of components", "GhostRegs"),
    ],
)
def test_fields_go_by_the_names_of_reports(path: str, member: str, kind: str, declared_by: str) -> None:
    field = BY_PATH[path]
    assert (field.member, str(field.kind), field.struct.__name__) == (member, kind, declared_by)


def test_a_field_without_a_kind_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Unkind\.plain"):
        fields_of(Unkind)


@struct()
class Unkind(Struct):
    """Has a field of which nobody knows what it means."""

    __slots__ = ()
    plain: U8


# -- what a field holds is of its kind ---------------------------------------------------------------------------------

#: The values of references; a CPU is none at -1.
NUMBERS = {
    Reference("cpu"): range(-1, MAX_CPUS),
    Reference("cpu", 1): range(MAX_CPUS + 1),
    Reference("task"): range(st.NR_TASKS),
    Reference("task", 1): range(st.NR_TASKS + 1),
    Reference("vcpu"): range(st.NR_VCPUS),
    Reference("vcpu", 1): range(st.NR_VCPUS + 1),
    Reference("vm"): range(st.NR_VMS),
    Reference("mm"): range(st.NO_MM + 1),
    Reference("fpstate"): range(st.NR_FPSTATES),
    Mask("vm"): range(1 << st.NR_VMS),
    FLAG: range(2),
}


def allowed(kind: Kind, value: int) -> bool:
    if isinstance(kind, Enumeration):
        # the vector of no exception, and one that reports write as a number
        return value in kind.names or (kind.name, value) in {
            ("exception vector", 0),
            ("exception vector", st.DF_VECTOR),
        }
    return value in NUMBERS.get(kind, (value,))


@pytest.mark.parametrize("revision", ["v7.3", "amx-v1", "amx-review-a"])
def test_what_a_field_holds_is_of_its_kind(revision: str) -> None:
    looked_at = [field for field in fields() if field.kind in NUMBERS or isinstance(field.kind, Enumeration)]
    seen = set()
    for file in sorted(CORPUS.rglob("*.xfd")):
        program = parse(file.read_text())
        executor = Executor(resolve(revision).kernel, program.machine)
        for step in executor.run(program.ops):
            before, after = bytes(step.before), bytes(step.after)
            for field in looked_at:
                place = slice(field.start, field.start + field.size)
                if before[place] != after[place]:
                    value = int.from_bytes(after[place], "little", signed=field.kind == Reference("cpu"))
                    assert allowed(field.kind, value), (file.name, str(step.op), field.path, value)
                    seen.add((field.struct, field.kind))
    assert len(seen) > 25


# -- how values are written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "written"),
    [
        ("v0.xcr0", 0x60007, "x87|sse|avx|xtile"),
        ("t0.fpu.guest_perm.__state_perm", 1 << 63 | 3, "x87|sse, locked"),
        ("v0.guest_fpu.realloc_request", 0, "0"),
        ("cpu0.xfd_state", 0x40000, "0x40000"),
        ("cpu0.MSR_IA32_XFD", 0, "0x0"),
        ("v0.exit_value", 0x60007, "0x60007"),
        ("v0.exit_msr", 0x1C4, "0x1c4"),
        ("t0.vm_fds", 0, "0"),
        ("t0.vm_fds", 5, "vm0|vm2"),
        ("cpu0.current", st.USER_TASKS, "k0"),
        ("cpu0.fpu_fpregs_owner_ctx", 0, "NULL"),
        ("cpu0.fpu_fpregs_owner_ctx", 1, "t0"),
        ("t0.on_cpu", 0, "none"),
        ("t0.on_cpu", 2, "cpu1"),
        ("t0.fpu.last_cpu", -1, "-1"),
        ("cpu0.guest", 0, "NULL"),
        ("cpu0.guest", 1, "v0"),
        ("v2.id", 2, "v2"),
        ("v0.vm", 1, "vm1"),
        ("t0.fpu.fpstate", 0, "NULL"),
        ("t0.fpu.fpstate", st.INIT_FPSTATE, "init_fpstate"),
        ("t0.fpu.fpstate", st.FIRST_EMBEDDED + 1, "t1.fpu.__fpstate"),
        ("v0.guest_fpu.fpstate", st.FIRST_VALLOC, "fpstate#11"),
        ("v0.guest_fpu.uabi_size", 2696, "2696"),
        ("host.dead", 1, "1"),
        ("v0.run_ret", -4, "-4"),
        ("v0.mode", st.VCPU_IN_GUEST, "VCPU_IN_GUEST"),
        ("v0.exit_pending", st.EXIT_VMLAUNCH, "EXIT_VMLAUNCH"),
        ("ghost.v0.insn_owed", st.EXIT_MSR_WRITE, "EXIT_MSR_WRITE"),
        ("v0.run.exit_reason", 36, "KVM_EXIT_FPU_REALLOC"),
        ("v0.run.exit_reason", 7, "7"),
        ("v0.complete_userspace_io", st.COMPLETE_SKIP_INSN, "COMPLETE_SKIP_INSN"),
        ("v0.exception.vector", 7, "#NM"),
    ],
)
def test_a_value_is_written_as_its_kind_says(path: str, value: int, written: str) -> None:
    assert text(BY_PATH[path].kind, value) == written


def test_tokens_say_whose_contents_they_are() -> None:
    assert [text(TOKEN, value) for value in (0, 1, 2, 3, 8 | 1, 16 | 7, 128 | 2)] == [
        "init",
        "kernel:1",
        "zero",
        "reserved",
        "t0:1",
        "t1:7",
        "v0:2",
    ]


def test_what_an_msr_holds_is_a_mask_and_written_otherwise() -> None:
    assert isinstance(XFD, Mask)
    assert XFD != XFEATURES


# -- which names canonical states do not tell apart --------------------------------------------------------------------


def form(**values: int) -> bytes:
    """The canonical state for a system in which a task and a vCPU exist, and what else is given by path."""
    system = System()
    system.tasks[0].exists = system.tasks[1].exists = system.vcpus[0].exists = system.vms[0].exists = 1
    for nr in range(st.FIRST_VALLOC, st.FIRST_VALLOC + CONTENTS.slots):
        system.fpstates[nr].allocated = 1
    raw = bytearray(bytes(system))
    for path, value in values.items():
        field = BY_PATH[path]
        raw[field.start] = value
    return Canonical(CONTENTS).form(bytes(raw))


A, B = st.FIRST_VALLOC, st.FIRST_VALLOC + 1


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        ("t0.fpu.fpstate", A, B),
        ("t0.fpu.__task_fpstate", A, B),
        ("v0.guest_fpu.fpstate", A, B),
        ("t0.mm", 3, 5),
        ("vm0.mm", 3, 5),
        ("t0.pkru", task_token(0, 2), task_token(0, 3)),
        ("v0.pkru", vcpu_token(0, 2), vcpu_token(0, 3)),
        ("v0.host_pkru", task_token(0, 2), task_token(0, 3)),
        ("cpu0.regs", vcpu_token(0, 2), vcpu_token(0, 3)),
        ("t0.fpu.__fpstate.regs", task_token(0, 2), task_token(0, 3)),
        ("ghost.t0.data", task_token(0, 2), task_token(0, 3)),
        ("ghost.v0.regs.data", vcpu_token(0, 2), vcpu_token(0, 3)),
    ],
)
def test_another_name_of_one_thing_is_no_other_state(path: str, one: int, other: int) -> None:
    assert form(**{path: one}) == form(**{path: other})


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        ("t0.fpu.fpstate", st.FIRST_EMBEDDED, A),
        ("t0.pkru", 1, 2),
        ("cpu0.regs", vcpu_token(0, 2), task_token(0, 2)),
        ("v0.mode", st.VCPU_OUTSIDE, st.VCPU_EXITED),
        ("t0.vm_fds", 0, 1),
        ("v0.exit_pending", st.EXIT_HLT, st.EXIT_IO),
    ],
)
def test_another_thing_is_another_state(path: str, one: int, other: int) -> None:
    assert form(**{path: one}) != form(**{path: other})


@pytest.mark.parametrize("shown", [changes.HOST, changes.CPU, changes.TASK, changes.FPSTATE, changes.VM, changes.VCPU])
def test_a_trace_has_each_field_once(shown: tuple[Field, ...]) -> None:
    members = [field.member for field in shown]
    assert sorted(members) == sorted(set(members))
