"""What the cache gives is what the function came to, for whatever function of some bytes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from xfdfuzz.engines.explore.footprint_cache import FootprintCache
from xfdfuzz.engines.judge.finding import NotReproducibleError

SIZE = 12


def function(seed: int) -> Callable[[bytes], tuple[list[tuple[int, int]], str]]:
    """One that reads up to six places, which ones next depending on what it has found; the places, and its outcome."""

    def run(state: bytes) -> tuple[list[tuple[int, int]], str]:
        reads: list[tuple[int, int]] = []
        found = f"{seed}"
        for _ in range(Random(found).randrange(6)):
            size = Random(f"{found} size").choice((1, 1, 2))
            start = Random(f"{found} start").randrange(SIZE - size)
            if not any(start < at + length and at < start + size for at, length in reads):
                reads.append((start, size))
                found += f" {state[start : start + size].hex()}"
        return reads, found

    return run


@given(
    some.integers(0, 1000), some.lists(some.binary(min_size=SIZE, max_size=SIZE).map(lambda b: bytes(x % 3 for x in b)))
)
def test_nothing_else_is_found_and_nothing_is_forgotten(seed: int, states: list[bytes]) -> None:
    run, cache = function(seed), FootprintCache[str]()
    known: set[str] = set()
    for state in states:
        reads, outcome = run(state)
        assert cache.find(state) == (outcome if outcome in known else None)
        if outcome not in known:
            cache.learn(state, reads, outcome)
            known.add(outcome)
        assert cache.find(state) == outcome


@pytest.mark.parametrize("reads", [[], [(1, 1)], [(0, 1)]])
def test_a_function_that_knows_more_than_the_state_is_refused(reads: list[tuple[int, int]]) -> None:
    cache = FootprintCache[str]()
    cache.learn(bytes(SIZE), [(0, 1), (2, 1)], "one")
    other = bytes(SIZE) if reads == [(0, 1)] else b"\x01" * SIZE
    with pytest.raises(NotReproducibleError, match="does not depend on the state alone"):
        cache.learn(other, reads, "another")
