"""The plainest program: programs in, programs out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.minimise import Shows, minimise, reduce
from xfdfuzz.engines.judge.passes import PASSES
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.ops.host import Schedule, Suspend
from xfdfuzz.program.ops.tasks import ReturnToUser
from xfdfuzz.program.ops.xsave import KvmGetXsave2
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import resolve

HEAD = "# xfdfuzz program 1\n"
CORPUS = Path(__file__).parent.parent / "corpus"
TILES_IN_A_GUEST = """\
t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|avx512|pkru|xtile, xfd, amx})
"""


def smallest(text: str, revision: str, bucket: str) -> str:
    """The minimal program without its first line and its results."""
    program = minimise(parse(HEAD + text), resolve(revision), bucket)
    lines = format_program(program).removeprefix(HEAD).splitlines()
    return "\n".join(line.split(" = ")[0] for line in lines) + "\n"


def test_values_become_what_they_are_on_a_plainer_machine() -> None:
    """Without MPX, XCR0 cannot have its bits."""
    tail = "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|avx512|pkru|xtile)\nt0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0})\n"
    plain = f"machine cpus=1\n\n{TILES_IN_A_GUEST}{tail}"
    with_mpx = plain.replace("cpus=1", "cpus=1 mpx").replace("avx|avx512", "avx|mpx|avx512")
    assert smallest(with_mpx, "amx-v1", "failed-call-changes-nothing@KvmSetMsrs") == plain


def test_the_synthetic_feature_gives_way_to_tiles() -> None:
    dyn2 = "machine cpus=1 dyn2\n\nt0 arch_prctl(ARCH_REQ_XCOMP_PERM, DYN2)\nt0 dyn2load(1)\nt0 execve ...\n"
    tiles = dyn2.replace(" dyn2\n", "\n").replace("DYN2", "XTILEDATA").replace("dyn2load", "tileload")
    assert smallest(dyn2, "v5.17", "fpstate-reachable@Execve") == tiles


def test_what_a_guest_sets_is_set_from_outside() -> None:
    """The same whether a guest or its VMM disables a component, and before or after the VMM loads it."""
    load = "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: xtile, data: 1})\n"
    disable = "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000})\n"
    in_guest = "t0 ioctl(v0, KVM_RUN) ...\nv0 vmenter\nv0 wrmsr(IA32_XFD, 0x40000)\nv0 handle\nt0 ... KVM_RUN\n"
    found = {
        smallest(f"machine cpus=1\n\n{TILES_IN_A_GUEST}{middle}t0 ioctl(v0, KVM_GET_XSAVE2)\n", "v5.17", bucket)
        for middle in (load + disable, disable + load, in_guest + load)
        for bucket in ["get-xsave-hides-disabled@KvmGetXsave2"]
    }
    (program,) = found
    assert "KVM_RUN" not in program
    assert "KVM_SET_MSRS, {IA32_XFD: 0x40000}" in program


def test_a_task_that_another_one_can_stand_for_is_not_made() -> None:
    made = """\
machine cpus=1

t0 fork
t0 ptrace(PTRACE_SETREGSET, t2, {xstate_bv: avx, data: 1})
cpu0 schedule(t2)
t2 user
"""
    there = made.replace("t0 fork\n", "").replace("t2", "t1")
    assert smallest(made, "v5.17", "host-registers-preserved@static") == there


@pytest.mark.parametrize(
    "insn", ["interrupt", "vmlaunch", "out", "wrmsr(IA32_XFD, 0)", "cpuid(0xd, 0)", "rdmsr(IA32_XFD)", "hlt"]
)
def test_of_exits_that_do_as_well_the_plainest_is_taken(insn: str) -> None:
    enter = "t0 ioctl(v0, KVM_RUN) ...\nv0 vmenter\nv0 wrmsr(IA32_XFD_ERR, 0x40000)\n"
    text = f"machine cpus=1\n\n{TILES_IN_A_GUEST}{enter}v0 {insn}\n"
    assert smallest(text, "amx-v1", "xfd-err-clean-in-host@vm-exit").endswith("v0 hlt\n")


NEW_TASK = """\
machine cpus=1

t0 wrpkru(1)
t0 clone(CLONE_VM)
t0 ptrace(PTRACE_SETREGSET, t2, {xstate_bv: avx, data: 1})
cpu0 schedule(t2)
t2 user
"""
NEWER_TASK = (
    NEW_TASK.replace("t0 wrp", "t0 clone(CLONE_THREAD)\nt0 wrp")
    .replace("t2", "t3")
    .replace("t3 user", "t3 tilerelease")
)
ONE_CPU = """\
machine cpus=1

