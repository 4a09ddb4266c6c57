"""Canonical states: of all that differ in names only, or in what nobody will read, one.

Two reductions, both sound because the states that they take for one behave the same (bisimulation):

* *Dead fields.*  A field that is always written before it is read again is 0 here: what an exit was about once it has
  been handled, the vector of an exception that is not pending, why an earlier KVM_RUN returned, a free fpstate.
* *Names.*  No kernel function looks at the number of an fpstate slot or of an address space, nor at the value of
  register contents (beyond 0, the initial configuration); so slots, address spaces and each owner's contents are
  numbered as they are first met.  Where a scope's ops come for every CPU, vCPU or task alike, those are interchangeable
  too: of all ways to number them the one with the smallest bytes is taken.

tests/test_explore.py compares the verdicts with and without.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from itertools import permutations
from typing import Any, NamedTuple

from xfdfuzz.arch.machine import MAX_CPUS
from xfdfuzz.arch.registers import CpuRegs
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.state import GhostVcpu, Vcpu
from xfdfuzz.program.ghost import OWNER_SHIFT, task_token, vcpu_token
from xfdfuzz.strategies.scopes import Scope

#: The contents that belong to nobody: the initial configuration and the kernel's own values.
_KERNELS_OWN = bytes(range(1 << OWNER_SHIFT))
#: More skipped instructions than this are not told apart: whoever looks asks whether there was one too many.
_SKIPS = 2


def clear_dead(vcpu: Vcpu, ideal: GhostVcpu) -> None:
    """Set to 0 what is written before it is read again."""
    if vcpu.exists:
        if not vcpu.run_over:
            vcpu.run_ret = 0
            vcpu.run.exit_reason = 0
        if not ideal.insn_owed:
            ideal.owed_value = 0
            if not vcpu.exit_pending:
                vcpu.exit_msr = 0
                vcpu.exit_value = 0
        arch = vcpu.arch
        if not arch.exception_pending:
            arch.exception_vector = 0
        if arch.insn_skips > _SKIPS:
            arch.insn_skips = _SKIPS


class Group(NamedTuple):
    """One way to number what is interchangeable: new number by old."""

    cpus: tuple[int, ...]
    vcpus: tuple[int, ...]
    tasks: tuple[int, ...]

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every number as it is."""
        return all(new == old for numbers in self for old, new in enumerate(numbers))


#: What a byte that names something names: by structure and field.  ``+1``: 0 is NULL.
_REFERENCES: dict[tuple[type[Any], str], str] = {
    (st.Cpu, "current"): "task",
    (st.Cpu, "fpu_fpregs_owner_ctx"): "task+1",
    (st.Cpu, "guest"): "vcpu+1",
    (st.Fpu, "last_cpu"): "cpu",
    (st.Fpu, "fpstate"): "fpstate",
    (st.Fpu, "task_fpstate"): "fpstate",
    (st.Task, "group_leader"): "task",
    (st.Task, "mm"): "mm",
    (st.Task, "on_cpu"): "cpu+1",
    (st.Task, "kvm_run"): "vcpu+1",
    (st.Task, "pkru"): "token",
    (st.FpuGuest, "fpstate"): "fpstate",
    (st.VcpuArch, "pkru"): "token",
    (st.VcpuArch, "host_pkru"): "token",
    (st.Vcpu, "id"): "vcpu",
    (st.Vcpu, "task"): "task+1",
    (st.Vcpu, "cpu"): "cpu+1",
    (st.Vcpu, "last_vmentry_cpu"): "cpu",
    (st.Vm, "mm"): "mm",
    (st.Vm, "vcpus_0"): "vcpu+1",
    (CpuRegs, "data"): "token",
    (XsaveArea, "data"): "token",
    (st.GhostRegs, "data"): "token",
}


class Canonical:
    """Numbers the states of one scope."""

    def __init__(self, scope: Scope) -> None:
        self._names = Names(scope)
        self._groups = [*groups(scope)]

    def form(self, raw: bytes) -> bytes:
        """The canonical state for a system's bytes; the very same object where that is it already."""
        if len(self._groups) == 1:
            return self._names.renumbered(raw)
        return min(self._names.renumbered(self._names.permuted(raw, group)) for group in self._groups)


