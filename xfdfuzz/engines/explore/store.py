"""Every state that was met: as little as is needed to know it again and to find back to it."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from xfdfuzz.engines.explore.digests import SIZE, Digests

#: Bytes that are kept together: what differs between two states is mostly in a few of such pieces.
_PIECE = 96
#: The bytes of a state's number.
_NUMBER = 4


class Transition(NamedTuple):
    """One op of a path, by its number in the scope, and the digest of the state that it leads to."""

    op: int
    digest: bytes


class Store:
    """States by number, in the order in which they were met: 0 is the first one."""

    def __init__(self, first: bytes) -> None:
        self._numbers = Digests(_NUMBER)
        self._groups, self._parents, self._ops = array("H"), array("I"), array("H")
        self.add(first, 0, 0)

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, digest: bytes) -> int | None:
        """The number of the state with a digest, if it was met."""
        found = self._numbers.get(digest)
        return None if found is None else int.from_bytes(found)

    def add(self, digest: bytes, parent: int, op: int) -> int:
        """Number a new state, first met by ``op`` from ``parent``."""
        number = len(self._numbers)
        self._groups.append(self._numbers.add(digest, number.to_bytes(_NUMBER)))
        self._parents.append(parent)
        self._ops.append(op)
        return number

    def digest(self, number: int) -> bytes:
        """The digest of the state with a number."""
        wanted = number.to_bytes(_NUMBER)
        return next(digest for digest, value in self._numbers.group(self._groups[number]) if value == wanted)

    def path(self, number: int) -> list[Transition]:
        """A shortest path from the first state."""
        backwards = []
        while number:
            backwards.append(Transition(self._ops[number], self.digest(number)))
            number = self._parents[number]
        return backwards[::-1]

    def to_bytes(self) -> dict[str, bytes]:
        """Everything, by the name of a frontier's member: digests, parents and ops, each in the order of numbers."""
        digests = bytearray(SIZE * len(self))
        for digest, value in self._numbers:
            at = SIZE * int.from_bytes(value)
            digests[at : at + SIZE] = digest
        return {"digests": bytes(digests), "parents": self._parents.tobytes(), "ops": self._ops.tobytes()}

    @classmethod
    def from_bytes(cls, members: dict[str, bytes]) -> Store:
        """What :meth:`to_bytes` gave; raises ValueError if that cannot be."""
        digests, parents, ops = members["digests"], array("I"), array("H")
        parents.frombytes(members["parents"])
        ops.frombytes(members["ops"])
        if not parents or len(parents) != len(ops) or len(digests) != SIZE * len(parents):
            raise ValueError("it has not as many digests, parents and ops")
        store = cls(digests[:SIZE])
        for number in range(1, len(parents)):
            digest = digests[SIZE * number : SIZE * (number + 1)]
            if store.number(digest) is not None or parents[number] >= number:
                raise ValueError(f"its state {number} is an earlier one or comes from a later one")
            store.add(digest, parents[number], ops[number])
        return store


class Pieces:
    """Keeps the bytes of many states that are alike: in pieces, each different one once.

    SPIN calls it collapse compression.
    """

    def __init__(self) -> None:
        self._pieces: dict[bytes, bytes] = {}

    def of(self, packed: bytes) -> tuple[bytes, ...]:
        """The pieces of a state; joined they are its bytes."""
        pieces = [packed[at : at + _PIECE] for at in range(0, len(packed), _PIECE)]
        return tuple([self._pieces.setdefault(piece, piece) for piece in pieces])
