"""Canonical states: of all that differ in names only, or in what nobody will read, one.

Two reductions, both sound because the states that they take for one behave the same (bisimulation):

* *Dead fields.*  A field that is always written before it is read again is 0 here: what an exit was about once it has
  been handled, the vector of an exception that is not pending, why an earlier KVM_RUN returned, a free fpstate, a
  signal frame behind its handler where no op of the scope names one.
* *Names.*  No kernel function looks at the number of an fpstate slot or of an address space, nor at the value of
  register contents (beyond 0, the initial configuration); so slots, address spaces and each owner's contents are
  numbered as they are first met.  Where a scope's ops come for every CPU, vCPU or task alike, those are interchangeable
  too: of all ways to number them the one with the smallest bytes is taken.  Which bytes are names follows from the
  kinds of the fields (:mod:`~xfdfuzz.kernel.fields`).

tests/test_explore.py compares the verdicts with and without.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Iterator
from itertools import pairwise, permutations
from operator import itemgetter
from typing import NamedTuple

from xfdfuzz.arch.kinds import TOKEN, Kind, Reference
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import Element, elements
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.kernel.state import OWNER_SHIFT, GhostVcpu, SigFrame, Vcpu
from xfdfuzz.memory.cstruct import assign
from xfdfuzz.program.ghost import TENANTS, task_token, vcpu_token
from xfdfuzz.strategies.scopes import Scope

#: The contents that belong to nobody: the initial configuration and the kernel's own values.
_KERNELS_OWN = bytes(range(1 << OWNER_SHIFT))
#: More skipped instructions than this are not told apart: whoever looks asks whether there was one too many.
_SKIPS = 2
#: The members of a vCPU that :func:`clear_dead` writes to: what stands there in a canonical state may not be what stood
#: there.
CLEARED = frozenset(
    {
        *("run_ret", "run.exit_reason", "exit_msr", "exit_value", "exit_value2"),
        *("arch.exception_vector", "arch.insn_skips"),
    }
)


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
                vcpu.exit_value = vcpu.exit_value2 = 0
        arch = vcpu.arch
        if not (arch.exception_pending or arch.exception_injected):
            arch.exception_vector = 0
        if arch.insn_skips > _SKIPS:
            arch.insn_skips = _SKIPS


def clear_stale(frame: SigFrame) -> None:
    """Set to 0 a signal frame whose handler has ended, for scopes in which nobody looks at it any more."""
    if frame.stale:
        assign(frame, SigFrame())


class Group(NamedTuple):
    """One way to number what is interchangeable: new number by old."""

    cpus: tuple[int, ...]
    vcpus: tuple[int, ...]
    tasks: tuple[int, ...]

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every number as it is."""
        return all(new == old for numbers in self for old, new in enumerate(numbers))


_FPSTATE, _MM, _TASK = Reference("fpstate"), Reference("mm"), Reference("task")
#: Where the bytes are that name something, by the kind of name.
_Places = dict[Kind, list[int]]


