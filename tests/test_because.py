"""What a violation follows from: every field that is named matters, and was left so by the step that is named."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from xfdfuzz.engines.judge.because import Because, Reason, Reasons
from xfdfuzz.engines.judge.leaves import Leaf, leaves
from xfdfuzz.engines.judge.verdict import Judged, Verdict, judge, revisions_for
from xfdfuzz.invariants.loading import load_file
from xfdfuzz.invariants.vocabulary import INVARIANTS, View, Violation
from xfdfuzz.kernel.fields import fields
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import System
from xfdfuzz.program.executor import Executor, perform
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED, Step
from xfdfuzz.program.text import parse
from xfdfuzz.report.because import MANY, explain, words

CORPUS = Path(__file__).parents[1] / "corpus"
MIGRATION = CORPUS / "open" / "wrmsr-xfd-lost-in-migration.xfd"
PANIC = CORPUS / "open" / "set-xsave-then-set-msrs-xfd.xfd"
Run = Callable[..., tuple[int, str, str]]


def explained(file: Path, revision: str) -> dict[str, Reasons]:
    """What the violations follow from, by invariant."""
    program = parse(file.read_text())
    verdict = judge(program, revision, expectations=False)
    return {violation.invariant: reasons for violation, reasons in explain(program, verdict).items()}


def told(reasons: Reasons, step: int) -> list[str]:
    return [str(words(reason, step)) for reason in reasons]


# -- what it says ------------------------------------------------------------------------------------------------------


def test_what_contradicts_comes_first() -> None:
    reasons = explained(MIGRATION, "v7.3")["guest-sees-its-xfd"]
    assert told(reasons, 13)[:2] == [
        "cpu0.MSR_IA32_XFD 0x0 left by step 5",
        "v0 should have IA32_XFD 0x40000 since step 10",
    ]
    assert [reason.contradicts for reason in reasons] == [True, True] + [False] * (len(reasons) - 2)


def test_the_result_of_an_instruction_follows_from_what_it_read() -> None:
    reasons = explained(MIGRATION, "v7.3")["guest-reads-its-msrs"]
    assert "cpu0.MSR_IA32_XFD 0x0 left by step 5" in told(reasons, 14)
    assert "v0 should have IA32_XFD 0x40000 since step 10" in told(reasons, 14)


def test_a_panic_follows_from_what_the_step_found() -> None:
    """The image that KVM_SET_XSAVE wrote has a component that KVM_SET_MSRS then disabled."""
    reasons = explained(PANIC, "v7.3")["host-xrstor-never-faults"]
    assert told(reasons, 7) == [
        "v0.guest_fpu.fpstate.regs.xstate_bv xtiledata left by step 5",
        "v0.guest_fpu.fpstate.xfd 0x40000 left by step 6",
    ]


def test_mxcsr_goes_by_its_name() -> None:
    """It is no component, but stands among them."""
    file = CORPUS / "open" / "mxcsr-without-xsavec-by-set-xsave.xfd"
    assert told(explained(file, "v7.3")["guest-registers-preserved"], 6)[:2] == [
        "v0 should have mxcsr init since step 4",
        "cpu0.regs.mxcsr v0:1 left by step 5",
    ]


def test_what_no_step_wrote_is_named_where_it_contradicts() -> None:
    reasons = explained(CORPUS / "bugs" / "px25-bring-up-trusts-shadow.xfd", "amx-px25")["xfd-shadow-matches-msr"]
    assert told(reasons, 1) == ["cpu1.xfd_state 0x40000 since the boot", "cpu1.MSR_IA32_XFD 0x0 by this step"]


def test_an_invariant_that_looks_at_the_program_alone_names_no_field() -> None:
    assert explained(CORPUS / "bugs" / "v1-warn-enter-guest.xfd", "amx-v1")["restore-order-is-free"] == ()


def test_a_buffers_existence_explains_nothing() -> None:
    for file in sorted((CORPUS / "witness").glob("*.xfd")):
        for reasons in explained(file, "amx-v1").values():
            assert not any(reason.leaf.field.path.endswith((".exists", ".allocated")) for reason in reasons)


# -- that it is true ---------------------------------------------------------------------------------------------------


class Broken(NamedTuple):
    """A program of the corpus on the first revision where it breaks something; the steps are those of its end, too."""

    file: Path
    program: Program
    verdict: Verdict
    steps: list[Step]
    because: dict[Violation, Reasons]


@pytest.fixture(scope="module")
def broken() -> list[Broken]:
    found = []
    for file in sorted(CORPUS.rglob("*.xfd")):
        program = parse(file.read_text())
        every = () if file.parent.name == "conformance" else revisions_for(program)
        verdicts = (judge(program, revision, expectations=False) for revision in every)
        verdict = next((verdict for verdict in verdicts if verdict.violations), None)
        if verdict is not None:
            executor = Executor(verdict.revision.kernel, program.machine)
            steps = [step.kept() for step in chain(executor.run(program.ops), executor.draining())]
            found.append(Broken(file, program, verdict, steps, explain(program, verdict)))
    return found


def put(state: bytes, reason: Reason, number: int) -> bytes:
    """The state with another number in the field, which is looked up by its path."""
    (field,) = (field for field in fields() if field.path == reason.leaf.field.path)
    at, size = field.start + (reason.leaf.component or 0), 1 if reason.leaf.component is not None else field.size
    return state[:at] + number.to_bytes(size, "little", signed=number < 0) + state[at + size :]


def said(violation: Violation, kernel: Kernel, step: Step, ops: tuple[object, ...]) -> list[str]:
    return [one.message for one in INVARIANTS[violation.invariant].look(View(kernel, step, ops))]  # type: ignore[arg-type]


def without(reason: Reason, violation: Violation, step: Step, kernel: Kernel, program: Program | None) -> list[str]:
    """What the invariant says if the field has what was there before the step that wrote it."""
    before, after, ops = step.state, bytes(step.after), program.ops if program else ()
    if reason.found:
        before = put(before, reason, reason.was)
        kernel.load(before)
        assert step.op.enabled(kernel)
        result = perform(step.op, kernel)
        return said(
            violation, kernel, Step(step.number, step.op, before, kernel.system, result, tuple(kernel.events)), ()
        )
    unchanged = put(before, reason, reason.value) == before
    kernel.load(before)
    perform(step.op, kernel)
    cpu = kernel.cpu
    kernel.load(put(after, reason, reason.was))
    kernel.on_cpu(cpu)
    before = put(before, reason, reason.was) if unchanged else before
    return said(violation, kernel, Step(step.number, step.op, before, kernel.system, step.result, step.events), ops)


def test_every_field_that_is_named_matters(broken: list[Broken]) -> None:
    named = 0
    for file, program, verdict, steps, because in broken:
        kernel = verdict.revision.kernel(program.machine)
        at_end = {violation for judged in verdict.trace if judged.step is None for violation in judged.violations}
        for violation, reasons in because.items():
            for reason in (reason for reason in reasons if reason.step):
                named += 1
                whole = program if violation in at_end else None
                message = without(reason, violation, steps[violation.step - 1], kernel, whole)
                assert violation.message not in message, (file.name, violation, reason)
    assert named > 400


def test_every_field_that_is_named_is_as_its_step_left_it(broken: list[Broken]) -> None:
    for file, _, _, steps, because in broken:
        states = [*(step.state for step in steps), bytes(steps[-1].after)]
        for violation, reasons in because.items():
            for reason in reasons:
                since = states[reason.step : violation.step + (not reason.found)]
                assert all(put(state, reason, reason.value) == state for state in since), (file.name, reason)
                if reason.step:
                    assert put(states[reason.step - 1], reason, reason.was) == states[reason.step - 1]
                    assert reason.was != reason.value


def test_most_violations_of_the_corpus_have_a_reason(broken: list[Broken]) -> None:
    """What is left are bugs of one step, and what looks at the program."""
    every = [reasons for one in broken for reasons in one.because.values()]
    assert sum(map(bool, every)) > 0.8 * len(every)


# -- invariants that are not ours --------------------------------------------------------------------------------------

HEAD = """\
from xfdfuzz.invariants.vocabulary import Broken, invariant
calls = []

