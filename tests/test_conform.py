"""Recorded results of real kernels: the model gives them all, and the comparison would notice if it did not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz import cli
from xfdfuzz.engines.conform.choices import Choices
from xfdfuzz.engines.conform.nesting import SWITCH
from xfdfuzz.engines.conform.recording import explanations, read
from xfdfuzz.engines.conform.score import judge
from xfdfuzz.engines.conform.tokens import TOKENS, Guest, Outcome, enter
from xfdfuzz.engines.conform.translator import TRANSLATORS
from xfdfuzz.kernel.fpu.core import FpuCore
from xfdfuzz.kernel.fpu.guest import GuestFpu
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.x86 import KvmX86
from xfdfuzz.kernel.state import FpuGuest, Vcpu
from xfdfuzz.program.ops.guest import GuestInterrupt
from xfdfuzz.revisions import resolve
from xfdfuzz.revisions.amx_series import AmxSeries
from xfdfuzz.revisions.amx_v6 import AmxV6

TRACES = Path(__file__).parent / "traces"
DOCS = Path(__file__).parent.parent / "docs"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str) -> tuple[int, str, str]:
        code = cli.main(("conform", *argv))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    monkeypatch.chdir(tmp_path)

    def file(name: str, text: str) -> str:
        Path(name).write_text(text)
        return name

    return file


# -- the recordings ----------------------------------------------------------------------------------------------------


@cache
def judged() -> tuple[int, dict[str, Any], str]:
    """The exit code, the score and standard error of all of them."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = cli.main(("conform", str(TRACES), "--format", "json"))
    return code, json.loads(out.getvalue()), err.getvalue()


def test_nothing_is_different_and_little_is_left_out() -> None:
    code, score, err = judged()
    recorded = sum(len(r.operations) for file in TRACES.rglob("*.jsonl") for r in read(file))
    assert (code, err, score["different"]) == (0, "", 0)
    assert score["compared"] == score["equal"] + score["scheduled"] + score["explained"]
    assert score["compared"] > 0.9 * recorded
    assert score["explained"] + score["scheduled"] < 0.003 * recorded
    assert (score["not_compared"], score["not_judged"]) == ({}, [])
    assert set(score["kernels"]) == {"6.1.192", "6.12.117", "6.17.13", "7.3.4"}


def test_hosts_died_and_the_model_died_with_them() -> None:
    died = [r for r in read(TRACES / "linux-6.17.13" / "random.jsonl") if r.panic is not None]
    assert died
    for recording in died:
        assert not judge(recording, resolve("v6.17.13")).differences
        assert recording.panic_site
        fixed = judge(recording, resolve("v6.17.13", apply=["b45f72177594"]))
        assert ("host", "dead", "alive") in [d.field for d in fixed.differences]


def test_every_explanation_is_needed_and_documented() -> None:
    reasons = {difference["reason"] for difference in judged()[1]["differences"]}
    explained = explanations(TRACES)
    assert {e.reason for e in explained} == reasons
    text = (DOCS / "fidelity.md").read_text()
    assert [e.program for e in explained if f"`{e.program}`" not in text] == []


def test_everything_that_is_translated_is_documented() -> None:
    text = (DOCS / "conform.md").read_text()
    words = {word for quoted in re.findall(r"`([^`]+)`", text) for word in re.split(r"[ :\[]", quoted)}
    markers = {SWITCH, *(name for name in TRANSLATORS if name.startswith("end"))}
    assert (TRANSLATORS.keys() - markers | TOKENS.keys()) - words == set()


# -- breakage is noticed -----------------------------------------------------------------------------------------------


class NeverLocks(AmxSeries):
    def fpu_init_guest_permissions(self, gfpu: FpuGuest) -> None:
        pass


class NeverSynchronises(AmxV6):
    def fpu_sync_guest_vmexit_xfd_state(self) -> None:
        pass


class ForgetsXfdErr(AmxV6):
    def handle_exception_nmi_irqoff(self, vcpu: Vcpu) -> None:
        pass


class TakesOneTileComponent(AmxSeries):
    def legal_tile_pair(self, xcr0: int) -> bool:
        return True


class ForksWithoutPermissions(FpuCore):
    def fpu_inherit_perms(self, child: int) -> None:
        pass


class OffersEverything(AmxV6):
    def supported_cpuid_xcr0(self) -> int:
        return self.supported_xcr0


class ExitsForNoReason(KvmX86):
    def kvm_fast_pio_out(self, vcpu: Vcpu) -> int:
        ret = super().kvm_fast_pio_out(vcpu)
        vcpu.run.exit_reason = 0
        return ret


