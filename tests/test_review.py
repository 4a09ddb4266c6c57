"""What a reviewer asks of a field and of a WARN, and what a change of the kernel changes of the answers."""

from __future__ import annotations

import ast
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz.engines.explore.canonical import CLEARED, clear_dead
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.review.accesses import Access, Action, accesses
from xfdfuzz.engines.review.against import against
from xfdfuzz.engines.review.biography import SHOWN, biography
from xfdfuzz.engines.review.life import Life, life
from xfdfuzz.engines.review.mining import Mined, Table, mined
from xfdfuzz.engines.review.relations import Form, Relation
from xfdfuzz.engines.review.space import Space, explored
from xfdfuzz.engines.review.subjects import UnknownFieldError, every, subject
from xfdfuzz.engines.review.survival import Break, Survival, fuzzed, in_scope
from xfdfuzz.engines.review.warnings import Warnings, warnings
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import fields_of
from xfdfuzz.kernel.state import System
from xfdfuzz.memory.cstruct import from_bytes
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.kvm import KvmSetMsrs
from xfdfuzz.program.ops.run import KvmRun
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import parse
from xfdfuzz.report import biography as report
from xfdfuzz.report import warnings as warnings_report
from xfdfuzz.report.console import console
from xfdfuzz.report.hiding import hide
from xfdfuzz.revisions import Revision, resolve

ROOT = Path(__file__).parent.parent
REQUEST = subject("v.guest_fpu.realloc_request")
#: amx-v1 with a place less at which a request is cleared: where it comes too early to be served.
PLANTED = """\
from xfdfuzz import Series
from xfdfuzz.kernel.errno import EUNATCH
from xfdfuzz.kernel.state import FpuGuest
from xfdfuzz.revisions.amx_v1 import AmxV1

series = Series("planted", base="amx-v1", title="a request that cannot be served is kept")


@series.patch("planted-1", "x86/fpu: keep the request")
class Keeps(AmxV1):
    def fpu_guest_realloc_fpstate(self, guest_fpu: FpuGuest, enter_guest: bool) -> int:
        if self.warn_on(enter_guest):
            return -EUNATCH
        return self.xfd_enable_guest_features(guest_fpu)
"""
#: Steps of the fuzzer, and no time in other scopes.
SOME = Plan(seed=1, engine="scout", examples=60)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def v1() -> Space:
    return explored(resolve("amx-v1"), "tiny")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Space:
    file = tmp_path_factory.mktemp("series") / "planted.py"
    file.write_text(PLANTED)
    return explored(resolve(str(file)), "tiny")


@pytest.fixture(scope="module")
def relations(v1: Space) -> list[Mined]:
    return mined(Table(v1, "v"), REQUEST)


def texts(relations: list[Mined]) -> list[str]:
    return [str(one.relation) for one in relations]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("v.guest_fpu.realloc_request", "v.guest_fpu.realloc_request"),
        ("v1.guest_fpu.fpstate.xfd", "v.guest_fpu.fpstate.xfd"),
        ("cpu0.xfd_state", "cpu.xfd_state"),
        ("t.TIF_NEED_FPU_LOAD", "t.TIF_NEED_FPU_LOAD"),
        ("k1.fpu.fpstate", "t.fpu.fpstate"),
        ("fpstate#12.in_use", "fpstate.in_use"),
        ("t0.fpu.__fpstate.xfd", "fpstate.xfd"),
        ("t2.sigframe.xfeatures", "t.sigframe.xfeatures"),
        ("t2.sigframe1.xfeatures", "t.sigframe.xfeatures"),
        ("t2.sigframe-own.xfeatures", "t.sigframe.xfeatures"),
        ("host.alloc_failures", "host.alloc_failures"),
    ],
)
def test_a_field_has_the_name_that_reports_give_it_with_a_number_or_without(name: str, path: str) -> None:
    assert subject(name).path == path


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("v.guest_fpu.realoc_request", "v.guest_fpu.realloc_request"),
        ("realloc_request", "v.guest_fpu.realloc_request"),
        ("ghost.v0.xfd", "ideal machine"),
    ],
)
def test_an_unknown_field_gives_a_line_with_near_misses(name: str, near: str) -> None:
    with pytest.raises(UnknownFieldError) as caught:
        subject(name)
    assert near in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_of_the_kernels_structs_can_be_asked_about() -> None:
    structs = (st.System, st.Cpu, st.Task, st.SigFrame, st.Fpstate, st.Vm, st.Vcpu)
    assert len({one.path for one in every()}) == len(every()) == sum(len(fields_of(struct)) for struct in structs)


