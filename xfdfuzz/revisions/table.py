"""The table of named kernels.

v5.16 and what was posted, a module each; mainline after the series, a prefix of the queue in mainline/ on its last
posting; a stable version, its base's prefix plus the backports that it is known to carry (releases.py).  Any other
version has no entry here, but is known by its number.  Two are the project's own:
v7.3 and v5.16 with the cures that it proposes for the open findings (cured.py).  What is outside the tree is added when
it is loaded (outside.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from xfdfuzz.revisions.queue import PATCHES, PROPOSED, Patch
from xfdfuzz.revisions.releases import Release, numbers, release_of, unknown


class Named(ABC):
    """A kernel that has a name.

    ``base`` is the class that its patches stand on; ``on`` is the revision that it stands on itself, if it is held to
    another one's promises; ``patches`` are those of its own, in no queue, and ``file`` is where it was read, if it is
    from outside the tree.  ``promises`` are the buckets of what it says that it changes for user space.
    """

    title: str
    source: str
    base: type[Kernel]
    on: str
    patches: Sequence[Patch] = ()
    file: Path | None = None
    promises: Sequence[str] = ()

    @property
    @abstractmethod
    def stack(self) -> list[Patch]:
        """All patches that it has, in their order."""


@dataclass(frozen=True)
class Point(Named):
    """A kernel of the tree: everything of the queue up to a version, with backports of what came later and without what
    that version got too late, and what is proposed of this project's own patches."""

    base: type[Kernel]
    title: str
    source: str
    upto: str = ""
    backports: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    proposed: tuple[str, ...] = ()
    on: str = ""

    @property
    def stack(self) -> list[Patch]:
        """A prefix of the queue, but for the exceptions, and what is proposed."""
        queue = list(PATCHES.values())
        if self.upto in PATCHES:
            return queue[: queue.index(PATCHES[self.upto]) + 1]
        if not self.upto:
            return []
        limit = numbers(self.upto)
        return [
            *(
                p
                for p in queue
                if (numbers(p.version) <= limit or p.commit in self.backports) and p.commit not in self.without
            ),
            *(PROPOSED[name] for name in self.proposed),
        ]


SERIES = {
    "amx-v1": Point(AmxV1, "AMX Support in KVM, first posting", "20211208000359.2853257-1-yang.zhong@intel.com"),
    "amx-review-a": Point(
        AmxReviewA, "the request in vcpu->arch, never cleared", "dae6cc09-2464-f1f5-c909-2374d33c75b5@redhat.com"
    ),
    "amx-review-b": Point(
        AmxReviewB, "the request cleared when it was served", "16c938e2-2427-c8dd-94a1-eba8f967283b@redhat.com"
    ),
    "amx-review-c": Point(
        AmxReviewC, "no request, allocation in the write", "16c938e2-2427-c8dd-94a1-eba8f967283b@redhat.com"
    ),
    "amx-tglx": Point(AmxTglx, "the FPU core validates and allocates", "20211214022825.563892248@linutronix.de"),
    "amx-v2": Point(AmxV2, "allocation in KVM_SET_CPUID2", "20211217153003.1719189-1-jing2.liu@intel.com"),
    "amx-v3": Point(AmxV3, "#NM intercepted later", "20211222124052.644626-1-jing2.liu@intel.com"),
    "amx-v4": Point(AmxV4, "allocation before the commit", "20211229131328.12283-1-yang.zhong@intel.com"),
    # its one difference to v6, what 32-bit hosts do, is not modelled
    "amx-v5": Point(AmxV6, "allocation for what CPUID gives", "20220105123532.12586-1-yang.zhong@intel.com"),
    "amx-v6": Point(AmxV6, "the final patches", "20220107185512.25321-1-pbonzini@redhat.com"),
}
MAINLINE = {
    "v5.16": Point(Kernel, "the kernel before the series", "mainline"),
    "v5.17": Point(AmxV6, "mainline, with the series as merged", "mainline", "v5.17"),
    "v5.18": Point(AmxV6, "mainline", "mainline", "v5.18"),
    "v6.6": Point(AmxV6, "mainline", "mainline", "v6.6"),
    "v6.12": Point(AmxV6, "mainline", "mainline", "v6.12"),
    "v6.18": Point(AmxV6, "mainline", "mainline", "v6.18"),
    "v7.3": Point(AmxV6, "mainline, the newest modelled", "mainline", "v7.3"),
}