def groups(scope: Scope) -> Iterator[Group]:
    """Every way to number what the scope has alike; the one that changes nothing is the first."""

    def numberings(kind: str, count: int, pool: int) -> Iterator[tuple[int, ...]]:
        fixed = tuple(range(count, pool))
        ways = permutations(range(count)) if kind in scope.alike else [tuple(range(count))]
        return (way + fixed for way in ways)

    for cpus in numberings("cpus", scope.machine.cpus, MAX_CPUS):
        for vcpus in numberings("vcpus", scope.vcpus, st.NR_VCPUS):
            for tasks in numberings("tasks", scope.tasks, st.USER_TASKS):
                yield Group(cpus, vcpus, tasks)


class Names:
    """Where names stand in a system's bytes, and how to change them."""

    def __init__(self, scope: Scope) -> None:
        self._places: dict[str, list[int]] = {kind: [] for kind in _REFERENCES.values()}
        for path, place, kind in _references(st.System, 0):
            if _in_scope(scope, path):
                # a kernel thread never gets another address space, so that is another name of the thread's
                kthread = kind == "mm" and path[0] == "tasks" and path[1] >= st.USER_TASKS
                self._places["task" if kthread else kind].append(place)
        self._vcpus = [_element(st.System, "vcpus", nr) for nr in range(scope.vcpus)]
        self._vm = _element(st.System, "vms", 0)
        self._vm_places = range(self._vm.start, self._vm.stop)
        self._contents = scope.contents > 1
        self._runs = _runs(self._places["token"])
        self._slots = [_element(st.System, "fpstates", nr) for nr in range(st.FIRST_VALLOC, st.NR_FPSTATES)]
        self._pool = slice(self._slots[0].start, self._slots[-1].stop)

    # -- numbering in the order of appearance ----------------------------------------------------------------------

    def renumbered(self, raw: bytes) -> bytes:
        """Slots, address spaces and contents numbered as they come; free slots cleared."""
        raw = self._with_slots_in_order(raw)
        raw = self._with_mms_in_order(raw)
        return self._with_contents_in_order(raw) if self._contents else raw

    def _with_slots_in_order(self, raw: bytes) -> bytes:
        places = self._places["fpstate"]
        used = dict.fromkeys([raw[place] for place in places if raw[place] >= st.FIRST_VALLOC])
        pool = b"".join([raw[self._slots[nr - st.FIRST_VALLOC]] for nr in used])
        pool = pool.ljust(self._pool.stop - self._pool.start, b"\0")
        if raw[self._pool] == pool:
            return raw  # a slot that is in use holds no zeros, so they are in order
        changed = bytearray(raw)
        changed[self._pool] = pool
        numbers = {old: st.FIRST_VALLOC + new for new, old in enumerate(used)}
        return _replaced(changed, places, numbers)

    def _with_mms_in_order(self, raw: bytes) -> bytes:
        # the mm of a VM that does not exist names nothing
        places = [place for place in self._places["mm"] if raw[self._vm.start] or place not in self._vm_places]
        used = dict.fromkeys([raw[place] for place in places])
        if all(new == old for new, old in enumerate(used)):
            return raw
        return _replaced(bytearray(raw), places, {old: new for new, old in enumerate(used)})

    def _with_contents_in_order(self, raw: bytes) -> bytes:
        places = self._places["token"]
        numbers: dict[int, int] = {}
        met: dict[int, int] = {}
        for token in dict.fromkeys(bytes([raw[place] for place in places]).translate(None, _KERNELS_OWN)):
            owner = token >> OWNER_SHIFT
            met[owner] = met.get(owner, 0) + 1
            numbers[token] = owner << OWNER_SHIFT | met[owner]
        if all(new == old for old, new in numbers.items()):
            return raw
        return _replaced(bytearray(raw), places, numbers)

    # -- another numbering of what is interchangeable --------------------------------------------------------------

    def permuted(self, raw: bytes, group: Group) -> bytes:
        """The same state with other numbers for its CPUs, vCPUs and tasks."""
        if group.is_identity:
            return raw
        tasks = [*group.tasks, *(st.USER_TASKS + cpu for cpu in group.cpus)]
        changed = bytearray(raw)
        embedded = {st.FIRST_EMBEDDED + old: st.FIRST_EMBEDDED + new for old, new in enumerate(tasks)}
        for name, numbers in (
            ("cpus", dict(enumerate(group.cpus))),
            ("tasks", dict(enumerate(tasks))),
            ("sigframes", dict(enumerate(group.tasks))),
            ("fpstates", embedded),
            ("vcpus", dict(enumerate(group.vcpus))),
        ):
            _move(raw, changed, st.System, name, numbers)
        ghost = _array(st.System, "ghost").offset
        _move(raw, changed, st.Ghost, "tasks", dict(enumerate(group.tasks)), ghost)
        _move(raw, changed, st.Ghost, "vcpus", dict(enumerate(group.vcpus)), ghost)
        kinds = {"cpu": group.cpus, "vcpu": group.vcpus, "task": tasks}
        for kind, permutation in kinds.items():
            plain = dict(enumerate(permutation))
            _replace(changed, self._places.get(kind, []), plain)
            _replace(changed, self._places.get(f"{kind}+1", []), {old + 1: new + 1 for old, new in plain.items()})
        _replace(changed, self._places["fpstate"], embedded)
        table = _tokens(group)
        for run in self._runs if table != _SAME else ():
            changed[run] = changed[run].translate(table)
        for place in self._vcpus:
            if not changed[place.start]:  # its first member: it does not exist, and names nothing
                changed[place] = bytes(place.stop - place.start)
        return bytes(changed)


