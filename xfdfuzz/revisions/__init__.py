"""Revisions: named kernels.  A revision is a base plus a queue of patches.

The bases are v5.16 and what was posted, a module each; mainline after the series is a prefix of the queue in mainline/
on its last posting, a stable version is its base's prefix plus the backports that it is known to carry.  Two are the
project's own: v7.3 and v5.16 with the cures that it proposes for the open findings (cured.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.revisions import mainline  # noqa: F401 - registers the queue
from xfdfuzz.revisions.amx_px25 import AmxPx25
from xfdfuzz.revisions.amx_review import AmxReviewA, AmxReviewB, AmxReviewC
from xfdfuzz.revisions.amx_tglx import AmxTglx
from xfdfuzz.revisions.amx_v1 import AmxV1
from xfdfuzz.revisions.amx_v2 import AmxV2
from xfdfuzz.revisions.amx_v3 import AmxV3
from xfdfuzz.revisions.amx_v4 import AmxV4
from xfdfuzz.revisions.amx_v6 import AmxV6
from xfdfuzz.revisions.cured import CURES, CURES_OF_V5_16
from xfdfuzz.revisions.outside import OUTSIDE, Series, load_entries, load_file, loaded_series
from xfdfuzz.revisions.queue import PATCHES, PROPOSED, Patch, RevisionError, compose, find_patch, in_order

__all__ = [
    "PATCHES",
    "PROPOSED",
    "Patch",
    "Revision",
    "RevisionError",
    "Series",
    "concerns",
    "find",
    "in_order",
    "lines",
    "load_entries",
    "loaded_series",
    "names",
    "posted_between",
    "queue_between",
    "resolve",
    "selects",
    "with_stack",
]


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


@dataclass(frozen=True, slots=True)
class _Point:
    """Where a named revision stands: its base class, and which of the queue it has.

    That is, everything up to a version, with backports of what came later and without what that version got too late;
    and for a kernel that this project has made, which of its patches, and which revision they stand ``on``.
    """

    base: type[Kernel]
    title: str
    source: str
    upto: str = ""
    backports: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    proposed: tuple[str, ...] = ()
    on: str = ""


_SERIES = {
    "amx-v1": _Point(AmxV1, "AMX Support in KVM, first posting", "20211208000359.2853257-1-yang.zhong@intel.com"),
    "amx-review-a": _Point(
        AmxReviewA, "the request in vcpu->arch, never cleared", "dae6cc09-2464-f1f5-c909-2374d33c75b5@redhat.com"
    ),
    "amx-review-b": _Point(
        AmxReviewB, "the request cleared when it was served", "16c938e2-2427-c8dd-94a1-eba8f967283b@redhat.com"
    ),
    "amx-review-c": _Point(
        AmxReviewC, "no request, allocation in the write", "16c938e2-2427-c8dd-94a1-eba8f967283b@redhat.com"
    ),
    "amx-tglx": _Point(AmxTglx, "the FPU core validates and allocates", "20211214022825.563892248@linutronix.de"),
    "amx-v2": _Point(AmxV2, "allocation in KVM_SET_CPUID2", "20211217153003.1719189-1-jing2.liu@intel.com"),
    "amx-v3": _Point(AmxV3, "#NM intercepted later", "20211222124052.644626-1-jing2.liu@intel.com"),
    "amx-v4": _Point(AmxV4, "allocation before the commit", "20211229131328.12283-1-yang.zhong@intel.com"),
    # its one difference to v6, what 32-bit hosts do, is not modelled
    "amx-v5": _Point(AmxV6, "allocation for what CPUID gives", "20220105123532.12586-1-yang.zhong@intel.com"),
    "amx-v6": _Point(AmxV6, "the final patches", "20220107185512.25321-1-pbonzini@redhat.com"),
}
_MAINLINE = {
    "v5.16": _Point(Kernel, "the kernel before the series", "mainline"),
    "v5.17": _Point(AmxV6, "mainline, with the series as merged", "mainline", "v5.17"),
    "v5.18": _Point(AmxV6, "mainline", "mainline", "v5.18"),
    "v6.6": _Point(AmxV6, "mainline", "mainline", "v6.6"),
    "v6.12": _Point(AmxV6, "mainline", "mainline", "v6.12"),
    "v6.18": _Point(AmxV6, "mainline", "mainline", "v6.18"),
    "v7.3": _Point(AmxV6, "mainline, the newest modelled", "mainline", "v7.3"),
}
_STABLE = {
    "v6.1.192": _Point(
        AmxV6,
        "stable",
        "Debian linux-source-6.1",
        "v6.1",
        (
            "4a804c4f8356",
            "b15888840207",
            "1f69383b203e",
            "8647c52e9504",
            "10e4b5166df9",
            "1937e18cc3cf",
            "dda366083e5f",
            "388eff894d6b",
            "b45f72177594",
        ),
    ),
    "v6.12.117": _Point(
        AmxV6,
        "stable",
        "Debian linux-source-6.12",
        "v6.12",
        (
            "ae6012d72fa6",
            "1937e18cc3cf",
            "dda366083e5f",
            "d1e420772cd1",
            "184bd464bdb6",
            "388eff894d6b",
            "b45f72177594",
        ),
    ),
    "v6.17.13": _Point(AmxV6, "stable", "traces of a recorded kernel", "v6.17", ("388eff894d6b",)),
}
#: Posted against mainline, not merged.
_UNMERGED = {
    "amx-px25": _Point(
        AmxPx25,
        "guest XFD apart from the fpstate's, not merged",
        "20251224001249.1041934-1-pbonzini@redhat.com",
        "v6.19",
        without=("b45f72177594",),
    ),
}
#: Ours: nothing that is known to be wrong is left in them.
_CURED = {
    "v7.3-cured": _Point(
        AmxV6,
        "v7.3 with PROPOSED cures of the open findings",
        "not posted",
        "v7.3",
        proposed=CURES,
        on="v7.3",
    ),
    "v5.16-cured": _Point(
        Kernel,
        "v5.16 with the fixes of its known bugs and PROPOSED cures of the open findings",
        "not posted",
        "v5.16",
        (
            "8647c52e9504",
            "063452fd94d1",
            "7aa5128b5fea",
            "f17b168734c0",
            "a401f45e3875",
            "471f0aa7fa64",
            "36b038791e1e",
            "4a804c4f8356",
            "b15888840207",
            "1f69383b203e",
            "10e4b5166df9",
            "70044df250d0",
            "ae6012d72fa6",
            "d1e420772cd1",
            "388eff894d6b",
        ),
        proposed=CURES_OF_V5_16,
        on="v5.16",
    ),
}
_POINTS = {**_SERIES, **_UNMERGED, **_MAINLINE, **_STABLE, **_CURED}
ALIASES = {"mainline": "v7.3", "v7.2.13": "v7.3", "v7.3.4": "v7.3"}


def names() -> list[str]:
    """Every revision's name: what was posted, in that order, then mainline, stable, cured, and what was loaded."""
    return [*_POINTS, *OUTSIDE]


