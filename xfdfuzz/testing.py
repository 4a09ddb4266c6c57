"""Kernels under pytest: Hypothesis drives one, and a test that fails shows what the command line shows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from xfdfuzz import invariants
from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.minimise import minimise
from xfdfuzz.engines.judge.verdict import judge, revision_of
from xfdfuzz.engines.search.campaign import Discovered
from xfdfuzz.engines.search.hypothesis_machine import KernelMachine, machine_for
from xfdfuzz.engines.search.plan import STEPS
from xfdfuzz.engines.search.violations import ViolationCampaign
from xfdfuzz.invariants.loading import load_once, loaded_files
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.report import files
from xfdfuzz.report import finding as report
from xfdfuzz.report.console import console, line
from xfdfuzz.revisions import Revision


def state_machine(revision: str | Path | Revision, known: Collection[str] = ()) -> type[KernelMachine]:
    """The Hypothesis state machine of one revision, for pytest and unittest:
    ``TestAmxV1 = state_machine("amx-v1").TestCase``.

    The test fails on a violation whose bucket is not in ``known``, with the plainest program that Hypothesis and
    minimise() find.  Its ``settings`` are Hypothesis', to be changed as for any state machine.  Raises RevisionError.
    """
    load_once()
    chosen = revision_of(revision)
    campaign = ViolationCampaign(revision=chosen, known=set(known))
    machine: Any = machine_for(campaign, __doc__=f"{chosen.label} under test.")
    machine.TestCase = _test_case(machine.TestCase, campaign)
    tested: type[KernelMachine] = machine
    return tested


def _test_case(hypothesis: Any, campaign: ViolationCampaign) -> type[Any]:
    """Hypothesis' test case of the machine, but for what it raises: notes, not a script of rules and their numbers."""

    class TestCase(hypothesis):  # type: ignore[misc]
        # one bug at a time, and no explanations: both would multiply the time to the first shrunk program
        settings = settings(
            deadline=None,
            report_multiple_bugs=False,
            stateful_step_count=STEPS,
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )

        @wraps(hypothesis.runTest)  # with the marks that Hypothesis' plugin for pytest looks for
        def runTest(self) -> None:
            try:
                super().runTest()
            except Discovered as found:
                raise _minimal(found, campaign) from None

    TestCase.__name__ = TestCase.__qualname__ = hypothesis.__name__
    return TestCase


def _minimal(found: Discovered, campaign: ViolationCampaign) -> Discovered:
    """The same discovery with its plainest program, and all that is to be said of it as a note."""
    bucket = found.discovery.bucket
    program = minimise(found.program, campaign.revision, bucket)
    violation = next(v for v in judge(program, campaign.revision, expectations=False).violations if v.bucket == bucket)
    smallest = campaign.discovered(violation, program)
    smallest.add_note(_note(Finding(violation, program, campaign.revision)))
    return smallest


def _note(finding: Finding) -> str:
    """What the command line prints of the finding, and its text for who wants to keep it."""
    text = StringIO()
    out = console(text)
    report.terminal(out, finding)
    command = files.replay_command(replace(finding, file=Path("FILE")), _invariant_files(finding))
    line(out, f"  to replay it, save this as FILE and run: {command}\n")
    line(out, files.text(finding))
    return text.getvalue()


def _invariant_files(finding: Finding) -> list[Path]:
    """The users' files with invariants: those that were loaded, and the test's own that declares the broken one."""
    predicate = INVARIANTS[finding.violation.invariant].predicate
    own = [] if predicate.__module__.startswith(f"{invariants.__name__}.") else [Path(predicate.__code__.co_filename)]
    return list(dict.fromkeys([*loaded_files(), *(file.resolve() for file in own)]))
