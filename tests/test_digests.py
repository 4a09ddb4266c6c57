"""Digests in little memory are a dictionary from 16 bytes to a few."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xfdfuzz.engines.explore.digests import Digests
from xfdfuzz.engines.explore.expand import digest_of
from xfdfuzz.engines.explore.store import Store, Transition
from xfdfuzz.engines.explore.visited import Label, Visited

#: Many begin alike.
DIGESTS = st.builds(
    lambda head, number: head + digest_of(number.to_bytes(2))[2:],
    st.sampled_from([b"\0\0", b"\0\1", b"\1\0"]),
    st.integers(0, 1000),
)


@given(st.dictionaries(DIGESTS, st.binary(min_size=4, max_size=4)), st.lists(DIGESTS))
def test_digests_find_what_was_added_and_nothing_else(added: dict[bytes, bytes], others: list[bytes]) -> None:
    digests = Digests(4)
    for digest, value in added.items():
        assert digests.get(digest) is None
        digests.add(digest, value)
    assert len(digests) == len(added)
    assert {digest: digests.get(digest) for digest in [*added, *others]} == {
        digest: added.get(digest) for digest in [*added, *others]
    }


@given(
    st.dictionaries(
        DIGESTS, st.tuples(DIGESTS, st.booleans(), st.sampled_from([(), ("a",), ("b",), ("a", "b")])), max_size=20
    )
)
def test_a_visited_state_is_known_again(states: dict[bytes, tuple[bytes, bool, tuple[str, ...]]]) -> None:
    visited = Visited()
    for key, (form, broken, pending) in states.items():
        assert visited.label(key) is None
        visited.add(key, form, Label(form == key, broken, pending))
    for key, (form, broken, pending) in states.items():
        assert visited.label(key) == Label(form == key, broken, pending)
        assert visited.form(key) == form


def test_a_state_is_found_back_to() -> None:
    first, second, third, aside = (digest_of(bytes([number])) for number in range(4))
    store = Store(first)
    store.add(second, 0, 7)
    store.add(aside, 0, 8)
    number = store.add(third, 1, 9)
    for again in (store, Store.from_bytes(store.to_bytes())):
        assert again.path(number) == [Transition(7, second), Transition(9, third)]
        assert [again.number(digest) for digest in (first, second, aside, third)] == [0, 1, 2, 3]
        assert again.number(digest_of(b"another")) is None
