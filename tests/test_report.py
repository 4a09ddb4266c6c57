"""What is printed and written: changes, traces, findings, JSON."""

from __future__ import annotations

import ast
import ctypes
import importlib
import io
import json
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from xfdfuzz import report
from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.lockstep import Pair, differences
from xfdfuzz.engines.judge.verdict import contradiction, judge, revisions_for
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.stats import Effort, Stats
from xfdfuzz.engines.stream.events import Progressed
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.errno import EIO
from xfdfuzz.memory.cstruct import copy_of
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.run import KvmRun
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_op, parse, parse_op
from xfdfuzz.report import because, campaign, changes, files, listing, search, trace, verdict
from xfdfuzz.report import differences as report_differences
from xfdfuzz.report import finding as report_finding
from xfdfuzz.report.console import console, line, table, write
from xfdfuzz.report.progress import Progress, of_search
from xfdfuzz.revisions import resolve

ROOT = Path(__file__).parent.parent
BOOT = """\
# xfdfuzz program 1
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx})
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtile)
"""
#: Breaks no-realloc-on-enter on amx-v1 and nothing on v7.3.
PROGRAM = f"""{BOOT}t0 ioctl(v0, KVM_SET_MSRS, {{IA32_XFD: 0}})
t0 ioctl(v0, KVM_RUN) ...
"""


def changed(revision: str, text: str, op: str) -> list[str]:
    """What ``op`` changes after the program."""
    program = parse(text)
    executor = Executor(resolve(revision).kernel, program.machine)
    for _ in executor.run(program.ops):
        pass
    step = executor.execute(parse_op(op))
    return [str(change) for change in changes.changes(step.before, step.after)]


def a_finding(revision: str = "amx-v1", **patches: list[str]) -> Finding:
    resolved = resolve(revision, **patches)
    program = parse(PROGRAM)
    verdict = judge(program, resolved, expectations=False)
    violation = next(v for v in verdict.violations if v.invariant in ("no-realloc-on-enter", "permission-only-grows"))
    return Finding(violation, replace(program, results=verdict.results), resolved)


def a_report(*found: Finding) -> Report[Finding]:
    stats = Stats(examples=3, steps=40, seconds=2.0, seen=Counter({(KvmRun, "ok"): 4, (KvmRun, -EIO): 1}))
    stats.engines["scout"] = Effort(3, 40)
    stats.goals["exec-is-preempted"] = 2
    return Report((resolve("amx-v1"),), Plan(7), stats, found, False)


def printed(show: Any, *args: Any) -> str:
    stream = io.StringIO()
    show(console(stream), *args)
    return stream.getvalue()


# -- the room ----------------------------------------------------------------------------------------------------------

#: What is no thing that is shown: what the others are written with, parts of them, what goes to a disk or stderr.
TOOLS = {
    "__init__",
    "checked",
    "console",
    "folding",
    "leaks",
    "changes",
    "values",
    "files",
    "directory",
    "mail",
    "hiding",
    "privacy",
    "promise",
    "python",
    "progress",
}
#: Of these `--format json` has nothing.
ONLY_FOR_PEOPLE = {"headline", "notation", "trace"}
ROOM = {path.stem: path for path in Path(report.__path__[0]).glob("*.py")}


@pytest.mark.parametrize("name", sorted(ROOM.keys() - TOOLS))
def test_everything_that_is_shown_has_the_same_verbs(name: str) -> None:
    verbs = {"terminal", "as_object"} - ({"as_object"} if name in ONLY_FOR_PEOPLE else set())
    assert verbs <= vars(importlib.import_module(f"xfdfuzz.report.{name}")).keys()


def test_the_tools_know_nothing_of_what_is_shown() -> None:
    tree = ast.parse(ROOM["console"].read_text())
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported
    assert not any(name.startswith("xfdfuzz") for name in imported)


# -- changes -----------------------------------------------------------------------------------------------------------


def test_nothing_changed() -> None:
    system = st.System()
    assert list(changes.changes(system, copy_of(system))) == []


def test_registers_go_by_their_names_and_masks_by_their_components() -> None:
    text = f"{BOOT}t0 ioctl(v0, KVM_RUN) ...\nv0 vmenter\nv0 ldtilecfg(1)\n"
    assert changed("v7.3", text, "v0 tileload(2)") == [
        "cpu0.xinuse pkru|xtilecfg -> pkru|xtile",
        "cpu0.regs {xtiledata: init} -> {xtiledata: v0:2}",
    ]


