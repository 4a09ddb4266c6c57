"""What stands on the screen: the steps, and what is known at one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from xfdfuzz.program.step import PANIC
from xfdfuzz.report.console import SEVERITY
from xfdfuzz.report.page.runs import CLEAN, IDLE, PARTLY, SIGNS, Finding, Run
from xfdfuzz.report.stepping.walk import BOOT, NOBODY, Broken, Walk
from xfdfuzz.report.trace import AT_END

_HEADING = "bold underline"
_WORDS = {
    CLEAN: "nothing is broken there",
    PARTLY: "nothing is broken there, as far as it goes",
    IDLE: "nothing can happen there",
}


def head(walk: Walk) -> Text:
    """Where one is, in a line."""
    place = "the end" if walk.step > walk.ops else f"step {walk.step} of {walk.ops}"
    shown = "all state" if walk.everything else "state touched so far"
    filtered = f", filter {walk.words}" if walk.words else ""
    return Text.assemble(revision(walk.found, walk.run), (f"  {place}, {shown}{filtered}", "dim"))


def revision(found: Finding, run: Run, here: bool = False) -> Text:
    """A run in a line: what came out on which revision; in reverse if one is ``here``."""
    state, shown = found.state(run), found.shown(run)
    what = (f"{shown.invariant} ({shown.severity})", SEVERITY[shown.severity]) if shown else _WORDS[state]
    return Text.assemble(f"{SIGNS[state]} ", (run.label, "bold reverse" if here else "bold"), "  ", what)


def step(walk: Walk, at: int) -> Table:
    """A step of the run: the present one in reverse, an arrow on those that what is broken there follows from."""
    shown, cause, end = walk.trail.steps[at], at in walk.causes, at > walk.ops
    number = "end" if end else str(at)
    here = " reverse" if at == walk.step else ""
    text = Text.assemble((AT_END if end else shown.op, f"bold{here}"))
    if not end:
        text.append(f" = {shown.result}", "bold red" if shown.result == PANIC else "")
    for broken in shown.broken:
        text.append(f"\n! {broken.invariant} ({broken.severity})", SEVERITY[broken.severity])
    for event in shown.events:
        text.append(f"\n{event}", "yellow")
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(Text(f"->{number:>2}" if cause else f"{number:>4}", "bold red" if cause else f"dim{here}"), text)
    return row


def state(walk: Walk) -> RenderableType:
    """What is broken at the step, what it changed, and the state behind it."""
    parts: list[RenderableType] = []
    for broken in walk.here.broken:
        parts += _violation(walk, broken)
    return Group(*parts, *_changes(walk), *_state(walk))


def _violation(walk: Walk, broken: Broken) -> Iterator[RenderableType]:
    style = SEVERITY[broken.severity]
    yield Text.assemble((f"! {broken.invariant} ({broken.severity}): ", style), broken.message)
    if broken.reasons:
        yield Text("because", _HEADING)
        rows = []
        for reason in broken.reasons:
            name = walk.called(reason.field, walk.step - 1 if reason.found else walk.step)
            style = "bold" if reason.contradicts else ""
            rows.append((Text(name, style), Text(walk.text(reason.value), style), _since(reason.step, walk.step)))
        yield _table(rows)
    yield Padding(Text(broken.why, "dim"), (0, 0, 1, 0))


def _since(step: int, now: int) -> Text:
    return Text("since the boot" if step == BOOT else "this step" if step == now else f"step {step}", "dim")


def _changes(walk: Walk) -> Iterator[RenderableType]:
    yield Text("changed until the end" if walk.step > walk.ops else f"changed by step {walk.step}", _HEADING)
    before, after = walk.trail.values[walk.step - 1], walk.trail.values[walk.step]
    rows = [
        (
            Text(walk.called(number, walk.step), "cyan"),
            Text(f"{walk.text(before[number])} -> {walk.text(after[number])}"),
            Text(),
        )
        for number in walk.changed()
    ]
    yield Padding(_table(rows) if rows else Text("  nothing", "dim"), (0, 0, 1, 0))


def _state(walk: Walk) -> Iterator[RenderableType]:
    yield Text("state at the end" if walk.step > walk.ops else "state after it", _HEADING)
    none = True
    for name, pool, numbers in walk.state():
        none = False
        yield Text.assemble((_title(name, pool), "bold"), (_about(walk, name, pool), "dim"))
        yield _table([_row(walk, number) for number in numbers])
    if none:
        yield Text("  nothing of that name" if walk.words else "  nothing yet", "dim")


def _title(name: str, pool: str) -> str:
    return f"{name.removeprefix('ghost.')} on an ideal machine" if pool.startswith("ghost") else name


def _about(walk: Walk, name: str, pool: str) -> str:
    owners = walk.owners(name, walk.step) if pool == "fpstates" else []
    return f"  {', '.join(owners)}" if owners else ""


def _row(walk: Walk, number: int) -> tuple[Text, Text, Text]:
    field, writer = walk.fields[number], walk.trail.writers[walk.step][number]
    name = field.words.partition(" should have ")[2] or field.name
    changed = number in walk.here.changed
    since = Text("" if writer in (NOBODY, BOOT) else f"step {writer}", "dim")
    return Text(name, "bold cyan" if changed else "cyan"), Text(walk.text(walk.trail.values[walk.step][number])), since


def _table(rows: Sequence[tuple[Text, Text, Text]]) -> Table:
    """Names, values, and since when; what is too long goes on below."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(3):
        table.add_column(overflow="fold", no_wrap=column != 1)
    for row in rows:
        table.add_row(Text.assemble("  ", row[0]), *row[1:])
    return table
