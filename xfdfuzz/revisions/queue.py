"""Patches and how they are stacked: a patch is a mixin that replaces just the functions that the real patch changes.

A patch class subclasses the class whose methods it replaces, never another patch, or reverting that one would silently
do nothing.  The stack is composed as an MRO, last patch first, as quilt would; :func:`compose` refuses one that lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from xfdfuzz.kernel.base import KernelBase
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.revisions.commits import is_meant
from xfdfuzz.revisions.left_out import left_out


class RevisionError(Exception):
    """A revision or patch that does not exist, or a stack that cannot be built; one line."""


class UnknownRevision(RevisionError):
    """A name that no revision has."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One change: its commit, title, the mainline version that has it first, what it fixes, stable versions with it.

    There is one object for each: stacks are searched for it very often.

    ``version`` is the series' name for a patch of one from outside, and empty for what this project proposes.
    ``neutral``: why a kernel without it keeps every promise all the same; empty for a fix.
    """

    commit: str
    title: str
    version: str
    fixes: tuple[str, ...]
    stable: tuple[str, ...]
    cls: type[KernelBase]
    neutral: str = ""

    @property
    def doc(self) -> str:
        """What it changes, in a sentence."""
        return (self.cls.__doc__ or "").strip()


#: Every patch by its commit, in mainline order.
PATCHES: dict[str, Patch] = {}
#: The patches that this project proposes, by their names: in no kernel, and after all of :data:`PATCHES` in a stack.
PROPOSED: dict[str, Patch] = {}
#: What :func:`patch` declared, by class.
DECLARED: dict[type[KernelBase], Patch] = {}

_C = TypeVar("_C", bound=type[KernelBase])


def patch(
    commit: str,
    title: str,
    version: str,
    fixes: tuple[str, ...] = (),
    stable: tuple[str, ...] = (),
    neutral: str = "",
) -> Callable[[_C], _C]:
    """Declare a class to be a patch; :func:`enqueue` gives it its place in the queue."""

    def declare(cls: _C) -> _C:
        DECLARED[cls] = Patch(commit, title, version, fixes, stable, cls, neutral)
        return cls

    return declare


def enqueue(series: Sequence[type[KernelBase]]) -> None:
    """Put declared patches into the queue, in this order."""
    for cls in series:
        PATCHES[DECLARED[cls].commit] = DECLARED[cls]


def propose(name: str, title: str, fixes: tuple[str, ...] = ()) -> Callable[[_C], _C]:
    """Declare a class to be a patch of this project's own, after those that were declared before it."""

    def declare(cls: _C) -> _C:
        PROPOSED[name] = Patch(name, f"PROPOSED: {title}", "", fixes, (), cls)
        return cls

    return declare


def find_patch(commit: str, own: Sequence[Patch] = ()) -> Patch:
    """The patch of the queue, proposed, or of a series' ``own``, with that commit.

    Or with the only commit that starts so (at least 6 digits), or that begins the whole one of git's.
    """
    queue = in_order(own)
    found = [p for p in queue if p.commit == commit]
    found = found or [p for p in queue if is_meant(p.commit, commit)]
    if len(found) != 1:
        expected = "expected one of `xfdfuzz list patches`; a series can take out what v5.16 has (xfdfuzz new revision)"
        raise RevisionError(why_unknown(commit) or f"unknown commit {commit}: {expected}")
    return found[0]


def why_unknown(commit: str) -> str:
    """Why a commit of mainline is not in the queue, if it is left out on purpose; else nothing."""
    known = left_out(commit)
    return f"{known.commit} ({known.title}) is not in the queue: {known.reason}" if known else ""


def in_order(own: Sequence[Patch] = ()) -> list[Patch]:
    """Every patch in the order of a stack: the queue, what is proposed, and of ``own`` what is neither."""
    known = [*PATCHES.values(), *PROPOSED.values()]
    return [*known, *(p for p in own if p not in known)]


def compose(label: str, base: type[Kernel], patches: Sequence[Patch], reverted: Sequence[Patch] = ()) -> type[Kernel]:
    """The kernel class of ``base`` with ``patches`` on it, in this order; ``reverted`` are left out on request.

    What is not in the queue, a series' own patches, comes after all that is.
    """
    for p in patches:
        check_applies(base, p)
    check_reverts(patches, reverted)
    kernel: type[Kernel] = type(
        label, (*(p.cls for p in reversed(patches)), base), {"revision": label, "__doc__": base.__doc__}
    )
    return kernel


def check_applies(base: type[Kernel], p: Patch) -> None:
    """A patch applies where the class whose functions it changes is part of the base.

    So one that subclasses another patch never does: reverting that one would silently do nothing.
    """
    missing = [parent for parent in p.cls.__bases__ if not issubclass(base, parent)]
    if missing:
        changed = ", ".join(_changed_by(p))
        raise RevisionError(f"{p.commit} does not apply to {base.revision}, which does not have {changed}()")


def check_reverts(patches: Sequence[Patch], reverted: Sequence[Patch]) -> None:
    """Nothing that a reverted patch changes may be replaced whole by a later one: its revert would change nothing."""
    order = in_order([*patches, *reverted])
    for gone in reverted:
        for later in patches:
            if order.index(later) > order.index(gone):
                name = next((name for name in _changed_by(gone) if _replaces_whole(later, name)), None)
                if name is not None:
                    raise RevisionError(
                        f"cannot revert {gone.commit}: {later.commit}, later in the queue, replaces {name}() whole"
                    )


def _changed_by(p: Patch) -> list[str]:
    """The kernel functions, and constants, that a patch class defines."""
    return [name for name in vars(p.cls) if not name.startswith("__")]


def _replaces_whole(p: Patch, name: str) -> bool:
    """Whether the patch defines ``name`` without building on what was there."""
    replacement = vars(p.cls).get(name)
    if replacement is None:
        return False
    return not callable(replacement) or "super" not in replacement.__code__.co_names