def test_the_guests_buffer_is_followed_from_the_vcpu() -> None:
    text = f"{BOOT}t0 ioctl(v0, KVM_SET_MSRS, {{IA32_XFD: 0}})\n"
    assert "v0.guest_fpu.fpstate.xfd 0x0 -> 0x40000" in changed(
        "v7.3", text, "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000})"
    )


def test_a_reallocated_buffer_is_compared_with_the_one_it_replaces() -> None:
    text = BOOT[: BOOT.index("t0 ioctl(v0, KVM_SET_CPUID2")]
    seen = changed("v7.3", text, "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx})")
    assert "v0.guest_fpu.fpstate fpstate#11 -> fpstate#12" in seen
    assert any(line.startswith("v0.guest_fpu.fpstate.size ") and line.split()[1] != "0" for line in seen)
    assert "fpstate#11 allocated -> freed" in seen


def test_the_hosts_buffer_keeps_its_path_while_a_guests_is_installed() -> None:
    seen = changed("v7.3", BOOT, "t0 ioctl(v0, KVM_RUN) ...")
    assert "t0.fpu.__task_fpstate NULL -> t0.fpu.__fpstate" in seen
    assert "t0.fpu.fpstate t0.fpu.__fpstate -> fpstate#12" in seen


def test_a_task_that_is_preempted() -> None:
    seen = changed("v7.3", BOOT, "cpu0 schedule(t1)")
    assert "cpu0.current t0 -> t1" in seen
    assert "t0.on_cpu cpu0 -> none" in seen


def test_a_new_object_is_described_by_what_sets_it_apart() -> None:
    text = BOOT[: BOOT.index("t0 ioctl(vm0, KVM_CREATE_VCPU")]
    seen = changed("v7.3", text, "t0 ioctl(vm0, KVM_CREATE_VCPU, 0)")
    assert "v0.exists 0 -> 1" in seen
    assert "v0.guest_fpu.perm 0 -> x87|sse|avx|avx512|pkru|pasid|xtile" in seen
    assert not any("intercept" in line for line in seen)


def test_an_object_that_is_gone_is_named_and_not_described() -> None:
    seen = changed("v7.3", BOOT, "t0 close(vm0)")
    assert [line for line in seen if line.startswith("v")] == ["vm0.exists 1 -> 0", "v0.exists 1 -> 0"]


#: What the op and its result say anyway, identity, and contents that are shown as a whole (``cpu0.regs``).
LEFT_OUT = {
    st.Cpu: {
        "guest",
        "preempt_count",
        "resched_points",
        "resched_task",
        "hardirq_points",
        "irqs_off",
        "lbr_entries",
        *("lbr_xsave.xstate_bv", "lbr_xsave.xcomp_bv", "lbr_xsave.compacted"),
        "regs.data",
        *("regs.always_in_use", "regs.error_pointers"),
    },
    st.Task: {
        *("pf_kthread", "group_leader", "mm", "user_mode", "kvm_run", "in_execve", "in_signal", "vm_fds"),
        *(
            "in_sigreturn",
            "in_sigframe",
            "sig_pkru",
            "kernel_fpu",
            "kernel_simd",
            "rcu_read_lock_nesting",
            "lbr.event",
            "lbr.lbr_callstack_users",
        ),
        *("lbr.xsave.xstate_bv", "lbr.xsave.xcomp_bv", "lbr.xsave.compacted"),
    },
    st.Fpstate: {"allocated", "freed", "is_valloc", "is_guest", "regs.xcomp_bv", "regs.data"},
    st.Vm: {"mm", "vcpus_0"},
    st.Vcpu: {
        *("vm", "id", "mode", "task", "cpu", "preempted", "wants_to_run", "exit_pending", "run_over", "run_ret"),
        *("exit_msr", "exit_value", "exit_value2", "run.exit_reason", "arch.cpuid_set", "arch.complete_userspace_io"),
        *("preempt_notifier", "arch.insn_skips", "vmsa.data", "vmsa.always_in_use", "vmsa.error_pointers"),
    },
    st.System: {"cpus", "tasks", "sigframes", "fpstates", "vms", "vcpus", "ghost"},
}


def members(struct: Any) -> Iterator[str]:
    for name, ctype, *_ in struct._fields_:
        if issubclass(ctype, ctypes.Structure) and name != "ghost":
            yield from (f"{name}.{inner}" for inner in members(ctype))
        else:
            yield name


