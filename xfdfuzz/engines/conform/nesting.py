"""The order in which operations ran.

Recordings list them in source order, where markers (fork .. endfork) show the nesting, or (``by_output``) as their
results appeared.  Then a begin marker and an end marker look alike, threads have only one, and the missing ones are put
back here from the contexts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from xfdfuzz.engines.conform.choices import Choices
from xfdfuzz.engines.conform.fields import Stopped
from xfdfuzz.engines.conform.recording import Fields, Operation, Recording

#: What a block is called inside.
_INSIDE = {"fork": "child", "thread": "thread", "clonevm": "clonevm"}
#: Not an operation of the harness: the one named by its argument goes on, while others wait.
SWITCH = "switch_to"


def in_order(recording: Recording, choices: Choices) -> Iterator[Operation]:
    """The operations as they ran, as far as that is told, else as ``choices`` says; raises :class:`Stopped`."""
    if not recording.by_output:
        return iter(recording.operations)
    if any(operation.op == "thread_bg" for operation in recording.operations):
        return _interleaved(recording)
    return _nested(recording, choices)


def _interleaved(recording: Recording) -> Iterator[Operation]:
    """Threads in the background: whoever has produced a result has run.

    A thread's first result may have come before that of the operation that made it.
    """
    to_begin = [operation for operation in recording.operations if operation.op == "thread_bg"]
    alive = 0
    for operation in recording.operations:
        if operation.op == "thread_bg":
            if operation in to_begin:
                to_begin.remove(operation)
                alive += 1
                yield operation
            continue
        kind = operation.context.split("/")[0]
        if kind == "thread" and not alive and to_begin:
            alive += 1
            yield to_begin.pop(0)
        if operation.op == "join":
            alive = 0
        else:
            yield replace(operation, op=SWITCH, args=(kind,), result=Fields())
        yield operation


def _nested(recording: Recording, choices: Choices) -> Iterator[Operation]:
    kinds, images = ["main"], _ExecBlocks(choices)
    for operation in recording.operations:
        path = operation.context.split("/")
        inside = "main" if path[0].startswith("exec") else path[0]
        if path[-1].startswith("exec"):
            yield from images.ended_before(operation)
            if operation.op in _INSIDE and "wait_status" not in (operation.result or {}):
                yield from images.marker(operation)
                continue
        elif images.open:
            yield from images.end_all(operation)
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


class _ExecBlocks:
    """Blocks in an image that execve() has started: contexts do not tell what is in them, and markers look alike.

    ``open`` are their kinds and how many execve() had been before, from the outside to the inside.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.open: list[tuple[str, str]] = []

    def marker(self, operation: Operation) -> Iterator[Operation]:
        """A block begins, or has begun and ended, or the innermost one ends."""
        image = operation.context.split("/")[-1]
        answers = ["begins", "is empty", *(["ends"] if self.open and self.open[-1][0] == operation.op else [])]
        taken = self.choices.choose(f"ops[{operation.index}]: {operation.op}", *answers)
        if taken == 2:
            yield from self._end(operation)
            return
        yield operation
        self.open.append((operation.op, image))
        if taken == 1:
            yield from self._end(operation)

    def ended_before(self, operation: Operation) -> Iterator[Operation]:
        """The blocks that are over before an operation of such an image."""
        image = operation.context.split("/")[-1]
        while self.open:
            inside = len(image) > len(self.open[-1][1]) or operation.op in _INSIDE
            if inside or not self.choices.choose(f"ops[{operation.index}] in {self.open[-1][0]}", "inside", "after it"):
                return
            yield from self._end(operation)

    def end_all(self, operation: Operation) -> Iterator[Operation]:
        """An operation of another image follows."""
        while self.open:
            yield from self._end(operation)

    def _end(self, operation: Operation) -> Iterator[Operation]:
        yield _end(operation, self.open.pop()[0])


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
