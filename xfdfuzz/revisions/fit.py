"""Whether the patches of a series from outside the tree fit what they are put on.

Python takes a method with a typing error in its name for a new one, which nobody calls: such a series would be found
clean because it changes nothing.  So a method replaces one, or is called by one that does: that is a helper of the
series' own.  A new one that is for something else is marked ``@seam``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

from xfdfuzz.kernel.base import SEAMS, KernelBase
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.revisions.queue import Patch, RevisionError


def check_fit(place: str, below: type[Kernel], patches: Sequence[Patch]) -> None:
    """Each patch in turn replaces what ``below``, and the patches before it, have, and can be called as that is.

    Raises RevisionError, ``FILE:LINE: ...``, for the first method that does not, and ``place: ...`` for patches that
    replace nothing.
    """
    there: dict[str, Any] = {name: inspect.getattr_static(below, name) for name in dir(below)}
    replaced = [name for p in patches for name in _members(p.cls) if name in there]
    called = _called(there, patches)
    for p in patches:
        members = _members(p.cls)
        if members and not issubclass(p.cls, KernelBase):
            raise _error(p.cls, p.cls, f"{p.cls.__name__} is expected to subclass the class whose methods it replaces")
        for name, value in members.items():
            if name in there:
                _check_call(p.cls, name, value, there[name])
            elif name not in called and name not in SEAMS:
                _refuse(p.cls, name, value, there)
        there.update(members)
    if not replaced:
        raise RevisionError(
            f"{place}: the series replaces nothing: expected a class for each patch, @series.patch(...)"
        )


def _members(cls: type) -> dict[str, Any]:
    """What a patch class defines, but for what is Python's own."""
    return {name: value for name, value in vars(cls).items() if not name.startswith("__")}


def _called(there: Mapping[str, Any], patches: Sequence[Patch]) -> set[str]:
    """The names that replacing methods mention, and the functions that they call in turn."""
    members = [(name, value) for p in patches for name, value in _members(p.cls).items()]
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [value for name, value in members if name in there or name in SEAMS]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        waiting += _parts(value)
        if isinstance(value, FunctionType):
            names = _names(value.__code__)
            found |= names
            waiting += [one for name, one in members if name in names]
            around = [value.__globals__.get(name) for name in names]
            waiting += [one for one in around if getattr(one, "__module__", None) == value.__module__]
    return found


def _parts(value: Any) -> list[Any]:
    """What a property or a decorated method is made of: its functions are among them."""
    made_of = [getattr(value, name, None) for name in ("__func__", "fget", "func", "__wrapped__")]
    cells = getattr(value, "__closure__", None) or ()
    return [part for part in (*made_of, *(cell.cell_contents for cell in cells)) if part is not None]


def _names(code: CodeType) -> set[str]:
    """What code mentions: attributes, names, and texts, which getattr() may be given."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    texts = {constant for constant in code.co_consts if isinstance(constant, str)}
    return texts.union(code.co_names, *map(_names, inner))


def _check_call(cls: type, name: str, value: Any, replaced: Any) -> None:
    """Raise RevisionError where the one cannot be called as the other is."""
    if not isinstance(replaced, FunctionType):
        if isinstance(value, FunctionType):
            raise _error(cls, value, f"{name} is no function in what it replaces")
        return
    if not callable(value) and not isinstance(value, staticmethod | classmethod):
        raise _error(cls, value, f"{name} is a function in what it replaces")
    if not isinstance(value, FunctionType):
        return
    ours, theirs = inspect.signature(value), inspect.signature(replaced)
    for optional in (False, True):
        wanted = [p for p in theirs.parameters.values() if optional or p.default is p.empty]
        named = {p.name: None for p in wanted if p.kind is p.KEYWORD_ONLY}
        try:
            ours.bind(*[None] * (len(wanted) - len(named)), **named)
        except TypeError:
            message = f"{name}{_plain(ours)} cannot be called as what it replaces, {name}{_plain(theirs)}"
            raise _error(cls, value, message) from None


def _plain(signature: inspect.Signature) -> str:
    """The parameters without their types."""
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def _refuse(cls: type, name: str, value: Any, there: Mapping[str, Any]) -> None:
    """Raise RevisionError with the nearest name that would replace something.

    What cannot be called and resembles nothing there is a constant for the class' own definition.
    """
    # Python puts the class before a name with two underscores
    name = name.removeprefix(f"_{cls.__name__.lstrip('_')}") if "__" in name else name
    near = difflib.get_close_matches(name, [known for known in there if not known.startswith("__")], 1)
    if near:
        raise _error(cls, value, f"{name} replaces nothing: did you mean {near[0]}?")
    if any(isinstance(part, FunctionType) for part in (value, *_parts(value))):
        expected = "expected a function of the kernel's, or a helper of one, or @seam"
        raise _error(cls, value, f"{name} replaces nothing: {expected}")


def _error(cls: type, value: Any, message: str) -> RevisionError:
    """With the file and the line of a function, or else of the class."""
    functions = [one for one in (inspect.unwrap(value), *_parts(value)) if isinstance(one, FunctionType)]
    where = functions[0] if functions else cls
    return RevisionError(f"{inspect.getsourcefile(where)}:{inspect.getsourcelines(where)[1]}: {message}")
