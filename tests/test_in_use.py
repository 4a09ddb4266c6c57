"""XINUSE of components that are initial (SDM vol. 1, 13.6): what it shows, and what it hides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

CORPUS = Path(__file__).parent.parent / "corpus"


def broken(program: Program, revision: str) -> tuple[str, ...]:
    return judge(program, resolve(revision)).broken


def with_words(name: str, words: str) -> Program:
    """The program of the corpus, without what it expects, on a machine that has these words as well."""
    text = (CORPUS / f"{name}.xfd").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("# expect:")]
    return parse("\n".join(re.sub(r"^machine .*", rf"\g<0> {words}", line) for line in lines))


@pytest.mark.parametrize(
    ("name", "revision", "component"),
    [
        # the commit message of ae6012d72fa6: "Intel CPUs mostly" have XINUSE[PKRU] set, so the bug is one of AMD's
        ("bugs/pkru-sigframe-clobber", "v6.12", "pkru"),
        ("open/get-xsave-loses-pkru", "v7.3", "pkru"),
        ("open/frame-header-has-stale-x87", "v7.3", "x87"),
        ("open/mxcsr-without-xsavec-by-get-xsave", "v7.3", "sse"),
    ],
)
def test_a_component_in_use_hides_what_needs_an_initial_one(name: str, revision: str, component: str) -> None:
    """Each takes a component that XSTATE_BV lacks because it is initial."""
    assert broken(with_words(name, ""), revision)
    assert not broken(with_words(name, f"in-use={component}"), revision)
