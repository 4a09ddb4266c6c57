"""`xfdfuzz replay --step`: what is on the screen after which keys, without a terminal."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.strip import Strip

from xfdfuzz.invariants.loading import load
from xfdfuzz.program.text import format_op, parse
from xfdfuzz.report.page.runs import SIGNS, Finding, finding, run_on
from xfdfuzz.report.stepping.app import WIDE, Stepping
from xfdfuzz.report.stepping.walk import Walk

CORPUS = Path(__file__).parents[1] / "corpus"
MIGRATION = CORPUS / "open" / "wrmsr-xfd-lost-in-migration.xfd"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def found() -> Finding:
    load()
    program = parse(MIGRATION.read_text())
    return finding(MIGRATION, program, [*run_on(program, ["amx-v1", "v7.3", "v7.3-cured"])])


def drive(
    found: Finding, script: Callable[[Stepping, Pilot[None]], Awaitable[None]], width: int = WIDE, height: int = 40
) -> None:
    async def driven() -> None:
        app = Stepping(Walk(found))
        async with app.run_test(size=(width, height)) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(driven())


def rows(app: App[None]) -> list[Strip]:
    return app.screen._compositor.render_strips()


def screen(app: App[None]) -> str:
    return "\n".join(row.text for row in rows(app))


def in_reverse(app: App[None]) -> list[str]:
    """Where one is; some of the lines are in reverse, too."""
    found = [segment.text for row in rows(app) for segment in row if segment.style and segment.style.reverse]
    return [text for text in found if re.search(r"\w", text)]


def test_it_opens_at_the_violation_with_the_state_beside_the_steps(found: Finding) -> None:
    async def script(app: Stepping, pilot: Pilot[None]) -> None:
        (main,) = found.chosen.verdict.trace[found.opens(found.chosen) - 1].violations
        text = screen(app)
        assert f"v7.3  {main.invariant} ({main.severity})  step {main.step} of {len(found.program.ops)}" in text
        assert "because" in text
        # the arrows stand at the steps of which it is said that they left what the violation follows from
        causes = {reason.step for reason in found.chosen.because[main]} - {main.step, 0}
        assert {int(number) for number in re.findall(r"^-> ?(\d+) ", text, re.MULTILINE)} == causes
        steps, state = app.query_one("#steps").region, app.query_one("#state").region
        assert (steps.y, steps.right) == (state.y, state.x)

    drive(found, script)


def test_the_state_stands_below_where_it_is_narrow(found: Finding) -> None:
    async def script(app: Stepping, pilot: Pilot[None]) -> None:
        steps, state = app.query_one("#steps").region, app.query_one("#state").region
        assert (steps.x, steps.bottom, steps.width) == (state.x, state.y, WIDE - 1)
        assert found.opens(found.chosen) > steps.height  # a step that is in sight only because the list was scrolled
        assert f"\n  {found.opens(found.chosen)} " in screen(app)
        await pilot.resize_terminal(WIDE, 24)
        await pilot.pause()
        assert app.query_one("#steps").region.y == app.query_one("#state").region.y

    drive(found, script, WIDE - 1, 24)


def test_the_keys_lead_where_those_of_a_page_do(found: Finding) -> None:
    async def script(app: Stepping, pilot: Pilot[None]) -> None:
        bad = [nr for nr, judged in enumerate(found.chosen.verdict.trace, 1) if judged.violations]
        last, first = len(found.program.ops), found.opens(found.chosen)
        for key, step in (
            *(("home", 1), ("right", 2), ("down", 3), ("up", 2), ("left", 1)),
            *(("n", bad[0]), ("n", bad[1]), ("n", bad[0]), ("N", bad[-1]), ("right", last)),
            *(("home", 1), ("left", 1), ("end", last)),
        ):
            await pilot.press(key)
            await pilot.pause()
            assert f"step {step} of {last}" in screen(app), key
            assert f"changed by step {step} " in screen(app)
        assert first in bad
        await pilot.press("home")
        await pilot.click("#steps", offset=(8, 3))  # the first op takes three lines
        await pilot.pause()
        assert f"step 2 of {last}" in screen(app)
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running

    drive(found, script)


def test_another_revision_is_shown_at_the_same_step(found: Finding) -> None:
    async def script(app: Stepping, pilot: Pilot[None]) -> None:
        await pilot.press("r")
        await pilot.pause()
        asked = screen(app)
        assert all(f"{SIGNS[found.state(run)]} {run.label}" in asked for run in found.runs)
        assert found.chosen.label in in_reverse(app)
        # keys choose among them, and walk no further
        await pilot.press("down", "enter")
        await pilot.pause()
        text = screen(app)
        assert f"v7.3-cured  nothing is broken there  step {found.opens(found.chosen)} of" in text
        assert "guest-sees-its-xfd" not in text
        await pilot.press("r", "up", "escape", "n")
        await pilot.pause()
        assert f"v7.3-cured  nothing is broken there  step {found.opens(found.chosen)} of" in screen(app)

    drive(found, script)


def test_a_filter_leaves_fields_of_that_name(found: Finding) -> None:
    async def script(app: Stepping, pilot: Pilot[None]) -> None:
        await pilot.press("home", "slash", *"PERM")
        await pilot.pause()
        typing = screen(app)
        await pilot.press("enter", "right")
        await pilot.pause()
        kept = screen(app)
        # the permission for guests has three fields: as they change, and in the state
        assert (typing.count("guest_perm"), typing.count("user_mode")) == (6, 0)
        assert "filter PERM" in kept
        assert (kept.count("guest_perm"), kept.count("vm0.exists")) == (3, 0)
        await pilot.press("slash", "n", "a", "escape")  # which are letters there
        await pilot.pause()
        assert "vm0.exists" in screen(app)
        assert "filter" not in screen(app).splitlines()[0]

    drive(found, script)


def test_all_of_the_state_is_shown_on_demand(found: Finding) -> None:
    async def script(app: Stepping, pilot: Pilot[None]) -> None:
        await pilot.press("home")
        await pilot.pause()
        assert "fpu_fpregs_owner_ctx" not in screen(app)  # which the boot has written
        await pilot.press("a")
        await pilot.pause()
        assert "fpu_fpregs_owner_ctx" in screen(app)
        before = screen(app)
        await pilot.press("pagedown")
        await pilot.pause()
        assert screen(app) != before
        assert "step 1 of" in screen(app)
        await pilot.press("pageup", "a")
        await pilot.pause()
        assert "fpu_fpregs_owner_ctx" not in screen(app)

    drive(found, script)


@pytest.mark.parametrize("plain", [True, False])
def test_no_color_is_respected(found: Finding, monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")

    async def script(app: Stepping, pilot: Pilot[None]) -> None:
        styles = [style for row in rows(app) for segment in row if (style := segment.style) is not None]
        colours = {colour for style in styles for colour in (style.color, style.bgcolor) if colour is not None}
        assert all(colour.is_default for colour in colours) == plain
        op = format_op(found.program.ops[found.opens(found.chosen) - 1])
        assert " ".join(in_reverse(app)).split() == [str(found.opens(found.chosen)), *op.split()]

    drive(found, script)


def test_a_walk_knows_the_states_of_the_run(found: Finding) -> None:
    """Whoever wrote a field last, and what, is found again in the changes that the model made."""
    walk = Walk(found)
    number = next(nr for nr, field in enumerate(walk.fields) if field.path == "cpu0.MSR_IA32_XFD")
    for run in range(len(found.runs)):
        walk.turn(run)
        for at, step in enumerate(found.runs[run].steps, 1):
            xfd = step.after.cpus[0].regs.xfd
            assert int(walk.text(walk.trail.values[at][number]), 0) == xfd
            wrote = walk.trail.writers[at][number] == at
            assert wrote == (xfd != step.before.cpus[0].regs.xfd)


# -- the command line --------------------------------------------------------------------------------------------------


def test_without_textual_it_says_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    message = "xfdfuzz: --step needs textual: pip install 'xfdfuzz[tui]'\n"
    assert run("replay", "--step", str(MIGRATION)) == (2, "", message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--step needs a terminal, for input and output; without it the trace is printed"),
        (["--full"], "--step prints nothing, so --full says nothing of it"),
        (["--format", "json"], "--step prints nothing, so --format json says nothing of it"),
        ([str(CORPUS / "witness")], "expected one program for --step, got "),
    ],
)
def test_what_cannot_be_walked_through_is_one_line(run: Run, words: list[str], message: str) -> None:
    code, out, err = run("replay", "--step", str(MIGRATION), *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"xfdfuzz: {message}")
    assert len(err.splitlines()) == 1