@pytest.mark.parametrize(
    ("struct", "shown"),
    [
        (st.System, changes.HOST),
        (st.Cpu, changes.CPU),
        (st.Task, changes.TASK),
        (st.Fpstate, changes.FPSTATE),
        (st.Vm, changes.VM),
        (st.Vcpu, changes.VCPU),
    ],
)
def test_every_field_of_the_state_is_shown_or_left_out_on_purpose(struct: Any, shown: Any) -> None:
    named = {field.member for field in shown}
    assert named | LEFT_OUT[struct] == set(members(struct))
    assert not named & LEFT_OUT[struct]


# -- findings ----------------------------------------------------------------------------------------------------------


def test_a_saved_finding_is_a_program_that_holds_what_it_expects(tmp_path: Path) -> None:
    finding = a_finding()
    path = files.save(finding, tmp_path)
    program = parse(path.read_text(), str(path))
    assert program.title.startswith(f"{finding.violation.invariant}: ")
    assert [str(e) for e in program.expect] == [f"amx-v1 violates {finding.violation.invariant}"]
    assert program.results == finding.program.results
    assert judge(program, finding.revision).ok


@pytest.mark.parametrize(
    ("revision", "apply", "revert"), [("v5.18", [], ["063452fd94d1"]), ("v5.17", ["b45f72177594"], [])]
)
def test_a_finding_on_a_patched_revision_judges_itself(revision: str, apply: list[str], revert: list[str]) -> None:
    finding = a_finding(revision, apply=apply, revert=revert)
    program = parse(files.text(finding))
    assert [str(e) for e in program.expect] == [f"{revision} violates {finding.violation.invariant}"]
    assert (program.apply, program.revert) == (tuple(apply), tuple(revert))
    (patched,) = revisions_for(program)
    assert patched.label == finding.revision.label
    verdict = judge(program, patched)
    assert verdict.judged
    assert verdict.ok
    command = files.replay_command(replace(finding, file=Path("a b.xfd")), [Path("mine.py")])
    assert command == "xfdfuzz replay 'a b.xfd' --invariants mine.py"


def test_a_message_with_control_characters_can_be_saved() -> None:
    finding = a_finding()
    violation = replace(finding.violation, message="a\x1b[31m\x00 b\u2028c")
    assert parse(files.text(replace(finding, violation=violation))).title == "permission-only-grows: a [31m b c"


def test_file_names_are_stable_and_only_depend_on_what_is_executed() -> None:
    finding = a_finding()
    name = files.file_name(finding)
    assert name.startswith(f"amx-v1-{finding.violation.invariant}-")
    plain = replace(finding, program=replace(finding.program, results=(), title="other"))
    assert files.file_name(plain) == name
    shorter = replace(finding, program=Program(finding.program.machine, finding.program.ops[:3]))
    assert files.file_name(shorter) != name