MUTANTS: list[tuple[type[Any], str]] = [
    (NeverLocks, "permissions"),
    (NeverSynchronises, "random"),
    (ForgetsXfdErr, "random"),
    (TakesOneTileComponent, "random"),
    (ForksWithoutPermissions, "permissions"),
    (OffersEverything, "suite"),
    (ExitsForNoReason, "suite"),
]


@pytest.mark.parametrize(("mutant", "batch"), MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_mistake_in_the_model_is_noticed(mutant: type[Any], batch: str) -> None:
    sound = resolve("v7.3")
    kernel: type[Kernel] = type("mutant", (mutant, sound.kernel), {"revision": "mutant"})
    broken = replace(sound, kernel=kernel)
    recordings = read(TRACES / "linux-7.3.4" / f"{batch}.jsonl")
    assert any(judgement.different for judgement in (judge(r, broken) for r in recordings))


@pytest.mark.parametrize(
    ("commit", "kernel", "batch"),
    [
        ("b45f72177594", "7.3.4", "random"),
        ("55cd57b596e8", "6.12.117", "suite"),
        ("93da6af3ae56", "6.17.13", "suite"),
        ("184bd464bdb6", "7.3.4", "random"),
        ("85e5ba83c016", "6.17.13", "random"),
    ],
)
def test_a_kernel_without_its_patch_is_told_from_the_recorded_one(
    run: Run, commit: str, kernel: str, batch: str
) -> None:
    code, out, _ = run(str(TRACES / f"linux-{kernel}" / f"{batch}.jsonl"), "--revert", commit)
    assert code == 1
    assert out.count("different  ") > 0


# -- what is not asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["6.17.13", "7.3.4"])
def test_a_preemption_changes_no_result_where_xfd_disables_nothing_that_is_held(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why there is no decision before every instruction: here each of them is preempted."""
    before = "before an instruction"
    execute, choose, count = Guest.execute, Choices.choose, 0

    def preempted(guest: Guest, token: str) -> Outcome:
        nonlocal count
        interrupt = partial(guest.s.do, GuestInterrupt(guest.vcpu))
        if not guest.may_lose() and guest.s.may_be_preempted(before, interrupt):
            count += 1
            enter(guest.s, guest.vcpu)
        return execute(guest, token)

    def choosing(choices: Choices, question: str, *answers: str) -> int:
        return 1 if question == f"a preemption {before}" else choose(choices, question, *answers)

    monkeypatch.setattr(Guest, "execute", preempted)
    monkeypatch.setattr(Choices, "choose", choosing)
    file = TRACES / f"linux-{kernel}" / "suite.jsonl"
    explained, revision = explanations(file.parent), resolve(f"v{kernel}" if kernel == "6.17.13" else "v7.3")
    judgements = [judge(replace(r, timing_dependent=True), revision, explained) for r in read(file)]
    assert count > 50
    assert [judgement.recording.program for judgement in judgements if not judgement.holds] == []


# -- what the model breaks on the way ----------------------------------------------------------------------------------


def test_a_recorded_kernel_breaks_what_it_is_known_to_break() -> None:
    """The host deaths were recorded; each bucket is explained in docs/conform.md."""
    _, score, _ = judged()
    died = [r for file in TRACES.rglob("*.jsonl") for r in read(file) if r.panic is not None]
    assert score["violations"] == []
    assert score["known_violations"]["host-xrstor-never-faults@fpu_swap_kvm_fpstate"] == len(died)
    text = (DOCS / "conform.md").read_text()
    assert [bucket for bucket in score["known_violations"] if f"`{bucket}`" not in text] == []


class LeaksGuestBuffers(GuestFpu):
    def fpu_free_guest_fpstate(self, gfpu: FpuGuest) -> None:
        pass


def test_a_mistake_that_no_result_shows_is_noticed_by_an_invariant() -> None:
    sound = resolve("v7.3")
    broken = replace(sound, kernel=type("mutant", (LeaksGuestBuffers, sound.kernel), {"revision": "mutant"}))
    recordings = list(read(TRACES / "linux-7.3.4" / "suite.jsonl"))
    leaky, tidy = ([judge(r, revision, explanations(TRACES)) for r in recordings] for revision in (broken, sound))
    assert not any(judgement.different for judgement in leaky)
    with_the_last_process = "fpstate-reachable@Exit"
    assert with_the_last_process in {v.violation.bucket for j in leaky for v in j.violations}
    assert with_the_last_process not in {v.violation.bucket for j in tidy for v in j.violations}


PROMISE = '''
from xfdfuzz.invariants.vocabulary import Broken, invariant
from xfdfuzz.program.ops.kvm import KvmSetCpuid2

@invariant("never-a-cpuid", "abi", ops=(KvmSetCpuid2,))
def never_a_cpuid(view):
    """The corpus breaks it too, but no `expect:` line speaks of it."""
    yield Broken("there is a CPUID")
'''


def test_a_violation_comes_with_a_program_that_replays(run: Run, write: Callable[[str, str], str]) -> None:
    write("p.jsonl", recording(operations()))
    write("promise.py", PROMISE)
    code, out, _ = run("p.jsonl", "--invariants", "promise.py", "--format", "json")
    score = json.loads(out)
    (found,) = score["violations"]
    assert (code, score["different"], score["known_violations"]) == (1, 0, {})
    assert (found["op"], found["operation"], found["bucket"]) == (5, "set_cpuid2", "never-a-cpuid@KvmSetCpuid2")
    assert {"file", "line", "kernel", "recording", "invariant", "severity", "message"} <= found.keys()
    write("p.xfd", found["program"])
    assert found["program"].splitlines()[-1].startswith("t0 ioctl(v0, KVM_SET_CPUID2, ")
    code, out, _ = run("p.jsonl", "--invariants", "promise.py", "--known", "p.xfd", "--format", "json")
    score = json.loads(out)
    assert (code, score["violations"], score["known_violations"]) == (0, [], {"never-a-cpuid@KvmSetCpuid2": 1})
    text = run("p.jsonl", "--invariants", "promise.py")[1].splitlines()
    assert "violation  p.jsonl:1  p  op 5: set_cpuid2" in text
    assert "      never-a-cpuid (abi): there is a CPUID" in text
    assert "      t0 ioctl(vm0, KVM_CREATE_VCPU, 0, reset) = v0" in text


def test_what_is_left_at_the_end_counts(run: Run, write: Callable[[str, str], str]) -> None:
    write("p.jsonl", recording(operations()))
    write("promise.py", PROMISE.replace("ops=(KvmSetCpuid2,)", "at_end=True"))
    code, out, _ = run("p.jsonl", "--invariants", "promise.py")
    assert code == 1
    assert "violation  p.jsonl:1  p  at the end" in out.splitlines()


# -- one recording, altered --------------------------------------------------------------------------------------------


def operations() -> list[dict[str, Any]]:
    image = {"size": 11008, "xstate_bv": "0x4", "xcomp_bv": "0x0", "fcw": "0x37f"}
    code = [
        {"token": "xsetbv:7", "status": "ok", "value": "0x0", "value2": "0x0"},
        {"token": "xgetbv:0", "status": "ok", "value": "0x7", "value2": "0x0"},
        {"token": "cpuid:0xd:0", "status": "ok", "value": "0x602e7", "value2": "0x2b0000000340"},
        {"token": "xsetbv:2", "status": "fault", "exception": "#GP"},
        {"token": "wrmsr:0x1c4:0x40000", "status": "ok", "value": "0x0", "value2": "0x0"},
        {"token": "rdmsr:0x1c4", "status": "ok", "value": "0x40000", "value2": "0x0"},
        {"token": "ldtilecfg", "status": "fault", "exception": "#UD"},
    ]
    ran = {"ret": 0, "exit": "HLT", "guest": code}
    return [
        {"op": "req_guest_perm", "args": ["18"], "result": {"ret": 0}},
        {"op": "get_guest_perm", "args": [], "result": {"ret": 0, "val": "0x602e7"}},
        {"op": "create_vm", "args": [], "result": {"ret": 5, "vm": 0}},
        {"op": "create_vcpu", "args": ["0"], "result": {"ret": 6, "vcpu": 0}},
        {"op": "req_guest_perm", "args": ["17"], "result": {"ret": -1, "errno": 95}},
        {"op": "set_cpuid2", "args": [], "result": {"ret": 0}},
        {"op": "set_xsave", "args": ["bv=0x4", "avx=0x5a"], "result": {"ret": 0}},
        {"op": "get_xsave", "args": [], "result": {"ret": 0, **image}},
        {"op": "run_guest", "args": [entry["token"] for entry in code], "result": ran},
        {"op": "get_msr", "args": ["0x1c4"], "result": {"ret": 1, "val": "0x40000"}},
    ]


def recording(ops: object, **more: object) -> str:
    return json.dumps({"program": "p", "kernel": "7.3.4", "panic": None, "ops": ops, **more}) + "\n"


def test_the_recording_below_is_right(run: Run, write: Callable[[str, str], str]) -> None:
    code, out, _ = run(write("p.jsonl", recording(operations())), "--format", "json")
    score = json.loads(out)
    assert (code, score["compared"], score["equal"], score["differences"]) == (0, 10, 10, [])


def alterations() -> Iterator[tuple[int, str, Callable[[dict[str, Any]], object]]]:
    yield 0, "ret", lambda result: result.update(ret=-1, errno=16)
    yield 1, "val", lambda result: result.update(val="0x202e7")
    yield 4, "ret", lambda result: result.update(errno=22)
    yield 5, "ret", lambda result: result.update(ret=-1, errno=1)
    yield 7, "size", lambda result: result.update(size=4096)
    yield 7, "xstate_bv", lambda result: result.update(xstate_bv="0x6")
    yield 7, "xcomp_bv", lambda result: result.update(xcomp_bv="0x8000000000000004")
    yield 7, "fcw", lambda result: result.update(fcw="0x0")
    yield 8, "exit", lambda result: result.update(exit="SHUTDOWN")
    yield 8, "xsetbv:7", lambda result: result["guest"][0].update(status="fault", exception="#GP")
    yield 8, "xgetbv:0 value", lambda result: result["guest"][1].update(value="0x3")
    yield 8, "cpuid:0xd:0 value2", lambda result: result["guest"][2].update(value2="0x2b0000000240")
    yield 8, "xsetbv:2", lambda result: result["guest"][3].update(status="ok", value="0x0", value2="0x0")
    yield 8, "ldtilecfg", lambda result: result["guest"][6].update(exception="#NM")
    yield 9, "ret", lambda result: result.update(ret=0)
    yield 9, "val", lambda result: result.update(val="0x0")


@pytest.mark.parametrize(("index", "field", "alter"), list(alterations()), ids=lambda value: str(value)[:20])
def test_each_recorded_thing_counts(
    run: Run, write: Callable[[str, str], str], index: int, field: str, alter: Callable[[dict[str, Any]], object]
) -> None:
    ops = operations()
    alter(ops[index]["result"])
    code, out, _ = run(write("p.jsonl", recording(ops)), "--format", "json")
    found = json.loads(out)["differences"]
    assert (code, [(d["op"], d["field"]) for d in found]) == (1, [(index, field)])


def test_a_host_that_died_counts(run: Run, write: Callable[[str, str], str]) -> None:
    died = {"at": 8, "signature": "unexpected #NM exception; at restore_fpregs_from_fpstate;"}
    code, out, _ = run(write("p.jsonl", recording(operations(), panic=died)), "--format", "json")
    (found,) = json.loads(out)["differences"]
    assert (code, found["op"], found["field"]) == (1, 8, "host")
    assert (found["recorded"], found["model"]) == ("dead", "alive")


def test_a_difference_comes_with_a_program_that_replays(run: Run, write: Callable[[str, str], str]) -> None:
    ops = operations()
    ops[9]["result"]["val"] = "0x0"
    _, out, _ = run(write("p.jsonl", recording(ops)), "--format", "json")
    (found,) = json.loads(out)["differences"]
    assert {"file", "line", "kernel", "recording", "operation", "reason"} <= found.keys()
    write("p.xfd", found["program"])
    assert cli.main(("replay", "--revision", "v7.3", "p.xfd")) == 0
    assert found["program"].endswith("t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD) = 1 [0x40000]\n")
    text = run("p.jsonl")[1].splitlines()
    assert "different  p.jsonl:1  p  op 9: get_msr 0x1c4" in text
    assert "      val: recorded 0, model 0x40000" in text
    assert "      t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD) = 1 [0x40000]" in text


def test_an_explanation_beside_the_recording_explains(run: Run, write: Callable[[str, str], str]) -> None:
    ops = operations()
    ops[9]["result"]["val"] = "0x0"
    write("p.jsonl", recording(ops))
    write("explained.toml", '[[explained]]\nkernel = "*"\nprogram = "p"\nop = 9\nfield = "val"\nreason = "because"\n')
    code, out, _ = run("p.jsonl", "--format", "json")
    score = json.loads(out)
    assert (code, score["explained"], score["different"]) == (0, 1, 0)
    assert [d["reason"] for d in score["differences"]] == ["because"]


def test_the_text_has_both_values_and_the_program_once(run: Run, write: Callable[[str, str], str]) -> None:
    ops = operations()
    ops[1]["result"]["val"] = "0x7"
    ops[9]["result"]["val"] = "0x0"
    ops.append({"op": "teleport", "args": [], "result": {"ret": 0}})
    code, out, _ = run(write("p.jsonl", recording(ops)))
    lines = out.splitlines()
    assert code == 1
    for line, name in zip(lines, ("7.3.4", "all"), strict=False):
        counts = [name, "10", "compared", "8", "equal", "0", "scheduled", "0", "explained", "2", "different"]
        assert line.split() == counts
    assert lines[2] == "7.3.4     judged on v7.3"
    assert lines[3] == "     1 not compared: from here on: teleport is not translated"
    assert lines[4] == "different  p.jsonl:1  p  op 1: get_guest_perm"
    assert lines[5] == "      val: recorded 7, model 0x602e7"
    assert lines[6] == "      # xfdfuzz program 1"
    assert lines[-2:] == ["different  p.jsonl:1  p  op 9: get_msr 0x1c4", "      val: recorded 0, model 0x40000"]


# -- what cannot be judged ---------------------------------------------------------------------------------------------


def test_what_is_not_known_is_counted_by_kind(run: Run, write: Callable[[str, str], str]) -> None:
    ops = operations()
    ops.insert(4, {"op": "get_msr", "args": ["0x10"], "result": {"ret": 1, "val": "0x1"}})
    ops.insert(8, {"op": "teleport", "args": [], "result": {"ret": 0}})
    code, out, _ = run(write("p.jsonl", recording(ops)), "--format", "json")
    score = json.loads(out)
    assert (code, score["compared"]) == (0, 7)
    assert score["not_compared"] == {"get_msr: get_msr 0x10": 1, "from here on: teleport is not translated": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nonsense", "p.jsonl:1: expected a JSON object"),
        ("\n[1]", "p.jsonl:2: expected a JSON object"),
        ("[" * 100_000, "p.jsonl:1: expected a JSON object"),
        ('{"program": "p"}', "p.jsonl:1: expected kernel, a version such as 6.12.117"),
        ('{"kernel": "7.3.4"}', "p.jsonl:1: expected program, a name"),
        ('{"program": "p", "kernel": "7.3.4"}', "p.jsonl:1: expected ops, a list of operations"),
        (recording([{"args": []}]), "p.jsonl:1: expected ops[0], an object with op, args and result"),
        (recording([{"op": "exec", "args": [1]}]), "p.jsonl:1: expected ops[0].args, a list of strings"),
        (recording([{"op": "exec", "result": 1}]), "p.jsonl:1: expected ops[0].result, an object or null"),
        (recording([], order="input"), 'p.jsonl:1: expected order, which can only be "output"'),
        (
            recording([{"op": "exec"}], panic={"at": 1}),
            "p.jsonl:1: expected panic, null or an object with at, from 0 to 0",
        ),
        (
            recording([{"op": "get_perm", "result": {"ret": 0}}]),
            "p.jsonl:1: ops[0] get_perm: expected result with val",
        ),
        (
            recording([{"op": "req_perm", "args": ["x"], "result": {"ret": 0}}]),
            "p.jsonl:1: ops[0] req_perm: expected a number of 64 bits instead of 'x'",
        ),
        (
            recording([{"op": "req_perm", "args": [], "result": {"ret": 0}}]),
            "p.jsonl:1: ops[0] req_perm: expected 1 arguments",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(run: Run, write: Callable[[str, str], str], text: str, expected: str) -> None:
    code, out, err = run(write("p.jsonl", text))
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"xfdfuzz: {expected}"


def test_a_kernel_that_is_not_modelled_is_bad_input(run: Run, write: Callable[[str, str], str]) -> None:
    text = recording(operations(), kernel="4.19.1")
    code, _, err = run(write("p.jsonl", text))
    assert code == 2
    assert err.startswith("xfdfuzz: p.jsonl:1: expected kernel, a version from 5.16 on")
    assert run("p.jsonl", "--revision", "v7.3")[0] == 0


def test_broken_explanations_are_bad_input(run: Run, write: Callable[[str, str], str]) -> None:
    write("p.jsonl", recording(operations()))
    write("explained.toml", "[[explained]]\nprogram = 1\n")
    code, _, err = run("p.jsonl")
    assert code == 2
    assert "explained.toml: expected TOML with [[explained]] tables of kernel, program, op, field, reason" in err


def test_nothing_to_judge_is_not_success(run: Run, write: Callable[[str, str], str]) -> None:
    assert run(write("p.jsonl", ""))[0] == 3
    assert run(write("p.jsonl", recording([])))[0] == 3
    assert run(str(TRACES / "nowhere"))[0] == 2
    Path("empty").mkdir()
    assert run("empty") == (3, "", "xfdfuzz: no *.jsonl file below empty\n")
