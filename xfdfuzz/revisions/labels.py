"""Labels: a revision by its name or its file, and what is added to it and left out, ``v6.12+b45f72177594``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.revisions.outside import Outside, load_entries, load_file
from xfdfuzz.revisions.queue import (
    PATCHES,
    Patch,
    RevisionError,
    UnknownRevision,
    compose,
    find_patch,
    in_order,
    why_unknown,
)
from xfdfuzz.revisions.releases import release_of, told
from xfdfuzz.revisions.table import ALIASES, MAINLINE, NAMED, SERIES, is_known, model_of, named, names


@dataclass(frozen=True)
class Revision:
    """A kernel that can be run: its label, title, source and patches.

    ``applied`` and ``reverted`` are the commits that were added to or left out of the named revision; ``file`` is where
    a series from outside the tree was read.
    """

    label: str
    name: str
    title: str
    source: str
    kernel: type[Kernel]
    patches: tuple[Patch, ...]
    applied: tuple[str, ...] = ()
    reverted: tuple[str, ...] = ()
    file: Path | None = None

    @property
    def address(self) -> str:
        """What :func:`resolve` finds it by in any process: its label, beginning with the file if it is from one."""
        return f"{self.file or self.name}{self.label.removeprefix(self.name)}"


def canonical(name: str) -> str:
    """The name that an alias stands for; RevisionError for an unknown one.

    A patch's commit names mainline as of that patch.
    """
    name = ALIASES.get(name, name)
    if not is_known(name):
        load_entries()
    if not is_known(name):
        if reason := why_unknown(name):
            raise RevisionError(reason)
        release = release_of(name)
        if release and not model_of(release):
            raise UnknownRevision(
                f"unknown revision {name}: older than {next(iter(MAINLINE))}, the oldest that is modelled"
            )
        known = [*names(), *ALIASES]
        near = _nearest(name, known)
        expected = f"did you mean {near}?" if near else f"expected one of {', '.join(known)}, or a file *.py"
        raise UnknownRevision(f"unknown revision {name}: {expected}")
    return name


def stands_for(name: str) -> tuple[str, str]:
    """The revision that a user's name for a kernel stands for, and what there is to know about that; often nothing.

    ``v6.8.12`` may have patches of which nobody knows.  What is neither an alias nor a version stands for itself.
    """
    if name in ALIASES:
        return ALIASES[name], f"{name}: modelled as {ALIASES[name]}"
    release = release_of(name)
    if release is None or _split_label(name)[1]:
        return name, ""
    if name in NAMED:
        return name, "" if release.built else told(name, release, name)
    model = model_of(release)
    return (model, told(name, release, model)) if model else (name, "")


def _nearest(name: str, known: Sequence[str]) -> str:
    """The revision that a mistyped name, or label, is meant to be; nothing if none is near.

    ``v6.1`` is rather the beginning of v6.1.192 than v6.12 with a digit too few.
    """
    plain = name.split("+")[0].lower()
    plain = f"v{plain}" if plain[:1].isdigit() else plain
    begun = [one for one in known if f"{one}.".startswith(f"{plain}.")]
    return next(iter(begun or difflib.get_close_matches(plain, known, 1, 0.7)), "")


def resolve(name: str, apply: Sequence[str] = (), revert: Sequence[str] = ()) -> Revision:
    """The revision ``name`` with the commits of ``apply`` added in queue order and those of ``revert`` left out.

    ``name`` may also be a label, ``v6.12+b45f72177594``, and begin with a file that defines a Series.  Raises
    RevisionError for an unknown name or commit, for one that is applied or reverted twice, or reverted without being
    there, for a stack that cannot be composed, and for a file that cannot be used.
    """
    name, suffix = _split_label(name)
    if name.endswith(".py"):
        name = load_file(Path(name))
    release = release_of(name)
    if release and not is_known(name) and is_known(release.name):
        name = release.name
    name = canonical(name)
    about = named(name)
    chosen = about.stack
    queue = in_order(chosen)
    signed = _commits_in(suffix, [p.commit for p in queue])
    added, removed = (
        [find_patch(commit, chosen) for commit in (*given, *(commit for s, commit in signed if s == sign))]
        for sign, given in (("+", apply), ("-", revert))
    )
    for p in added:
        if p in chosen or added.count(p) > 1:
            raise RevisionError(f"{name} has {p.commit} already")
    for p in removed:
        if p not in chosen:
            raise RevisionError(f"{name} does not have {p.commit}")
        if removed.count(p) > 1:
            raise RevisionError(f"{p.commit} is reverted twice")
    stack = [p for p in queue if (p in chosen or p in added) and p not in removed]
    added.sort(key=stack.index)
    label = name + "".join(f"+{p.commit}" for p in added) + "".join(f"-{p.commit}" for p in removed)
    kernel = compose(label, about.base, stack, removed)
    return Revision(
        label,
        name,
        about.title,
        about.source,
        kernel,
        tuple(stack),
        applied=tuple(p.commit for p in added),
        reverted=tuple(p.commit for p in removed),
        file=about.file,
    )


def base_of(revision: Revision) -> Revision:
    """What a change stands on: the revision without the patches of its label, the one below a series, v5.16 below what
    was posted of this one, mainline before a patch.  RevisionError for a revision that is no change of another one.
    """
    about = named(revision.name)
    if revision.applied or revision.reverted:
        return resolve(str(revision.file or revision.name))
    if isinstance(about, Outside):
        return about.below
    if revision.name in PATCHES:
        return resolve(revision.name, revert=[revision.name])
    below = "v5.16" if revision.name in SERIES else about.on
    if not below:
        expected = "a file *.py with a series, a label such as v6.12+b45f72177594, or a posted series"
        raise RevisionError(f"{revision.label} is no change of another revision: expected {expected}")
    return resolve(below)


def find(commit: str) -> Patch:
    """The patch with that commit, of the queue or of a series that was loaded; at least 6 digits of it will do."""
    return find_patch(commit, [p for about in NAMED.values() for p in about.patches])


#: What is added and left out, as far as it cannot be a builder's own words behind a version.
_COMMITS = re.compile(r"(\+[0-9a-f]+|-[0-9a-f]{6,}|[+-](open|kvm)-[0-9a-z-]+)*")


def _split_label(label: str) -> tuple[str, str]:
    """A label's name, or file, and what is added to and left out of it: ``+commit-commit``."""
    file = re.match(r"(.+?\.py)(?=[+-]|$)", label)
    known = [
        name for name in (*names(), *ALIASES, *PATCHES) if label == name or label.startswith((f"{name}+", f"{name}-"))
    ]
    version = re.match(r"v?\d+\.\d+(\.(\d+|y))?(-rc\d+)?", label)
    if version and len(version[0]) >= max(map(len, known), default=0):
        # a builder's own words belong to a version
        return (version[0], label[version.end() :]) if _COMMITS.fullmatch(label, version.end()) else (label, "")
    name = file[1] if file else max(known, key=len, default=label)
    return name, label.removeprefix(name)


def _commits_in(suffix: str, commits: Sequence[str]) -> list[tuple[str, str]]:
    """The signs and commits in a label behind its name.  A commit may be the name of a patch, with a - in it."""
    known = "|".join(re.escape(commit) for commit in sorted(commits, key=len, reverse=True))
    return re.findall(rf"([+-])({known}|[^+-]*)(?=[+-]|$)", suffix)


def with_stack(name: str, patches: Sequence[Patch]) -> Revision:
    """The named revision with just these patches on its base; raises RevisionError where they cannot be stacked."""
    wanted, there = ([p.commit for p in stack] for stack in (patches, named(name).stack))
    return resolve(name, [c for c in wanted if c not in there], [c for c in there if c not in wanted])
