"""The review of a series: what it says of what is planted, in the order in which a reviewer asks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.review.review import Review, review
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.stream.events import Found, Listener
from xfdfuzz.kernel.event import WARN
from xfdfuzz.program.mail import WIDTH, cut
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Step
from xfdfuzz.program.text import parse
from xfdfuzz.report.console import console
from xfdfuzz.report.review import mail, parts, text
from xfdfuzz.report.review.parts import Part
from xfdfuzz.revisions import Revision, resolve

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "review.md"
#: No clock decides what is found.
SOME = Plan(seed=1, examples=60)
#: A series with a WARN that always fires where KVM_SET_XCRS sets what is set, a field of its own that it leaves set,
#: and another result of KVM_GET_MSRS, which it promises.
PLANTED = """\
from xfdfuzz import Series
from xfdfuzz.kernel.errno import EPERM
from xfdfuzz.kernel.kvm.x86 import KvmX86

PROMISED = ("KvmSetXcrs: gives 0 | -EPERM", "no such thing")
series = Series("warns", base="v5.16", title="a WARN that fires", promises=PROMISED)


@series.patch("warns-1", "KVM: x86: a WARN that fires")
class Warns(KvmX86):
    def kvm_vcpu_ioctl_x86_set_xcrs(self, vcpu, xcrs):
        if self.warn_on(vcpu.arch.xcr0 == xcrs.value):
            return -EPERM
        vcpu.arch.guest_fpu.realloc_request = xcrs.value
        return super().kvm_vcpu_ioctl_x86_set_xcrs(vcpu, xcrs)
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("series") / "planted.py"
    file.write_text(PLANTED)
    return file


@pytest.fixture(scope="module")
def planted(file: Path) -> Review:
    return review(resolve(str(file)), resolve("v5.16"), SOME)


@pytest.fixture
def warned(planted: Review) -> Review:
    """The same, whatever the search has found: the WARN, as the program of the scope shows it."""
    (site,) = planted.fires
    assert site.fires
    assert planted.findings
    (violation,) = judge(site.fires.program, planted.revision, expectations=False).violations
    found = Finding(violation, site.fires.program, planted.revision)
    return replace(planted, findings=replace(planted.findings, found=(found,), roots={}))


def texts(said: Iterable[Part]) -> str:
    return "\n".join(part.text for part in said)


# -- 1. what it changes ------------------------------------------------------------------------------------------------


def test_functions_and_fields_are_told_with_the_patch_that_brings_them(planted: Review) -> None:
    assert planted.replaced == {"warns-1": ["kvm_vcpu_ioctl_x86_set_xcrs"]}
    assert [one.path for one in planted.written.anew] == ["v.guest_fpu.realloc_request"]
    assert "a WARN that fires" in texts(parts.changes(planted))


def test_a_difference_is_promised_or_not(planted: Review) -> None:
    """What breaks or warns on one side alone is no difference for user space: it is told as broken."""
    found = {one.bucket for one in planted.visible}
    assert found >= {"KvmSetXcrs: gives 0 | -EPERM"}
    assert not any("WARN" in bucket or "warn" in bucket for bucket in found)
    said = texts(parts.changes(planted))
    assert "0 | -EPERM (promised)" in said
    assert re.search(r"not seen: no such thing$", said, re.MULTILINE)
    assert len(re.findall(r"\(promised\)", said)) == 1


def steps(program: Program, revision: Revision) -> list[Step]:
    trace = judge(program, revision, expectations=False).trace
    return [item.step.kept() for item in trace if item.step]


# -- 2. and 3. what is broken, and what warns --------------------------------------------------------------------------


def test_what_the_base_breaks_is_counted_and_not_told(planted: Review) -> None:
    assert planted.findings
    assert {one.bucket for one in planted.new} >= {"no-warning@kvm_vcpu_ioctl_x86_set_xcrs"}
    base = planted.base
    for one in planted.findings.found:
        assert (one in planted.old) == (one.bucket in judge(one.program, base, expectations=False).buckets)
    assert planted.old
    # a WARN may fire only behind what the base breaks too, and the next section says so
    told, behind, _ = mail.text(planted, "").partition("3. Can this WARN fire?")
    assert behind
    for one in planted.old:
        assert one.bucket not in told


def test_a_warn_is_told_with_a_shortest_program(planted: Review) -> None:
    (site,) = planted.fires
    assert site.fires
    assert site.site.function == "kvm_vcpu_ioctl_x86_set_xcrs"
    *before, last = steps(site.fires.program, planted.revision)
    assert last.events
    assert not any(one.events for one in before)
    (part,) = (one for one in parts.sites(planted) if "FIRES" in one.text and one.whole)
    assert part.program == site.fires.program


# -- 4. to 6. ----------------------------------------------------------------------------------------------------------


def test_a_field_of_the_series_has_its_biography(planted: Review) -> None:
    (life,) = planted.lives
    assert {one.access.function for one in life.biography.written} == {"kvm_vcpu_ioctl_x86_set_xcrs"}
    said = texts(parts.lives(planted))
    assert "can stay set for ever" in said
    assert "read by nobody" in said