class Canonical:
    """Numbers the states of one scope."""

    def __init__(self, scope: Scope) -> None:
        self._names = Names(scope)
        self._others = [group for group in groups(scope) if not group.is_identity]

    def form(self, raw: bytes) -> bytes:
        """The canonical state for a system's bytes; the very same object where that is it already."""
        form = self._names.renumbered(raw)
        for group in self._others:
            form = min(form, self._names.renumbered(self._names.permuted(raw, group)))
        return form


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
        self._places = _names(scope)
        where = _where()
        self._vcpus = [where["vcpus", nr] for nr in range(scope.vcpus)]
        self._vm = where["vms", 0]
        # the mm of a VM that does not exist names nothing
        of_tasks = [place for place in self._places[_MM] if place not in range(self._vm.start, self._vm.stop)]
        self._mms = [of_tasks, self._places[_MM]]
        self._contents = scope.contents > 1
        self._renamings: dict[Group, _Renaming] = {}
        self._slots = [where["fpstates", nr] for nr in range(st.FIRST_VALLOC, st.NR_FPSTATES)]
        self._pool = slice(self._slots[0].start, self._slots[-1].stop)

    # -- numbering in the order of appearance ----------------------------------------------------------------------

    def renumbered(self, raw: bytes) -> bytes:
        """Slots, address spaces and contents numbered as they come; free slots cleared."""
        raw = self._with_slots_in_order(raw)
        raw = self._with_mms_in_order(raw)
        return self._with_contents_in_order(raw) if self._contents else raw

    def _with_slots_in_order(self, raw: bytes) -> bytes:
        places = self._places[_FPSTATE]
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
        places = self._mms[raw[self._vm.start]]
        used = dict.fromkeys([raw[place] for place in places])
        if [*used] == [*range(len(used))]:
            return raw
        return _replaced(bytearray(raw), places, {old: new for new, old in enumerate(used)})

    def _with_contents_in_order(self, raw: bytes) -> bytes:
        places = self._places[TOKEN]
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
        """The same state with other numbers for its CPUs, vCPUs or tasks."""
        if group not in self._renamings:
            self._renamings[group] = _Renaming(group, self._places)
        changed = self._renamings[group](raw)
        missing = [place for place in self._vcpus if not changed[place.start]]  # by its first member
        if missing:
            cleared = bytearray(changed)
            for place in missing:  # what does not exist names nothing
                cleared[place] = bytes(place.stop - place.start)
            return bytes(cleared)
        return changed


class _Renaming:
    """What a group makes of a system's bytes: pieces of them in another order, names among them translated."""

    def __init__(self, group: Group, places: _Places) -> None:
        order, tables = _order(group), _tables(group, places)
        starts = [0]
        for place in range(1, len(order)):
            if order[place] != order[place - 1] + 1 or tables[place] != tables[place - 1]:
                starts.append(place)
        pieces = [(order[start], end - start, tables[start]) for start, end in pairwise([*starts, len(order)])]
        self._pieces = itemgetter(*(slice(old, old + size) for old, size, _ in pieces))
        self._translated = [(number, table) for number, (_, _, table) in enumerate(pieces) if table != _SAME]

    def __call__(self, raw: bytes) -> bytes:
        pieces = [*self._pieces(raw)]
        for number, table in self._translated:
            pieces[number] = pieces[number].translate(table)
        return b"".join(pieces)


def _order(group: Group) -> list[int]:
    """By the place of a byte among the renamed ones, where it was before."""
    order, where = [*range(ctypes.sizeof(st.System))], _where()  # type: ignore[arg-type]
    tasks = _task_numbers(group)
    moves: list[tuple[str, Iterable[tuple[int, int]]]] = [
        ("cpus", enumerate(group.cpus)),
        ("tasks", enumerate(tasks)),
        *(("sigframes", _of_handlers(group, depth)) for depth in (*range(st.NR_SIGFRAMES), st.OWN_SIGFRAME)),
        ("fpstates", _embedded(tasks).items()),
        ("vcpus", enumerate(group.vcpus)),
        ("ghost.tasks", enumerate(group.tasks)),
        ("ghost.vcpus", enumerate(group.vcpus)),
        ("ghost.vmms", enumerate(group.vcpus)),
        ("ghost.tracers", enumerate(group.tasks)),
    ]
    for pool, numbers in moves:
        for old, new in numbers:
            here = where[pool, old]
            order[where[pool, new]] = range(here.start, here.stop)
    return order


def _of_handlers(group: Group, depth: int) -> Iterator[tuple[int, int]]:
    """New number by old, of the signal frames of handlers that ``depth`` others surround, or that tasks have made."""
    first = depth * st.USER_TASKS
    return ((first + old, first + new) for old, new in enumerate(group.tasks))


def _task_numbers(group: Group) -> list[int]:
    """New number by old, of user tasks and of each CPU's kernel thread."""
    return [*group.tasks, *(st.USER_TASKS + cpu for cpu in group.cpus)]


