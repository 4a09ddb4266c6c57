"""The places at which a kernel warns or gives up: every WARN_ON(), KVM_BUG_ON() and BUG of a revision.

They are calls in the methods of the revision's class, so they are read off its source; what is called when, a kernel
made by :func:`noting` tells.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType, FunctionType
from typing import Any

from xfdfuzz.kernel.base import SEAMS, kernel_name
from xfdfuzz.kernel.event import OOPS, WARN, XRSTOR_FAULT
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.revisions import Revision
from xfdfuzz.revisions.sources import Source, Sources

#: What each call is in the kernel, by its name and the kind of report that it makes.
_CALLS = {
    ("warn_on", ""): "WARN_ON",
    ("kvm_bug_on", ""): "KVM_BUG_ON",
    ("report", "WARN"): "WARN",
    ("die", "OOPS"): "BUG",
    ("die", "XRSTOR_FAULT"): "die",
}
#: The constants of those kinds, as reports have them.
_KINDS = {"WARN": WARN, "OOPS": OOPS, "XRSTOR_FAULT": XRSTOR_FAULT}
#: The methods that make the calls for others.
_OWN = frozenset({"warn_on", "kvm_bug_on", "die"})


@dataclass(frozen=True)
class Site:
    """One place.

    ``what`` it is: ``WARN_ON``, ``KVM_BUG_ON``, ``WARN``, ``BUG`` or ``die``; ``function`` as call traces have it, and
    the ``condition`` as the model writes it, empty where the place is all.  ``tells``: the model asks there even where
    nothing is wrong, so that it is known whether the place was reached.
    """

    what: str
    function: str
    condition: str
    file: str
    first: int
    last: int

    @property
    def tells(self) -> bool:
        """Whether a kernel made by :func:`noting` tells that it was reached."""
        return self.what in ("WARN_ON", "KVM_BUG_ON")

    def __str__(self) -> str:
        return f"{self.what}({self.condition}) in {self.function}"


def sites(revision: Revision) -> list[Site]:
    """Those of a revision, by file and line of the model."""
    every = list(executable(revision.kernel))
    found = {site for function in every for site in _in_function(function, every)}
    return sorted(
        (site for site in found if site.function not in _OWN), key=lambda site: (site.function, site.file, site.first)
    )


def sources(revision: Revision, every: list[Site]) -> Mapping[Site, Source]:
    """Where the kernel has them, of those of which that is known."""
    known = Sources(revision)
    return {site: known[site.function] for site in every if site.function in known}


def executable(kernel: type[Kernel]) -> Iterator[FunctionType]:
    """The methods that can run: of each name the first one, and those that it builds on."""
    for name in dict.fromkeys(name for cls in kernel.__mro__ for name in vars(cls)):
        for cls in kernel.__mro__:
            function = vars(cls).get(name)
            if isinstance(function, FunctionType):
                yield function
                if "super" not in function.__code__.co_names:
                    break


def _in_function(function: FunctionType, every: Sequence[FunctionType]) -> Iterator[Site]:
    if not {"warn_on", "kvm_bug_on", "report", "die"} & {*function.__code__.co_names}:
        return
    file = function.__code__.co_filename
    lines, start = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    shown = _in_traces(function.__name__, every)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (what := _called(node)):
            condition = _condition(node, what)
            end = node.end_lineno or node.lineno
            yield Site(what, shown, condition, file, start + node.lineno - 1, start + end - 1)


def _in_traces(name: str, every: Sequence[FunctionType]) -> str:
    """What call traces call a method; a seam that one function alone has is a part of that one."""
    if name not in SEAMS:
        return kernel_name(name)
    callers = {one.__name__ for one in every if name in one.__code__.co_names} - {name}
    shown = {_in_traces(caller, every) for caller in callers}
    return shown.pop() if len(shown) == 1 else name


def _called(node: ast.Call) -> str:
    """What the call is in the kernel; empty for any other."""
    called = node.func
    if not isinstance(called, ast.Attribute) or not isinstance(called.value, ast.Name) or called.value.id != "self":
        return ""
    kind = node.args[0].id if node.args and isinstance(node.args[0], ast.Name) else ""
    return _CALLS.get((called.attr, "" if called.attr in ("warn_on", "kvm_bug_on") else kind), "")


def _condition(node: ast.Call, what: str) -> str:
    if what not in ("WARN_ON", "KVM_BUG_ON"):
        return ""
    return ast.unparse(node.args[-1]).replace("self.", "")


# -- what happens there ------------------------------------------------------------------------------------------------


@dataclass
class Sightings:
    """What a kernel made by :func:`noting` tells of: the sites ``reached`` so far, and those that ``fired`` since
    somebody cleared that."""

    sites: list[Site]
    reached: set[Site] = field(default_factory=set)
    fired: set[Site] = field(default_factory=set)
    _by_line: dict[tuple[str, int], Site] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._by_line = {(one.file, line): one for one in self.sites for line in range(one.first, one.last + 1)}

    def note(self, frame: FrameType, fires: bool) -> None:
        """A call stands there."""
        site = self._by_line.get((frame.f_code.co_filename, frame.f_lineno))
        if site is not None:
            self.reached.add(site)
            if fires:
                self.fired.add(site)


def noting(kernel: type[Kernel], sightings: Sightings) -> type[Kernel]:
    """The same kernel, which tells of its sites."""
    base: Any = kernel

    class Noting(base):  # type: ignore[misc]
        """A kernel that tells where it warns; the methods are named as those that they stand for."""

        def warn_on(self, condition: object) -> bool:
            sightings.note(sys._getframe(1), bool(condition))
            return bool(super().warn_on(condition))

        def kvm_bug_on(self, vcpu: Any, condition: object) -> bool:
            sightings.note(sys._getframe(1), bool(condition))
            return bool(super().kvm_bug_on(vcpu, condition))

        def report(self, kind: str, *detail: int, site: str | None = None) -> None:
            sightings.note(sys._getframe(1), kind in _KINDS.values())
            super().report(kind, *detail, site=site)

        def die(self, kind: str, *detail: int) -> None:
            sightings.note(sys._getframe(1), True)
            super().die(kind, *detail)

    Noting.__name__ = kernel.__name__
    found: type[Kernel] = Noting
    return found