def lines() -> tuple[list[str], list[str]]:
    """The posted series in the order of posting, and mainline: within each, a revision comes before another."""
    return list(_SERIES), list(_MAINLINE)


def canonical(name: str) -> str:
    """The name that an alias stands for; RevisionError for an unknown one.

    A patch's commit names mainline as of that patch.
    """
    name = ALIASES.get(name, name)
    if not _is_known(name):
        load_entries()
    if not _is_known(name):
        known = ", ".join([*names(), *ALIASES])
        raise RevisionError(f"unknown revision {name}: expected one of {known}, or a file *.py")
    return name


def _is_known(name: str) -> bool:
    return name in _POINTS or name in PATCHES or name in OUTSIDE


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.removeprefix("v").split("."))


def _point(name: str) -> _Point:
    return _POINTS.get(name) or _Point(AmxV6, f"mainline as of {PATCHES[name].title}", "mainline", upto=name)


def _patches_of(point: _Point) -> list[Patch]:
    queue = list(PATCHES.values())
    if point.upto in PATCHES:
        return queue[: queue.index(PATCHES[point.upto]) + 1]
    if not point.upto:
        return []
    limit = _version(point.upto)
    return [
        *(
            p
            for p in queue
            if (_version(p.version) <= limit or p.commit in point.backports) and p.commit not in point.without
        ),
        *(PROPOSED[name] for name in point.proposed),
    ]


