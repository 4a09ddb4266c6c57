"""The review of a series, for people and as JSON: the answers in the order in which a reviewer asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.review.outcomes import Outcome, Outcomes
from xfdfuzz.engines.review.review import Life, Review
from xfdfuzz.report import biography, differences, finding, reach, steps, warnings
from xfdfuzz.report.console import counted, hanging, line
from xfdfuzz.report.review import parts
from xfdfuzz.report.review.parts import Part


def terminal(out: Console, review: Review, repeat: str, invariants: Sequence[Path] = ()) -> None:
    """All of it; ``repeat`` is the command that does it again."""
    line(out, (parts.verdict(review), "bold"))
    _section(out, "1. What it changes", parts.changes(review))
    _head(out, "2. What is broken")
    _broken(out, review, invariants)
    _section(out, "3. Can this WARN fire?", parts.sites(review))
    _section(out, "4. The fields that it writes", parts.lives(review))
    _section(out, "5. What was never reached", parts.unreached(review))
    _section(out, "6. What this says nothing about", parts.silent(review))
    line(out)
    line(out, f"{review.seconds:.1f} s; repeat: {repeat}")


def _head(out: Console, title: str) -> None:
    line(out)
    line(out, (title, "bold"))


def _section(out: Console, title: str, said: Iterable[Part]) -> None:
    _head(out, title)
    told = [*said]
    if not told:
        line(out, "  nothing was looked at")
    for one in told:
        hanging(out, one.indent + 4, f"{' ' * one.indent}{one.text}")
        if one.program is not None and one.whole:
            steps.terminal(out, one.program, " " * one.indent, machine=True)


def _broken(out: Console, review: Review, invariants: Sequence[Path]) -> None:
    finding.several(out, review.new, invariants, roots=review.roots)
    if not review.new:
        line(out, "  nothing that the base does not break" if review.findings else "  nothing was looked at")
    if review.old:
        line(out, f"  {counted(len(review.old), 'finding')} more: {review.base.label} breaks the same")


# -- JSON --------------------------------------------------------------------------------------------------------------


def as_object(review: Review) -> dict[str, Any]:
    """One object; the keys are documented in docs/cli.md."""
    return {
        "revision": review.revision.label,
        "base": review.base.label,
        "verdict": parts.verdict(review),
        "seed": review.plan.seed,
        "seconds": round(review.seconds, 3),
        "interrupted": review.interrupted,
        "functions": dict(review.replaced),
        "gone": list(review.gone),
        "fields": {name: [one.path for one in those] for name, those in review.written._asdict().items()},
        "differences": _differences(review),
        "promises": list(review.promises),
        "outcomes": review.outcomes and _outcomes(review.outcomes),
        "findings": [finding.as_object(one) | {"root": _root(review.roots, one)} for one in review.new],
        "base_breaks": len(review.old),
        "warnings": review.warnings and _warnings(review),
        "lives": [_life(one) for one in review.lives],
        "untold": [one.path for one in review.untold],
        "reach": reach.as_object(review.reach),
        "unreached": [one.text for one in parts.unreached(review)],
        "silent": [one.text for one in parts.silent(review)],
    }


def _differences(review: Review) -> list[dict[str, Any]]:
    return [differences.difference(one) | {"promised": one.bucket in review.promises} for one in review.visible]


def _root(roots: Mapping[Finding, Finding], found: Finding) -> str | None:
    return roots[found].bucket if found in roots else None


def _outcomes(found: Outcomes) -> dict[str, Any]:
    return {
        "scope": found.scope,
        "states": list(found.states),
        "exhausted": found.exhausted,
        "only_base": [_outcome(one) for one in found.only_base],
        "only_revision": [_outcome(one) for one in found.only_revision],
    }


def _outcome(one: Outcome) -> dict[str, Any]:
    return one._asdict() | {"program": steps.as_object(one.program)}


def _warnings(review: Review) -> dict[str, Any]:
    assert review.warnings is not None
    told = warnings.as_object(review.warnings)
    for row, verdict in zip(told["warnings"], review.warnings.verdicts, strict=True):
        row["touched"] = verdict.site in review.touched
    return told


def _life(one: Life) -> dict[str, Any]:
    return biography.as_object(one.biography) | {"cleared": [_outcome(each) for each in one.cleared]}
