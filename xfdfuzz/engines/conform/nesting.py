"""The order in which operations ran.

Recordings list them in source order, where markers (fork .. endfork) show the nesting, or (``by_output``) as their
results appeared.  Then a begin marker and an end marker look alike, threads have only one, and the missing ones are put
back here from the contexts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from xfdfuzz.engines.conform.fields import Stopped
from xfdfuzz.engines.conform.recording import Fields, Operation, Recording

#: What a block is called inside.
_INSIDE = {"fork": "child", "thread": "thread", "clonevm": "clonevm"}
#: Not an operation of the harness: the one named by its argument goes on, while others wait.
SWITCH = "switch_to"


def in_order(recording: Recording) -> Iterator[Operation]:
    """The operations as they ran; raises :class:`Stopped` where that cannot be told."""
    if not recording.by_output:
        return iter(recording.operations)
    if any(operation.op == "thread_bg" for operation in recording.operations):
        return _interleaved(recording)
    return _nested(recording)


def _interleaved(recording: Recording) -> Iterator[Operation]:
    """A thread in the background: whoever has produced a result has run."""
    for operation in recording.operations:
        if operation.op == "thread_bg":
            continue
        kind = operation.context.split("/")[0]
        yield replace(operation, op=SWITCH, args=(kind,), result=Fields())
        yield operation


def _nested(recording: Recording) -> Iterator[Operation]:
    kinds = ["main"]
    for operation in recording.operations:
        path = operation.context.split("/")
        if path[-1].startswith("exec") and operation.op in _INSIDE:
            raise Stopped("an execve inside a block whose end cannot be told")
        inside = "main" if path[0].startswith("exec") else path[0]
        if operation.op == "thread":
            if kinds[-1] == "thread" and inside != "thread":
                kinds.pop()
                yield _end(operation, "thread")
            continue
        if operation.op in _INSIDE and "wait_status" in (operation.result or {}):
            yield from _close(operation, kinds)
            continue
        if inside != kinds[-1]:
            if inside != "thread":
                raise Stopped("a block whose end cannot be told")
            kinds.append("thread")
            yield replace(operation, op="thread", args=(), result=Fields())
        yield operation
        if operation.op in _INSIDE:
            kinds.append(_INSIDE[operation.op])


def _close(operation: Operation, kinds: list[str]) -> Iterator[Operation]:
    """The end of a fork or clonevm, and of the threads in it before."""
    while kinds[-1] != _INSIDE[operation.op]:
        if kinds[-1] != "thread":
            raise Stopped("a block whose end cannot be told")
        kinds.pop()
        yield _end(operation, "thread")
    kinds.pop()
    yield replace(operation, op=f"end{operation.op}")


def _end(operation: Operation, kind: str) -> Operation:
    return replace(operation, op=f"end{kind}", args=(), result=Fields())
