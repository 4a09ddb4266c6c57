"""The time of a search is kept by cutting its shrinking short."""

from __future__ import annotations

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import ViolationCampaign, fuzz
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_end_of_the_time_cuts_short_shows_its_bucket_all_the_same(workers: int) -> None:
    """Long examples are found in the last moment, too."""
    report = fuzz("v5.17", Plan(seed=2, engine="scout", steps=400, seconds=4, workers=workers))
    assert report.found
    assert report.doubts == ()
    for finding in report.found:
        assert finding.bucket in judge(finding.program, resolve("v5.17"), expectations=False).buckets


def test_what_there_is_no_time_to_shrink_is_left_as_it_is() -> None:
    revision = resolve("v5.17")
    request = "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n"
    program = parse(f"# xfdfuzz program 1\nmachine cpus=1\n\n{request * 4}")
    bucket = "permission-only-grows@guest"
    hurried = ViolationCampaign(revision=revision, in_time=lambda: False)
    assert hurried.minimise(program, bucket).ops == program.ops
    assert len(ViolationCampaign(revision=revision).minimise(program, bucket).ops) == 1
