"""Kernels by their versions: what of the queue a release or a stable version has, and of what nobody has looked.

:attr:`Patch.stable` says, for each line of stable versions, since when it has a patch: ``v6.6.122``, the first version
with it (the kernel's own list of fixed versions); ``..v6.1.192``, one that has it, whatever came before (a source that
was looked at); ``v6.18.y``, one or another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xfdfuzz.revisions.queue import PATCHES, Patch

#: A version as kernels and their builders write it: two or three numbers, a candidate's, and a builder's own words.
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+|y))?(?:-?(rc\d+))?(?:[-+._~a-z](.*))?", re.IGNORECASE)
#: Stable versions whose whole source was looked at, or that were recorded: what they lack, those before them lack.
_SEEN = ("v6.1.192", "v6.12.117", "v6.17.13")
#: What the queue does not have, and no release before that of its fix: nobody backports the one without the other.
_OF_ITS_FIX = frozenset({"11d7956d526f"})
#: The third number of what is called ``v6.6.y``: the last one.
_LAST = 1_000_000


@dataclass(frozen=True, slots=True)
class Release:
    """A version of the kernel: ``number`` is its third number, ``candidate`` one before the release, as ``rc2`` says,
    ``built`` one that somebody else than kernel.org has built, perhaps with backports of his own."""

    line: tuple[int, int]
    number: int = 0
    candidate: bool = False
    built: bool = False

    @property
    def name(self) -> str:
        """Of the revision that models it: that of the release for its candidates."""
        last = {0: "", _LAST: ".y"}.get(self.number, f".{self.number}")
        return f"v{self.line[0]}.{self.line[1]}{last}"

    @property
    def mainline(self) -> str:
        """The release that it stands on."""
        return f"v{self.line[0]}.{self.line[1]}"

    @property
    def backports(self) -> tuple[str, ...]:
        """Commits of what it has from later releases; what is not known is guessed from the versions that are."""
        return tuple(p.commit for p in self._later() if self._has(p))

    @property
    def doubts(self) -> tuple[Patch, ...]:
        """Patches that it may have, or lack, other than its revision: nobody has looked."""
        cycle = [p for p in PATCHES.values() if self.candidate and numbers(p.version) == self.line]
        return (*cycle, *(p for p in self._later() if self._doubtful(p)))

    def _later(self) -> list[Patch]:
        """What mainline got after the release, of what may be backported: fixes of what it has, and what is known to be
        in a stable version of this line."""
        later = [p for p in PATCHES.values() if numbers(p.version) > self.line]
        broken = _OF_ITS_FIX.union(p.commit for p in later)
        return [p for p in later if self._said(p) or any(commit not in broken for commit in p.fixes)]

    def _said(self, p: Patch) -> str:
        """What is said of the patch in this line of stable versions."""
        return next((entry for entry in p.stable if numbers(entry)[:2] == self.line), "")

    def _has(self, p: Patch) -> bool:
        entry = self._said(p)
        if not entry or not self.number:
            return False
        if entry.endswith(".y"):
            return True
        known = numbers(entry)[2]
        # where only a later version is known to have it, the nearer one of that and the release is like it
        return self.number >= known or (entry.startswith("..") and 2 * self.number > known)

    def _doubtful(self, p: Patch) -> bool:
        if self.built:
            return not self._has(p)
        if not self.number:
            return False
        entry = self._said(p)
        if not entry:
            return not any(numbers(seen)[:2] == self.line and self.number <= numbers(seen)[2] for seen in _SEEN)
        return entry.endswith(".y") or (entry.startswith("..") and self.number < numbers(entry)[2])


def release_of(text: str) -> Release | None:
    """What a version means, ``6.8.12``, ``v6.6.y``, ``7.3-rc2``, ``6.8.0-31-generic``; None for what is none."""
    found = _VERSION.fullmatch(text)
    if not found:
        return None
    number = _LAST if found[3] in ("y", "Y") else int(found[3] or 0)
    return Release((int(found[1]), int(found[2])), number, bool(found[4]), found[5] is not None)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, or of what is said of stable ones, to be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def told(text: str, release: Release, model: str) -> str:
    """What a user has to know of the revision ``model`` that stands for the kernel that was named; often nothing."""
    if model != release.name:
        return f"{text}: modelled as {model}"
    named = f"{text}: modelled as {model}" if text != model else text
    if release.doubts:
        return f"{named}; {unknown(release)}"
    return named if text != model else ""


def unknown(release: Release) -> str:
    """In words, what is not known of it; nothing where all is."""
    commits = [p.commit for p in release.doubts]
    more = f" and {len(commits) - 6} more" if len(commits) > 6 else ""
    return f"nobody has looked whether it has {', '.join(commits[:6])}{more}" if commits else ""