t0 ptrace(PTRACE_SETREGSET, t1, {xstate_bv: avx, data: 1})
cpu0 schedule(t1)
t1 user
cpu0 schedule(t0)
t0 ptrace(PTRACE_GETREGSET, t1, NT_X86_XSTATE)
"""
TWO_CPUS = ONE_CPU.replace("cpus=1", "cpus=4").replace("cpu0", "cpu1").replace("schedule(t0)", "schedule(kthread)")
LEGACY = """\
machine cpus=1

t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: 0})
t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: x87|sse, data: 1})
"""
WITH_PERMISSION = LEGACY.replace("{xcr0: 0}", "supported").replace(
    "t0 ioctl(kvm", "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\nt0 ioctl(kvm"
)


@pytest.mark.parametrize(
    ("text", "bucket", "plainest"),
    [
        (NEWER_TASK, "no-foreign-registers@static", NEW_TASK),
        (TWO_CPUS, "ptrace-reads-the-registers@static", ONE_CPU),
        (WITH_PERMISSION, "set-xsave-takes-what-the-host-has@legacy", LEGACY),
    ],
)
def test_two_ways_to_the_same_end_are_one(text: str, bucket: str, plainest: str) -> None:
    assert smallest(text, "v5.17", bucket) == smallest(plainest, "v5.17", bucket) == plainest


def test_a_task_goes_on_where_nobody_has_to_be_switched_to() -> None:
    def still(program: Program) -> bool:
        running = [op.task for op in program.ops if isinstance(op, Schedule)]
        begun = program.ops[:2] == (Schedule(task=1), ReturnToUser(task=1))
        return begun and program.ops[-1] == Suspend(running[-1])

    text = "machine cpus=1\n\ncpu0 schedule(t1)\nt1 user\ncpu0 schedule(t0)\nt0 suspend\n"
    without = text.replace("cpu0 schedule(t0)\nt0 suspend", "t1 suspend")
    assert format_program(reduce(parse(HEAD + text), still)) == HEAD + without


def test_numbers_that_are_like_no_other_become_round() -> None:
    def still(program: Program) -> bool:
        (op,) = program.ops
        return isinstance(op, KvmGetXsave2) and 0x800 <= (op.buffer.size or 0) < 0x1000

    text = "machine cpus=1\n\nt0 ioctl(v0, KVM_GET_XSAVE2, buffer={})\n"
    (program,) = {reduce(parse(HEAD + text.format(size)), still) for size in (0x820, 0x801, 0xABC)}
    assert format_program(program) == HEAD + text.format(0x800)


def programs() -> Iterator[Program]:
    for file in sorted(CORPUS.glob("bugs/*.xfd")):
        yield parse(file.read_text())


@pytest.mark.parametrize("often", [0.1, 0.5, 0.9])
def test_no_pass_undoes_what_another_one_does(often: float) -> None:
    """Whatever is looked for: in the end nothing is offered that was taken before."""
    for seed, program in enumerate(programs()):
        whim = random.Random(seed)
        answers: dict[Program, bool] = {}

        def still(one: Program, answers: dict[Program, bool] = answers, whim: random.Random = whim) -> bool:
            return answers.setdefault(one, whim.random() < often)

        small = reduce(program, still)
        assert len(small.ops) <= len(program.ops)
        assert not any(answers[plainer] for apply in PASSES for plainer in apply(small) if plainer != small)


def test_what_does_not_matter_at_all_is_one_op() -> None:
    assert {len(reduce(program, lambda one: True).ops) for program in programs()} == {1}


@pytest.mark.parametrize("revision", ["amx-v1", "v5.17"])
def test_a_candidate_shows_what_it_shows_run_from_its_beginning(revision: str) -> None:
    """Also those that go on where others part from them, those on other machines, and those that break at the end."""
    chosen = resolve(revision)
    at_the_end = 0
    for program in programs():
        verdict = judge(program, chosen, expectations=False)
        at_the_end += any(judged.step is None and judged.violations for judged in verdict.trace)
        for bucket in verdict.buckets:
            shows = Shows(chosen, bucket)
            for apply in PASSES:
                for candidate in [*apply(program)][:6]:
                    assert shows(candidate) == (bucket in judge(candidate, chosen, expectations=False).buckets)
    assert at_the_end
