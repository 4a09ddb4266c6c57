"""The scout: repeatable, and what it finds can be shortened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import Phase, find, settings
from hypothesis.errors import NoSuchExample

from xfdfuzz import cli
from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.minimise import shows
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.rules import RULES
from xfdfuzz.engines.rules.selection import FULL, KNOWN_WEIGHTS, SWARMS, chosen, enabled_rules, weights
from xfdfuzz.engines.search.campaign import Discovered
from xfdfuzz.engines.search.genome import Gene, Genome, Walker, shortened
from xfdfuzz.engines.search.hunt import BothEngines
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.scout import Scout
from xfdfuzz.engines.search.violations import ViolationCampaign, fuzz
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import resolve

#: What is open on v7.3.
OPEN = {
    bucket
    for file in (Path(__file__).parent.parent / "corpus" / "open").glob("*.xfd")
    for bucket in judge(parse(file.read_text()), resolve("v7.3"), expectations=False).buckets
}


def campaign(*known: str, revision: str = "amx-v1") -> ViolationCampaign:
    return ViolationCampaign(revision=resolve(revision), known=set(known))


def findings(report: Report[Finding]) -> list[tuple[str, str, str]]:
    return [(f.violation.bucket, f.engine, format_program(f.program)) for f in report.found]


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = tuple((kind, examples // 20) for kind, examples in BothEngines.TURNS)
    monkeypatch.setattr(BothEngines, "TURNS", turns)


@pytest.mark.parametrize(("engine", "examples"), [("scout", 120), ("both", 120)])
def test_a_seed_gives_the_same_findings_programs_and_coverage_again(
    engine: str, examples: int, short_turns: None
) -> None:
    revision = resolve("v7.3", revert=["b45f72177594", "10e4b5166df9"])
    first, second = (fuzz(revision, Plan(seed=3, engine=engine, examples=examples), known=OPEN) for _ in range(2))
    assert findings(first) == findings(second)
    assert first.found
    assert first.stats.coverage == second.stats.coverage
    assert first.stats.engines == second.stats.engines
    assert first.stats.examples == examples
    assert (
        fuzz(revision, Plan(seed=4, engine=engine, examples=examples), known=OPEN).stats.coverage
        != first.stats.coverage
    )


def test_both_take_turns_and_are_credited(short_turns: None) -> None:
    stats = fuzz(resolve("v7.3"), Plan(seed=1, engine="both", examples=250), known=OPEN).stats
    assert set(stats.engines) == {"scout", "hypothesis"}
    assert sum(effort.examples for effort in stats.engines.values()) == stats.examples
    assert sum(effort.steps for effort in stats.engines.values()) == stats.steps


def some_found() -> list[tuple[Discovered, Genome]]:
    """What a scout finds, one bucket after another."""
    looking = campaign()
    scout, found = Scout(looking, 1, 50), []
    for _ in range(8):
        discovered = scout.search()
        found.append((discovered, scout.genome))
        looking.learn([discovered.discovery.bucket])
    return found


def test_shortening_keeps_the_bucket_and_leaves_no_gene_out_that_matters() -> None:
    for found, genome in some_found():
        walker = Walker(campaign().looking_for(found.discovery.bucket))
        short = shortened(walker, genome)
        shown = walker.discovery(short)
        assert shown is not None
        assert shows(shown.program, resolve("amx-v1"), found.discovery.bucket)
        for n in range(len(short.genes)):
            assert walker.discovery(short._replace(genes=[*short.genes[:n], *short.genes[n + 1 :]])) is None


def test_a_gene_that_nothing_enables_is_left_out() -> None:
    """A program that was cut stays legal."""
    enter, create = Gene(RULES["vm_enter"], (0,)), Gene(RULES["kvm_create_vm"], (0,))
    looking = campaign(revision="v7.3")
    assert Walker(looking).discovery(Genome(0, 0, (enter, create))) is None
    assert {op.__name__ for op, _ in looking.stats.seen} == {"KvmCreateVm"}


#: What can be done in most states with a VM.
BUSY = frozenset({"alive", "tasks", "vm_calls", "closable", "vcpus", "vcpu_calls", "schedulable", "host_cpus"})


def test_a_swarm_gives_a_rule_the_slots_that_count_and_leaves_them_where_they_were() -> None:
    enabled = enabled_rules(BUSY)
    every = [rule for rule in enabled for _ in range(FULL)]
    assert [chosen(enabled, slot, weights(0)) for slot in range(len(every))] == every
    for swarm in range(0, SWARMS, 16):
        counting = weights(swarm)
        drawn = [chosen(enabled, slot, counting) for slot in range(len(every))]
        assert set(drawn) == {rule for rule in enabled if counting[rule]}
        kept = [
            (one, rule)
            for slot, (one, rule) in enumerate(zip(drawn, every, strict=True))
            if slot % FULL < counting[rule]
        ]
        assert all(one is rule for one, rule in kept)


def test_every_rule_is_common_seldom_and_left_out_in_some_swarm() -> None:
    swarms = [weights(swarm) for swarm in range(SWARMS)]
    for rule in RULES.values():
        seen = {counting[rule] for counting in swarms}
        assert {0, FULL // 16, FULL // 4, FULL} <= seen


def test_every_weight_that_is_known_belongs_to_a_rule() -> None:
    assert KNOWN_WEIGHTS.keys() <= RULES.keys()


def test_a_seldom_rule_is_chosen_seldom() -> None:
    enabled = enabled_rules(BUSY)
    counting = dict.fromkeys(enabled, FULL) | {enabled[0]: FULL // 4}
    drawn = [chosen(enabled, slot, counting) for slot in range(len(enabled) * FULL)]
    share = drawn.count(enabled[0]) / (len(drawn) / len(enabled))
    assert 0.2 < share < 0.4


def test_where_a_swarm_has_nothing_left_any_rule_comes() -> None:
    enabled = enabled_rules(frozenset({"dead"}))
    assert chosen(enabled, 0, dict.fromkeys(enabled, 0)) in enabled


@pytest.mark.parametrize("engine", ["scout", "hypothesis"])
def test_both_engines_leave_out_what_a_swarm_does_without(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def executed() -> set[str]:
        plan = Plan(seed=1, engine=engine, examples=60)
        return {*fuzz(resolve("v7.3"), plan, known=OPEN).stats.coverage}

    assert "SoftirqKernelFpu" in executed()
    without = {**weights(0), RULES["softirq_kernel_fpu"]: 0}
    for module in ("scout", "hypothesis_machine"):
        monkeypatch.setattr(f"xfdfuzz.engines.search.{module}.weights", lambda swarm: without)
    assert "SoftirqKernelFpu" not in executed()


@pytest.mark.parametrize("name", sorted({repr(a) for r in RULES.values() for a in r.arguments.values()}))
def test_both_engines_draw_from_the_same_values(name: str) -> None:
    argument = next(a for r in RULES.values() for a in r.arguments.values() if repr(a) == name)
    drawing = settings(max_examples=2000, phases=[Phase.generate], database=None)
    with pytest.raises(NoSuchExample):
        find(argument.strategy, lambda value: value not in argument.values, settings=drawing)
    few = {*argument.values[:8], *argument.values[-8:]}
    for value in few:
        assert find(argument.strategy, lambda one, value=value: one == value, settings=drawing) == value  # type: ignore[misc]


@pytest.mark.parametrize("engine", ["scout", "both"])
def test_the_command_says_which_engine_found_what(
    engine: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Hypothesis first: it may find nothing that the scout has not found before
    monkeypatch.setattr(BothEngines, "TURNS", tuple((kind, 10) for kind, _ in reversed(BothEngines.TURNS)))
    arguments = ["fuzz", "--revision", "v5.17", "--engine", engine, "--seed", "1", "--examples", "40"]
    assert cli.main([*arguments, "--format", "json"]) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert f"--engine {engine}" in captured.err
    engines = {"scout"} if engine == "scout" else {"scout", "hypothesis"}
    assert set(report["engines"]) == engines
    assert sum(effort["examples"] for effort in report["engines"].values()) == report["examples"] == 40
    assert {finding["engine"] for finding in report["findings"]} == engines
    assert cli.main([*arguments, "-v"]) == 1
    out = capsys.readouterr().out
    assert all(f"found by {name}" in out for name in engines)
    assert cli.main(["replay", "findings"]) == 0
