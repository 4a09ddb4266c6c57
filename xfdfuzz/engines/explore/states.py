"""Every state that was met, as little as is needed to know it again and to find back to it."""

from __future__ import annotations

from array import array
from typing import NamedTuple

#: Bytes that are kept together: what differs between two states is mostly in a few of such pieces.
_PIECE = 96


class Hop(NamedTuple):
    """One op of a path, by its number in the scope, and the digest of the state that it leads to."""

    op: int
    digest: bytes


class States:
    """States by number, in the order in which they were met: 0 is the first one."""

    def __init__(self, first: bytes) -> None:
        self._known = {first}
        self._digests = [first]
        self._parents = array("q", [-1])
        self._ops = array("H", [0])

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def add(self, digest: bytes, parent: int, op: int) -> int:
        """Number a new state, first met by ``op`` from ``parent``."""
        self._known.add(digest)
        self._digests.append(digest)
        self._parents.append(parent)
        self._ops.append(op)
        return len(self._digests) - 1

    def digest(self, number: int) -> bytes:
        """The digest of a state."""
        return self._digests[number]

    def numbers(self) -> dict[bytes, int]:
        """The number of every state by its digest."""
        return {digest: number for number, digest in enumerate(self._digests)}

    def path(self, number: int) -> list[Hop]:
        """A shortest path from the first state."""
        hops = []
        while number:
            hops.append(Hop(self._ops[number], self._digests[number]))
            number = self._parents[number]
        return hops[::-1]

    def to_bytes(self) -> dict[str, bytes]:
        """Everything, by member."""
        digests = b"".join(self._digests)
        return {"digests": digests, "parents": self._parents.tobytes(), "ops": self._ops.tobytes()}

    @classmethod
    def from_bytes(cls, members: dict[str, bytes], size: int) -> States:
        """What :meth:`to_bytes` gave, with digests of ``size`` bytes; raises ValueError if that cannot be."""
        digests = members["digests"]
        states = cls(b"")
        states._digests = [digests[at : at + size] for at in range(0, len(digests), size)]
        states._known = set(states._digests)
        states._parents, states._ops = array("q"), array("H")
        states._parents.frombytes(members["parents"])
        states._ops.frombytes(members["ops"])
        if not len(states._known) == len(states._parents) == len(states._ops):
            raise ValueError("its parts do not belong together")
        return states


class Pieces:
    """Keeps the bytes of many states that are alike: in pieces, each different one once."""

    def __init__(self) -> None:
        self._pieces: dict[bytes, bytes] = {}

    def thin(self, packed: bytes) -> tuple[bytes, ...]:
        """The pieces of a state; join them to have it back."""
        pieces = [packed[at : at + _PIECE] for at in range(0, len(packed), _PIECE)]
        return tuple([self._pieces.setdefault(piece, piece) for piece in pieces])
