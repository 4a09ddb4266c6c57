"""What an exploration came to, for people, as JSON, and as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import graphviz
from rich.console import Console

from xfdfuzz.engines.explore.exploration import Exploration
from xfdfuzz.engines.explore.lasso import Lasso
from xfdfuzz.engines.explore.search import Search
from xfdfuzz.engines.judge.because import Reasons
from xfdfuzz.program.step import format_ret
from xfdfuzz.program.text import format_op
from xfdfuzz.report import because, finding, goals, known
from xfdfuzz.report.console import counted, line, prose, table
from xfdfuzz.report.privacy import not_shown


def as_object(report: Exploration) -> dict[str, Any]:
    """One object; the keys are documented in docs/cli.md."""
    return {
        "revision": report.revision.label,
        "scope": report.scope.name,
        "exhausted": report.exhausted,
        "stopped": report.stopped or None,
        "depth": report.depth,
        "states": report.states,
        "transitions": report.transitions,
        "frontier": report.frontier,
        "seconds": round(report.seconds, 3),
        "invariants": [inv.name for inv in report.checked],
        "not_checked": [inv.name for inv in report.left_out],
        **known.as_object(report.known, report.met),
        "findings": [finding.as_object(found) for found in report.findings],
        "lassos": [_lasso(lasso) for lasso in report.lassos],
        "coverage": {format_op(op): dict(results) for op, results in report.coverage.items()},
        "goals": goals.as_object(report.goals),
        "doubts": list(report.doubts),
        "withheld": report.withheld,
        "file": None if report.file is None else str(report.file),
    }


def _lasso(lasso: Lasso) -> dict[str, Any]:
    turns = [
        {"op": format_op(turn.op), "result": turn.result, "progress": turn.progress, "pending": list(turn.pending)}
        | {"because": because.as_object(turn.because)}
        for turn in lasso.loop
    ]
    return {**finding.as_object(lasso.finding), "stem": len(lasso.stem), "loop": len(lasso.loop), "turns": turns}


def terminal(
    out: Console, report: Exploration, invariants: Sequence[Path], with_coverage: bool, verbose: bool = False
) -> None:
    """Findings, cycles, with ``with_coverage`` what each op came to, a statement that can be quoted, and the goals; if
    ``verbose``, the findings with their traces."""
    finding.several(out, report.findings, invariants, verbose)
    for lasso in report.lassos:
        _show_lasso(out, lasso)
    if with_coverage:
        coverage(out, report)
    known.terminal(out, report.known, report.met)
    line(out)
    prose(out, statement(report), indent="")
    if report.withheld:
        line(out, (not_shown(report.withheld), "bold red"))
    if report.goals:
        goals.terminal(out, report.goals)
    prose(out, f"The scope leaves out {report.scope.leaves_out}.", indent="")
    if report.left_out:
        names = ", ".join(inv.name for inv in report.left_out)
        prose(out, f"Not checked, because they look at a whole program: {names}.", indent="")


def _show_lasso(out: Console, lasso: Lasso) -> None:
    """The way to the loop, then each of its ops with its result and what it leaves pending."""
    line(out)
    line(out, (f"{lasso.finding.violation.invariant}: a cycle without end", "bold"))
    for number, op in enumerate(lasso.stem, 1):
        line(out, (f"{number:4}  ", "dim"), format_op(op))
    told: Reasons = ()
    for number, turn in enumerate(lasso.loop, len(lasso.stem) + 1):
        mark = "   <- loop, progress" if turn.progress else "   <- loop"
        line(out, (f"{number:4}  ", "dim"), format_op(turn.op), f" = {turn.result}", (mark, "yellow"))
        for pending in turn.pending:
            line(out, "      ", (pending, "dim"))
        if turn.because != told:  # it stays while nothing writes it
            because.terminal(out, turn.because, number)
            told = turn.because
    where = f"saved {lasso.finding.file}" if lasso.finding.file else "not saved"
    line(out, f"  {lasso.finding.violation.message}; {where}")
    if lasso.finding.file is None:
        finding.saved(out, lasso.finding)


def coverage(out: Console, report: Exploration) -> None:
    """How often each op of the scope gave each result, and how many transitions met each goal; an op that nothing ever
    enabled is dead, and so is a corner whose goal was never met."""
    rows = [
        (format_op(op), "  ".join(f"{result} {count}" for result, count in results.most_common()) or "never enabled")
        for op, results in report.coverage.items()
    ]
    line(out)
    line(out, (f"coverage: {sum(map(len, report.coverage.values()))} pairs of op and result", "bold"))
    table(out, (), rows)
    if report.goals:
        line(out)
        line(out, ("goals", "bold"))
        table(out, (), [(name, f"met {count}" if count else "never met") for name, count in report.goals.items()])


def statement(report: Exploration) -> str:
    """What was covered and what came out, in a few sentences that a maintainer can quote."""
    scope = f"{report.revision.label}, scope {report.scope.name} ({report.scope.summary})"
    numbers = f"{report.states:,} states, {report.transitions:,} transitions, {report.seconds:.1f} s"
    if report.exhausted:
        covered = f"exhausted: {numbers}; every state is reached by {max(report.depth - 1, 0)} ops or fewer"
    else:
        reason = report.stopped or "the depth asked for is reached"
        covered = f"not exhausted ({reason}): every program of up to {report.depth} ops is covered, {numbers}, "
        covered += f"{report.frontier:,} states were still to be expanded"
    return f"{scope}: {covered}. {_outcome(report)}"


def _outcome(report: Exploration) -> str:
    checked = f"{len(report.checked)} invariants"
    buckets = len(report.findings)
    parts = [f"{counted(buckets, 'way')} to break one of {checked}"] if buckets else []
    if report.lassos:
        parts.append(f"{counted(len(report.lassos), 'request')} that may never be cleared")
    parts += ["what is not shown"] if report.withheld else []
    but = f" but for {counted(len(report.met), 'known bucket')}" if report.met else ""
    if parts:
        return f"Found: {' and '.join(parts)}{but}."
    return f"None of {checked} can be broken there{but}."


def graph(search: Search, report: Exploration) -> str:
    """The states and ops of a search for Graphviz: state 0 is the booted system, what was found is red."""
    ops = [format_op(op) for op in report.scope.ops]
    dot = graphviz.Digraph("states", comment=statement(report), node_attr={"shape": "circle"})
    dot.node("0", shape="doublecircle")
    for source, op, ret, target in search.arcs:
        dot.edge(str(source), str(target), label=graphviz.escape(f"{ops[op]} = {format_ret(ret)}"))
    for breach in {breach.violation.bucket: breach for breach in reversed(search.breaches.values())}.values():
        bucket = breach.violation.bucket
        dot.node(bucket, shape="box", color="red", label=graphviz.escape(bucket))
        dot.edge(str(breach.state), bucket, label=graphviz.escape(ops[breach.op]), color="red")
    return str(dot.source)