# -- who writes and reads ----------------------------------------------------------------------------------------------


def who(found: list[Access], action: Action) -> set[str]:
    return {one.function for one in found if one.action is action}


def test_who_sets_clears_and_reads_the_request_of_the_first_posting(v1: Space) -> None:
    found = accesses(v1, REQUEST)
    assert who(found, Action.SETS) == {"kvm_check_guest_realloc_fpstate"}
    assert who(found, Action.CLEARS) == {"fpu_guest_realloc_fpstate", "xfd_enable_guest_features"}
    assert who(found, Action.REPEATS) == {"kvm_check_guest_realloc_fpstate"}
    assert who(found, Action.READS) == {"fpu_swap_kvm_fpstate", "xfd_enable_guest_features"}
    (sets,) = (one for one in found if one.action is Action.SETS)
    assert {"kvm_set_msr_common", "kvm_emulate_xsetbv"} == set(sets.callers)
    for one in found:
        before, after = ends(v1.program_to(one.state, one.op), v1.revision)
        assert {
            Action.SETS: not before,
            Action.CLEARS: before and not after,
            Action.REPEATS: before and before == after,
            Action.READS: True,
        }[one.action], one


def ends(program: Program, revision: Revision) -> tuple[int, int]:
    """The request before the last op of a program and behind it, on ordinary memory."""
    executor = Executor(revision.kernel, program.machine)
    *_, last = executor.run(program.ops)
    return last.before.vcpus[0].arch.guest_fpu.realloc_request, last.after.vcpus[0].arch.guest_fpu.realloc_request


def test_every_change_that_any_op_makes_has_somebody_who_makes_it(v1: Space) -> None:
    """In a field that several functions and an op of the hardware's write."""
    asked = subject("cpu.MSR_IA32_XFD")
    found = accesses(v1, asked)
    values = [from_bytes(System, v1.raw(state)).cpus[0].regs.xfd for state in range(len(v1.states))]
    changed = {(bool(values[arc.source]), bool(values[arc.target])) for arc in v1.arcs}
    assert ((False, True) in changed) == bool(who(found, Action.SETS))
    assert ((True, False) in changed) == bool(who(found, Action.CLEARS))
    assert "GuestWrmsr" in who(found, Action.SETS)


def test_what_the_kernel_reads_to_know_where_it_is_can_be_asked_about(v1: Space) -> None:
    found = accesses(v1, subject("cpu.current"))
    assert {one.action for one in found} <= {Action.READS}, "one task, one CPU, no context switch in this scope"


def test_what_a_pointer_leads_to_is_told_from_what_others_have(v1: Space) -> None:
    """No guest's buffer is in use before there is a guest, whatever tasks do with theirs."""
    for one in accesses(v1, subject("v.guest_fpu.fpstate.in_use")):
        program = v1.program_to(one.state, one.op)
        assert any(isinstance(op, KvmRun) for op in program.ops) or one.action is Action.READS, one


# -- relations ---------------------------------------------------------------------------------------------------------


def test_the_relations_that_nobody_wrote_down_are_found(relations: list[Mined]) -> None:
    shown = texts(relations[:SHOWN])
    name, guest_fpu = "v.guest_fpu.realloc_request", "v.guest_fpu"
    assert f"{name} & ~{guest_fpu}.perm == 0" in shown
    assert f"{name} & {guest_fpu}.xfeatures == 0" in shown
    assert f"{name} != 0 => v.complete_userspace_io == {st.COMPLETE_SKIP_INSN}" in shown
    assert f"{name} == 0 after KvmRun, VmEnter, KvmRunReturns" in shown


def test_the_machinery_knows_none_of_these_names() -> None:
    for file in (ROOT / "xfdfuzz" / "engines" / "review").glob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value = ast.Constant("")  # text for readers
        for name in ("realloc", "complete_userspace_io", "guest_fpu", "amx", "xfd"):
            assert not re.search(rf"{name}(?!fuzz)", ast.unparse(tree)), file


def test_a_relation_holds_of_all_states_read_in_another_way(v1: Space) -> None:
    table = Table(v1, "v")
    for path in ("v.guest_fpu.realloc_request", "v.guest_fpu.fpstate.in_use", "v.cpuid.xfd"):
        general = [one.relation for one in mined(table, subject(path)) if not one.relation.points]
        assert general
        for state in range(0, len(v1.states), 29):
            system = from_bytes(System, v1.raw(state))
            if system.vcpus[0].exists:
                for relation in general:
                    here, there = (read(system, one) for one in (relation.field, relation.other))
                    assert relation.holds(here, there), (relation, here, there)


