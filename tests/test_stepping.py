"""`xfdfuzz replay --step`: what is on the screen after which keys, without a terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.app import App
from textual.pilot import Pilot

from xfdfuzz.invariants.loading import load
from xfdfuzz.program.text import parse
from xfdfuzz.report.page.runs import Finding, finding, run_on
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


def drive(found: Finding, script: Callable[[Stepping, Pilot[None]], Awaitable[None]], width: int = WIDE) -> None:
    async def driven() -> None:
        app = Stepping(Walk(found))
        async with app.run_test(size=(width, 40)) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(driven())


def screen(app: App[None]) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def test_look(found):
    async def script(app, pilot):
        for w in (),("a",),("r",):
            if w: await pilot.press(*w)
            await pilot.pause()
            print(screen(app)); print("=====")
    drive(found, script)
    drive(found, script, 80)
