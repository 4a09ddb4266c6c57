"""A series from outside the tree: patches on a named revision, declared with a :class:`Series`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from xfdfuzz.kernel.base import KernelBase
from xfdfuzz.revisions.fit import check_fit
from xfdfuzz.revisions.labels import resolve
from xfdfuzz.revisions.outside import Outside
from xfdfuzz.revisions.queue import PATCHES, Patch, RevisionError, check_applies
from xfdfuzz.revisions.table import named

_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_C = TypeVar("_C", bound=type[KernelBase])


class Series(Outside):
    """Patches, in the order of their declaration, on top of the revision ``base``.

    ``promises`` are the buckets of ``xfdfuzz diff`` that the series says it changes for user space: a review counts
    them as announced.  Raises RevisionError for a name or a base that cannot be used.
    """

    patches: list[Patch]

    def __init__(self, name: str, *, base: str, title: str, source: str = "", promises: Sequence[str] = ()) -> None:
        if not _NAME.fullmatch(name):
            raise RevisionError(f"revision {name}: expected lower-case words joined by -, such as my-series-v2")
        self.name = name
        self.title = title
        self.source = source
        self.promises = tuple(promises)
        self.below = resolve(base)
        self.on = self.below.name
        self.base = named(self.on).base
        self.patches = []

    @property
    def stack(self) -> list[Patch]:
        """Those of the revision that it stands on, then its own."""
        return [*self.below.patches, *self.patches]

    def check(self, place: str) -> None:
        """Raise RevisionError for a patch that does not replace what it stands on (fit.py)."""
        check_fit(place, self.below.kernel, self.patches)

    def patch(self, commit: str, title: str, fixes: tuple[str, ...] = ()) -> Callable[[_C], _C]:
        """Declare the next patch: a class that replaces just the functions that the patch changes.

        It subclasses the class whose methods it replaces; ``commit`` is what --revert names it by.
        """

        def declare(cls: _C) -> _C:
            if len(commit) < 6 or commit in PATCHES or any(commit == p.commit for p in self.patches):
                raise RevisionError(f"patch {commit}: expected a name of its own, of at least 6 characters")
            patch = Patch(commit, title, self.name, fixes, (), cls)
            check_applies(self.below.kernel, patch)
            self.patches.append(patch)
            return cls

        return declare