@invariant("mine", "abi")
def mine(view):
    \"\"\"Why.\"\"\"
"""


@pytest.mark.parametrize(
    "body",
    [
        # says it once and never again
        '    calls.append(1)\n    if len(calls) == 1:\n        yield Broken("mine")\n',
        # cannot be asked on a system that is no ctypes structure
        '    import ctypes\n    ctypes.addressof(view.k.system)\n    yield Broken("mine")\n',
    ],
)
def test_an_invariant_that_cannot_be_asked_again_has_no_reasons(body: str) -> None:
    Path("mine.py").write_text(HEAD + body)
    load_file(Path("mine.py"))
    program = parse("# xfdfuzz program 1\nmachine cpus=1\n\nt0 ioctl(kvm, KVM_CREATE_VM)\n")
    verdict = judge(program, "v7.3", expectations=False)
    assert "mine" in verdict.broken
    assert set(explain(program, verdict).values()) == {()}


def test_an_invariant_that_raises_on_a_state_that_cannot_be_is_answered_for_the_others() -> None:
    body = "    vm = view.k.vms[0]\n    assert vm.exists or not vm.mm or True\n"
    body += '    if view.k.system.alloc_failures:\n        yield Broken("memory is short")\n'
    body += '    elif view.step.number == 2:\n        raise ValueError("cannot be")\n'
    Path("mine.py").write_text(HEAD + body)
    load_file(Path("mine.py"))
    text = "# xfdfuzz program 1\nmachine cpus=1\n\nt0 user\nhost fail_alloc(1)\n"
    program = parse(text)
    assert set(explain(program, judge(program, "v7.3", expectations=False)).values()) == {()}


# -- where it is shown -------------------------------------------------------------------------------------------------


def test_the_trace_has_the_reasons_and_marks_their_steps(run: Run) -> None:
    lines = run("replay", str(MIGRATION), "--revision", "v7.3")[1].splitlines()
    at = next(number for number, line in enumerate(lines) if "! guest-sees-its-xfd" in line)
    assert lines[at + 1].split() == ["because", "cpu0.MSR_IA32_XFD", "0x0", "left", "by", "step", "5"]
    assert lines[at + 2].split() == ["v0", "should", "have", "IA32_XFD", "0x40000", "since", "step", "10"]
    assert {line[:4] for line in lines if line.startswith("->")} == {"-> 4", "-> 5", "->10"}


def test_more_reasons_than_anybody_reads_are_counted(run: Run) -> None:
    file = CORPUS / "open" / "resume-then-sigreturn.xfd"
    program = parse(file.read_text())
    reasons = explained(file, "v7.3")["host-xrstor-never-faults"]
    assert len(reasons) > MANY
    assert f"and {len(reasons) - MANY} fields more" in run("replay", str(file), "--revision", "v7.3", "--full")[1]
    assert program.ops


def test_json_has_all_of_them(run: Run) -> None:
    out = json.loads(run("replay", str(MIGRATION), "--revision", "v7.3", "--format", "json")[1])
    first, second = out["verdicts"]["v7.3"]["because"]
    assert (first["invariant"], first["step"], second["step"]) == ("guest-sees-its-xfd", 13, 14)
    assert first["because"][1] == {
        "field": "ghost.v0.xfd",
        "value": "0x40000",
        "was": "0x0",
        "step": 10,
        "found": False,
        "contradicts": True,
    }


def test_at_the_end_there_is_no_step(run: Run) -> None:
    file = CORPUS / "bugs" / "cr0ts-xfd-err.xfd"
    *_, last = json.loads(run("replay", str(file), "--revision", "amx-px25", "--format", "json")[1])["verdicts"][
        "amx-px25"
    ]["because"]
    assert (last["invariant"], last["step"]) == ("migration-is-invisible", None)
    assert {reason["field"] for reason in last["because"]} >= {"cpu0.MSR_IA32_XFD_ERR", "v0.guest_fpu.xfd_err"}


# -- its parts ---------------------------------------------------------------------------------------------------------


def test_leaves_are_the_numbers_at_a_place() -> None:
    assert [leaf.field.path for leaf in leaves([(0, 2)])] == ["host.dead", "host.alloc_failures"]
    regs = next(field for field in fields() if field.path == "cpu0.regs")
    assert leaves([(regs.start + 17, 2)]) == [Leaf(regs, 17), Leaf(regs, 18)]
    whole = leaves([(0, ctypes.sizeof(System))])  # type: ignore[arg-type]
    assert sum(leaf.place[1] for leaf in whole) == sum(field.size for field in fields())


def test_a_step_that_did_not_happen_breaks_nothing_and_has_no_reasons() -> None:
    program = parse("# xfdfuzz program 1\nmachine cpus=1\n\nv0 vmenter\n")
    verdict = judge(program, "v7.3", expectations=False)
    assert verdict.results == (NOT_ENABLED,)
    (judged, *_) = verdict.trace
    assert Because(program, verdict.revision, [judged.step]).of(Judged(judged.step, ())) == {}  # type: ignore[list-item]
