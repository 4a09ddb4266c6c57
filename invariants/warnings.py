"""WARN: the kernel's own opinion."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.invariants.vocabulary import Broken, View, invariant
from xfdfuzz.kernel.event import WARN


@invariant("no-warning", "warn", ("INV-01", "INV-32", "REQ"), events=(WARN,))
def no_warning(view: View) -> Iterator[Broken]:
    """A WARN_ON that user space or a guest can fire is a bug whatever its cause: with panic_on_warn it is a denial of
    service, without it it says that the kernel's authors held this to be impossible."""
    for event in view.events(WARN):
        yield Broken(f"WARN in {' <- '.join(event.trace)}", event.site)
