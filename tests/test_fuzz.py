"""The fuzz engine, as its users meet it."""

from __future__ import annotations

import ast
import re
import unittest
from pathlib import Path

import pytest

from xfdfuzz.engines import rules
from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.minimise import minimise, shows
from xfdfuzz.engines.rules import RULES
from xfdfuzz.engines.search.hypothesis_machine import KernelMachine
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import fuzz
from xfdfuzz.program.ops.base import OPS
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import resolve
from xfdfuzz.testing import state_machine

REVIEWS_WARNING = "no-warning@fpu_guest_realloc_fpstate"


def programs(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(f.violation.bucket, format_program(f.program)) for f in findings]


def test_a_seed_gives_the_same_findings_and_programs_again() -> None:
    first = fuzz(resolve("amx-v1"), Plan(seed=7, engine="hypothesis", examples=30))
    second = fuzz(resolve("amx-v1"), Plan(seed=7, engine="hypothesis", examples=30))
    assert programs(list(first.found)) == programs(list(second.found))
    assert first.found
    assert first.stats.coverage == second.stats.coverage
    assert programs(list(fuzz(resolve("amx-v1"), Plan(seed=8, engine="hypothesis", examples=30)).found)) != programs(
        list(first.found)
    )


def test_the_reviews_warning_is_found_in_amx_v1_and_fits_in_six_ops_after_the_boot() -> None:
    known: set[str] = set()
    found: list[Finding] = []
    for seed in range(8):
        report = fuzz(resolve("amx-v1"), Plan(seed=seed, examples=400), known=known)
        found += [f for f in report.found if f.violation.bucket == REVIEWS_WARNING]
        known |= {f.violation.bucket for f in report.found}
        if found:
            break
    (finding,) = found
    # permission, VM, vCPU and CPUID are the boot
    assert len(finding.program.ops) <= 4 + 6
    assert shows(finding.program, resolve("amx-v1"), REVIEWS_WARNING)


def test_a_known_bucket_is_not_reported_again() -> None:
    report = fuzz(resolve("amx-v1"), Plan(seed=7, engine="hypothesis", examples=25))
    buckets = {f.violation.bucket for f in report.found}
    again = fuzz(resolve("amx-v1"), Plan(seed=7, engine="hypothesis", examples=25), known=buckets)
    assert not buckets & {f.violation.bucket for f in again.found}


def test_every_finding_is_a_program_that_replays_from_its_text_and_is_one_minimal() -> None:
    revision = resolve("v5.17")
    report = fuzz(revision, Plan(seed=3, engine="hypothesis", examples=40))
    assert report.found
    for finding in report.found:
        again = parse(format_program(finding.program))
        assert shows(again, revision, finding.violation.bucket)
        for i in range(len(again.ops)):
            shorter = parse("\n".join(_without_op(format_program(again), i)))
            assert not shows(shorter, revision, finding.violation.bucket), finding.violation.bucket


def _without_op(text: str, index: int) -> list[str]:
    lines = text.split("\n")
    first = next(n for n, line in enumerate(lines) if line.startswith("machine")) + 2
    return lines[: first + index] + lines[first + index + 1 :]


@pytest.mark.parametrize("revision", ["v5.16-cured", "v7.3-cured"])
def test_a_kernel_with_the_cures_of_what_is_known_is_clean(revision: str) -> None:
    """As .ci/run asks for longer."""
    assert not fuzz(resolve(revision), Plan(seed=1, engine="hypothesis", examples=25)).found


def test_coverage_counts_every_step() -> None:
    stats = fuzz(resolve("v5.16-cured"), Plan(seed=1, engine="hypothesis", examples=20)).stats
    assert sum(sum(results.values()) for results in stats.coverage.values()) == stats.steps
    assert stats.examples == 20
    assert set(stats.coverage) <= set(OPS)


def test_every_op_has_a_rule() -> None:
    """An op that no rule names would never be tried."""
    nodes = [node for file in Path(rules.__path__[0]).glob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert set(OPS) - named == {name for name, op in OPS.items() if not op.DRAWN}


def test_hypothesis_has_every_rule() -> None:
    declared = {rule.function.__name__ for rule in KernelMachine.setup_state().rules}
    assert set(RULES) == declared


def run_as_pytest_would(machine: type[KernelMachine]) -> str:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(machine.TestCase).run(result)
    return "".join(text for _, text in result.errors + result.failures)


def test_the_test_case_of_a_clean_revision_passes() -> None:
    assert run_as_pytest_would(state_machine("v5.16-cured")) == ""


def test_pytest_users_can_name_what_they_know() -> None:
    found = re.search(r"ViolationFound: (\S+): ", run_as_pytest_would(state_machine("amx-v1")))
    assert found
    assert f"ViolationFound: {found[1]}: " not in run_as_pytest_would(state_machine("amx-v1", known={found[1]}))


@pytest.mark.parametrize("junk", ["t1 vmovups(3)", "cpu0 rdmsr(IA32_XFD_ERR)", "host fail_alloc(0)"])
def test_minimise_takes_out_what_does_not_matter(junk: str) -> None:
    ops = ["t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)", junk]
    long = parse("# xfdfuzz program 1\nmachine cpus=2 mpx debug-fpu\n\n" + "\n".join([junk, *ops]) + "\n")
    small = minimise(long, resolve("v5.16"), "permission-only-grows@host")
    assert format_program(small).splitlines()[1:] == [
        "machine cpus=1",
        "",
        "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0",
    ]


def test_a_finding_that_a_fresh_process_does_not_confirm_is_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xfdfuzz.engines.judge.confirm.Confirmer._answer", lambda *_: [])
    report = fuzz(resolve("amx-v1"), Plan(seed=2, engine="hypothesis", examples=15))
    assert report.found
    assert len(report.doubts) == len(report.found)
    assert "does not show in a fresh process" in report.doubts[0]


def test_the_confirming_process_runs_nothing_from_the_current_directory() -> None:
    Path("json.py").write_text("raise SystemExit(9)\n")
    assert fuzz(resolve("amx-v1"), Plan(seed=1, engine="hypothesis", examples=5)).doubts == ()
