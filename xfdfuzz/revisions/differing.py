"""The functions in which two kernels differ, and what each of the two executes for them."""

from __future__ import annotations

from types import FunctionType
from typing import NamedTuple

from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.revisions.labels import Revision, base_of
from xfdfuzz.revisions.queue import RevisionError
from xfdfuzz.revisions.table import named

#: What a call comes to: the definition of the last patch, and those that it builds on.
Definitions = tuple[FunctionType, ...]


class Differing(NamedTuple):
    """A function as two kernels have it; a kernel that lacks it has no definition."""

    name: str
    first: Definitions
    second: Definitions

    @property
    def removed(self) -> Definitions:
        """What only the first one executes."""
        return tuple(one for one in self.first if one not in self.second)

    @property
    def added(self) -> Definitions:
        """What only the second one executes."""
        return tuple(one for one in self.second if one not in self.first)


def differing(first: type[Kernel], second: type[Kernel]) -> tuple[Differing, ...]:
    """Every function in which they differ, in the order of their names."""
    names = {name for kernel in (first, second) for cls in kernel.__mro__ for name in vars(cls)}
    both = (Differing(name, _executed(first, name), _executed(second, name)) for name in sorted(names))
    return tuple(one for one in both if one.first != one.second)


def _executed(kernel: type[Kernel], name: str) -> Definitions:
    found: list[FunctionType] = []
    for cls in kernel.__mro__:
        function = vars(cls).get(name)
        if isinstance(function, FunctionType):
            found.append(function)
            if "super" not in function.__code__.co_names:
                break
    return tuple(found)


def below(revision: Revision) -> type[Kernel] | None:
    """The kernel that a revision's patches stand on; None if it has none."""
    try:
        return base_of(revision).kernel
    except RevisionError:
        return named(revision.name).base if revision.patches else None
