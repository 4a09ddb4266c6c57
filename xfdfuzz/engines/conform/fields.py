"""What is compared, and what is not."""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.engines.conform.recording import Fields, number


class Field(NamedTuple):
    """One thing that both the real kernel and the model have said."""

    name: str
    recorded: object
    model: object

    @property
    def equal(self) -> bool:
        """Whether they said the same."""
        return self.recorded == self.model


class NotCompared(Exception):
    """This operation is not judged; the text says what kind of thing it is and why."""


class NothingSelected(Exception):
    """The harness has no VM or vCPU to act on, and makes no call."""


class Stopped(NotCompared):
    """Nor is anything after it, because the state is no longer known."""


def returned(result: Fields) -> int:
    """What a system call returned, errors as negative numbers; raises :class:`Malformed`."""
    ret = number(result["ret"])
    return -number(result["errno"]) if ret == -1 else ret