def _tenants(group: Group) -> list[int]:
    """New number by old, of the guests that a vCPU may have one after another."""
    return [old - old % st.NR_VCPUS + group.vcpus[old % st.NR_VCPUS] for old in range(TENANTS)]


def _embedded(tasks: list[int]) -> dict[int, int]:
    """New number by old, of the fpstates that tasks have in them."""
    return {st.FIRST_EMBEDDED + old: st.FIRST_EMBEDDED + new for old, new in enumerate(tasks)}


def _tables(group: Group, places: _Places) -> list[bytes]:
    """By place, what bytes.translate() makes of the byte there; ``places`` are those of the names, by their kind."""
    found = [_SAME] * ctypes.sizeof(st.System)  # type: ignore[arg-type]
    tasks = _task_numbers(group)
    tables: dict[Kind, bytes] = {_FPSTATE: _table(_embedded(tasks)), TOKEN: _tokens(group)}
    pools = (("cpu", group.cpus), ("vcpu", group.vcpus), ("task", tasks), ("tenant", _tenants(group)))
    for name, numbers in pools:
        for offset in (0, 1):
            renamed = {old + offset: new + offset for old, new in enumerate(numbers)}
            tables[Reference(name, offset)] = _table(renamed)
    for kind, table in tables.items():
        for place in places.get(kind, []):
            found[place] = table
    return found


def _names(scope: Scope) -> _Places:
    """Where the names are in the bytes that can differ in the scope."""
    found: _Places = {}
    for element in (one for one in elements() if _in_scope(scope, one)):
        for field in element.fields():
            kind = field.kind
            if kind == _MM and element.pool == "tasks" and element.nr >= st.USER_TASKS:
                kind = _TASK  # a kernel thread never gets another address space: it is another name of the thread's
            if kind == TOKEN or isinstance(kind, Reference):
                found.setdefault(kind, []).extend(range(field.start, field.start + field.size))
    return found


def _in_scope(scope: Scope, element: Element) -> bool:
    """Whether the element can differ in the scope."""
    pool, nr = element.pool.removeprefix("ghost."), element.nr
    if pool == "fpstates":
        return nr < st.FIRST_VALLOC + scope.slots
    if pool == "sigframes":
        return nr in scope.sigframes
    tasks, vcpus = dict.fromkeys(("tasks", "tracers"), scope.tasks), dict.fromkeys(("vcpus", "vmms"), scope.vcpus)
    limit = {"cpus": scope.machine.cpus, "vms": 1, **tasks, **vcpus}
    if pool == "tasks" and nr >= st.USER_TASKS:
        return nr < st.USER_TASKS + scope.machine.cpus
    return nr < limit[pool]


#: bytes.translate()'s table of a renaming that renames nothing.
_SAME = bytes(range(256))


def _table(numbers: dict[int, int]) -> bytes:
    """bytes.translate()'s table of a renaming."""
    table = bytearray(_SAME)
    for old, new in numbers.items():
        table[old] = new
    return bytes(table)


def _tokens(group: Group) -> bytes:
    """The table of new contents by old, where the owner gets another number."""
    numbers: dict[int, int] = {}
    for numbered, new_by_old in ((task_token, group.tasks), (vcpu_token, _tenants(group))):
        for old, new in enumerate(new_by_old):
            numbers |= {numbered(old, content): numbered(new, content) for content in range(1 << OWNER_SHIFT)}
    return _table(numbers)


def _replaced(changed: bytearray, places: list[int], numbers: dict[int, int]) -> bytes:
    for place in places:
        changed[place] = numbers.get(changed[place], changed[place])
    return bytes(changed)


@functools.cache
def _where() -> dict[tuple[str, int], slice]:
    """Where each element of a pool lies."""
    return {(one.pool, one.nr): slice(one.start, one.start + ctypes.sizeof(one.struct)) for one in elements()}