def read(system: System, path: str) -> int | None:
    """What stands in a field of vCPU 0, by way of attributes."""
    vcpu = system.vcpus[0]
    for pointer, target in (
        ("guest_fpu.fpstate", system.fpstates[vcpu.arch.guest_fpu.fpstate] if vcpu.arch.guest_fpu.fpstate else None),
        ("cpu", system.cpus[vcpu.cpu - 1] if vcpu.cpu else None),
        ("task", system.tasks[vcpu.task - 1] if vcpu.task else None),
        ("preempt_notifier", system.tasks[vcpu.preempt_notifier - 1] if vcpu.preempt_notifier else None),
        ("vm", system.vms[vcpu.vm]),
    ):
        if path.startswith(f"v.{pointer}."):
            return None if target is None else value(target, path.removeprefix(f"v.{pointer}."))
    if path.startswith("("):  # two pointers, by their names
        one, other = (read(system, part) for part in path.strip("()").split(" == "))
        return None if other is None else int(one == other)
    return value(vcpu, path.removeprefix("v."))


def value(owner: Any, path: str) -> int:
    struct: Any = type(owner)
    (field,) = (field for field in fields_of(struct) if field.path == path)
    for name in field.member.split("."):
        owner = getattr(owner, name)
    assert isinstance(owner, int)
    return owner


def test_a_clearing_place_less_changes_just_what_it_should(v1: Space, planted: Space, relations: list[Mined]) -> None:
    before, after = ({(one.action, one.function) for one in accesses(space, REQUEST)} for space in (v1, planted))
    assert before - after == {(Action.CLEARS, "fpu_guest_realloc_fpstate")}
    assert after <= before
    now = texts(mined(Table(planted, "v"), REQUEST))
    # in the scope no request is kept for what is not permitted or is there; but it may wait while the guest runs
    kept = [text for text in texts(relations) if " & " in text and "after" not in text and "XCR0" not in text]
    assert kept
    assert set(kept) <= set(now)
    assert "v.guest_fpu.realloc_request == 0 after KvmRunReturns" in now
    compared = against(REQUEST, v1, planted)
    lost = {str(one.mined.relation) for one in compared.only_first}
    assert f"v.guest_fpu.realloc_request != 0 => v.complete_userspace_io == {st.COMPLETE_SKIP_INSN}" in lost
    assert "v.guest_fpu.realloc_request == 0 after KvmRun, VmEnter, KvmRunReturns" in lost
    assert not lost & set(kept)
    for one in compared.only_first[:5]:
        assert breaks(one.broken.program, one.mined.relation, planted.revision), one
    assert {str(one.mined.relation) for one in compared.only_second} == set()


def breaks(program: Program, relation: Relation, revision: Revision) -> bool:
    """Whether the relation does not hold at the end of the program, of the first vCPU."""
    executor = Executor(revision.kernel, program.machine)
    *_, last = executor.run(program.ops)
    after = from_bytes(System, bytes(last.after))
    here, there = read(after, relation.field), read(after, relation.other) if relation.other else None
    at_point = not relation.points or type(last.op).__name__ in relation.points
    return at_point and not relation.holds(here, there)


def test_a_relation_that_is_not_true_elsewhere_is_broken_there_by_a_program() -> None:
    revision = resolve("amx-v1")
    wrong = Relation(Form.WITHIN, "v.xcr0", "v.guest_supported_xcr0")
    at_point = Relation(Form.IS, "v.nm_intercept", value=0, points=("HandleExit",))
    # what is there is not asked for; what is not permitted is, where the guest's CPUID names XTILEDATA without AMX
    true = Relation(Form.APART, "v.guest_fpu.realloc_request", "v.guest_fpu.xfeatures")
    survival = Survival([wrong, true])
    in_scope(survival, revision, "v", "contents", 0.5)
    fuzzed(survival, revision, "v", SOME)
    assert survival.left() == [true]
    assert breaks(survival.broken[wrong].program, wrong, revision)
    assert [one.where for one in survival.checked[true]] == ["contents", "fuzz"]
    assert survival.checked[true][1].count > 100
    survival = Survival([at_point])
    fuzzed(survival, resolve("v7.3"), "v", SOME)
    assert breaks(survival.broken[at_point].program, at_point, resolve("v7.3"))


