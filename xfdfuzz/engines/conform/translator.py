"""Who translates which operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from xfdfuzz.engines.conform.fields import Field
from xfdfuzz.engines.conform.recording import Operation
from xfdfuzz.engines.conform.session import Session

Translate: TypeAlias = Callable[[Session, Operation], Iterator[Field]]

#: By the operation's name; the modules :mod:`host`, :mod:`ioctls` and :mod:`guest` fill it.
TRANSLATORS: dict[str, Translate] = {}


def translates(*operations: str) -> Callable[[Translate], Translate]:
    """The function executes these operations and yields what is to be compared.

    It raises :class:`~xfdfuzz.engines.conform.fields.NotCompared` where nothing can be.
    """

    def register(function: Translate) -> Translate:
        TRANSLATORS.update(dict.fromkeys(operations, function))
        return function

    return register
