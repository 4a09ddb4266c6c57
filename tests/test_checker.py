"""Registering and loading invariants, and what the checker says of a predicate that is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants import loading
from xfdfuzz.invariants.checker import StateBroken, select
from xfdfuzz.invariants.loading import load, load_file, loaded_files
from xfdfuzz.invariants.vocabulary import Broken, InvariantError, View, invariant
from xfdfuzz.kernel.event import WARN
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.kvm import KvmCreateVm
from xfdfuzz.program.ops.tasks import UserVmovups
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

PROGRAM = parse("# xfdfuzz program 1\nmachine cpus=1\n\nt0 ioctl(kvm, KVM_CREATE_VM)\n")
ONE = """\
from xfdfuzz.invariants.vocabulary import invariant


@invariant("mine", "abi")
def mine(view):
    \"\"\"My own.\"\"\"
    return []
"""


def register(name: str = "mine", **options: Any) -> None:
    @invariant(name, "abi", **options)
    def mine(view: View) -> list[Broken]:
        """My own."""
        return []


#: An invariant, which each file has to have.
NOTHING = """
from xfdfuzz.invariants.vocabulary import invariant


@invariant("nothing", "abi")
def nothing(view):
    \"\"\"Nothing is broken.\"\"\"
    return ()
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


# -- registering -------------------------------------------------------------------------------------------------------


def test_two_of_one_name_in_one_file_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", ONE + ONE)
    with pytest.raises(ValueError, match=r"invariant mine exists already \(.*mine\.py:4\)"):
        load_file(file)


def test_a_file_may_be_executed_again(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", ONE)
    load_file(file)
    load_file(tmp_path / "." / "mine.py")
    load_file(tmp_path / "sub" / ".." / "mine.py")
    assert loaded_files() == [file.resolve()]


@pytest.mark.parametrize("name", ["", "Mine", "my_own", "-mine", "mine-", "my--own", "my own", "mine\n"])
def test_names_are_kebab_case(name: str) -> None:
    with pytest.raises(ValueError, match="kebab-case"):
        register(name)


def test_events_are_kinds_of_reports() -> None:
    register(events=(WARN,))
    with pytest.raises(ValueError, match="event 'warning' is none of warn, xrstor-fault, "):
        register(events=("warning",))
    with pytest.raises(ValueError, match="event 'w' is none of"):
        register(events="warn")


# -- loading -----------------------------------------------------------------------------------------------------------


def test_a_file_may_define_dataclasses(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "@dataclass\n"
        "class Mine:\n"
        "    number: int\n"
        "    all: ClassVar[int] = 0\n" + NOTHING
    )
    load_file(write(tmp_path / "mine.py", text))


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    files = [
        write(tmp_path / folder / "mine.py", f"WHERE = {folder!r}\n{NOTHING.replace('nothing', folder)}")
        for folder in ("a", "b")
    ]
    for file in files:
        load_file(file)
    assert loaded_files() == files
    assert [vars(sys.modules[module.__name__])["WHERE"] for module in loading._FILES.values()] == ["a", "b"]


def test_a_file_that_fails_was_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        load_file(write(tmp_path / "failing.py", "1 / 0\n"))
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "missing.py")
    assert loaded_files() == []
    assert not [name for name in sys.modules if "_failing_" in name]


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("theirs", "nowhere.at_all", "xfdfuzz.invariants")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])
    with pytest.raises(InvariantError, match=r"^entry point theirs = nowhere\.at_all: ModuleNotFoundError: "):
        load()


# -- checking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "returns None"),
        (True, "returns a value of type bool"),
        (["it is broken"], "gives a value of type str"),
        ([None], "gives None"),
        ([("message", "site", 0)], "gives a value of type tuple"),
    ],
)
def test_a_predicate_that_gives_something_else(given: Any, message: str, state: bool) -> None:
    @invariant("mine", "abi", state=state)
    def mine(view: View) -> Any:
        """My own."""
        return given

    place = f"{__file__}:{mine.__code__.co_firstlineno}"
    with pytest.raises(InvariantError) as caught:
        judge(PROGRAM, resolve("v7.3"), expectations=False)
    assert str(caught.value) == f"{place}: invariant mine {message}: expected an iterable of Broken"