@pytest.mark.parametrize("form", Form)
def test_no_relation_says_anything_of_what_is_not_there(form: Form) -> None:
    relation = Relation(form, "v.a", "v.b", 1)
    assert relation.holds(None, 1)
    assert relation.holds(2, None)
    assert {relation.holds(a, b) for a, b in itertools.product(range(4), range(4))} == {True, False}


def test_what_canonical_states_clear_is_named() -> None:
    """Nothing is mined of it, because there is 0 where something else may have stood."""
    vcpu = from_bytes(st.Vcpu, bytes([0xFF]) * len(bytes(st.Vcpu())))
    for member in ("run_over", "exit_pending"):
        setattr(vcpu, member, 0)
    vcpu.arch.exception_pending = vcpu.arch.exception_injected = 0
    before = bytes(vcpu)
    clear_dead(vcpu, st.GhostVcpu())
    after = bytes(vcpu)
    fields = fields_of(st.Vcpu)
    changed = {f.member for f in fields if before[f.start : f.start + f.size] != after[f.start : f.start + f.size]}
    assert changed == CLEARED


# -- its life ----------------------------------------------------------------------------------------------------------


def test_a_request_is_never_set_where_the_first_posting_goes_on(v1: Space) -> None:
    found = life(v1, Table(v1, "v"), REQUEST)
    assert found.loop is None
    assert found.shortest == 1
    assert found.longest is None
    assert {one.name: one.set for one in found.moments} == {
        "the guest is entered": 0,
        "KVM_RUN returns to user space": 0,
        "the vCPU is put": 0,
    }
    assert set(found.values) == {0, 1 << 18}


def test_a_request_that_is_kept_may_be_kept_for_ever(planted: Space) -> None:
    found: Life = life(planted, Table(planted, "v"), REQUEST)
    assert found.loop
    assert not found.loop.without_memory
    ops = found.loop.program.ops
    executor = Executor(planted.revision.kernel, found.loop.program.machine)
    for step in executor.run([*ops, *ops[-found.loop.turns :] * 3]):
        assert step.number <= len(ops) or step.after.vcpus[0].arch.guest_fpu.realloc_request
    (entered,) = (one for one in found.moments if one.name == "the guest is entered")
    assert entered.program
    assert ends(entered.program, planted.revision)[1]


# -- warnings ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warned() -> Warnings:
    return warnings(resolve("amx-v1"), SOME, elsewhere=[])


def test_the_warning_of_the_review_fires(warned: Warnings) -> None:
    (found,) = (one for one in warned.verdicts if one.site.function == "fpu_guest_realloc_fpstate")
    assert found.fires
    assert found.site.what == "WARN_ON"
    ops = found.fires.program.ops
    assert len(ops) <= 7
    kinds = [type(op) for op in ops]
    assert kinds.index(KvmSetMsrs) < kinds.index(KvmRun)


def test_what_fires_is_what_the_invariant_sees_in_the_same_scope(v1: Space, warned: Warnings) -> None:
    seen = {b.violation.site for b in v1.search.breaches.values() if b.violation.invariant == "no-warning"}
    fired = [one for one in warned.verdicts if one.fires and one.fires.where == "tiny" and "WARN" in one.site.what]
    assert {one.site.function for one in fired} == seen
    for one in warned.verdicts:
        if one.fires and "WARN" in one.site.what:
            shown = judge(replace(one.fires.program, results=()), warned.revision, expectations=False)
            events = [event for judged in shown.trace if judged.step for event in judged.step.events]
            assert any(one.site.function in event.trace for event in events), one.site
    assert ("tiny", 8828, True) in [(one.where, one.count, one.exhausted) for one in warned.checked]


def test_a_site_that_is_never_reached_is_told_from_one_that_holds(warned: Warnings) -> None:
    reached = {one.site.function: one.reached for one in warned.verdicts if not one.fires}
    assert reached["fpregs_assert_state_consistent"] is True
    assert reached["__raw_xsave_addr"] is False
    assert reached["rdmsrl"] is None


# -- the command line --------------------------------------------------------------------------------------------------


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if re.fullmatch(r"[a-z_]+", key):
                yield key
            if key != "values":
                yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def undocumented(found: Any, command: str) -> list[str]:
    section = (ROOT / "docs" / "cli.md").read_text().split(f"## `xfdfuzz {command}")[1].split("\n## ")[0]
    return [key for key in keys(found) if f"`{key}`" not in section]