def resolve(name: str, apply: Sequence[str] = (), revert: Sequence[str] = ()) -> Revision:
    """The revision ``name`` with the commits of ``apply`` added in queue order and those of ``revert`` left out.

    ``name`` may also be a label, ``v6.12+b45f72177594``, and begin with a file that defines a Series.  Raises
    RevisionError for an unknown name or commit, for one that is applied twice or reverted without being there, for a
    stack that cannot be composed, and for a file that cannot be used.
    """
    name, suffix = _split_label(name)
    if name.endswith(".py"):
        name = load_file(Path(name)).name
    name = canonical(name)
    series = OUTSIDE.get(name)
    chosen = _stack_of(name)
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
    stack = [p for p in queue if (p in chosen or p in added) and p not in removed]
    added.sort(key=stack.index)
    label = name + "".join(f"+{p.commit}" for p in added) + "".join(f"-{p.commit}" for p in removed)
    kernel = compose(label, _base_of(name), stack, removed)
    about = series or _point(name)
    return Revision(
        label,
        name,
        about.title,
        about.source,
        kernel,
        tuple(stack),
        applied=tuple(p.commit for p in added),
        reverted=tuple(p.commit for p in removed),
        file=series.file if series else None,
    )


def find(commit: str) -> Patch:
    """The patch with that commit, of the queue or of a series that was loaded; at least 6 digits of it will do."""
    return find_patch(commit, [p for series in OUTSIDE.values() for p in series.patches])


def _split_label(label: str) -> tuple[str, str]:
    """A label's name, or file, and what is added to and left out of it: ``+commit-commit``."""
    file = re.match(r"(.+?\.py)(?=[+-]|$)", label)
    known = [
        name for name in (*names(), *ALIASES, *PATCHES) if label == name or label.startswith((f"{name}+", f"{name}-"))
    ]
    name = file[1] if file else max(known, key=len, default=label)
    return name, label.removeprefix(name)


def _commits_in(suffix: str, commits: Sequence[str]) -> list[tuple[str, str]]:
    """The signs and commits in a label behind its name.  A commit may be the name of a patch, with a - in it."""
    known = "|".join(re.escape(commit) for commit in sorted(commits, key=len, reverse=True))
    return re.findall(rf"([+-])({known}|[^+-]*)(?=[+-]|$)", suffix)


def _stack_of(name: str) -> list[Patch]:
    """The patches that the named revision has."""
    series = OUTSIDE.get(name)
    return [*series.base.patches, *series.patches] if series else _patches_of(_point(name))


def _base_of(name: str) -> type[Kernel]:
    """The class that the named revision's patches stand on."""
    series = OUTSIDE.get(name)
    return _base_of(series.base.name) if series else _point(name).base


def with_stack(name: str, patches: Sequence[Patch]) -> Revision:
    """The named revision with just these patches on its base; raises RevisionError where they cannot be stacked."""
    wanted, there = ([p.commit for p in stack] for stack in (patches, _stack_of(name)))
    return resolve(name, [c for c in wanted if c not in there], [c for c in there if c not in wanted])


def posted_between(first: str, last: str) -> list[str]:
    """The posted series from one to the other, both among them; empty if they are not two series in this order."""
    line, _ = lines()
    return line[line.index(first) : line.index(last) + 1] if first in line and last in line else []


def queue_between(first: Revision, last: Revision) -> list[Patch]:
    """What ``last`` has on top of ``first``, in order; RevisionError if that is not a queue of patches."""
    more = [p for p in last.patches if p not in first.patches]
    if not more or len(more) + len(first.patches) > len(last.patches) or _base_of(first.name) != _base_of(last.name):
        raise RevisionError(
            f"no queue of patches leads from {first.label} to {last.label}: "
            "expected two points of mainline, the earlier one first, or two posted series"
        )
    return more


def concerns(spec: str, name: str) -> bool:
    """Whether what is said of the revisions ``spec`` holds for the revision ``name``.

    As :func:`selects`; and what holds for a revision holds for a series from outside, or cures, that stand on it.
    """
    series = OUTSIDE.get(name)
    below = series.base.name if series else _point(canonical(name)).on
    return selects(spec, name) or (bool(below) and concerns(spec, below))


def selects(spec: str, name: str) -> bool:
    """Whether the revisions part of an `expect:` line, ``spec``, selects the revision ``name``.

    A name selects itself, ``*`` everything; ``A..B``, ``A..`` and ``..B`` select within the line that A or B belongs
    to: the posted series, or mainline (stable and cured kernels, and amx-px25, are named one by one).
    """
    name = canonical(name)
    if spec == "*":
        return True
    if ".." not in spec:
        return canonical(spec) == name
    first, last = spec.split("..", 1)
    ends = [canonical(end) for end in (first, last) if end]
    for line in lines():
        if ends and all(end in line for end in ends):
            low = line.index(canonical(first)) if first else 0
            high = line.index(canonical(last)) if last else len(line) - 1
            return name in line[low : high + 1]
    raise RevisionError(f"{spec}: expected a range within the posted series or within mainline")