def test_what_a_predicate_raises_is_its_own() -> None:
    @invariant("mine", "abi")
    def mine(view: View) -> Iterator[Broken]:
        """My own."""
        yield Broken("one")
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        judge(PROGRAM, resolve("v7.3"), expectations=False)


def test_the_step_and_the_state_are_judged_apart_and_without_memory() -> None:
    @invariant("my-step", "abi", ops=(KvmCreateVm,))
    def my_step(view: View) -> Iterator[Broken]:
        """My own."""
        yield Broken("a VM came")

    @invariant("my-state", "abi", state=True)
    def my_state(view: View) -> Iterator[Broken]:
        """My own."""
        for nr, vm in enumerate(view.k.vms):
            if vm.exists:
                yield Broken("there is a VM", key=nr)

    revision = resolve("v7.3")
    selection, executor = select(revision.name), Executor(revision.kernel, Machine())
    before: list[StateBroken] = []
    for op, of_step, of_state in (
        (KvmCreateVm(0), ["my-step"], ["my-state"]),
        (UserVmovups(0, 1), [], []),
    ):
        view = View(executor.kernel, executor.execute(op))
        broken = selection.broken_in(view)
        assert [violation.invariant for violation in selection.of_step(view)] == of_step
        assert [inv.name for inv, _ in broken] == ["my-state"]
        assert [violation.invariant for violation in selection.newly_broken(view.step, broken, before)] == of_state
        before = broken


def test_what_an_invariant_keeps_is_made_once_for_each_machine() -> None:
    made: list[int] = []

    def make(kernel: type[Kernel], machine: Machine) -> int:
        made.append(machine.cpus)
        return machine.cpus

    @invariant("mine", "abi", at_end=True)
    def mine(view: View) -> Iterator[Broken]:
        """My own."""
        yield Broken(f"{view.kept(make)}")

    revision = resolve("v7.3")
    for cpus in (1, 1, 2, 1):
        program = parse(f"# xfdfuzz program 1\nmachine cpus={cpus}\n\nt0 ioctl(kvm, KVM_CREATE_VM)\n")
        verdict = judge(program, revision, expectations=False)
        assert [violation.message for violation in verdict.violations] == [str(cpus)]
    assert made == [1, 2]


#: v1, on the other CPU, has no CPUID and so no XSAVES, while v0 may use every feature.
FAULT_ELSEWHERE = """\
# xfdfuzz program 1
machine cpus=2 dyn2

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, DYN2) = 0
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|avx512|pkru|xtile|dyn2, xfd, amx}) = 0
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|avx512|pkru|xtile|dyn2) = 0
t0 clone(CLONE_THREAD) = t2
t0 ioctl(v0, KVM_RUN) ... = ok
v0 vmenter = ok
cpu1 schedule(t2) = ok
t2 ioctl(vm0, KVM_CREATE_VCPU, 1) = v1
t2 ioctl(v1, KVM_RUN) ... = ok
v1 vmenter = ok
v0 xrstor(x87|sse|avx|avx512|pkru|xtile|dyn2, x87|sse|avx|avx512|pkru|xtile|dyn2, 1) = ok
v1 xsaves(x87|sse|avx|avx512|pkru|xtile|dyn2) = #UD
"""


def test_an_instruction_that_faults_at_once_is_judged_on_its_own_cpu() -> None:
    verdict = judge(parse(FAULT_ELSEWHERE), resolve("v7.3"), expectations=False)
    assert not verdict.left_out
    assert verdict.results[-1] == "#UD"
    assert not verdict.violations
