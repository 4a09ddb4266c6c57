"""Very many digests in little memory, as a hash table of strings of bytes."""

from __future__ import annotations

from collections.abc import Iterator

#: The bytes of a digest: 128 bits.  The first ones choose its group, the rest is searched for there.
SIZE, HEAD = 16, 2
_REST = SIZE - HEAD


class Digests:
    """Digests, and with each ``size`` bytes that are found by it.

    In a set of bytes each one would take 64 bytes, and as many again for the set.  Here those that begin alike are one
    string of bytes, a digest's rest after the other, each with what belongs to it.
    """

    def __init__(self, size: int) -> None:
        self._step = _REST + size
        self._groups = [b""] * 256**HEAD
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Each digest with what belongs to it, in no order that means anything."""
        for number in range(len(self._groups)):
            yield from self.group(number)

    def get(self, digest: bytes) -> bytes | None:
        """What belongs to a digest: ``size`` bytes, or None for one that was not added."""
        group = self._groups[digest[0] << 8 | digest[1]]
        rest = digest[HEAD:]
        at = group.find(rest)
        while at > 0 and at % self._step:  # that was in what belongs to others
            at = group.find(rest, at + 1)
        return None if at < 0 else group[at + _REST : at + self._step]

    def add(self, digest: bytes, value: bytes) -> int:
        """Add a digest that is not here yet, with the ``size`` bytes that belong to it; the number of its group."""
        number = digest[0] << 8 | digest[1]
        self._groups[number] += digest[HEAD:] + value
        self._count += 1
        return number

    def group(self, number: int) -> Iterator[tuple[bytes, bytes]]:
        """The digests of a group, each with what belongs to it."""
        group, head = self._groups[number], number.to_bytes(HEAD)
        for at in range(0, len(group), self._step):
            yield head + group[at : at + _REST], group[at + _REST : at + self._step]