def test_what_never_ran_and_was_not_looked_at_is_said(planted: Review) -> None:
    assert planted.reach
    assert planted.reach.calls.keys() == {"kvm_vcpu_ioctl_x86_set_xcrs"}
    silent = texts(parts.silent(planted))
    assert "migration" in silent
    assert "a second vCPU" in silent  # what the scope that was exhausted leaves out


# -- the mail ----------------------------------------------------------------------------------------------------------


def test_the_mail_is_ascii_in_72_columns_with_a_program_that_replays(warned: Review) -> None:
    told = mail.text(warned, "xfdfuzz review planted.py --seed 1")
    assert told.isascii()
    assert max(map(len, told.splitlines())) <= WIDTH
    assert "\x1b" not in told
    assert re.search(r"^Reported-by: xfdfuzz \S+, seed 1$", told, re.MULTILINE)
    assert "xfdfuzz review planted.py --seed 1" in told
    program = cut(told)
    assert program
    first = judge(parse(program), warned.revision)
    assert first.broken == ("no-warning",)
    assert "To see it again" in told
    assert "Call trace:\n     warn in kvm_vcpu_ioctl_x86_set_xcrs" in told


def test_the_mail_of_the_page_is_one(warned: Review) -> None:
    """That of docs/review.md: the sections that a mail has, its width, and a program that shows what it says."""
    (shown,) = re.findall(r"```\n\$ xfdfuzz review .*? --format mail\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) <= WIDTH
    titles = re.compile(r"^(\d\. [A-Z].*)\n=+$", re.MULTILINE)
    assert titles.findall(shown) == titles.findall(mail.text(warned, ""))
    program = cut(shown)
    assert program
    verdict = judge(parse(program), resolve("amx-v1"))
    assert "no-warning@kvm_set_msr_common" in verdict.buckets
    assert not verdict.failures


def test_the_terminals_page_has_what_a_review_has(planted: Review, capsys: pytest.CaptureFixture[str]) -> None:
    """Its sections, and its programs: each one that FIRES does."""
    (shown,) = re.findall(r"```\n\$ xfdfuzz review amx-v1 [^\n]* --seed 1\n(.*?)```", PAGE.read_text(), re.DOTALL)
    text.terminal(console(sys.stdout), planted, "", [])
    titles = re.compile(r"^\d\. [A-Z].*$", re.MULTILINE)
    assert titles.findall(shown) == titles.findall(capsys.readouterr().out)
    (fires,) = re.findall(r"FIRES: WARN_ON\(enter_guest\).*\n((?: +(?:machine|\d+ ) .*\n)+)", shown)
    lines = [re.sub(r"^ +(?:\d+  )?", "", line) for line in fires.splitlines()]
    program = parse("\n".join(["# xfdfuzz program 1", lines[0], "", *lines[1:]]) + "\n")
    last = steps(program, resolve("amx-v1"))[-1]
    assert [event.site for event in last.events if event.kind == WARN] == ["fpu_guest_realloc_fpstate"]


def test_what_may_be_a_vulnerability_is_not_in_the_mail(planted: Review) -> None:
    """A finding that is severe on the newest mainline: the program of one that it is known to break."""
    assert planted.findings
    program = parse((ROOT / "corpus/open/set-xsave-then-set-msrs-xfd.xfd").read_text())
    current = resolve("mainline")
    broken = judge(program, current, expectations=False).violations
    severe = next(one for one in broken if one.severity in ("panic", "corruption", "leak"))
    found = Finding(severe, program, current)
    private = replace(planted, revision=current, findings=replace(planted.findings, found=(found,), roots={}))
    told = mail.text(private, "")
    assert severe.bucket not in told
    assert "IA32_XFD: 0" not in told
    assert "SECURITY.md" in told
    assert severe.bucket in mail.text(private, "", reported=True)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_tells_all_of_it_as_json(run: Run, file: Path) -> None:
    code, out, err = run("review", str(file), "--time", "5", "--seed", "1", "--format", "json", "-o", "review.json")
    assert (code, out) == (1, "")
    assert "exploring" in err
    told = json.loads(Path("review.json").read_text())
    assert told["base"] == "v5.16"
    assert any(one["fires"] and one["touched"] for one in told["warnings"]["warnings"])
    assert all(one["file"] and Path(one["file"]).exists() for one in told["findings"])
    documented = (ROOT / "docs" / "cli.md").read_text().split("## `xfdfuzz review")[1].split("\n## ")[0]
    assert [key for key in told if f"`{key}`" not in documented] == []


def test_a_kernel_that_stands_on_none_needs_a_base(run: Run) -> None:
    code, _, err = run("review", "v5.16", "--time", "1")
    assert code == 2
    assert "--base" in err


def test_an_interrupted_review_has_what_there_is(file: Path) -> None:
    def press(event: Any) -> None:
        if isinstance(event, Found):
            raise KeyboardInterrupt

    told: Listener = press
    here: Revision = resolve(str(file))
    found = review(here, resolve("v5.16"), SOME, tell=told)
    assert found.interrupted
    assert found.outcomes
    assert found.warnings
    assert [one.where for one in found.warnings.checked] == ["tiny"], "what was explored; nothing was searched for it"
    assert "interrupted" in texts(parts.silent(found))
    assert "nothing was looked at" in mail.text(found, "")
