"""The search itself: Hypothesis drives the rules, every distinct news of a campaign is shrunk once and handed out."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from xfdfuzz.engines.campaign import Campaign, N, NewsFound, OutOfTime
from xfdfuzz.engines.interrupt import PatientInterrupt
from xfdfuzz.engines.rules import KernelMachine
from xfdfuzz.engines.selection import every_example_anew
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse

#: Default length of an example, in rules.
STEPS = 50


class NotReproducibleError(Exception):
    """Something that its own program does not show again: the model is not deterministic, which is a bug of ours."""


def hunt(
    campaign: Campaign[N],
    *,
    seed: int,
    seconds: float | None,
    steps: int,
    on_progress: Callable[[], None],
    on_news: Callable[[N, Program], None],
) -> bool:
    """Search until the campaign's time or examples are used up; returns whether Ctrl-C ended it.

    Every distinct bucket that is not known is shrunk once and given to ``on_news`` with its program at once.  The same
    seed gives the same programs.
    """
    began = time.monotonic()
    campaign.deadline = None if seconds is None else began + seconds
    with PatientInterrupt() as ctrl_c, _imports_out_of_the_collectors_way():

        def progress() -> None:
            ctrl_c.check()
            campaign.stats.seconds = time.monotonic() - began
            on_progress()

        campaign.on_example = progress
        try:
            for attempt in range(1 << 30):
                found = search(campaign, seed, attempt, steps)
                if found is None:
                    break
                for news, smallest in _news(campaign, found.program):
                    on_news(news, smallest)
                    ctrl_c.check()
        except KeyboardInterrupt:
            return True
        finally:
            campaign.stats.seconds = time.monotonic() - began
    return False


@contextmanager
def _imports_out_of_the_collectors_way() -> Iterator[None]:
    """Each full collection walks all modules, which stay for good: 7 % of a campaign's time without this."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def search(campaign: Campaign[Any], seed: int, attempt: int, steps: int) -> NewsFound | None:
    """One run of Hypothesis: up to the first program that shows something new; None when the campaign is over."""
    machine = type("KernelMachine", (KernelMachine,), {"campaign": campaign})
    seeded(seed * 1_000_003 + attempt)(machine)
    try:
        with every_example_anew():
            run_state_machine_as_test(machine, settings=campaign_settings(steps))
    except OutOfTime:
        return None
    except NewsFound as found:
        return found
    return None


def _news(campaign: Campaign[N], program: Program) -> Iterator[tuple[N, Program]]:
    """Everything new that the program shows, each with a program of its own, minimal and confirmed from its text."""
    for news in campaign.shown(program):
        if not campaign.is_news(news):
            continue
        campaign.known.add(news.bucket)
        smallest = campaign.minimise(program, news.bucket)
        again = campaign.shown(parse(format_program(smallest)))
        confirmed = next((one for one in again if one.bucket == news.bucket), None)
        if confirmed is None:
            raise NotReproducibleError(f"{news.bucket} does not show again")
        yield confirmed, smallest


def campaign_settings(steps: int) -> settings:
    """For the command line: no end of its own, no database, and no shrinking, which minimise() does faster."""
    return settings(
        max_examples=10_000_000,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