def _release(name: str, title: str, source: str) -> Point:
    """A version of mainline or of a stable line, held to what the release before it is held to that has a name."""
    release = release_of(name)
    assert release
    base = Kernel if release.line == numbers("v5.16") else AmxV6
    before = [other for other in MAINLINE if numbers(other) <= release.line]
    whole = "; ".join(filter(None, (title, unknown(release))))
    return Point(base, whole, source, release.mainline, release.backports, on=before[-1])


_STABLE = {
    "v6.1.192": _release("v6.1.192", "stable", "Debian linux-source-6.1"),
    "v6.6.122": _release("v6.6.122", "stable", "lists of fixed versions"),
    "v6.12.117": _release("v6.12.117", "stable", "Debian linux-source-6.12"),
    "v6.17.13": _release("v6.17.13", "stable", "traces of a recorded kernel"),
    "v6.18.35": _release("v6.18.35", "stable", "lists of fixed versions"),
}
#: Posted against mainline, not merged.
_UNMERGED = {
    "amx-px25": Point(
        AmxPx25,
        "guest XFD apart from the fpstate's, not merged",
        "20251224001249.1041934-1-pbonzini@redhat.com",
        "v6.19",
        without=("b45f72177594",),
    ),
}
#: Ours: nothing that is known to be wrong is left in them.
_CURED = {
    "v7.3-cured": Point(
        AmxV6,
        "v7.3 with PROPOSED cures of the open findings",
        "not posted",
        "v7.3",
        proposed=CURES,
        on="v7.3",
    ),
    "v5.16-cured": Point(
        Kernel,
        "v5.16 with the fixes of its known bugs and PROPOSED cures of the open findings",
        "not posted",
        "v5.16",
        (
            "8647c52e9504",
            "063452fd94d1",
            "59f5ede3bc0f",
            "7aa5128b5fea",
            "f17b168734c0",
            "a401f45e3875",
            "471f0aa7fa64",
            "36b038791e1e",
            "4a804c4f8356",
            "b15888840207",
            "1f69383b203e",
            "18032b47adf1",
            "10e4b5166df9",
            "2848ff28d180",
            "70044df250d0",
            "ae6012d72fa6",
            "d1e420772cd1",
            "2297554f01df",
            "d877550eaf2d",
            "388eff894d6b",
        ),
        proposed=CURES_OF_V5_16,
        on="v5.16",
    ),
}
#: Every named kernel: what was posted, in that order, then mainline, stable, cured, and what was loaded.
NAMED: dict[str, Named] = {**SERIES, **_UNMERGED, **MAINLINE, **_STABLE, **_CURED}
ALIASES = dict.fromkeys(("mainline", "next", "linux-next", "v7.2.13", "v7.3.4"), "v7.3")


def names() -> list[str]:
    """Every revision's name, in the order of :data:`NAMED`."""
    return list(NAMED)


def named(name: str) -> Named:
    """The kernel of that name; a patch's commit names mainline as of that patch, a version what is known of it."""
    if name in NAMED:
        return NAMED[name]
    if name in PATCHES:
        return Point(AmxV6, f"mainline as of {PATCHES[name].title}", "mainline", upto=name)
    return _release(name, family(name), "the queue, and lists of fixed versions")


def model_of(release: Release) -> str | None:
    """The name of the revision that models a version: its own, or the newest one's; None for what is older than all."""
    if release.line < numbers(next(iter(MAINLINE))):
        return None
    newest = [*MAINLINE][-1]
    return ALIASES.get(release.name) or (newest if release.line >= numbers(newest) else release.name)


def family(name: str) -> str:
    """What a kernel is: ``posted``, ``mainline``, ``stable``, ``cured`` or, if a user brought it along, ``outside``."""
    families = {"posted": SERIES | _UNMERGED, "mainline": MAINLINE, "stable": _STABLE, "cured": _CURED}
    if name in PATCHES:
        return "mainline"
    release = release_of(name)
    other = "outside" if release is None else "stable" if release.number else "mainline"
    return next((family for family, kernels in families.items() if name in kernels), other)


def is_known(name: str) -> bool:
    """Whether :func:`named` knows the name."""
    if name in NAMED or name in PATCHES:
        return True
    release = release_of(name)
    return bool(release and model_of(release) == name)