def _in_scope(scope: Scope, path: tuple[Any, ...]) -> bool:
    """Whether what the path leads to can differ in the scope."""
    first, *rest = path[1:] if path[0] == "ghost" else path
    if first == "fpstates":
        return bool(rest[0] < st.FIRST_VALLOC + scope.slots)
    limit = {"cpus": scope.machine.cpus, "vcpus": scope.vcpus, "tasks": scope.tasks, "sigframes": scope.tasks, "vms": 1}
    if first == "tasks" and rest[0] >= st.USER_TASKS:
        return bool(rest[0] < st.USER_TASKS + scope.machine.cpus)
    return bool(rest[0] < limit[first])


#: bytes.translate()'s table of a renaming that renames nothing.
_SAME = bytes(range(256))


@functools.cache
def _tokens(group: Group) -> bytes:
    """New contents by old, where the owner gets another number, for bytes.translate()."""
    contents = range(1 << OWNER_SHIFT)
    table = bytearray(_SAME)
    for numbered, numbers in ((task_token, group.tasks), (vcpu_token, group.vcpus)):
        for old, new in enumerate(numbers):
            for content in contents:
                table[numbered(old, content)] = numbered(new, content)
    return bytes(table)


def _runs(places: list[int]) -> list[slice]:
    """Places that lie side by side, taken together."""
    runs: list[slice] = []
    for place in places:
        if runs and runs[-1].stop == place:
            runs[-1] = slice(runs[-1].start, place + 1)
        else:
            runs.append(slice(place, place + 1))
    return runs


def _move(raw: bytes, changed: bytearray, struct: Any, name: str, numbers: dict[int, int], base: int = 0) -> None:
    """Put each element of an array where its new number says."""
    for old, new in numbers.items():
        changed[_element(struct, name, new, base)] = raw[_element(struct, name, old, base)]


def _replace(changed: bytearray, places: list[int], numbers: dict[int, int]) -> None:
    for place in places:
        changed[place] = numbers.get(changed[place], changed[place])


def _replaced(changed: bytearray, places: list[int], numbers: dict[int, int]) -> bytes:
    _replace(changed, places, numbers)
    return bytes(changed)


def _array(struct: Any, name: str) -> Any:
    """The descriptor of a member, which ctypes' stubs do not know."""
    return getattr(struct, name)


@functools.cache
def _element(struct: Any, name: str, index: int, base: int = 0) -> slice:
    """Where element ``index`` of an array member lies."""
    size = ctypes.sizeof(dict(struct._fields_)[name]._type_)
    start: int = base + _array(struct, name).offset + index * size
    return slice(start, start + size)


def _references(struct: Any, base: int, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int, str]]:
    """Every byte that names something: its path of members and indices, where it stands, what it names."""
    for name, ctype in struct._fields_:
        start = base + _array(struct, name).offset
        kind = _REFERENCES.get((struct, name))
        if kind is not None:
            for place in range(start, start + ctypes.sizeof(ctype)):
                yield (*path, name), place, kind
        elif issubclass(ctype, ctypes.Array) and hasattr(ctype._type_, "_fields_"):
            for index in range(ctype._length_):
                inner = start + index * ctypes.sizeof(ctype._type_)
                yield from _references(ctype._type_, inner, (*path, name, index))
        elif hasattr(ctype, "_fields_"):
            yield from _references(ctype, start, (*path, name))
