"""Which patches of mainline the recordings tell, as docs/fidelity.md says.  `python -m bench.recordings`
finds it out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.recordings import TRACES, tells
from xfdfuzz.revisions.queue import PATCHES

#: Where each patch is told first.
TOLD = {
    "c6617c61e8fe": "linux-6.1.192/suite.jsonl",
    "dd6e63122018": "linux-6.1.192/permissions.jsonl",
    "063452fd94d1": "linux-6.1.192/permissions.jsonl",
    "d187ba531230": "linux-6.1.192/permissions.jsonl",
    "ee519b3a2ae3": "linux-6.1.192/random.jsonl",
    "55cd57b596e8": "linux-6.1.192/permissions.jsonl",
    "8647c52e9504": "linux-6.1.192/random.jsonl",
    "85e5ba83c016": "linux-6.1.192/random.jsonl",
    "93da6af3ae56": "linux-6.1.192/suite.jsonl",
    "bd0b10b795c5": "linux-6.1.192/suite.jsonl",
    "e2b43fb25243": "linux-6.17.13/suite.jsonl",
    "b45f72177594": "linux-6.1.192/random.jsonl",
    "184bd464bdb6": "linux-6.1.192/random.jsonl",
}
COMMIT = re.compile(r"\b[0-9a-f]{12}\b")
#: The handwritten programs, one question each and so quick, of the oldest and the newest kernel.
SUITES = sorted(TRACES.glob("linux-*/suite.jsonl"))[::3]


def documented() -> tuple[list[str], list[str]]:
    """The patches that make no difference, and those that cannot be tried alone."""
    text = (Path(__file__).parent.parent / "docs" / "fidelity.md").read_text()
    listed, alone = text.split("confirms it:")[1].split("Nor do the recordings")[0].split("Four can be")
    return COMMIT.findall(listed), COMMIT.findall(alone)


def test_every_patch_is_told_or_documented_as_not_told() -> None:
    silent, alone = documented()
    assert sorted([*TOLD, *silent, *alone]) == sorted(PATCHES)


@pytest.mark.parametrize("commit", TOLD)
def test_a_patch_that_is_told_is(commit: str) -> None:
    assert tells(commit, TRACES / TOLD[commit])


@pytest.mark.parametrize("commit", documented()[0])
def test_a_patch_that_is_not_told_makes_no_difference(commit: str) -> None:
    outcomes = [tells(commit, file) for file in SUITES]
    assert True not in outcomes
    assert False in outcomes


@pytest.mark.parametrize("commit", documented()[1])
def test_a_patch_that_others_stand_on_cannot_be_tried(commit: str) -> None:
    assert [tells(commit, file) for file in SUITES] == [None] * len(SUITES)
