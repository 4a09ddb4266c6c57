"""Baselines: what is known, gone and expired on a revision, what hides behind it, and how the file is kept."""

from __future__ import annotations

import io
import json
import re
import tomllib
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import junitparser
import pytest

from xfdfuzz.baseline.entries import Baseline, Entry
from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import ViolationCampaign, fuzz
from xfdfuzz.engines.stream.events import Began, Ended, Expired, Found, Gone, KnownMet
from xfdfuzz.engines.stream.known import Absent, Known, Overdue
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.text import parse
from xfdfuzz.report import known as report
from xfdfuzz.report.console import console
from xfdfuzz.report.directory import keep
from xfdfuzz.report.formats import FORMATS
from xfdfuzz.report.formats.jsonl import as_object, read
from xfdfuzz.revisions import resolve

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "tests" / "data" / "sarif-2.1.0.schema.json").read_text())

#: Breaks permission-only-grows on every revision before v5.18.
LOSES = """\
# xfdfuzz program 1
# title: all other permissions are lost
# expect: amx-v1 violates permission-only-grows
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
"""
BUCKET = "permission-only-grows@host"
#: On v7.3 the host dies in handle_xfd_event(), which os_xrstor() leads to.
FAULTS = (ROOT / "corpus" / "open" / "set-xsave-then-set-msrs-xfd.xfd").read_text()
WARNING = "no-warning@handle_xfd_event"
#: With SECOND this warns there, too: a thread's first use of tiles leads to it.
USES = """\
# xfdfuzz program 1
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
t0 tileload(1)
"""
SECOND = '''\
"""A second bug behind a bucket that is known on v7.3."""

from xfdfuzz import Series
from xfdfuzz.kernel.process import Process

series = Series("second", base="v7.3", title="a second bug")


@series.patch("second-1", "x86/fpu: take the user's #NM for the kernel's")
class Second(Process):
    def exc_device_not_available(self) -> str:
        """Warns."""
        if self.rdmsrl(0x1C5):
            self.handle_xfd_event_in_kernel()
            self.wrmsrl(0x1C5, 1 << 18)
        return super().exc_device_not_available()
'''

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the first of March."""
    for module in ("inputs", "baseline"):
        monkeypatch.setattr(f"xfdfuzz.cli.{module}.today", lambda: date(2027, 3, 1))


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def entry(bucket: str = BUCKET, revisions: str = "amx-v1", program: str = LOSES, **more: str) -> str:
    """An entry as a person writes it; ``more`` is written as it is."""
    lines = [f'bucket = "{bucket}"', f"revisions = '{revisions}'", f"program = '''\n{program}'''"]
    return (
        "\n".join(["[[known]]", *lines, *(f"{key.replace('_', '-')} = {value}" for key, value in more.items())]) + "\n"
    )


def known(revision: str, *entries: Entry, today: date = date(2027, 3, 1)) -> Known:
    return Baseline(entries, ("known.toml",)).known_on(resolve(revision), today)


def of(bucket: str, program: str, revisions: str = "*", **more: Any) -> Entry:
    return Entry("known.toml:1", parse(program), bucket, revisions, **more)


def violations(program: str, revision: str) -> dict[str, Violation]:
    """Bucket -> what the program breaks."""
    return {one.bucket: one for one in judge(program, revision, expectations=False).violations}


# -- what is known -----------------------------------------------------------------------------------------------------


def test_an_entry_hides_its_bucket_where_it_is_about() -> None:
    entries = of(BUCKET, LOSES, "amx-v1..amx-v6", reason="nobody cares")
    here = known("amx-v1", entries)
    assert (dict(here.reasons), here.gone, here.expired) == ({BUCKET: "nobody cares"}, (), ())
    assert here.hides(violations(LOSES, "amx-v1")[BUCKET])
    elsewhere = known("v5.16", entries)
    assert not elsewhere.reasons
    assert not elsewhere.hides(violations(LOSES, "v5.16")[BUCKET])


def test_an_entry_says_nothing_of_what_else_its_program_violates() -> None:
    here = known("v7.3", of(WARNING, FAULTS))
    found = violations(FAULTS, "v7.3")
    assert len(found) > 1
    assert [bucket for bucket, one in found.items() if here.hides(one)] == [WARNING]


def test_what_does_not_show_any_more_is_gone_and_hides_nothing() -> None:
    here = known("v5.18", of(BUCKET, LOSES, "v5.16..", reason="to be fixed"))
    assert here.gone == (Absent(BUCKET, "known.toml:1", "to be fixed"),)
    assert not here.hides(violations(LOSES, "v5.17")[BUCKET])


def test_the_last_day_is_in_time() -> None:
    due = of(BUCKET, LOSES, expires=date(2027, 3, 1), reason="soon")
    assert known("amx-v1", due).expired == ()
    late = known("amx-v1", due, today=date(2027, 3, 2))
    assert late.expired == (Overdue(BUCKET, "2027-03-01", "soon"),)
    # it is still no news, and what is gone is not late
    assert late.hides(violations(LOSES, "amx-v1")[BUCKET])
    assert known("v7.3", due, today=date(2027, 3, 2)).expired == ()


def test_what_is_known_below_is_known_of_what_stands_on_it() -> None:
    cured = known("v7.3-cured", of(WARNING, FAULTS, "v7.3"))
    assert [one.bucket for one in cured.gone] == [WARNING]


# -- two bugs in one bucket --------------------------------------------------------------------------------------------


def test_a_shape_is_how_the_kernel_came_to_its_report() -> None:
    shapes = {one.bucket: one.shape for one in violations(FAULTS, "v7.3").values()}
    assert shapes[WARNING] == "handle_xfd_event <- exc_device_not_available <- os_xrstor"
    assert violations(LOSES, "amx-v1")[BUCKET].shape == ""
    assert violations(LOSES, "amx-v1")[BUCKET].kind == BUCKET


@pytest.fixture
def second() -> str:
    write("second.py", SECOND)
    return resolve("second.py").label


def test_a_second_bug_in_a_known_bucket_shows(second: str) -> None:
    here = known(second, of(WARNING, FAULTS))
    assert here.hides(violations(FAULTS, second)[WARNING])
    planted = violations(USES, second)[WARNING]
    assert not here.hides(planted)
    # not with the bucket alone, as a list of buckets has it
    assert Known.of([WARNING]).hides(planted)


@pytest.mark.parametrize("engine", ["scout", "hypothesis"])
def test_a_search_finds_the_second_bug_and_not_the_first(second: str, engine: str) -> None:
    here = known(second, of(WARNING, FAULTS))
    found = [f.violation for f in fuzz(second, Plan(seed=1, engine=engine, examples=60), here).found]
    assert WARNING in {one.bucket for one in found}
    assert not any(here.hides(one) for one in found)
    assert len({one.kind for one in found}) == len(found)


def test_each_shape_has_a_file_and_a_case(second: str) -> None:
    first, other = (Finding(violations(p, second)[WARNING], parse(p), resolve(second)) for p in (FAULTS, USES))
    kept = [keep(one, Path()) for one in (first, other, first)]
    assert kept[0].file == kept[2].file != kept[1].file
    assert [one.violation.kind for one in kept[:2]] == [first.violation.kind, other.violation.kind]
    junit = FORMATS["junit"](None)
    for event in (KnownMet(second, WARNING), Found(second, kept[1]), Ended(second, None, interrupted=False)):
        junit.take(event)
    suite = next(iter(junitparser.JUnitXml.fromstring(junit.text().encode())))  # type: ignore[attr-defined]
    assert {case.name: [type(one).__name__ for one in case.result] for case in suite} == {
        WARNING: ["Skipped"],
        other.violation.kind: ["Failure"],
        "ended": [],
    }


def test_shrinking_stays_with_the_second_bug(second: str) -> None:
    """Both are in the program, and either would do for the bucket."""
    both = parse(FAULTS.replace("machine cpus=1\n", USES[USES.index("machine") :]))
    kinds = {one.kind for one in judge(both, second, expectations=False).violations if one.bucket == WARNING}
    assert len(kinds) == 2
    campaign = ViolationCampaign(revision=resolve(second), by_shape=True)
    for kind in kinds:
        shown = campaign.shown(campaign.minimise(both, kind))
        assert kind in {one.kind for one in shown}


def test_explore_finds_the_second_bug(second: str, run: Run) -> None:
    write("known.toml", entry(WARNING, "v7.3", FAULTS))
    argv = ("explore", "--revision", "second.py", "--scope", "host", "--depth", "2", "--format", "json")
    code, out, err = run(*argv, "--baseline", "known.toml")
    assert (code, "second: 1 known bucket of 1 program" in err) == (1, True)
    found = json.loads(out)
    assert WARNING in {finding["bucket"] for finding in found["findings"]}
    assert found["known"] == [{"bucket": WARNING, "reason": "", "met": False}]
    # a second look at what it saved then knows it
    code, out, _ = run(*argv, "--known", "known.toml", "findings", "--save", "more")
    assert (code, json.loads(out)["findings"]) == (0, [])


# -- the command line --------------------------------------------------------------------------------------------------

FUZZ = ("fuzz", "--revision", "v7.3-cured", "--examples", "1", "--engine", "scout", "--seed", "1")


def test_the_first_night_has_nothing(run: Run) -> None:
    Path("empty").mkdir()
    code, _, err = run(*FUZZ, "--baseline", "known.toml", "--known", "empty", "nowhere")
    assert code == 0
    assert err.count("known.toml does not exist yet: an empty baseline") == 1
    assert err.count("empty has no *.xfd file: an empty baseline") == 1
    assert err.count("nowhere does not exist yet: an empty baseline") == 1


def test_what_is_gone_or_has_expired_is_told(run: Run) -> None:
    write("cured.xfd", LOSES.replace("amx-v1", "v7.3-cured"))
    write("known.toml", entry(WARNING, "v7.3", FAULTS, reason="'in review'"))
    write("known.toml", Path("known.toml").read_text() + "\n" + entry(BUCKET, "v5.16", expires="2027-02-28"))
    code, out, err = run(*FUZZ, "--baseline", "known.toml", "cured.xfd", "--format", "json")
    assert code == 0  # the one that has expired is about another revision
    assert "v7.3-cured: 0 known buckets of 3 programs, 2 gone" in err
    value = json.loads(out)
    assert value["gone"] == [
        {"bucket": WARNING, "program": "known.toml:1", "reason": "in review"},
        {"bucket": "permission-only-grows", "program": "cured.xfd", "reason": "all other permissions are lost"},
    ]
    assert (value["known"], value["expired"]) == ([], [])
    code, out, err = run("fuzz", "--revision", "v5.16", *FUZZ[3:], "--known", "known.toml", "--format", "json")
    value = json.loads(out)
    assert code == 1
    assert value["expired"] == [{"bucket": BUCKET, "since": "2027-02-28", "reason": ""}]
    assert f"xfdfuzz: v5.16: {BUCKET}: expired since 2027-02-28\n" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("known = 3", "known.toml: expected [[known]] tables"),
        ("bucket = 'x'", "known.toml: expected [[known]] tables, got bucket"),
        ("[[known]", "known.toml: not a TOML file: "),
        ("\n[[known]]\nbucket = 'x'", "known.toml:2: expected revisions"),
        (entry("no-such@x"), "known.toml:1: bucket: unknown invariant in 'no-such@x'"),
        (entry(revisions="v9"), "known.toml:1: revisions: unknown revision v9"),
        (entry(expires='"2027-01-31"'), "known.toml:1: expires: expected a date such as 2027-01-31, without quotes"),
        (entry(reason="3"), "known.toml:1: reason: expected a text"),
        (entry(since="3"), "known.toml:1: unknown key since: expected one of bucket, "),
        (entry(program="t0 nothing\n"), "known.toml:1: program:1:1: expected '# xfdfuzz program 1'"),
        (f"[[known]]\nbucket = '{BUCKET}'\nrevisions = '*'\nprogram = 'no.xfd'", "no.xfd: No such file"),
    ],
)
def test_bad_input_is_one_line(run: Run, text: str, message: str) -> None:
    write("known.toml", text)
    for argv in (("fuzz", "--baseline", "known.toml"), ("baseline", "check", "known.toml")):
        code, _, err = run(*argv)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"xfdfuzz: {message}")


# -- events and formats ------------------------------------------------------------------------------------------------


def told() -> list[Any]:
    """All that can be told of what is known."""
    return [
        Began("amx-v1", (resolve("amx-v1"),), {"seed": 7}, 2),
        Gone("amx-v1", "no-warning@gone", "known.toml:9", "was in review"),
        KnownMet("amx-v1", BUCKET, "in review"),
        KnownMet("amx-v1", WARNING, "late"),
        Expired("amx-v1", WARNING, "2027-02-28", "late"),
        Ended("amx-v1", None, interrupted=False),
    ]


def reported(name: str) -> str:
    found = FORMATS[name](None)
    for event in told():
        found.take(event)
    return found.text()  # type: ignore[attr-defined, no-any-return]


def test_a_search_tells_it_in_this_order() -> None:
    heard: list[Any] = []
    here = Known(
        {BUCKET: "why"}, frozenset({BUCKET}), (Absent("a@b", "x.xfd"),), (Overdue(BUCKET, "2027-01-01"),), True
    )
    fuzz("v7.3-cured", Plan(seed=1, engine="scout", examples=1), here, heard.append)
    assert heard[:4] == [
        heard[0],
        Gone("v7.3-cured", "a@b", "x.xfd"),
        KnownMet("v7.3-cured", BUCKET, "why"),
        Expired("v7.3-cured", BUCKET, "2027-01-01"),
    ]
    assert isinstance(heard[0], Began)
    assert heard[0].known == 1


def test_the_events_can_be_read_back() -> None:
    lines = [{"format": "xfdfuzz events", "version": 1}, *map(as_object, told())]
    _, *others = read("".join(f"{json.dumps(line)}\n" for line in lines))
    assert others == told()[1:]


def test_every_format_has_the_reason() -> None:
    ktap = reported("ktap")
    assert re.search(rf"^  ok \d {BUCKET} # XFAIL in review$", ktap, re.MULTILINE)
    assert f"not ok 1 {WARNING}\n" in ktap
    assert "#  gone: was in review\n" in ktap
    suite = next(iter(junitparser.JUnitXml.fromstring(reported("junit").encode())))
    results = {case.name: case.result for case in suite}
    assert isinstance(results[BUCKET][0], junitparser.Skipped)
    assert (results[BUCKET][0].message, results["no-warning@gone"]) == ("in review", [])
    assert isinstance(results[WARNING][0], junitparser.Failure)
    assert results[WARNING][0].message == "expired since 2027-02-28: late"
    log = json.loads(reported("sarif"))
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    states = {one["partialFingerprints"]["xfdfuzzBucket/v1"]: one for one in log["runs"][0]["results"]}
    # what is gone is none: code scanning would show it
    assert {name: one["baselineState"] for name, one in states.items()} == {BUCKET: "unchanged", WARNING: "unchanged"}
    assert [name for name, one in states.items() if "suppressions" in one] == [BUCKET]
    issues = {one["check_name"]: one["severity"] for one in json.loads(reported("gitlab"))}
    assert issues == {"permission-only-grows": "info", "no-warning": "major"}
    b4 = json.loads(reported("b4"))
    assert (b4["status"], b4["summary"]) == ("fail", "amx-v1: nothing new, 1 known, 1 gone, 1 expired")
    assert f"known: `{BUCKET}` on `amx-v1`: in review" in reported("github")


def test_the_text_has_a_line_for_each() -> None:
    out = io.StringIO()
    here = Known({BUCKET: ""}, frozenset(), (Absent("a@b", "x.xfd"),), (Overdue(BUCKET, "2027-01-01", "why"),), True)
    report.terminal(console(out), here, ())
    assert [" ".join(line.split()) for line in out.getvalue().splitlines() if line] == [
        f"known {BUCKET} known before",
        "gone a@b x.xfd does not show it any more",
        f"expired {BUCKET} expired since 2027-01-01: why",
    ]


# -- keeping the file --------------------------------------------------------------------------------------------------

#: With all that an editor may leave in it.
WRITTEN = f"""\
# Known on our kernels.

