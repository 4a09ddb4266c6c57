"""Where the functions of a revision stand in the kernel, and which patch brought the form that they have there.

Docstrings say it.  One begins with the kernel's name where the method has another, ``fpu__drop(): ...``; parentheses in
its first paragraph cite the file and the commit, mail or patch of the series: ``(fpu/core.c, 0781d60f658e)``,
``(x86.c, patches 12 and 13)``.  The end of a path will do.  Where no file is cited, it is that of the method that is
replaced, or the only one that the module's docstring cites; where no commit is, the class is the patch, or v5.16.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType
from typing import NamedTuple

from xfdfuzz.kernel.base import PHASES, SEAMS, kernel_name
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.revisions import Revision, resolve

#: What is as it was before any posting and any patch of the queue.
BASE = "v5.16"
#: The files that docstrings cite by the end of their paths.  Where two end alike, the first one is meant.
FILES = (
    "arch/x86/include/asm/entry-common.h",
    "arch/x86/include/asm/fpu/api.h",
    "arch/x86/include/asm/fpu/sched.h",
    "arch/x86/include/asm/msr.h",
    "arch/x86/include/asm/pkru.h",
    "arch/x86/kernel/fpu/context.h",
    "arch/x86/kernel/fpu/core.c",
    "arch/x86/kernel/fpu/legacy.h",
    "arch/x86/kernel/fpu/regset.c",
    "arch/x86/kernel/fpu/signal.c",
    "arch/x86/kernel/fpu/xstate.c",
    "arch/x86/kernel/fpu/xstate.h",
    "arch/x86/include/asm/fpu/xstate.h",
    "arch/x86/kvm/cpuid.c",
    "arch/x86/kvm/cpuid.h",
    "arch/x86/kvm/lapic.c",
    "arch/x86/kvm/lapic.h",
    "arch/x86/kvm/regs.c",
    "arch/x86/kvm/vmx/nested.c",
    "arch/x86/kvm/vmx/vmx.c",
    "arch/x86/kvm/x86.c",
    "arch/x86/kvm/x86.h",
)

#: ``name():`` or ``name(argument) (file)``, but no ``name(2)``, which is a system call.
_NAME = re.compile(r"(\w+)\((?!2\))[^()]*\)(?=[.,:;]| \()")
#: A parenthesis, in which ``name()`` may stand.
_PARENTHESIS = re.compile(r"\(((?:[^()]|\(\))*)\)")
_FILE = re.compile(r"[\w./-]*\w\.[chS]\b")
_ORIGIN = re.compile(rf"\b(?:[0-9a-f]{{12}}|{re.escape(BASE)}|[\w.-]+@[\w.-]+\w)\b")
_PATCHES = re.compile(r"\bpatch(?:es)? (\d+(?:(?:, | and )\d+)*)")


class Citation(NamedTuple):
    """What a docstring says of its source.

    The function, if it begins with one; files; commits, Message-Ids or v5.16; numbers of patches within the series.
    """

    function: str
    files: tuple[str, ...]
    origin: tuple[str, ...]
    patches: tuple[int, ...]


def cited(doc: str | None) -> Citation:
    """What the first paragraph of a docstring cites."""
    first = inspect.cleandoc(doc or "").split("\n\n")[0].replace("\n", " ")
    name = _NAME.match(first)
    inside = "; ".join(_PARENTHESIS.findall(first))
    numbers = " ".join(_PATCHES.findall(inside))
    return Citation(
        name[1] if name else "",
        tuple(map(full_path, _FILE.findall(inside))),
        tuple(_ORIGIN.findall(inside)),
        tuple(map(int, re.findall(r"\d+", numbers))),
    )


def full_path(end: str) -> str:
    """The path of a file from the top of the kernel's tree: arch/x86/kernel/fpu/core.c for ``fpu/core.c``."""
    return next((file for file in FILES if f"/{file}".endswith(f"/{end}")), end)


def patch_mail(cover: str, number: int) -> str:
    """The Message-Id of a patch, from its cover letter's; that one's own where git did not number the mails."""
    return re.sub(r"^(\d+\.\d+)-1-", rf"\g<1>-{number + 1}-", cover)


