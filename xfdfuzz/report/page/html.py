"""The page of a finding as text: one file that needs no other."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator
from html import escape
from string import Template
from typing import Any
from urllib.parse import quote

from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.text import format_program
from xfdfuzz.report import notation, trace
from xfdfuzz.report.console import console
from xfdfuzz.report.page.assets import notice, policy, script, style, text
from xfdfuzz.report.page.data import as_object
from xfdfuzz.report.page.runs import FAMILIES, MEANINGS, OTHERS, SIGNS, VIOLATES, Finding, Run


def page(found: Finding) -> str:
    """The page of one program."""
    main = found.main
    chosen = found.chosen
    name = main.invariant if main else found.program.title or found.file.name
    severity = main.severity if main else ""
    words = {
        "title": f"{name} on {chosen.label}",
        "name": name,
        "severity": severity,
        "label": chosen.label,
        "what": f"{main.message}." if main else "Nothing is broken there.",
        "why": INVARIANTS[main.invariant].doc if main else "",
        "about": _about(found),
        "where": found.where,
        "machine": " ".join(("machine", *found.program.machine.words())),
        "command": f"{found.command} {shlex.quote(chosen.name)}",
        "trace": _trace(found),
        "program": format_program(found.program),
    }
    look, code = style("theme.css", "page.css"), script("page.js")
    return Template(text("page.html")).substitute(
        {word: escape(value) for word, value in words.items()},
        policy=policy(look, code),
        style=look,
        script=code,
        notice=notice(found.private),
        chips="".join(_chips(found)),
        signs=" ".join(_legend(found)),
        notation="".join(f"<dt>{escape(sign)}<dd>{escape(meaning)}" for sign, meaning in _notation()),
        data=_data(as_object(found)),
    )


def _about(found: Finding) -> str:
    """The program's title, where that says more than the violation."""
    title = found.program.title
    return "" if found.main is None or title.startswith(f"{found.main.invariant}: ") else title


def _data(value: dict[str, Any]) -> str:
    """JSON that nothing in it can end: where HTML would look for a tag or a comment, it finds an escape."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _trace(found: Finding) -> str:
    out, run = io.StringIO(), found.chosen
    notes = trace.Notes(run.because, about=found.main.bucket if found.main else "")
    trace.terminal(console(out), run.program, run.verdict.trace, notes)
    return out.getvalue()


def _chips(found: Finding) -> Iterator[str]:
    """The revisions in their order, each kind of kernels with its name in front."""
    told = ""
    for run in found.runs:
        if run.family != told:
            told = run.family
            yield f"<span>{FAMILIES[told]}</span>"
        yield _chip(found, run)


def _chip(found: Finding, run: Run) -> str:
    state, shown = found.state(run), found.shown(run)
    words = [run.label] if run.label != run.name else []
    words += [MEANINGS[state], ", ".join(run.verdict.broken)] if state == OTHERS else []
    title = f' title="{escape(": ".join(words))}"' if words else ""
    kind = f"chip {state} {shown.severity if shown and state == VIOLATES else ''}".strip()
    where = f"#{quote(run.name, safe='')}/{found.opens(run)}"
    return f'<a class="{kind}" href="{escape(where)}"{title}>{SIGNS[state]} {escape(run.name)}</a>\n'


def _notation() -> Iterator[tuple[str, str]]:
    """What the texts of a page need; it unfolds itself, and tells its other signs above."""
    told = ("!", "->", "~", "(--full)", "left by, since")
    yield from ((sign, meaning) for sign, meaning in notation.SIGNS.items() if sign not in told)


def _legend(found: Finding) -> Iterator[str]:
    """What the signs of the page mean, those of kernels where there is one like that."""
    states = {found.state(run) for run in found.runs}
    yield from (f"<span><b>{SIGNS[state]}</b> {MEANINGS[state]}</span>" for state in MEANINGS if state in states)
    if found.main is not None:
        which = "a step that this finding follows from (grey: what else is broken at the chosen step)"
        yield f'<span class="live"><b class="cause">\u2192</b> {which}</span>'
    yield '<span class="live"><i class="dot"></i> who acts</span>'
