"""What every test is given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from xfdfuzz.invariants import core
from xfdfuzz.revisions import outside


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Forget the invariants and the series that a test loads from files of its own."""
    core.load()
    registries: tuple[dict[Any, Any], ...] = (core.INVARIANTS, core._FILES, outside.OUTSIDE, outside._FILES)
    before = [(registry, dict(registry)) for registry in registries]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)