def test_saving_leaves_nothing_else_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.save(a_finding(), tmp_path)
    assert files.save(a_finding(), tmp_path) == path
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    path.unlink()
    with pytest.raises(OSError, match="No space"):
        files.save(a_finding(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "lines",
    [
        "# expect: amx-v1 violates permission-only-grows\n# expect: * clean\n",
        "# expect: v7.3 result 2 = vm0\n# expect: * result 2 = vm1\n",
        "# expect: v7.3 result 2 = vm1\n# expect: * result 2 = vm0\n",
    ],
)
def test_what_contradicts_itself_is_never_ok(lines: str) -> None:
    program = parse(PROGRAM.replace("machine", f"{lines}machine"))
    found = contradiction(program)
    assert found is not None
    assert found[0].line == 3
    assert not judge(program, resolve(program.expect[0].revisions)).ok


@pytest.mark.parametrize(
    "lines",
    [
        "# expect: amx-v1 violates permission-only-grows\n# expect: v5.18.. clean\n",
        "# expect: amx-v1 violates a\n# expect: amx-v1 violates b\n# expect: amx-v1 result 1 = 0\n",
        "# expect: amx-v1 clean\n# expect: * clean\n# expect: amx-v1 result 1 = 0\n# expect: * result 1 = 0\n",
        "# expect: amx-v1 result 1 = 0\n# expect: amx-v1 result 2 = vm0\n# expect: v7.3 result 1 = 1\n",
    ],
)
def test_what_does_not_contradict_itself(lines: str) -> None:
    assert contradiction(parse(PROGRAM.replace("machine", f"{lines}machine"))) is None


# -- terminal ----------------------------------------------------------------------------------------------------------


def test_a_finding_says_what_why_how_and_where() -> None:
    text = printed(report_finding.terminal, replace(a_finding(), file=Path("findings/x.xfd")))
    for part in (
        "permission-only-grows on amx-v1: abi",
        "bucket permission-only-grows@guest",
        "A permission, once given, stays until exec",
        "-> 1  t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
        "t0.fpu.guest_perm.__state_perm  x87|sse|avx",
        "replay  xfdfuzz replay findings/x.xfd",
    ):
        assert part in text


def on_a_terminal(show: Any, *args: Any) -> list[str]:
    """The lines that it prints on one of 80 columns, without colours."""
    out = Console(file=Terminal(), width=80, force_terminal=True, color_system=None)
    show(out, *args)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def told(program: Program, revision: str, full: bool) -> list[str]:
    (patched,) = revisions_for(program, [revision])
    one = judge(program, patched, expectations=False)
    return on_a_terminal(verdict.terminal, "x.xfd", program, one, trace.Notes(full=full))


@pytest.mark.parametrize("name", ["set-xsave-then-set-msrs-xfd", "wrmsr-xfd-lost-in-migration"])
def test_a_folded_trace_fits_a_screen_and_an_unfolded_one_has_every_op(name: str) -> None:
    program = parse((ROOT / "corpus" / "open" / f"{name}.xfd").read_text())
    folded, full = (told(program, "v7.3", unfold) for unfold in (False, True))
    assert len(folded) <= 30
    assert max(map(len, folded + full)) <= 80
    one = judge(program, resolve("v7.3"), expectations=False)
    marked = because.steps(because.explain(program, one))
    numbers = {int(match[1]) for row in folded if (match := re.match(r"(?:  |->| >) ?(\d+)  [tvc]", row))}
    assert marked | {violation.step for violation in one.violations} <= numbers
    flat = "".join("".join(full).split())
    assert all("".join(format_op(op).split()) in flat for op in program.ops)
    assert {row.strip() for row in folded if " because " in row}


def test_reasons_stand_below_the_violation_that_they_are_of() -> None:
    """And arrows tell the finding's from those of what else is broken."""
    program = parse((ROOT / "corpus" / "bugs" / "v1-warn-enter-guest.xfd").read_text())
    rows = told(program, "amx-v1", False)
    flat = " ".join(" ".join(rows).split())
    assert "{IA32_XFD: 0}) = 0 (of 1) ! no-warning" in flat
    assert "<- msr_io because v0.cpuid.xfd 1 left by step 4 ! failed-call" in flat
    assert "refuses the reset value because v0.xcr0 x87|xtile left by step 5" in flat
    assert "for xtiledata both because v0.guest_fpu.realloc_request xtiledata left by step 6" in flat
    assert [row[:4] for row in rows if ">" in row[:4]] == ["-> 4", " > 5", " > 6"]


def test_a_leak_says_where_the_buffer_came_from() -> None:
    program = parse((ROOT / "corpus" / "open" / "exec-leaks-fpstate.xfd").read_text())
    flat = " ".join(" ".join(told(program, "v7.3", False)).split())
    assert "points to it allocated by step 2; t0.fpu.fpstate pointed to it until this step" in flat


def test_a_step_that_names_the_findings_register_is_not_folded() -> None:
    program = parse((ROOT / "corpus" / "open" / "wrmsr-xfd-lost-in-migration.xfd").read_text())
    assert "   7  v0 wrmsr(IA32_XFD, 0x40000) = exit" in told(program, "v7.3", False)


def test_what_a_program_says_of_a_read_is_not_folded() -> None:
    """Nor what came to something else; what it does not ask for is."""
    text = """# xfdfuzz program 1
machine cpus=1
cpu0 nmi kernel_fpu_begin
t0 movups(1) = ok
t0 ldmxcsr(1)
t0 stmxcsr = ok
t0 xsave(sse) = ok {xstate_bv: sse, sse: t0:1}
t0 stmxcsr
t0 fld(1)
t0 fld(2) = ok
t0 stmxcsr = ok [t0:2]
"""
    rows = told(parse(text), "v7.3", False)
    numbers = {int(match[1]) for row in rows if (match := re.match(r"(?:  |->| >) ?(\d+)  [tvc]", row))}
    assert numbers == {1, 5, 9}


def test_where_nothing_is_broken_nothing_is_folded() -> None:
    program = parse(PROGRAM)
    assert told(program, "v7.3", False) == told(program, "v7.3", True)


def test_a_command_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(a_finding(), file=Path("x.xfd"))
    monkeypatch.setattr("sys.argv", [".venv/bin/xfdfuzz", "fuzz"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert files.replay_command(found) == ".venv/bin/xfdfuzz replay x.xfd"
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert files.replay_command(found) == "xfdfuzz replay x.xfd"
    monkeypatch.undo()
    assert files.replay_command(found) == "xfdfuzz replay x.xfd"


def test_a_label_is_explained() -> None:
    program, revision = parse(PROGRAM), resolve("v7.3", [], ["b45f72177594"])
    rows = on_a_terminal(verdict.terminal, "x.xfd", program, judge(program, revision), trace.Notes())
    assert any(row.startswith("  without b45f72177594: x86/fpu: Clear XSTATE_BV[i]") for row in rows)


def test_contents_are_spelled_one_way() -> None:
    lines = [
        "arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)",
        "ldtilecfg(1)",
        "tileload(3)",
        "tilestore",
        "xsave(xtiledata)",
    ]
    program = parse("\n".join(["# xfdfuzz program 1", "machine cpus=1", "", *(f"t0 {line}" for line in lines)]))
    results = judge(program, resolve("v7.3")).results
    assert results[3:] == ("ok [t0:3]", "ok {xstate_bv: xtiledata, xtiledata: t0:3}")
    # and as it was, too
    old = replace(program, results=("0", "ok", "ok", "ok [0xb]", "ok {xstate_bv: xtiledata, xtiledata: 11}"))
    assert judge(old, resolve("v7.3")).ok
    assert not judge(replace(old, results=(*old.results[:4], "ok {xstate_bv: xtiledata, xtiledata: 12}")), "v7.3").ok


def test_a_trace_shows_warnings_with_their_call_trace() -> None:
    program = parse(PROGRAM)
    text = printed(trace.terminal, program, judge(program, resolve("amx-v1")).trace)
    assert "! no-realloc-on-enter (warn): v0 enters KVM_RUN with a request for xtiledata" in text
    assert text.count("WARN in fpu_guest_realloc_fpstate <- fpu_swap_kvm_fpstate <- kvm_load_guest_fpu") == 1
    silent = [replace(item, violations=()) for item in judge(program, resolve("amx-v1")).trace]
    assert "warn in fpu_guest_realloc_fpstate <- fpu_swap_kvm_fpstate" in printed(trace.terminal, program, silent)


def test_square_brackets_are_text_not_markup() -> None:
    program = parse(f"{BOOT}t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD)\n")
    assert "= 1 [0x" in printed(trace.terminal, program, judge(program, resolve("v7.3")).trace)


def test_a_campaign_ends_with_the_sum_and_the_command_that_repeats_it() -> None:
    text = printed(campaign.terminal, a_report(), "xfdfuzz fuzz --seed 7", (), True)
    assert "KvmRun  ok 4  -EIO 1\n" in text
    assert re.search(r"^never executed: .*\bCoredumpFpregs,", text, re.MULTILINE)
    assert text.splitlines()[-2:] == [
        "amx-v1: 0 findings in 3 examples, 40 steps, 2.0 s; seed 7",
        "repeat: xfdfuzz fuzz --seed 7",
    ]


def test_findings_are_summed_up_worst_first() -> None:
    mild = replace(a_finding(), file=Path("x.xfd"))
    bad = replace(mild, violation=replace(mild.violation, severity="panic", site="elsewhere"))
    assert printed(campaign.terminal, a_report(mild, bad), "").splitlines()[1:5] == [
        "severity  ops  bucket                           see it again",
        "panic     7    permission-only-grows@elsewhere  xfdfuzz replay x.xfd",
        "abi       7    permission-only-grows@guest      xfdfuzz replay x.xfd",
        "saved in 1 file: some programs show several of them",
    ]


def test_consequences_stand_under_their_root_unless_all_are_to_be_alike() -> None:
    mild = replace(a_finding(), file=Path("x.xfd"))
    bad = replace(mild, violation=replace(mild.violation, severity="panic", site="elsewhere"))
    report = replace(a_report(bad, mild), roots={bad: mild})
    assert printed(campaign.terminal, report, "").splitlines()[2:5] == [
        "abi       7    permission-only-grows@guest        xfdfuzz replay x.xfd",
        "panic     7      permission-only-grows@elsewhere  xfdfuzz replay x.xfd",
        "1 root: what is indented shows only where the one above it has shown",
    ]
    text = printed(campaign.terminal, report, "", (), False, True)
    assert text == printed(campaign.terminal, a_report(bad, mild), "")
    first, second = campaign.as_object(report)["findings"]
    assert (first["root"], second["root"]) == ("permission-only-grows@guest", None)


def test_a_command_stands_below_where_a_terminal_is_narrow() -> None:
    out = Console(file=Terminal(), width=60, force_terminal=True, no_color=True, color_system=None)
    search.found(out, ("ops", "bucket", "see it again"), [("7", "a-bucket", f"xfdfuzz replay {'x' * 50}.xfd")])
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().splitlines()[-2:] == ["7    a-bucket", f"  xfdfuzz replay {'x' * 50}.xfd"]


def test_piped_text_is_plain_ascii() -> None:
    report = a_report(replace(a_finding(), file=Path("x.xfd")))
    text = printed(campaign.terminal, report, "xfdfuzz fuzz")
    assert text.isascii()
    assert "\x1b" not in text


def test_a_difference_shows_both_sides_and_is_replayed_on_both() -> None:
    both = Pair(resolve("v5.16"), resolve("v5.18"))
    program = parse("# xfdfuzz program 1\nmachine cpus=1\n\nt0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n")
    (difference,) = differences(program, both)
    found = Discrepancy(difference, replace(program, results=("-EINVAL",)), both, file=Path("x.xfd"))
    stats = Stats(examples=3, steps=40, seconds=2.0)
    text = printed(report_differences.terminal, Report(tuple(both), Plan(7), stats, (found,), False), "xfdfuzz diff")
    assert text.splitlines() == [
        "",
        "ReqXcompGuestPerm: gives -EINVAL | 0",
        "  v5.16  -EINVAL",
        "  v5.18  0",
        "",
        "  machine cpus=1",
        "   1  t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = -EINVAL | 0",
        "",
        "  saved   x.xfd",
        "  replay  xfdfuzz replay x.xfd --revision v5.16 --revision v5.18",
        "",
        "v5.16 | v5.18: 1 difference in 3 examples, 40 steps, 2.0 s; seed 7",
        "repeat: xfdfuzz diff",
    ]


def test_a_list_of_patches_says_which_a_revision_has() -> None:
    head, *rows = printed(listing.terminal, "patches", listing.KINDS["patches"](resolve("v5.17"))).splitlines()
    assert head.split() == ["in", "commit", "version", "title"]
    assert ("yes", "c6617c61e8fe", "v5.17") in [tuple(row.split()[:3]) for row in rows]
    assert ("no", "b45f72177594", "v6.19") in [tuple(row.split()[:3]) for row in rows]
    assert "in" not in listing.KINDS["patches"](None)[0]


def test_a_list_of_invariants_ends_with_their_references() -> None:
    load_once()
    rows = [row for row in listing.KINDS["invariants"](None) if row["name"] == "xfd-err-clean-in-host"]
    (text,) = printed(listing.terminal, "invariants", rows).splitlines()[1:]
    assert text.split()[:2] == ["xfd-err-clean-in-host", "leak"]
    assert text.endswith(" (INV-16, XFDERR)")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_on_a_terminal_unless_no_color(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    line(console(stream), ("bad", "red"), ("worse", "bold"), ("beside", "dim"))
    assert ("\x1b[31m" in stream.getvalue()) is not no_color
    # neither does it leave bold letters
    assert ("\x1b" in stream.getvalue()) is not no_color


def test_lists_fit_80_columns_on_a_terminal_and_are_one_line_a_row_elsewhere() -> None:
    rows = [("a", "word " * 40), ("bb", "short")]
    wide = Console(file=Terminal(), width=80, force_terminal=True, no_color=True)
    table(wide, ("name", "doc"), rows)
    assert isinstance(wide.file, io.StringIO)
    assert all(len(line) <= 80 + len("\x1b[1m\x1b[0m") for line in wide.file.getvalue().splitlines())
    assert len(printed(table, ("name", "doc"), rows).splitlines()) == 3


# -- progress ----------------------------------------------------------------------------------------------------------


def progressed(found: int) -> Progressed:
    """An event that tells of what :func:`a_report` has."""
    stats = a_report().stats
    counts = {"examples": stats.examples, "steps": stats.steps, "pairs": stats.pairs}
    return Progressed("amx-v1", stats.seconds, counts, found)


def test_progress_is_a_line_every_few_seconds_when_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress(console(stream), of_search) as progress:
        for now[0] in (1.0, 4.9, 5.1, 6.0):
            progress.take(progressed(0))
        progress.found(replace(a_finding(), file=Path("x.xfd")))
    assert stream.getvalue().splitlines() == [
        "amx-v1: 2.0 s, 3 examples, 20 steps/s, 2 pairs of op and result, 0 findings",
        "found permission-only-grows@guest abi, saved x.xfd",
    ]


def test_one_of_a_thing_is_no_plural() -> None:
    engines = {"scout": Effort(1, 1), "hypothesis": Effort(2, 3)}
    stats = Stats(examples=1, steps=1, seconds=1.0, engines=engines)
    event = Progressed("amx-v1", 1.0, {"examples": 1, "steps": 1, "pairs": 0}, 1)
    assert of_search(event) == "1.0 s, 1 example, 1 steps/s, 0 pairs of op and result, 1 finding"
    text = printed(campaign.terminal, replace(a_report(), stats=stats), "")
    assert "amx-v1: 0 findings in 1 example, 1 step, 1.0 s; seed 7\n" in text
    assert "scout: 1 example, 1 step, hypothesis: 2 examples, 3 steps\n" in text


def test_progress_is_a_line_every_few_seconds_on_a_terminal_that_cannot_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(console(stream), of_search) as progress:
        progress._next = 0
        progress.take(progressed(0))
    assert stream.getvalue() == "amx-v1: 2.0 s, 3 examples, 20 steps/s, 2 pairs of op and result, 0 findings\n"


def test_progress_moves_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(console(stream), of_search) as progress:
        progress._next = 0
        progress.take(progressed(1))
    assert "3 examples" in stream.getvalue()
    assert "1 finding" in stream.getvalue()
    # or it would stay hidden when the process is killed
    assert "\x1b[?25l" not in stream.getvalue()


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_json_of_a_campaign() -> None:
    stream = io.StringIO()
    write(campaign.as_object(a_report(replace(a_finding(), file=Path("x.xfd")))), stream)
    assert stream.getvalue().count("\n") == 1
    value = json.loads(stream.getvalue())
    assert value["coverage"] == {"KvmRun": {"ok": 4, "-EIO": 1}}
    (finding,) = value.pop("findings")
    assert parse(finding.pop("program")).expect
    (reason,) = finding.pop("because")
    assert (reason["field"], reason["step"]) == ("t0.fpu.guest_perm.__state_perm", 1)
    assert finding == {
        "invariant": "permission-only-grows",
        "severity": "abi",
        "bucket": "permission-only-grows@guest",
        "shape": "",
        "steps": 7,
        "engine": "hypothesis",
        "file": "x.xfd",
        "root": None,
    }
    del value["coverage"]
    goals = value.pop("goals")
    assert goals.keys() == GOALS.keys()
    assert {name for name, count in goals.items() if count} == {"exec-is-preempted"}
    assert value == {
        "revision": "amx-v1",
        "seed": 7,
        "examples": 3,
        "steps": 40,
        "seconds": 2.0,
        "interrupted": False,
        "withheld": 0,
        "doubts": [],
        "reach": None,
        "known": [],
        "gone": [],
        "expired": [],
        "engines": {"scout": {"examples": 3, "steps": 40}},
    }


def test_json_of_a_replay() -> None:
    program = parse(PROGRAM)
    value = verdict.as_object("x.xfd", program, [judge(program, resolve(name)) for name in ("amx-v1", "v7.3")])
    assert value["file"] == "x.xfd"
    assert value["verdicts"].keys() == {"amx-v1", "v7.3"}
    assert "no-realloc-on-enter" in value["verdicts"]["amx-v1"]["violations"]
    assert value["verdicts"]["amx-v1"]["expected"] is False
    assert value["verdicts"]["v7.3"] == {
        "violations": [],
        "results": ["0", "vm0", "v0", "0", "0", "1", "ok"],
        "expected": True,
        "hindrances": {},
        "windows": {},
        "differs": None,
        "because": [],
    }
