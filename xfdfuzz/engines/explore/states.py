"""Every state that was met, as little as is needed to know it again and to find back to it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple


class Hop(NamedTuple):
    """One op of a path, by its number in the scope, and the digest of the state that it leads to."""

    op: int
    digest: bytes


class States:
    """States by number, in the order in which they were met: 0 is the first one."""

    def __init__(self, first: bytes) -> None:
        self._numbers: dict[bytes, int] = {first: 0}
        self._parents = array("q", [-1])
        self._ops = array("H", [0])

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, digest: bytes) -> int | None:
        """The number of the state with that digest, None if it was never met."""
        return self._numbers.get(digest)

    def add(self, digest: bytes, parent: int, op: int) -> int:
        """Number a new state, first met by ``op`` from ``parent``."""
        number = self._numbers[digest] = len(self._numbers)
        self._parents.append(parent)
        self._ops.append(op)
        return number

    def path(self, number: int) -> list[Hop]:
        """A shortest path from the first state."""
        numbers = []
        while number:
            numbers.append(number)
            number = self._parents[number]
        numbers.reverse()
        return [Hop(self._ops[one], digest) for one, digest in zip(numbers, self.digests(numbers), strict=True)]

    def digests(self, numbers: Sequence[int]) -> list[bytes]:
        """The digests of some states; it takes a walk over all."""
        wanted = set(numbers)
        found = {number: digest for digest, number in self._numbers.items() if number in wanted}
        return [found[number] for number in numbers]

    def to_bytes(self) -> dict[str, bytes]:
        """Everything, by member."""
        digests = b"".join(self._numbers)
        return {"digests": digests, "parents": self._parents.tobytes(), "ops": self._ops.tobytes()}

    @classmethod
    def from_bytes(cls, members: dict[str, bytes], size: int) -> States:
        """What :meth:`to_bytes` gave, with digests of ``size`` bytes; raises ValueError if that cannot be."""
        digests = members["digests"]
        states = cls(b"")
        states._numbers = {digests[i : i + size]: i // size for i in range(0, len(digests), size)}
        states._parents, states._ops = array("q"), array("H")
        states._parents.frombytes(members["parents"])
        states._ops.frombytes(members["ops"])
        if not len(states._numbers) == len(states._parents) == len(states._ops):
            raise ValueError("its parts do not belong together")
        return states
