"""The mutants of the model: each is one mistake, is executed where it should be, and comes to what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from bench.mutants import recordings as bench
from bench.mutants.__main__ import MODULES, TRACES
from bench.mutants.source import Source
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.kernel.kvm import x86

SOURCE = '''
"""A module."""
LIMIT = 1 + 1


class Base:
    @staticmethod
    def limit(x: int | None = 3) -> int:
        """Two."""
        return 2


class Small(Base):
    size = 4

    @property
    def big(self) -> bool:
        return self.size > 4 and not self.odd()

    def odd(self) -> bool:
        self.size |= 0
        if self.size & 1:
            return True
        return bool(super().limit() and 0)
'''


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    (tmp_path / "small.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("small", tmp_path / "small.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_each_mutant_is_one_mistake_in_a_function(module: ModuleType) -> None:
    source = Source(module)
    found = [mutant for place in range(len(source.places)) if (mutant := source.mutant(place))]
    assert [(mutant.function, mutant.was, mutant.becomes) for mutant in found] == [
        ("Base.limit", "2", "3"),
        ("Small.big", "self.size > 4 and (not self.odd())", "not self.odd()"),
        ("Small.big", "self.size > 4 and (not self.odd())", "self.size > 4"),
        ("Small.big", "self.size > 4", "self.size >= 4"),
        ("Small.big", "4", "5"),
        ("Small.big", "not self.odd()", "self.odd()"),
        ("Small.odd", "self.size |= 0", "nothing"),
        ("Small.odd", "self.size |= 0", "self.size &= 0"),
        ("Small.odd", "0", "1"),
        ("Small.odd", "if self.size & 1:", "if not self.size & 1:"),
        ("Small.odd", "self.size & 1", "self.size | 1"),
        ("Small.odd", "1", "2"),
        ("Small.odd", "True", "False"),
        # without super() it would be another kind of function, and what is left is
        ("Small.odd", "super().limit() and 0", "super().limit()"),
        ("Small.odd", "0", "1"),
    ]
    assert [mutant.lines for mutant in found if mutant.was == "if self.size & 1:"] == [range(22, 23)]


def test_a_mutant_is_executed_and_then_no_more(module: ModuleType) -> None:
    source = Source(module)
    mutant = source.mutant(source.places.index("Small.big") + 2)
    assert mutant is not None
    assert mutant.becomes == "self.size >= 4"
    assert not module.Small().big
    with source.executing(mutant):
        assert module.Small().big
    assert not module.Small().big


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt() -> list[bench.Known]:
    load_once()
    return list(bench.learn([TRACES / "linux-7.3.4" / "suite.jsonl"], [Path(x86.__file__)]))


@pytest.mark.parametrize(
    ("function", "was", "becomes", "outcome"),
    [
        ("KvmX86.kvm_apic_accept_events", "arch.init_pending = 0", "nothing", bench.NOT_REACHED),
        ("KvmX86.kvm_fast_pio_out", "vcpu.run.exit_reason = st.KVM_EXIT_IO", "nothing", bench.NOTICED),
        # vcpu_load() and vcpu_put() count what is told nobody
        ("KvmX86.kvm_arch_vcpu_ioctl_set_regs", "self.vcpu_put(vcpu)", "nothing", bench.SILENT),
    ],
)
def test_a_mutant_of_the_model_comes_to(
    learnt: list[bench.Known], function: str, was: str, becomes: str, outcome: str
) -> None:
    source = Source(x86)
    of_function = (source.mutant(nr) for nr, name in enumerate(source.places) if name == function)
    mutant = next(m for m in of_function if m is not None and (m.was, m.becomes) == (was, becomes))
    with source.executing(mutant):
        assert bench.shown_by(learnt, mutant).outcome == outcome


def test_the_modules_are_there() -> None:
    assert all(importlib.util.find_spec(f"xfdfuzz.{name}") for name in MODULES)
