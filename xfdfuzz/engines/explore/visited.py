"""The states that a process has visited and what it knows of each, so that it does no work twice.

It is a cache: what is forgotten is worked out, and told of, again.
"""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.engines.explore.digests import SIZE, Digests
from xfdfuzz.engines.explore.interned import Interned

#: So many states are remembered at most, and so many different labels (a label's number is one byte).
_STATES, _LABELS = 1_000_000, 256


class Label(NamedTuple):
    """What is known of a state.

    ``canonical``: it is its own canonical form.  ``broken``: a state invariant is broken in it.  ``pending`` names the
    invariants that find something in it which must not wait for ever.
    """

    canonical: bool
    broken: bool
    pending: tuple[str, ...]


class Visited:
    """A label by a state's digest, and for a state that is not canonical the digest of its canonical form."""

    def __init__(self) -> None:
        self._numbers = Digests(1)
        self._forms = Digests(SIZE)
        self._labels: Interned[Label] = Interned()

    @property
    def full(self) -> bool:
        """Whether there is no room for another state: it is time to begin with an empty one."""
        return len(self._numbers) >= _STATES or len(self._labels) == _LABELS

    def label(self, digest: bytes) -> Label | None:
        """What is known of a state; None if it was not visited."""
        number = self._numbers.get(digest)
        return None if number is None else self._labels[number[0]]

    def form(self, digest: bytes) -> bytes:
        """The digest of the canonical form of a visited state."""
        return self._forms.get(digest) or digest

    def add(self, digest: bytes, form: bytes, label: Label) -> None:
        """A state that was not visited before, whose canonical form has the digest ``form``."""
        self._numbers.add(digest, bytes([self._labels.number(label)]))
        if not label.canonical:
            self._forms.add(digest, form)
