"""Which findings are consequences of which others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.precedence import Precedence
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.roots import roots
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.search.violations import ViolationCampaign, fuzz
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.text import parse
from xfdfuzz.report.finding import groups
from xfdfuzz.revisions import Revision, resolve

#: One bug: a signal handler starts under whatever XFD is there, as before 388eff894d6b.
PLANTED = """\
from xfdfuzz import Series
from xfdfuzz.kernel.fpu.signal import FpuSignal

series = Series("planted", base="v7.3-cured", title="a planted bug")


@series.patch("planted-1", "x86/fpu: Leave XFD alone on signal delivery")
class Planted(FpuSignal):
    def fpu_clear_user_states_xfd(self, fpstate):
        pass
"""
#: The task of a signal frame that is set up in two parts finds its CPU with another one's XFD.
CAUSE = """\
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
t0 tileload(1)
t0 signal ...
cpu0 schedule(t1)
t1 user
cpu0 schedule(t0)
t0 ... signal
"""
#: A suspend looks at what is there.
SUSPENDED = f"{CAUSE}t0 suspend\n"
#: The other way round, on a kernel that looks itself.
VALIDATED = """\
machine cpus=1 debug-fpu

t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
t0 tileload(1)
cpu0 schedule(t1)
t1 signal ...
cpu0 schedule(t0)
t0 user
cpu0 schedule(t1)
t1 ... signal
"""
#: Another bug, which has nothing to do with the first one: the buffer of a task is not freed.
UNFREED = """\
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
t0 tileload(1)
t0 execve ...
"""
#: On v5.17 the permission overwrites others, as it always does there; what the guest's registers come to does not
#: follow from that.
FAULTS = """\
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx})
t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000})
t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: xtile, data: 1})
t0 ioctl(v0, KVM_RUN) ...
"""


def bucket_of(violation: Violation) -> str:
    return violation.bucket


def finding(revision: Revision, text: str, invariant: str) -> Finding:
    program = parse(f"# xfdfuzz program 1\n{text}")
    violations = judge(program, revision, expectations=False).violations
    return Finding(next(one for one in violations if one.invariant == invariant), program, revision)


def grouped(revision: Revision, *found: Finding, in_time: bool = True) -> dict[str, str]:
    """The roots, where nothing was executed but the findings' programs."""
    named = roots(ViolationCampaign(revision=revision), found, bucket_of, lambda: in_time)
    return {one.bucket: root.bucket for one, root in named.items()}


@pytest.fixture
def planted() -> Revision:
    Path("planted.py").write_text(PLANTED)
    return resolve("planted.py")


def test_what_shows_only_behind_the_planted_bug_is_its_consequence(planted: Revision) -> None:
    both = resolve("planted.py", revert=["open-4-exec-frees-fpstate"])
    found = (
        finding(both, SUSPENDED, "xfd-coherent-in-interrupt"),
        finding(both, CAUSE, "xfd-matches-fpstate"),
        finding(both, VALIDATED, "no-warning"),
        finding(both, UNFREED, "fpstate-reachable"),
    )
    assert grouped(both, *found) == {
        "xfd-coherent-in-interrupt@suspend_enter": "xfd-matches-fpstate@host",
        "no-warning@xfd_validate_state": "xfd-matches-fpstate@host",
    }


def test_a_campaign_says_the_same_of_what_it_comes_across(planted: Revision) -> None:
    report = fuzz(planted, Plan(seed=5, engine="scout", examples=200))
    found = {one.bucket for one in report.found}
    assert "xfd-matches-fpstate@host" in found
    assert {one.bucket for one in report.roots} == found - {"xfd-matches-fpstate@host"}
    assert {root.bucket for root in report.roots.values()} <= {"xfd-matches-fpstate@host"}


@pytest.mark.parametrize("in_time", [True, False])
def test_what_every_program_has_to_do_first_is_no_cause(in_time: bool) -> None:
    """A patch cures it, and the rest shows all the same: that takes time to find out."""
    revision = resolve("v5.17")
    found = (
        finding(revision, FAULTS, "permission-only-grows"),
        finding(revision, FAULTS, "no-warning"),
        finding(revision, FAULTS, "host-xrstor-never-faults"),
    )
    permission, warning, fault = (one.bucket for one in found)
    named = grouped(revision, *found, in_time=in_time)
    assert (permission in named.values()) is not in_time
    # the two come at once, always, as far as anybody knows, and the worse one stands for both
    assert not in_time or named == {warning: fault}


def test_a_program_without_the_one_lets_the_other_stand_alone(planted: Revision) -> None:
    """No matter which program of the campaign it was."""
    found = (finding(planted, SUSPENDED, "xfd-coherent-in-interrupt"), finding(planted, CAUSE, "xfd-matches-fpstate"))
    campaign = ViolationCampaign(revision=planted)
    assert roots(campaign, found, bucket_of, lambda: True) == {found[0]: found[1]}
    campaign.precedence.note([found[0].bucket], frozenset())
    assert roots(campaign, found, bucket_of, lambda: True) == {}


def test_a_campaign_notes_what_its_examples_have_broken_before(planted: Revision) -> None:
    campaign = ViolationCampaign(revision=planted)
    campaign.learn(["xfd-matches-fpstate@host", "xfd-coherent-in-interrupt@suspend_enter"])
    for text in (CAUSE, SUSPENDED, CAUSE):
        campaign.replay(parse(f"# xfdfuzz program 1\n{text}"))
    assert campaign.precedence.among(["xfd-matches-fpstate@host", "xfd-coherent-in-interrupt@suspend_enter"]) == {
        "xfd-matches-fpstate@host": set(),
        "xfd-coherent-in-interrupt@suspend_enter": {"xfd-matches-fpstate@host"},
    }


def test_precedences_of_two_processes_keep_what_both_have_seen() -> None:
    one, other = Precedence(), Precedence()
    one.note(["b"], {"a", "x"})
    other.note(["b", "c"], {"a"})
    other.note(["d"], set())
    one.add(other)
    assert one.among("abcdx") == {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": set(), "x": set()}


# -- groups ------------------------------------------------------------------------------------------------------------


def made(severity: str, ops: int) -> Finding:
    program = parse(f"# xfdfuzz program 1\n{CAUSE}")
    violation = Violation(f"{severity}-{ops}", severity, "", "", 1)
    return Finding(violation, replace(program, ops=program.ops[:1] * ops), resolve("v7.3"))


def test_the_group_with_the_worst_finding_comes_first_then_the_shortest_root() -> None:
    mild, bad, worse = made("abi", 2), made("corruption", 9), made("panic", 20)
    short, long = made("leak", 3), made("leak", 4)
    found = (long, short, worse, mild, bad)
    assert groups(found, {worse: mild, bad: mild}) == [(mild, (worse, bad)), (short, ()), (long, ())]
    assert groups(found, {}) == [(one, ()) for one in (worse, bad, short, long, mild)]


def test_what_is_private_is_named_by_no_root() -> None:
    root, other, more = made("abi", 2), made("corruption", 9), made("warn", 3)
    report = Report((root.revision,), Plan(1), Stats(), (root, other, more), False, roots={other: root, more: root})
    assert report.without(lambda one: one is root).roots == {}
    assert report.without(lambda one: one is more).roots == {other: root}
    saved = report.with_each(lambda one: replace(one, file=Path(one.bucket)))
    assert {one.file: root.file for one, root in saved.roots.items()} == {
        Path("corruption-9"): Path("abi-2"),
        Path("warn-3"): Path("abi-2"),
    }
