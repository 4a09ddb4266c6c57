"""The states that a process has told of, and what it knows of them, so that no work is done twice."""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.engines.explore.digests import HEAD, SIZE, Digests

#: So many states are remembered at most, and so many different remarks.
_STATES, _REMARKS = 1_000_000, 256


class Remark(NamedTuple):
    """What is known of a state.

    Whether it is canonical itself, whether a state invariant is broken in it, and by which ones something waits there.
    """

    canonical: bool
    blemished: bool
    pending: tuple[str, ...]


class Told(Digests):
    """A remark for each state, and for those that are not canonical the digest of their canonical form."""

    def __init__(self) -> None:
        super().__init__(1)
        self._forms = Digests(SIZE)
        self._remarks: list[Remark] = []
        self._numbers: dict[Remark, int] = {}

    @property
    def full(self) -> bool:
        """Whether it is time to forget everything."""
        return len(self) >= _STATES or len(self._remarks) == _REMARKS

    def remark(self, digest: bytes) -> Remark | None:
        """What is known of a state, if it was told of."""
        # get() in place, as this is asked for every transition; one byte of others' cannot pass for a part of a digest
        group = self._groups[digest[0] << 8 | digest[1]]
        at = group.find(digest[HEAD:])
        return None if at < 0 else self._remarks[group[at + SIZE - HEAD]]

    def form(self, digest: bytes) -> bytes:
        """The digest of the canonical form of a state that was told of."""
        return self._forms.get(digest) or digest

    def tell(self, digest: bytes, form: bytes, remark: Remark) -> None:
        """Of one more state, with the digest of its canonical form."""
        number = self._numbers.setdefault(remark, len(self._remarks))
        if number == len(self._remarks):
            self._remarks.append(remark)
        self.add(digest, bytes([number]))
        if not remark.canonical:
            self._forms.add(digest, form)