class Source(NamedTuple):
    """Where a kernel function stands.

    ``function`` is its name there; ``file`` is None if nothing cites one.  ``origin``: what last replaced the function
    or a part of it, as commits, names of patches without one, or Message-Ids; else v5.16.  ``inferred``: that was not
    read in a source.
    """

    function: str
    file: str | None
    origin: tuple[str, ...]
    inferred: bool


class _Definition(NamedTuple):
    """A method as one class has it."""

    cls: type
    method: str
    function: FunctionType

    @property
    def citation(self) -> Citation:
        return cited(self.function.__doc__)

    @property
    def inferred(self) -> bool:
        return "INFERRED" in (self.function.__doc__ or "")

    @property
    def module_doc(self) -> str:
        return sys.modules[self.cls.__module__].__doc__ or ""

    @property
    def file(self) -> str | None:
        """The file that it cites, or else the only one that its module does."""
        files = self.citation.files[:1] or cited(self.module_doc).files
        return files[0] if len(files) == 1 else None


class Sources(Mapping[str, Source]):
    """The functions of a revision, by the names that call traces have for them."""

    def __init__(self, revision: Revision) -> None:
        self._classes = revision.kernel.__mro__
        self._commits = {patch.cls: patch.commit for patch in revision.patches}
        self._methods: dict[str, list[str]] = {}
        for method in dict.fromkeys(name for cls in self._classes for name in vars(cls)):
            # a private method without a docstring is the model's own, as a seam is
            if method not in SEAMS and any(one.function.__doc__ for one in self._definitions(method)):
                self._methods.setdefault(kernel_name(method), []).append(method)

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def __getitem__(self, function: str) -> Source:
        definitions = [one for method in self._methods[function] for one in self._definitions(method)]
        named = next((one.citation.function for one in definitions if one.citation.function), function)
        if definitions[0].method in PHASES:
            named = function
        file = next((one.file for one in definitions if one.file), None)
        return Source(named, file, *self._origin(function))

    def _definitions(self, method: str) -> list[_Definition]:
        """Those of all classes, the one that is called first."""
        found = [(cls, vars(cls).get(method)) for cls in self._classes]
        return [_Definition(cls, method, function) for cls, function in found if isinstance(function, FunctionType)]

    def _executed(self, function: str) -> list[_Definition]:
        """All that is executed as the function: its phases, what they build on, and the seams that they call."""
        found: list[_Definition] = []
        methods = list(self._methods[function])
        for method in methods:
            for definition in self._definitions(method):
                found.append(definition)
                names = definition.function.__code__.co_names
                methods += [name for name in names if name in SEAMS and name not in methods]
                if "super" not in names:
                    break
        return found

    def _origin(self, function: str) -> tuple[tuple[str, ...], bool]:
        """What the latest class with a part of it says, and whether that is inferred.

        The order of the classes is that of the patches, the last one first.
        """
        executed = self._executed(function)
        for cls in self._classes:
            here = [one for one in executed if one.cls is cls]
            # functions may share a seam, so what the function itself says comes first
            parts = [one for one in here if one.method not in SEAMS] or here
            origin = self._brought(cls, [one.citation for one in parts]) if parts else ()
            if origin:
                return origin, any(one.inferred for one in parts)
        whole = executed[0]
        return (BASE,), whole.inferred or "INFERRED" in whole.module_doc

    def _brought(self, cls: type, parts: Sequence[Citation]) -> tuple[str, ...]:
        """What brought these parts, all of one class; nothing if that cannot be said."""
        origin = [name for part in parts for name in part.origin]
        default: tuple[str, ...] = ()
        if cls in self._commits:
            default = (self._commits[cls],)
        elif "revision" in vars(cls) and not issubclass(Kernel, cls):
            cover = resolve(vars(cls)["revision"]).source
            origin += [patch_mail(cover, number) for part in parts for number in part.patches]
            default = (cover,)
        return tuple(dict.fromkeys(origin)) or default