WHERE = ("--scope", "tiny", "--scope", "tiny", "--time", "0.4", "--seed", "1")


def test_a_biography_on_the_command_line(run: Run) -> None:
    command = ("field", "v0.guest_fpu.realloc_request", *WHERE, "--against", "amx-v1", "--format", "json")
    code, out, err = run(*command)
    assert code == 0, err
    found = json.loads(out)
    assert (found["field"], found["states"], found["exhausted"]) == ("v.guest_fpu.realloc_request", 8828, True)
    assert found["against"]["only_here"] == found["against"]["only_there"] == []
    assert len(found["relations"]) == SHOWN
    assert {one["where"] for one in found["relations"][1]["checked"]} == {"fuzz"}
    assert undocumented(found, "field") == []


def test_a_biography_for_people(v1: Space, capsys: pytest.CaptureFixture[str]) -> None:
    found = biography(REQUEST, v1, SOME, elsewhere=[])
    report.terminal(console(sys.stdout), found)
    out = capsys.readouterr().out
    heads = ["Written by", "Read by", "Life", "What holds of it, which nobody wrote down"]
    assert [line for line in out.splitlines() if line in heads] == heads
    assert "  fpu_guest_realloc_fpstate() clears it, called by fpu_swap_kvm_fpstate()\n" in out
    assert " v.guest_fpu.realloc_request != 0 => v.complete_userspace_io == COMPLETE_SKIP_INSN\n" in out
    assert re.search(r"holds in tiny \(8,828 states\) and [\d,]+ fuzzed steps$", out, re.MULTILINE)


def test_warnings_on_the_command_line(run: Run, warned: Warnings) -> None:
    code, out, err = run("warnings", "amx-v1", *WHERE)
    assert code == 0, err
    assert "fires WARN_ON(enter_guest) in fpu_guest_realloc_fpstate(), arch/x86/kernel/fpu/core.c\n" in out
    assert re.search(r"cannot fire in tiny \(8,828 states\)", out)
    assert undocumented(warnings_report.as_object(warned), "warnings") == []


def test_a_program_that_is_not_for_everybody_is_left_out(warned: Warnings, capsys: pytest.CaptureFixture[str]) -> None:
    """What is broken on the newest kernel stands for what the fuzzer has found; the rest is shown as it is."""
    severe = parse((ROOT / "corpus" / "open" / "set-xsave-then-set-msrs-xfd.xfd").read_text())
    first, *rest = (one for one in warned.verdicts if one.fires)
    verdicts = (replace(first, fires=Break("fuzz", severe, "worse@there")), *rest)
    current = replace(warned, revision=resolve("mainline"), verdicts=verdicts)
    shown = hide(current, (current.revision,))
    warnings_report.terminal(console(sys.stdout), shown)
    out = capsys.readouterr().out
    assert "not shown here" in out
    assert "worse@there" not in out
    told = json.dumps(warnings_report.as_object(shown))
    assert "KVM_SET_XSAVE" not in out + told
    assert "KVM_SET_XSAVE" in json.dumps(warnings_report.as_object(current))
    assert [one.fires for one in shown.verdicts[1:]] == [one.fires for one in rest]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("field", "v.xcr"), "unknown field v.xcr: did you mean v.xcr0"),
        (("field", "v.xcr0", "--scope", "huge"), "unknown scope 'huge': expected one of tiny"),
        (("field", "v.xcr0", "--revision", "v7.3", "--revision", "v6.6"), "expected one --revision"),
        (("warnings", "v9"), "unknown revision v9"),
    ],
)
def test_what_cannot_be_asked_gives_a_line(run: Run, argv: tuple[str, ...], message: str) -> None:
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_fields_and_warnings_are_listed(run: Run) -> None:
    rows = [json.loads(line) for line in run("list", "fields", "--format", "json")[1].splitlines()]
    assert [row["name"] for row in rows] == [one.path for one in every()]
    (row,) = (row for row in rows if row["name"] == "v.guest_fpu.realloc_request")
    assert (row["kind"], row["struct"]) == ("mask of components", "FpuGuest")
    assert "amx-v1" in row["written by"]
    assert "v7.3" not in row["written by"]
    out = run("list", "warnings", "--revision", "v5.16")[1]
    assert "fpregs_assert_state_consistent" in out
    assert "fpu_guest_realloc_fpstate" not in out
    assert "fpu_guest_realloc_fpstate" in run("list", "warnings", "--revision", "amx-v1")[1]
