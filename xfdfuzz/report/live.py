"""Programs that ran on this machine beside the model: the host, each program, and the sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.judge.lockstep import Difference
from xfdfuzz.engines.live.fuzz import LiveCampaign
from xfdfuzz.engines.live.lockstep import Compared, Verdict
from xfdfuzz.engines.live.session import Outcome, Session
from xfdfuzz.program.text import format_op
from xfdfuzz.report.console import counted, line

_STYLES = {Verdict.EQUAL: "", Verdict.DIFFERENT: "bold red", Verdict.SKIPPED: "dim"}


def host(out: Console, session: Session) -> None:
    """What was asked of it: the kernel, the model of it, and each quirk."""
    facts = session.facts
    line(out, ("host", "bold"), f"  Linux {facts.release}, held against {session.revision.label}")
    line(out, f"      machine {' '.join(session.machine.words())}; components {xf.format_mask(facts.supported)}")
    line(
        out,
        f"      XFEATURE_MAX {facts.xfeatures_end}, MXCSR {facts.mxcsr_mask:#x}, ",
        f"KVM_CAP_XSAVE2 {facts.xsave2}, KVM offers {xf.format_mask(facts.kvm_xcr0)}",
    )
    for quirk in session.quirks:
        line(out, ("quirk", "yellow"), f" {quirk.name}: {quirk.what}")


def outcome(out: Console, one: Outcome, quiet: bool, verbose: bool) -> None:
    """A program in a line, the op in which host and model part, and if ``verbose`` each op."""
    if one.refused is not None:
        refused = one.refused
        line(out, ("refused  ", "bold yellow"), f"{one.name}: op {refused.number}, {format_op(refused.op)}: {refused}")
        return
    if one.different is None and not quiet:
        line(out, f"equal    {one.name}: {_counts(one)}")
    elif one.different is not None:
        line(out, ("different ", "bold red"), f"{one.name}: {_counts(one)}")
    for compared in sorted(one.compared, key=lambda each: each.number):
        if verbose or compared.verdict is Verdict.DIFFERENT:
            _op(out, compared)


def _counts(one: Outcome) -> str:
    reasons = Counter(each.reason for each in one.compared if each.verdict is Verdict.SKIPPED)
    text = f"{counted(one.count(Verdict.EQUAL), 'op')} equal"
    if reasons:
        text += f", {reasons.total()} skipped ({'; '.join(f'{count} {reason}' for reason, count in reasons.items())})"
    return text + (f", {one.not_reached} not reached" if one.not_reached else "")


def _op(out: Console, one: Compared) -> None:
    said = f"skipped: {one.reason}" if one.verdict is Verdict.SKIPPED else f"= {one.host}"
    line(out, (f"{one.number:4}  ", "dim"), (f"{format_op(one.op)} {said}", _STYLES[one.verdict]))
    if one.verdict is Verdict.DIFFERENT:
        line(out, f"      the model says {one.model}")


def terminal(out: Console, outcomes: Sequence[Outcome]) -> None:
    """The sum."""
    numbers = _numbers(outcomes)
    style = "bold red" if numbers["different"] else "bold green"
    text = ", ".join(f"{numbers[name]} {name}" for name in ("equal", "different", "skipped", "not_reached"))
    refused = f"; {counted(numbers['refused'], 'program')} refused" if numbers["refused"] else ""
    line(out, (f"{counted(len(outcomes), 'program')}: ", "bold"), (text.replace("_", " "), style), f"{refused}")


def _numbers(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {
        **{verdict.value: sum(one.count(verdict) for one in outcomes) for verdict in Verdict},
        "not_reached": sum(one.not_reached for one in outcomes),
        "refused": sum(one.refused is not None for one in outcomes),
    }


def _host_object(session: Session) -> dict[str, Any]:
    return {
        "kernel": session.facts.release,
        "revision": session.revision.label,
        "machine": " ".join(session.machine.words()),
        "facts": vars(session.facts),
        "quirks": {quirk.name: quirk.what for quirk in session.quirks},
    }


def as_object(session: Session, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All of it as one object."""
    return {
        **_host_object(session),
        **_numbers(outcomes),
        "programs": [_outcome_object(one) for one in outcomes],
    }


def _outcome_object(one: Outcome) -> dict[str, Any]:
    return {
        "file": one.name,
        "refused": None if one.refused is None else str(one.refused),
        "ops": [
            {
                "number": each.number,
                "op": format_op(each.op),
                "verdict": each.verdict.value,
                "host": None if each.host is None else str(each.host),
                "model": None if each.model is None else str(each.model),
                "reason": each.reason or None,
            }
            for each in sorted(one.compared, key=lambda each: each.number)
        ],
    }


# -- a search ----------------------------------------------------------------------------------------------------------


def found(out: Console, difference: Difference, program: str, file: str) -> None:
    """One difference with the program that leads to it."""
    line(out, ("different ", "bold red"), f"{difference.bucket}; saved {file}")
    line(out, f"      model {difference.first}, host {difference.second}")
    for row in program.splitlines():
        line(out, f"      {row}")


def searched(out: Console, session: Session, campaign: LiveCampaign, count: int, repeat: str) -> None:
    """What a search came to."""
    stats, tally = campaign.stats, campaign.tally
    line(
        out,
        (f"Linux {session.facts.release} | {session.revision.label}: ", "bold"),
        (counted(count, "difference"), "bold red" if count else "bold green"),
        f" in {counted(stats.examples, 'example')}, {counted(tally.equal, 'op')} equal, {stats.seconds:.1f} s",
    )
    for reason, number in tally.skipped.most_common():
        line(out, f"{number:8} skipped: {reason}")
    if tally.refused:
        line(out, f"{tally.refused:8} refused: what may panic or corrupt the host")
    for text in tally.flaky:
        line(out, (f"not seen again: {text}", "yellow"))
    line(out, f"repeat: {repeat}")


def searched_object(
    session: Session, campaign: LiveCampaign, found: Sequence[tuple[Difference, str]]
) -> dict[str, Any]:
    """The same as an object; of each difference with the file."""
    return {
        **_host_object(session),
        "seconds": campaign.stats.seconds,
        "examples": campaign.stats.examples,
        "equal": campaign.tally.equal,
        "skipped": dict(campaign.tally.skipped.most_common()),
        "refused": campaign.tally.refused,
        "not_seen_again": campaign.tally.flaky,
        "differences": [
            {"op": one.op, "what": one.what, "model": one.first, "host": one.second, "file": file}
            for one, file in found
        ],
    }