# Ours.
{entry(first_seen="2027-01-01", last_seen="2027-01-02  # a Saturday", reason="'no [[known]] cure'")}
# Theirs; it was fixed in v5.18.
{entry(revisions="v5.18..v6.6")}
# The end.
"""


def tables(file: str = "known.toml") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(Path(file).read_text())["known"]
    return found


def test_update_adds_what_was_found(run: Run) -> None:
    write("findings/a.xfd", LOSES)
    write("findings/b.xfd", LOSES + "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n")
    code, out, err = run("baseline", "update", "known.toml")
    assert (code, "known.toml does not exist yet" in err) == (0, True)
    assert f"findings/a.xfd: {BUCKET}: added" in out
    first, *others = tables()
    day = date(2027, 3, 1)
    assert (first["bucket"], first["revisions"], first["first-seen"], first["last-seen"]) == (
        BUCKET,
        "amx-v1",
        day,
        day,
    )
    assert parse(first["program"]) == parse(LOSES)
    # the longer program is there for what only it shows
    assert {one["bucket"] for one in others} == violations(Path("findings/b.xfd").read_text(), "amx-v1").keys() - {
        BUCKET
    }
    before = Path("known.toml").read_text()
    assert run("baseline", "update", "known.toml", "findings")[0] == 0
    assert Path("known.toml").read_text() == before
    assert run("baseline", "check", "known.toml")[0] == 0


def test_update_changes_nothing_else(run: Run) -> None:
    write("known.toml", WRITTEN)
    assert run("baseline", "update", "known.toml", "--format", "json")[0] == 0
    assert Path("known.toml").read_text() == WRITTEN.replace("2027-01-02", "2027-03-01")


def test_prune_removes_what_is_gone_or_said_twice(run: Run) -> None:
    write("known.toml", WRITTEN + "# Again.\n" + entry())
    code, out, _ = run("baseline", "prune", "known.toml", "--format", "json")
    assert (code, [json.loads(line)["result"] for line in out.splitlines()]) == (
        0,
        ["removed: does not show on any of its revisions", "removed: says nothing that known.toml:4 does not"],
    )
    begin, end = WRITTEN.index("# Theirs"), WRITTEN.index("\n# The end")
    assert Path("known.toml").read_text() == WRITTEN[:begin] + ("\n# The end.\n" if end < begin else "")
    assert run("baseline", "check", "known.toml")[0] == 0


def test_an_update_of_a_file_that_cannot_be_changed_line_by_line_is_refused(run: Run) -> None:
    text = f"known = [{{bucket = '{BUCKET}', revisions = 'amx-v1', program = 'p.xfd'}}]\n"
    write("p.xfd", LOSES)
    write("known.toml", text)
    code, _, err = run("baseline", "update", "known.toml")
    assert (code, "expected every entry below a line [[known]] of its own" in err) == (2, True)
    assert Path("known.toml").read_text() == text
    assert run("baseline", "check", "known.toml")[0] == 0


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (entry(), 0, []),
        (entry(expires="2027-03-01"), 0, []),
        (entry(expires="2027-02-28"), 1, [f"known.toml:1: {BUCKET}: expired since 2027-02-28"]),
        (entry(revisions="v5.16..v5.18"), 1, [f"known.toml:1: {BUCKET}: does not show on v5.18"]),
        (entry() + entry(program=LOSES.replace("ARCH", "X")), 2, None),
    ],
    ids=["shows", "in-time", "expired", "gone", "broken"],
)
def test_check(run: Run, text: str, code: int, said: Sequence[str] | None) -> None:
    write("known.toml", text)
    result, _, err = run("baseline", "check", "known.toml")
    assert result == code
    assert said is None or err == "".join(f"xfdfuzz: {line}\n" for line in said)


def test_check_of_a_directory_holds_programs_to_their_lines(run: Run) -> None:
    write("open/p.xfd", LOSES)
    assert run("baseline", "check", "open")[0] == 0
    write("open/p.xfd", LOSES.replace("amx-v1", "v5.18"))
    code, _, err = run("baseline", "check", "open")
    assert (code, err) == (1, "xfdfuzz: open/p.xfd: program: does not show on v5.18\n")


def test_entries_about_a_series_name_its_file(run: Run, second: str) -> None:
    write("f/p.xfd", USES.replace("machine", f"# expect: {second} violates no-warning\nmachine"))
    assert run("baseline", "update", "known.toml", "f", "--revision", "second.py")[0] == 0
    assert [(one["bucket"], one["revisions"]) for one in tables()] == [(WARNING, second)]
    assert run("baseline", "check", "known.toml", "--revision", "second.py")[0] == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("update", "known"), "known: expected the name of a TOML file, *.toml"),
        (("update", "nowhere/known.toml"), "nowhere/known.toml: cannot be written: No such file or directory"),
        (("check", "known.toml", "findings"), "baseline check takes no findings: findings"),
    ],
)
def test_misuse_is_one_line(run: Run, argv: tuple[str, ...], message: str) -> None:
    code, _, err = run("baseline", *argv)
    assert (code, err.splitlines()[-1]) == (2, f"xfdfuzz: {message}")


def test_the_example_in_the_documentation_is_true(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "baseline.md").read_text()
    write("known.toml", page.split("```toml\n")[1].split("```")[0])
    Path("corpus").symlink_to(ROOT / "corpus")
    monkeypatch.setattr("xfdfuzz.cli.baseline.today", lambda: date(2027, 1, 31))
    assert run("baseline", "check", "known.toml")[0] == 0
