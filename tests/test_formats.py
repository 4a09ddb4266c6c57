"""Reports for other programs, each read back by the program that it is for, or by its schema."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import junitparser
import pytest
from b4.review import checks
from readers import b4_answer, check, github, gitlab, jsonl, junit, ktap, sarif

from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.lockstep import Pair, differences
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.search.violations import fuzz
from xfdfuzz.engines.stream.events import (
    Began,
    Confirmed,
    Doubted,
    Ended,
    Event,
    Expired,
    Found,
    Gone,
    KnownMet,
    ProgramJudged,
    Progressed,
    Stuck,
    Waiting,
    Withheld,
    WorkerLost,
)
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.program import Expectation
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.report import campaign, files
from xfdfuzz.report.formats import FORMATS, base, open_format
from xfdfuzz.report.formats.jsonl import read
from xfdfuzz.report.privacy import Discreet
from xfdfuzz.revisions import resolve
from xfdfuzz.revisions.mails import revision_of_mail

BOOT = """\
# xfdfuzz program 1
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx})
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtile)
"""
#: On amx-v1 its last op breaks no-realloc-on-enter and warns in fpu_guest_realloc_fpstate; nothing breaks on v7.3.
PROGRAM = parse(f"{BOOT}t0 ioctl(v0, KVM_SET_MSRS, {{IA32_XFD: 0}})\nt0 ioctl(v0, KVM_RUN) ...\n")
BUCKET = "no-realloc-on-enter@KvmRun"
#: What a user's invariant may say: all that XML, KTAP, workflow commands and Markdown take for something else.
NASTY = "50% of\r\n# Subtest: <b>&]]>\x00\x1b[31m::error::, a:b | `c` \ud800"


def a_finding(bucket: str = BUCKET, revision: str = "amx-v1", file: Path | None = None) -> Finding:
    """One of the things that PROGRAM breaks."""
    resolved = resolve(revision)
    violation = next(v for v in judge(PROGRAM, resolved, expectations=False).violations if v.bucket == bucket)
    return Finding(violation, PROGRAM, resolved, file)


def made_up(name: str, severity: str, revision: str = "amx-v1", message: str = "it is") -> Finding:
    """A finding of which only what it says matters."""
    return Finding(Violation("no-warning", severity, name, message, 7), PROGRAM, resolve(revision))


def a_difference() -> Discrepancy:
    pair = Pair(resolve("amx-v1"), resolve("v7.3"))
    first, *more = differences(PROGRAM, pair)
    return Discrepancy(first, PROGRAM, pair, tuple(more), Path("differences/one.xfd"))


def began(label: str = "amx-v1", *revisions: str) -> Began:
    return Began(label, tuple(map(resolve, revisions or (label,))), {"seed": 7})


def a_search(*found: Finding) -> list[Event]:
    """Events of all kinds, as a search that was not interrupted gives them."""
    return [
        began(),
        Progressed("amx-v1", 1.5, {"examples": 10, "steps": 400}, 0),
        *(Found("amx-v1", one) for one in found),
        KnownMet("amx-v1", "permission-only-grows"),
        WorkerLost("amx-v1", 11, "SIGKILL"),
        Progressed("amx-v1", 2.5, {"examples": 20, "steps": 800}, len(found)),
        *(Confirmed("amx-v1", one.bucket) for one in found),
        Ended("amx-v1", {"steps": 800}, False),
    ]


def reported(name: str, events: Sequence[Event], **options: Any) -> str:
    """The report of the events in that format."""
    path = Path(f"report.{name}")
    report = open_format(name, path, **options)
    for event in events:
        report.take(event)
    report.close()
    assert report.failure is None
    return path.read_text()


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_report_is_whole_after_each_event(name: str) -> None:
    nasty = made_up(NASTY, "warn", message=NASTY)
    path = Path("report")
    report = open_format(name, path)
    check(name, path.read_text())
    for event in [*a_search(a_finding(), nasty), began("amx-v1 | v7.3", "amx-v1", "v7.3")]:
        report.take(event)
        check(name, path.read_text())
    report.take(Found("amx-v1 | v7.3", a_difference()))
    report.take(Doubted("amx-v1", "", "not today"))
    report.take(ProgramJudged("v7.3", "corpus/one.xfd", False, "op 3: expected 0, got -EINVAL"))
    check(name, path.read_text())
    report.close()
    check(name, path.read_text())
    assert [file.name for file in Path().iterdir()] == ["report"]  # and nothing aside


@pytest.mark.parametrize("name", FORMATS)
def test_a_report_begins_anew(name: str) -> None:
    empty = reported(name, [])
    assert "no-realloc-on-enter" in reported(name, a_search(a_finding()))
    assert reported(name, []) == empty


def test_a_campaign_is_reported_as_it_runs() -> None:
    """What every format says after each finding of a real search has all findings so far."""
    opened = {name: open_format(name, Path(name)) for name in FORMATS}
    buckets: list[str] = []

    def tell(event: Event) -> None:
        for report in opened.values():
            report.take(event)

    def heard(event: Event) -> None:
        tell(event)
        if not isinstance(event, Found):
            return
        buckets.append(event.outcome.bucket)
        for name in opened:
            text = Path(name).read_text()
            check(name, text)
            assert all(bucket.split("@")[0] in text for bucket in buckets)

    fuzz("amx-v1", Plan(1, "scout", examples=6), tell=heard)
    assert len(buckets) > 3
    for name, one in opened.items():
        one.close()
        check(name, Path(name).read_text())


# -- junit -------------------------------------------------------------------------------------------------------------


def test_junit_has_a_suite_for_each_revision_and_a_case_for_each_bucket() -> None:
    text = reported("junit", [*a_search(a_finding()), began("v7.3"), Ended("v7.3", None, False)])
    suites = junit(text)
    assert list(suites) == ["amx-v1", "v7.3"]
    assert list(suites["amx-v1"]) == [BUCKET, "permission-only-grows", "ended"]
    assert suites["v7.3"] == {"ended": None}
    failure, known, ended = suites["amx-v1"].values()
    assert isinstance(failure, junitparser.Failure)
    assert (failure.type, failure.message) == (
        "warn",
        "no-realloc-on-enter: v0 enters KVM_RUN with a request for xtiledata",
    )
    assert "   7  t0 ioctl(v0, KVM_RUN) ... = ok" in failure.text
    assert isinstance(known, junitparser.Skipped)
    assert ended is None
    (suite, _) = junitparser.JUnitXml.fromstring(text.encode())
    assert suite.time == 2.5
    properties = ElementTree.fromstring(text.encode()).iter("property")
    assert [prop.attrib for prop in properties] == [{"name": "seed", "value": "7"}] * 2


def test_junit_of_a_run_that_was_killed_is_not_green() -> None:
    ended = junit(reported("junit", [began()]))["amx-v1"]["ended"]
    assert isinstance(ended, junitparser.Error)
    assert "has not ended" in ended.message


@pytest.mark.parametrize("interrupted", [True, False])
def test_junit_tells_what_is_not_sure_from_what_is_broken(interrupted: bool) -> None:
    events: list[Event] = [
        began(),
        Found("amx-v1", a_finding()),
        Found("amx-v1", made_up("other", "warn")),
        Doubted("amx-v1", BUCKET, "a fresh process sees nothing"),
        Ended("amx-v1", None, interrupted),
    ]
    unsure, sure, ended = (
        junit(reported("junit", events))["amx-v1"][name] for name in (BUCKET, "no-warning@other", "ended")
    )
    assert isinstance(unsure, junitparser.Error)
    assert "a fresh process sees nothing" in unsure.text
    assert isinstance(sure, junitparser.Failure)
    assert isinstance(ended, junitparser.Error)


def test_junit_replaces_what_xml_cannot_hold() -> None:
    suites = junit(reported("junit", [began(), Found("amx-v1", made_up("x", "warn", message=NASTY))]))
    message = suites["amx-v1"]["no-warning@x"].message
    assert message == "no-warning: " + NASTY.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace(
        "\ud800", "\ufffd"
    )


def test_junit_of_programs_that_were_judged() -> None:
    events: list[Event] = [
        began("v7.3"),
        ProgramJudged("v7.3", "a.xfd", True, "clean"),
        ProgramJudged("v7.3", "b.xfd", False, "op 3: expected 0, got -EINVAL", "   3  t0 ..."),
        ProgramJudged("v7.3", "c.xfd", None, "n/a"),
        Ended("v7.3", None, False),
    ]
    cases = junit(reported("junit", events))["v7.3"]
    assert {name: type(result).__name__ for name, result in cases.items()} == {
        "b.xfd": "Failure",
        "a.xfd": "NoneType",
        "c.xfd": "Skipped",
        "ended": "NoneType",
    }
    assert (cases["b.xfd"].message, cases["b.xfd"].text) == ("op 3: expected 0, got -EINVAL", "   3  t0 ...")


# -- ktap --------------------------------------------------------------------------------------------------------------

#: Debian's packages linux-source-*: their archives have the kernel's own reader of KTAP.
ARCHIVES = sorted(Path("/usr/src").glob("linux-source-*.tar.xz"))


def test_ktap_expects_what_was_known_to_fail() -> None:
    text = reported("ktap", a_search(a_finding()))
    assert ktap(text) == {"amx-v1": {BUCKET: "not ok", "permission-only-grows": "XFAIL", "ended": "ok"}}
    before, _ = text.split(f"  not ok 1 {BUCKET}\n")
    assert "\n  #     7  t0 ioctl(v0, KVM_RUN) ... = ok\n" in before
    assert "\n  #  a worker was lost, whose share began with seed 11: SIGKILL\n" in before


def test_ktap_is_what_the_kernel_reads(tmp_path: Path) -> None:
    """kunit.py has its own tests of KTAP in the kernel; here it finds what the log says, and no error in the log."""
    if not ARCHIVES:
        pytest.skip("no /usr/src/linux-source-*.tar.xz: apt-get install linux-source-6.1 (Debian 12)")
    wanted = "*/tools/testing/kunit/*.py"
    subprocess.run(["tar", "-C", str(tmp_path), "-xf", str(ARCHIVES[-1]), "--wildcards", wanted], check=True)
    (script,) = tmp_path.glob("*/tools/testing/kunit/kunit.py")
    skipped = ProgramJudged("v7.3", "a #NM.xfd", None, "n/a")
    nasty = made_up(NASTY, "warn", message=NASTY)
    others: list[Event] = [began("v7.3"), skipped, Ended("v7.3", None, False), began("v6.6")]
    log = reported("ktap", [*a_search(a_finding(), nasty), *others])
    command = [sys.executable, str(script), "parse", f"--json={tmp_path}/out.json", str(tmp_path / "report.ktap")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "[ERROR]" not in done.stdout
    groups = json.loads((tmp_path / "out.json").read_text())["sub_groups"]
    found = {group["name"]: {case["name"]: case["status"] for case in group["test_cases"]} for group in groups}
    (nasty_name,) = [name for name in ktap(log)["amx-v1"] if name.startswith("no-warning@50%")]
    assert found == {
        "amx-v1": {BUCKET: "FAIL", nasty_name: "FAIL", "permission-only-grows": "PASS", "ended": "PASS"},
        "v7.3": {"a _NM.xfd": "SKIP", "ended": "PASS"},
        "v6.6": {"ended": "FAIL"},
    }


# -- sarif -------------------------------------------------------------------------------------------------------------


def test_sarif_tells_new_from_known() -> None:
    (run,) = sarif(reported("sarif", a_search(a_finding(file=Path("findings/one 1.xfd"))))).values()
    new, known = run["results"]
    assert (new["ruleId"], new["level"], new["baselineState"]) == ("no-realloc-on-enter", "warning", "new")
    assert new["partialFingerprints"] == {"xfdfuzzBucket/v1": BUCKET}
    assert "suppressions" not in new
    assert (known["ruleId"], known["baselineState"]) == ("permission-only-grows", "unchanged")
    assert known["suppressions"] == [{"kind": "external", "justification": "known before"}]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["no-realloc-on-enter", "permission-only-grows"]
    assert run["automationDetails"]["id"] == "xfdfuzz/amx-v1/"
    assert run["invocations"][0]["executionSuccessful"]


def test_sarif_has_what_github_asks_for() -> None:
    """It refuses a log with a result that has no place, and shows those that are absent."""
    told: list[Event] = [Gone("amx-v1", "no-warning@a", "a.xfd"), Expired("amx-v1", "no-warning@b", "2026-11-03")]
    (run,) = sarif(reported("sarif", [*a_search(a_finding()), *told])).values()
    assert len(run["results"]) == 3
    for result in run["results"]:
        (place,) = result["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"]


def test_sarif_has_a_thread_flow_for_each_actor() -> None:
    program = parse(f"{BOOT}t0 ioctl(v0, KVM_RUN) ...\nv0 vmenter\nv0 ldtilecfg(1)\nv0 tileload(2)\n")
    violation = Violation("no-warning", "panic", "x", "it warns", 8)
    finding = Finding(violation, program, resolve("v7.3"), Path("findings/one 1.xfd"))
    (run,) = sarif(reported("sarif", [began("v7.3"), Found("v7.3", finding)])).values()
    (result,) = run["results"]
    assert result["level"] == "error"
    (flow,) = result["codeFlows"]
    orders = {one["id"]: [step["executionOrder"] for step in one["locations"]] for one in flow["threadFlows"]}
    assert orders == {"t0": [1, 2, 3, 4, 5, 6], "v0": [7, 8, 9]}
    place = flow["threadFlows"][1]["locations"][0]["location"]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "findings/one%201.xfd"
    assert files.text(finding).splitlines()[place["region"]["startLine"] - 1] == "v0 vmenter"
    assert not run["invocations"][0]["executionSuccessful"]


def test_sarif_names_kernel_functions_and_the_step_that_matters() -> None:
    finding = a_finding("no-warning@fpu_guest_realloc_fpstate", file=Path("findings/one.xfd"))
    (run,) = sarif(reported("sarif", a_search(finding))).values()
    result = run["results"][0]
    functions = {one["name"]: one["fullyQualifiedName"] for one in result["locations"][0]["logicalLocations"]}
    assert functions["kvm_arch_vcpu_ioctl_run"] == "arch/x86/kvm/x86.c:kvm_arch_vcpu_ioctl_run"
    steps = [step for flow in result["codeFlows"][0]["threadFlows"] for step in flow["locations"]]
    (essential,) = [step for step in steps if step["importance"] == "essential"]
    assert essential["location"]["message"]["text"].startswith("t0 ioctl(v0, KVM_RUN) ... = ok\n")


# -- github ------------------------------------------------------------------------------------------------------------

_COMMAND = re.compile(r"::(?P<level>error|warning) (?P<properties>[^\r\n]*?)::(?P<message>[^\r\n]*)")


def commands(events: Sequence[Event], capsys: pytest.CaptureFixture[str], **options: Any) -> list[dict[str, str]]:
    """What the runner makes of standard output: level and message of each command, and its properties."""
    reported("github", events, **options)
    found = []
    for line in capsys.readouterr().out.splitlines():
        command = _COMMAND.fullmatch(line)
        assert command, line
        properties = dict(part.split("=", 1) for part in command["properties"].split(","))
        found.append({"level": command["level"], "message": plain(command["message"])})
        found[-1] |= {name: plain(value) for name, value in properties.items()}
    return found


def plain(text: str) -> str:
    for written, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(written, character)
    return text


def test_github_annotates_the_file_of_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    events = a_search(a_finding(file=Path("findings/one.xfd")))
    error, warning = commands(events, capsys)
    assert error["level"] == "error"
    assert (error["file"], error["line"], error["title"]) == ("findings/one.xfd", "1", f"{BUCKET} on amx-v1")
    assert error["message"].startswith("no-realloc-on-enter: v0 enters KVM_RUN with a request for xtiledata\n")
    assert "   7  t0 ioctl(v0, KVM_RUN) ... = ok" in error["message"]
    assert warning["message"] == "a worker was lost, whose share began with seed 11: SIGKILL"
    assert warning["title"] == "amx-v1"


def test_github_escapes_what_ends_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "50% of\r\na: b, c::error::"
    reported("github", [began(), Found("amx-v1", made_up(nasty, "warn", message=nasty))])
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(
        "::error title=no-warning@50%25 of%0D%0Aa%3A b%2C c%3A%3Aerror%3A%3A on amx-v1"
        "::no-warning: 50%25 of%0D%0Aa: b, c::error::%0A"
    )


def test_github_shows_the_ten_worst(capsys: pytest.CaptureFixture[str]) -> None:
    found = [made_up(f"w{nr}", "warn") for nr in range(12)] + [made_up("a", "abi"), made_up("p", "panic")]
    errors = commands([began(), *(Found("amx-v1", one) for one in found), Ended("amx-v1", None, False)], capsys)
    assert len(errors) == 10
    assert errors[0]["title"] == "no-warning@p on amx-v1"
    assert [error["title"] for error in errors[1:9]] == [f"no-warning@w{nr} on amx-v1" for nr in range(8)]
    assert errors[9]["message"].startswith("5 more ")


def test_github_cuts_the_summary() -> None:
    found = [made_up(f"w{nr}", "warn", message="x" * 20_000) for nr in range(60)]
    summary = reported("github", [began(), *(Found("amx-v1", one) for one in found)])
    github(summary)
    shown = summary.count("\n### failed")
    assert 10 < shown < 60
    # the run itself, which has not ended, is the 61st
    assert summary.endswith(f"\n{61 - shown} more do not fit in here.\n")


def test_github_writes_the_summary_of_the_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    report = open_format("github", None)
    for event in a_search(a_finding()):
        report.take(event)
    report.close()
    summary = Path("summary.md").read_text()
    assert "| `amx-v1` | 1 | 0 | 0 | 1 | 0 | 0 | 0 | yes |" in summary
    assert f"### failed: `{BUCKET}` on `amx-v1` (warn)" in summary
    assert capsys.readouterr().out.startswith("::error ")


# -- what is private ---------------------------------------------------------------------------------------------------

#: On v7.3 and on what stands on it; on amx-v1 it is history, whose program does nothing on v7.3.
PANICS = [made_up("secret", "panic", name) for name in ("v7.3", "v7.3-cured", "v7.3-b45f72177594", "amx-v1")]


def told_discreetly(*events: Event) -> list[Event]:
    told: list[Event] = []
    listener = Discreet(told.append, "findings/private")
    for event in events:
        listener(event)
    return told


@pytest.mark.parametrize("finding", PANICS, ids=lambda finding: finding.revision.label)
@pytest.mark.parametrize("name", FORMATS)
def test_what_may_be_a_vulnerability_is_counted(
    name: str, finding: Finding, capsys: pytest.CaptureFixture[str]
) -> None:
    label, bucket = finding.revision.label, finding.bucket
    report = Report((finding.revision,), Plan(7), Stats(), (finding,), False, (f"{bucket}: not seen",))
    events = (began(label), Found(label, finding), Doubted(label, bucket, "secret"), Ended(label, report, False))
    told = told_discreetly(*events)
    text = plain(reported(name, told) + capsys.readouterr().out)
    if label == "amx-v1":
        assert told == [*events]
        assert "secret" in text
    else:
        assert "secret" not in text
        assert "findings/private" in text
        assert told[-1].result.withheld == 1  # type: ignore[union-attr]


def test_what_another_kernel_has_in_common_with_the_newest_is_private() -> None:
    file = Path(__file__).parent.parent / "corpus" / "open" / "set-xsave-then-set-msrs-xfd.xfd"
    program, old = parse(file.read_text()), resolve("v6.6")
    violations = judge(program, old, expectations=False).violations
    panic = next(violation for violation in violations if violation.severity == "panic")
    assert told_discreetly(Found("v6.6", Finding(panic, program, old))) == [Withheld("v6.6", "findings/private")]


def test_what_is_not_severe_is_no_secret() -> None:
    found = Found("v7.3", made_up("open", "abi", "v7.3"))
    assert told_discreetly(found) == [found]


# -- gitlab ------------------------------------------------------------------------------------------------------------


def test_gitlab_has_an_issue_for_each_bucket() -> None:
    issues = gitlab(reported("gitlab", a_search(a_finding(file=Path("./findings/one.xfd")), made_up("p", "panic"))))
    panic, new, known = issues
    assert (panic["severity"], panic["check_name"]) == ("blocker", "no-warning")
    assert (new["severity"], new["location"]["path"]) == ("major", "findings/one.xfd")
    assert (known["severity"], known["check_name"]) == ("info", "permission-only-grows")


def test_gitlab_knows_a_finding_again() -> None:
    """The same bucket on the same revision, whatever program shows it; not on another revision."""
    one, same, other = (
        gitlab(reported("gitlab", [began(label), Found(label, replace(made_up("w", "warn", label), file=Path(file)))]))
        for label, file in (("amx-v1", "a.xfd"), ("amx-v1", "b.xfd"), ("v5.17", "a.xfd"))
    )
    assert one[1]["fingerprint"] == same[1]["fingerprint"] != other[1]["fingerprint"]


# -- jsonl -------------------------------------------------------------------------------------------------------------


def comparable(event: Any) -> Any:
    """With its revisions as their addresses: kernel classes are composed anew each time."""
    if isinstance(event, Began):
        return replace(event, revisions=[one.address for one in event.revisions])  # type: ignore[arg-type]
    if not isinstance(event, Found):
        return event
    outcome: Any = event.outcome
    if isinstance(outcome, Finding):
        return replace(event, outcome=replace(outcome, revision=outcome.revision.address))  # type: ignore[arg-type]
    return replace(event, outcome=replace(outcome, pair=[one.address for one in outcome.pair]))


def test_events_come_back_as_they_were() -> None:
    nasty = made_up(NASTY, "warn", "v7.3-b45f72177594", message=NASTY)
    events: list[Event] = [
        *a_search(a_finding(file=Path("findings/one.xfd")), nasty),
        Doubted("amx-v1", "", "not today"),
        began("amx-v1 | v7.3", "amx-v1", "v7.3"),
        Found("amx-v1 | v7.3", a_difference()),
        ProgramJudged("v7.3", "a.xfd", None, "n/a", "", "leak"),
        Waiting("v7.3"),
        Stuck("v7.3", "mine.py:3: invariant mine does not return within 30 s", PROGRAM, Path("findings/stuck-1.xfd")),
        Stuck("v7.3", "the same", None),
    ]
    text = reported("jsonl", events)
    back = jsonl(text)
    assert list(map(comparable, back)) == list(map(comparable, events))
    assert reported("jsonl", back) == text


def test_the_result_of_a_search_comes_back_as_its_json() -> None:
    report = fuzz("amx-v1", Plan(1, "scout", examples=20))
    (ended,) = jsonl(reported("jsonl", [Ended("amx-v1", report, False)]))
    assert isinstance(ended, Ended)
    assert ended.result == json.loads(json.dumps(campaign.as_object(report)))


def test_progress_is_written_once_a_second() -> None:
    events = [Progressed("amx-v1", tenths / 10, {"steps": tenths}, 0) for tenths in range(35)]
    seconds = [event.seconds for event in jsonl(reported("jsonl", events)) if isinstance(event, Progressed)]
    assert seconds == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "xfdfuzz events", "version": 2}\n', "line 1: expected a report of version 1"),
        ('{"format": "xfdfuzz events", "version": 1}\nok\n', "line 2: Expecting value"),
        ('{"format": "xfdfuzz events", "version": 1}\n{"event": "Vanished"}\n', "line 2: 'Vanished'"),
    ],
)
def test_what_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        list(read(text))


def test_half_a_line_is_left_out() -> None:
    text = reported("jsonl", a_search(a_finding()))
    whole = jsonl(text)
    assert len(list(read(text[:-5]))) == len(whole) - 1


# -- files that cannot be written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_ends_no_search_and_leaves_no_half_report(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("report")
    report = open_format(name, path)
    before = path.read_text()
    room = len(before) + 10

    def write(file: int, data: bytes) -> int:
        left = room - os.lseek(file, 0, os.SEEK_CUR)
        if left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data[:left])

    def save_bytes(*args: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        full.setattr(base, "save_bytes", save_bytes)
        report.take(began())
        assert report.failure is not None
        assert report.failure.errno == errno.ENOSPC
        assert path.read_text() == before
    report.take(Found("amx-v1", a_finding()))
    assert report.failure is None
    report.close()
    check(name, path.read_text())
    assert path.read_text() == reported(name, [began(), Found("amx-v1", a_finding())])


# -- the command line --------------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]
CORPUS = Path(__file__).parent.parent / "corpus"
OPEN = str(CORPUS / "open" / "set-xsave-then-set-msrs-xfd.xfd")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["html=a"], "unknown format 'html': expected one of junit, ktap, sarif, github, gitlab, jsonl, b4"),
        (["junit"], "expected junit=FILE, or junit=- for standard output, got 'junit'"),
        (["junit="], "expected junit=FILE, or junit=- for standard output, got 'junit='"),
        (["junit=a", "ktap=a"], "a is to hold two reports"),
        (["junit=-", "ktap=-"], "standard output is to hold two reports"),
        (["junit=-", "github=a"], "standard output is to hold two reports"),
        (["junit=missing/a"], "missing/a: No such file or directory"),
        (["jsonl=missing/a"], "missing/a: No such file or directory"),
        (["junit=folder"], "folder: it is a directory"),
        (["junit=fifo"], "fifo: it is not a file"),
        (["jsonl=fifo"], "fifo: it is not a file"),
        (["junit=/dev/null"], "/dev/null: it is not a file"),
    ],
)
@pytest.mark.parametrize("command", ["replay", "matrix"])
def test_an_output_that_cannot_be_is_told_before_anything_runs(
    run: Run, command: str, outputs: list[str], message: str
) -> None:
    Path("folder").mkdir()
    os.mkfifo("fifo")
    code, out, err = run(command, OPEN, *(word for output in outputs for word in ("--output", output)))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_replay_reports_its_verdicts(run: Run) -> None:
    Path("good.xfd").write_text(format_program(replace(PROGRAM, expect=(Expectation("v7.3", "clean"),))))
    Path("bad.xfd").write_text(
        format_program(replace(PROGRAM, expect=(Expectation("v6.6", "violates", ("no-warning",)),)))
    )
    Path("no.xfd").write_text("# xfdfuzz program 1\nnonsense\n")
    outputs = [word for name in FORMATS for word in ("--output", f"{name}={name}.out")]
    code, _, _ = run("replay", "good.xfd", "bad.xfd", "no.xfd", *outputs)
    assert code == 2
    suites = junit(Path("junit.out").read_text())
    kinds = {label: {name: type(case).__name__ for name, case in cases.items()} for label, cases in suites.items()}
    assert kinds == {
        "v7.3": {"good.xfd": "NoneType", "ended": "NoneType"},
        "v6.6": {"bad.xfd": "Failure", "ended": "NoneType"},
        "bad input": {"no.xfd": "Failure", "ended": "NoneType"},
    }
    assert suites["v6.6"]["bad.xfd"].message == "expected to break no-warning, breaks nothing"
    assert "   7  t0 ioctl(v0, KVM_RUN) ... = ok" in suites["v6.6"]["bad.xfd"].text
    for name in FORMATS:
        check(name, Path(f"{name}.out").read_text())


def test_matrix_reports_its_cells(run: Run) -> None:
    revisions = [word for label in ("v7.3", "v6.6", "v5.16") for word in ("--revision", label)]
    code, out, _ = run("matrix", OPEN, *revisions, "--output", "junit=-")
    suites = junit(out)
    assert list(suites) == ["v7.3", "v6.6", "v5.16"]
    (cell, ended) = suites["v7.3"].values()
    assert (code, cell, ended) == (0, None, None)


def test_conform_reports_its_recordings(run: Run) -> None:
    file = Path(__file__).parent / "traces" / "linux-6.17.13" / "suite.jsonl"
    recordings = [f"{file}:{nr} " for nr, _ in enumerate(file.read_text().splitlines(), 1)]
    outputs = [word for name in FORMATS for word in ("--output", f"{name}={name}.out")]
    code, _, _ = run("conform", str(file), "--revision", "v6.17.13", "--revision", "v5.16", *outputs)
    suites = junit(Path("junit.out").read_text())
    ours, theirs = suites["v6.17.13"], suites["v5.16"]
    assert code == 1
    for cases in (ours, theirs):
        assert [name for name in cases if not any(map(name.startswith, recordings))][-1:] == ["ended"]
        assert all(any(name.startswith(place) for name in cases) for place in recordings)
    assert not any(isinstance(result, junitparser.Failure) for result in ours.values())
    broken = [result for result in theirs.values() if isinstance(result, junitparser.Failure)]
    assert broken
    assert all(result.text.startswith(("different  ", "violation  ")) for result in broken)
    for name in FORMATS:
        check(name, Path(f"{name}.out").read_text())


def test_text_gives_way_to_a_report_on_standard_output(run: Run) -> None:
    _, out, err = run("replay", OPEN, "--revision", "v7.3", "--output", "ktap=-")
    assert ktap(out) == {"v7.3": {OPEN: "ok", "ended": "ok"}}
    assert "KVM_RUN" in err
    _, out, err = run("replay", OPEN, "--revision", "v7.3", "--output", "jsonl=-")
    assert [type(event) for event in jsonl(out)] == [Began, ProgramJudged, Ended]


def test_a_link_is_followed(run: Run) -> None:
    Path("link").symlink_to("report")
    run("replay", OPEN, "--output", "junit=link")
    assert Path("link").is_symlink()
    junit(Path("report").read_text())


@pytest.mark.parametrize("name", FORMATS)
def test_help_names_every_format(run: Run, name: str) -> None:
    assert name in run("help", "replay")[1]


# -- b4 ----------------------------------------------------------------------------------------------------------------

COVER = "20211208000359.2853257-1-yang.zhong@intel.com"


def test_b4_is_told_what_is_new() -> None:
    answer = b4_answer(reported("b4", a_search(a_finding(), made_up("p", "panic"))))
    assert (answer["tool"], answer["status"]) == ("xfdfuzz", "fail")
    assert answer["summary"] == "amx-v1: new: 1 panic, 1 warn, 1 known"
    assert answer["url"] == f"https://lore.kernel.org/r/{COVER}/"
    assert f"amx-v1: {BUCKET} (warn): no-realloc-on-enter: v0 enters" in answer["details"]


@pytest.mark.parametrize(
    ("events", "status", "summary"),
    [
        ([], "warn", "nothing has begun yet"),
        ([began()], "warn", "amx-v1: nothing new, the run has not ended: this is all that it had come to"),
        ([began(), Ended("amx-v1", None, False)], "pass", "amx-v1: nothing new"),
        ([began(), Ended("amx-v1", None, True)], "warn", "amx-v1: nothing new, interrupted"),
    ],
)
def test_b4_is_told_what_is_not_sure(events: list[Event], status: str, summary: str) -> None:
    answer = b4_answer(reported("b4", events))
    assert (answer["status"], answer["summary"]) == (status, summary)


@pytest.mark.parametrize(
    ("headers", "revision"),
    [
        ({"Message-Id": COVER}, "amx-v1"),
        ({"Message-Id": COVER.replace("-1-", "-13-")}, "amx-v1"),
        ({"Message-Id": "a@b", "In-Reply-To": COVER.replace("-1-", "-13-")}, "amx-v1"),
        (
            {"References": f"{COVER}> <16c938e2-2427-c8dd-94a1-eba8f967283b@redhat.com"},
            "amx-review-b",
        ),
        ({"Message-Id": "20211214022825.563892248@linutronix.de"}, "amx-tglx"),
        ({"Message-Id": COVER.replace("-1-", "-x-")}, None),
        ({"Message-Id": "a@b"}, None),
        ({}, None),
    ],
)
def test_a_mail_belongs_to_the_revision_of_its_series(headers: dict[str, str], revision: str | None) -> None:
    mail = "".join(f"{name}: <{value}>\n" for name, value in headers.items())
    assert revision_of_mail(f"{mail}Subject: [PATCH] x\n\nbody\n".encode()) == revision


@pytest.mark.parametrize(
    ("identity", "status", "summary"),
    [
        (COVER, "fail", "amx-v1+063452fd94d1: new: 1 warn"),
        ("20220107185512.25321-7-pbonzini@redhat.com", "pass", "amx-v6+063452fd94d1: nothing new"),
        ("nobody@example.com", "pass", "mail: no revision models the series of the mail <nobody@example.com>"),
    ],
)
def test_b4_reads_the_answer(identity: str, status: str, summary: str) -> None:
    """As its configuration has it, with a mail that b4 hands in."""
    program = Path("one.xfd").resolve()
    # with the fix of a bug that all of them have
    program.write_text(format_program(replace(PROGRAM, apply=("063452fd94d1",))))
    command = f"{sys.executable} -m xfdfuzz replay {program} --revision - --output b4=-"
    mail = EmailMessage()
    mail["Message-Id"], mail["Subject"] = f"<{identity}>", "[PATCH 00/19] AMX Support in KVM"
    mail.set_content("body\n")
    (answer,) = checks.run_series_checks((identity, mail), [command], str(Path.cwd()))
    assert (answer["tool"], answer["status"], answer["summary"]) == ("xfdfuzz", status, summary)


def test_a_mail_of_no_series_is_skipped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = "Message-Id: <nobody@example.com>\n\nbody\n"
    for output, expected in (("ktap=out", 4), ("ktap=missing/out", 2)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(mail.encode())))
        code, out, err = run("replay", OPEN, "--revision", "-", "--output", output)
        assert (code, out, err.count("\n")) == (expected, "", 1)
    assert ktap(Path("out").read_text()) == {"mail": {"<nobody@example.com>": "SKIP", "ended": "ok"}}
