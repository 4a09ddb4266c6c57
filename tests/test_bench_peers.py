"""bench/peers without SPIN: its scope, and what keeps the numbering of the two models the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.peers import __main__ as peers
from bench.peers import explorer, graph, spin
from bench.peers.scope import PEERS
from xfdfuzz.program.text import format_op
from xfdfuzz.strategies.scopes import SCOPES


@pytest.fixture(autouse=True)
def _scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCOPES, PEERS.name, PEERS)


def test_amx_v1_breaks_what_spin_finds_with_as_many_ops() -> None:
    said = explorer.run("amx-v1")
    assert said["exhausted"]
    assert said["lassos"] == []
    found = said["found"]
    assert found["no-warning@kvm_set_msr_common"] == 5
    assert found["no-warning@fpu_guest_realloc_fpstate"] == found["no-realloc-on-enter@KvmRun"] == 7
    assert found["host-xrstor-never-faults@switch_fpu_return"] == 17
    assert found["host-xrstor-never-faults@fpu_swap_kvm_fpstate"] == 18


def test_amx_review_a_has_a_cycle_and_no_request_on_entry() -> None:
    said = explorer.run("amx-review-a")
    assert said["exhausted"]
    assert len(said["lassos"]) == 1
    assert not {"no-realloc-on-enter@KvmRun", "no-warning@fpu_guest_realloc_fpstate"} & said["found"].keys()


def test_the_numbers_in_the_promela_model_are_those_that_its_output_is_read_with() -> None:
    text = spin.MODEL.read_text()
    assert [int(number) for number in re.findall(r"OP\((\d+)\)", text)] == [*range(len(PEERS.ops))]
    results = dict(re.findall(r"^#define (R_\w+)\s+(\d+)$", text, flags=re.MULTILINE))
    assert [int(number) for number in results.values()] == [*range(len(graph.RESULTS))]
    sites = re.findall(r"^#define (?:WARN|FAULT)_\w+\s+(\d+)", text, flags=re.MULTILINE)
    assert [int(number) for number in sites] == [*graph.SITES.values()]


def test_a_printed_step_is_an_arc() -> None:
    (arc,) = graph.of_spin("op 7\nstep 1 2 7 2 4 3 5\n").arcs
    assert format_op(PEERS.ops[arc.op]) == "t0 ioctl(v0, KVM_RUN) ..."
    assert (arc.source, arc.result, arc.target) == ((1, 2), "ok", (3, 5))
    assert arc.met == 1 << graph.SITES["fpu_guest_realloc_fpstate"]


def test_without_spin_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.main([]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "bench.peers: spin is not here: install spin and gcc\n"
