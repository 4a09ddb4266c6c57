"""The exhaustive engine: what it finds, what it proves, and that its reductions and workers change nothing of that."""

from __future__ import annotations

import json
import signal
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.explore import frontier, transitions, visited
from xfdfuzz.engines.explore.canonical import Canonical, Names, clear_dead, clear_stale, groups
from xfdfuzz.engines.explore.expand import Expander, Question
from xfdfuzz.engines.explore.exploration import Exploration, begin, explore, new_session
from xfdfuzz.engines.explore.packing import ScopeError
from xfdfuzz.engines.explore.search import Limits
from xfdfuzz.engines.explore.trace import Walker
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.processes.workers import workers
from xfdfuzz.engines.stream.events import Event, Progressed
from xfdfuzz.invariants.checker import select
from xfdfuzz.invariants.vocabulary import View
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.fields import UserImage
from xfdfuzz.program.ops import guest, host, kvm, run, signals, tasks, vmm, xsave
from xfdfuzz.program.step import PANIC
from xfdfuzz.program.text import format_op, format_program, parse
from xfdfuzz.revisions import resolve
from xfdfuzz.strategies.scopes import CONTENTS, HOST, MIGRATION, SCOPES, SIGNALS, TINY, TWO_VCPUS, Scope

Run = Callable[..., tuple[int, str, str]]


def explored(
    revision: str, scope: str, limits: Limits | None = None, *, reduced: bool = True, count: int = 1
) -> Exploration:
    search = begin(resolve(revision), scope, reduced=reduced)
    with workers(count, here_if_one=True) as pool:
        return explore(search, pool, limits or Limits())


def lengths(report: Exploration) -> dict[str, int]:
    """How long the shortest program of each bucket is."""
    return {found.violation.bucket: len(found.program.ops) for found in report.findings}


def summed_up(report: Exploration) -> dict[str, object]:
    """Everything but how long it took."""
    counts = ("states", "transitions", "depth", "exhausted", "coverage", "goals", "known")
    keys = (*counts, "lassos", "checked", "left_out")
    found = [(finding.violation, finding.program) for finding in report.findings]
    return {key: getattr(report, key) for key in keys} | {"findings": found}


@pytest.fixture
def scope(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scope], str]:
    """A scope for the length of a test, as the engine finds it; its name."""

    def add(new: Scope) -> str:
        monkeypatch.setitem(SCOPES, new.name, new)
        return new.name

    return add


# -- what it finds, and what it proves ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def amx_v1() -> Exploration:
    return explored("amx-v1", "tiny")


def test_the_reviews_warning_has_a_shortest_program(amx_v1: Exploration) -> None:
    assert amx_v1.exhausted
    found = next(one for one in amx_v1.findings if one.violation.invariant == "no-realloc-on-enter")
    lines = [format_op(op) for op in found.program.ops]
    assert len(lines) == 7
    assert lines[-1] == "t0 ioctl(v0, KVM_RUN) ..."
    assert any("KVM_SET_MSRS, {IA32_XFD: " in line for line in lines)


def test_every_finding_replays_from_its_text(amx_v1: Exploration) -> None:
    assert len(amx_v1.findings) > 10
    assert not amx_v1.doubts
    for found in amx_v1.findings:
        program = parse(format_program(found.program))
        assert found.violation in judge(program, amx_v1.revision, expectations=False).violations


def test_no_op_fewer_breaks_it(amx_v1: Exploration) -> None:
    for found in amx_v1.findings:
        for left_out in range(len(found.program.ops)):
            ops = found.program.ops[:left_out] + found.program.ops[left_out + 1 :]
            shorter = replace(found.program, ops=ops, results=())
            assert found.violation.bucket not in judge(shorter, amx_v1.revision, expectations=False).buckets


def test_a_request_that_nothing_clears_is_a_cycle(amx_v1: Exploration) -> None:
    assert not amx_v1.lassos
    assert not explored("v5.17", "tiny", Limits(depth=12)).lassos
    (lasso,) = explored("amx-review-a", "tiny", Limits(depth=12)).lassos
    assert lasso.finding.violation.invariant == "request-is-eventually-cleared"
    assert lasso.finding.shown
    # going round any number of times leaves the request where it is
    program, loop = lasso.finding.program, tuple(turn.op for turn in lasso.loop)
    for rounds in range(4):
        again = replace(program, ops=program.ops + loop * rounds)
        verdict = judge(again, resolve("amx-review-a"), expectations=False)
        assert not verdict.left_out
        assert "request-is-eventually-cleared" in verdict.broken
    assert any(format_op(op) == "t0 ... KVM_RUN" for op in loop)


def test_a_cycle_says_what_each_of_its_ops_leaves_pending(run: Run) -> None:
    command = ("explore", "--revision", "amx-review-a", "--depth", "12")
    (lasso,) = json.loads(run(*command, "--format", "json")[1])["lassos"]
    still = ["v0: arch.xfd_realloc_request is still xtiledata"]  # where the review put it, and nothing clears it
    assert lasso["stem"] + lasso["loop"] == len(parse(lasso["program"]).ops)
    assert len(lasso["turns"]) == lasso["loop"]
    reasons = [turn.pop("because") for turn in lasso["turns"]]
    assert {"op": "t0 ... KVM_RUN", "result": "-EINTR", "progress": True, "pending": still} in lasso["turns"]
    assert {"op": "t0 ioctl(v0, KVM_RUN) ...", "result": "ok", "progress": False, "pending": still} in lasso["turns"]
    # one step of the stem asked for it, and no turn writes it again
    assert {reason["field"] for some in reasons for reason in some} == {"v0.xfd_realloc_request"}
    (asked,) = {reason["step"] for some in reasons for reason in some}
    assert 0 < asked <= lasso["stem"]
    rows = [row.strip() for row in run(*command)[1].splitlines()]
    at = next(number for number, row in enumerate(rows) if row.endswith("<- loop, progress"))
    assert rows[at].partition("  ")[2] == "t0 ... KVM_RUN = -EINTR   <- loop, progress"
    assert rows[at + 1] == still[0]
    assert rows[at + 2].split() == ["because", "v0.xfd_realloc_request", "xtiledata", "left", "by", "step", str(asked)]


def test_a_cycle_that_ends_well_expects_nothing_of_its_replay(run: Run) -> None:
    code, out, _ = run("explore", "--revision", "amx-review-b", "--depth", "13", "--format", "json")
    (lasso,) = json.loads(out)["lassos"]
    assert code == 1
    assert lasso["loop"] == 2
    # the guest is entered again and again with the request set, which KVM_RUN's return would serve
    assert [line for line in lasso["program"].splitlines() if line.startswith("v0")][-2:] == [
        "v0 vmenter",
        "v0 interrupt",
    ]
    assert "# expect:" not in lasso["program"]
    assert run("replay", lasso["file"], "--revision", "amx-review-b")[0] == 1


def test_a_scope_without_a_finding_is_a_statement(run: Run, scope: Callable[[Scope], str]) -> None:
    name = scope(replace(HOST, name="quiet", ops=(tasks.UserVmovups(0, 1),)))
    code, out, err = run("explore", "--revision", "v7.3", "--scope", name)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert f"v7.3, scope quiet ({HOST.summary}): exhausted: 2 states" in text
    assert "can be broken there." in text
    assert "The scope leaves out KVM, a second CPU" in text


@pytest.mark.parametrize(
    ("name", "depth"),
    [("tiny", 11), ("contents", 11), ("small", 11), ("migration", 13), ("two-vcpus", 15), ("host", 4), ("signals", 6)],
)
def test_a_scope_meets_every_goal_that_can_be_met_there(name: str, depth: int) -> None:
    met = explored("v7.3", name, Limits(depth=depth)).goals
    assert len(met) > 3
    assert [goal for goal, count in met.items() if not count] == []


def test_a_goal_that_is_never_met_is_named(run: Run) -> None:
    command = ("explore", "--revision", "v5.16", "--depth", "9")
    code, out, _ = run(*command, "--coverage")
    text = " ".join(out.split())
    met = json.loads(run(*command, "--format", "json")[1])["goals"]
    assert code == 0
    # no guest of v5.16 gets a dynamic feature; a vCPU loses its registers as on any other kernel
    assert met["guest-has-room-for-tiles"] == 0 < met["vcpu-enters-after-losing-its-registers"]
    never = [name for name, count in met.items() if not count]
    assert f"Goals: {len(met) - len(never)} of {len(met)} are met; never met: {', '.join(never)}." in text
    assert "guest-has-room-for-tiles never met" in text


# -- reductions --------------------------------------------------------------------------------------------------------

_FEW = tuple(op for op in TINY.ops if not isinstance(op, host.FailAlloc | kvm.KvmGetMsrs | tasks.ReqXcompPerm))


@pytest.mark.parametrize(
    ("revision", "reduced"),
    [
        ("amx-v1", replace(TINY, name="few", ops=_FEW)),
        ("amx-review-b", replace(TINY, name="few", ops=_FEW)),
        ("v5.18", replace(CONTENTS, name="values")),
        ("v5.16", replace(MIGRATION, name="moving")),
        ("v5.17", replace(TWO_VCPUS, name="both")),
        ("v5.16", replace(HOST, name="processes")),
        ("v7.3", replace(SIGNALS, name="handlers")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_reductions_change_no_verdict(revision: str, reduced: Scope, scope: Callable[[Scope], str]) -> None:
    depth = {"few": 9, "values": 10, "moving": 9, "both": 8, "processes": 6, "handlers": 6}[reduced.name]
    name = scope(reduced)
    with_them = explored(revision, name, Limits(depth=depth))
    without = explored(revision, name, Limits(depth=depth), reduced=False)
    assert lengths(with_them) == lengths(without)
    assert with_them.states < without.states
    assert {op: set(results) for op, results in with_them.coverage.items()} == {
        op: set(results) for op, results in without.coverage.items()
    }


def walked(expander: Expander, depth: int) -> list[bytes]:
    """The states of the first levels."""
    found = level = [expander.first]
    for _ in range(depth):
        level = [*expander.expand(level).states.values()]
        found = found + level
    return found


@pytest.mark.parametrize("chosen", [MIGRATION, TWO_VCPUS, HOST, SIGNALS], ids=lambda scope: scope.name)
def test_every_numbering_of_a_state_has_one_form(chosen: Scope) -> None:
    expander = Expander(Question("v5.16", chosen.name, reduced=False))
    names, canonical = Names(chosen), Canonical(chosen)
    same, swapped = groups(chosen)
    assert same.is_identity
    for packed in walked(expander, 6)[-500:]:
        raw = expander.packing.unpack(packed)
        other = names.permuted(raw, swapped)
        assert names.permuted(other, swapped) == raw
        assert canonical.form(other) == canonical.form(raw)


@pytest.mark.parametrize("chosen", [MIGRATION, TWO_VCPUS, HOST, SIGNALS], ids=lambda scope: scope.name)
def test_what_a_state_leads_to_does_not_depend_on_its_numbering(chosen: Scope) -> None:
    expander = Expander(Question("v5.16", chosen.name))
    walker = Walker(expander)
    names, group = Names(chosen), [*groups(chosen)][1]
    for packed in walked(expander, 5)[-100:]:
        raw = expander.packing.unpack(packed)
        assert successors(walker, chosen, raw) == successors(walker, chosen, names.permuted(raw, group))


def successors(walker: Walker, scope: Scope, raw: bytes) -> set[tuple[str, bytes]]:
    """The forms of what every op leads to, each with what the op is."""
    found = set()
    for op in scope.ops:
        walker.load(raw)
        if walker.perform(op):
            found.add((type(op).__name__, walker.digest()))
    return found


def test_a_scope_that_is_declared_too_small_is_refused(scope: Callable[[Scope], str]) -> None:
    name = scope(replace(MIGRATION, name="tight", slots=0, ops=MIGRATION.ops))
    with pytest.raises(ScopeError, match="what its scope says cannot change"):
        explored("v7.3", name, Limits(depth=5))


@pytest.mark.parametrize(
    ("revision", "chosen"),
    [
        *((revision, TINY) for revision in ("amx-v1", "amx-review-a", "amx-tglx", "v5.16", "v7.3")),
        *(("v7.3", chosen) for chosen in SCOPES.values() if chosen != TINY),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_is_remembered_of_an_op_is_what_it_does(revision: str, chosen: Scope) -> None:
    """On states of the first levels, mostly met after the one that an outcome was learnt from."""
    compare_with_what_happens(revision, chosen)


def test_what_a_vmm_means_is_remembered_as_it_is(scope: Callable[[Scope], str]) -> None:
    made = (kvm.KvmCreateVm(0), kvm.KvmCreateVcpu(0, 0, 0), kvm.KvmCreateVcpu(0, 0, 1))
    each = tuple(
        op
        for nr in (0, 1)
        for op in (
            kvm.KvmSetCpuid2(0, nr, CpuidEntries(xf.MASK_YMM | xf.MASK_FPSSE, False, False)),
            xsave.KvmSetXsave(0, nr, UserImage(xf.MASK_YMM, 1)),
            vmm.KeepXsave2(0, nr),
            vmm.LoadXsave(0, nr, 1 - nr),
            vmm.VmmCopy(nr, 1 - nr),
            vmm.VmmInvisible(nr),
            vmm.VmmVisible(nr),
            vmm.VmmReset(nr),
            run.KvmRun(0, nr),
            run.VmEnter(nr),
            guest.GuestVmovups(nr, 1),
            guest.GuestInterrupt(nr),
        )
    )
    chosen = replace(TWO_VCPUS, name="procedures", ops=(*made, *each, run.KvmRunReturns(0)))
    scope(chosen)
    compare_with_what_happens("v7.3", chosen, levels=6)
    # and the vCPUs are alike, tenants and promises included
    whole, half = (explored("v7.3", "procedures", Limits(depth=5), reduced=reduced) for reduced in (False, True))
    assert half.states < whole.states
    assert lengths(half) == lengths(whole)


def compare_with_what_happens(revision: str, chosen: Scope, levels: int = 9) -> None:
    """What an expander remembers, with what an executor does."""
    expander, selection = Expander(Question(revision, chosen.name)), select(revision)
    remembered, packing = expander.transitions, expander.packing
    executor = Executor(resolve(revision).kernel, chosen.machine)
    k = executor.kernel
    for packed in Random(1).choices(walked(expander, levels), k=300):
        raw = packing.unpack(packed)
        k.load(raw)
        enabled = [number for number, op in enumerate(chosen.ops) if op.enabled(k)]
        assert [*remembered.enabled(packed)] == enabled
        for number in enabled:
            k.load(raw)
            step = executor.perform(chosen.ops[number])
            view, outcome = View(k, step), remembered.outcome(packed, number)
            assert (outcome.result, outcome.events) == (step.result, step.events)
            assert [(one.bucket, one.message) for one in outcome.violations] == [
                (one.bucket, one.message) for one in selection.of_step(view)
            ]
            if outcome.delta is None:
                assert step.result.ret == PANIC
                continue
            for vcpu, ideal in [*zip(k.vcpus, k.system.ghost.vcpus, strict=True)][: chosen.vcpus]:
                clear_dead(vcpu, ideal)
            for nr in chosen.sigframes if chosen.returns_inside_out else ():
                clear_stale(k.system.sigframes[nr])
            after = outcome.delta(packed)
            assert after == packing.pack(k.state)
            inside = packing.unpack(after) == k.state
            broken = remembered.broken(after, number) if inside else outcome.outside
            assert (outcome.outside is None) == inside
            assert list(broken or ()) == selection.broken_in(View(k, step))


def test_frames_of_nested_handlers_are_told_apart_as_long_as_somebody_can_name_them(
    scope: Callable[[Scope], str],
) -> None:
    each = [op for nr in (0, 1) for op in (tasks.UserVmovups(nr, 1), signals.Signal(nr), signals.SignalDelivered(nr))]
    ends = [op for nr in (0, 1) for op in (signals.Sigreturn(nr), signals.Siglongjmp(nr))]
    turns = [host.Schedule(0, nr) for nr in (0, 1)]
    inside_out = replace(SIGNALS, name="nested", handlers=2, ops=(*each, *ends, *turns))
    named = [op for nr in (0, 1) for op in (signals.Sigreturn(nr, 0), signals.Sigreturn(nr, 1))]
    by_name = replace(inside_out, name="named", ops=(*inside_out.ops, *named))
    states = []
    for chosen in (inside_out, by_name):
        scope(chosen)
        compare_with_what_happens("v7.3", chosen, levels=7)
        whole, half = (explored("v7.3", chosen.name, Limits(depth=7), reduced=reduced) for reduced in (False, True))
        assert half.states < whole.states
        assert lengths(half) == lengths(whole)
        states.append(half.states)
    assert states[0] < states[1]


def test_a_signal_in_more_handlers_than_a_scope_has_is_judged_and_not_gone_on_from(
    scope: Callable[[Scope], str],
) -> None:
    ops = (tasks.UserVmovups(0, 1), signals.Signal(0), signals.SignalDelivered(0), signals.Sigreturn(0))
    sizes = []
    for handlers in (1, 2, 3):
        name = scope(replace(SIGNALS, name=f"deep-{handlers}", tasks=1, alike=frozenset(), handlers=handlers, ops=ops))
        whole = explored("v7.3-cured", name)
        assert whole.exhausted
        assert not whole.findings
        sizes.append(whole.states)
    assert sizes == sorted(set(sizes))


# -- workers, early ends -----------------------------------------------------------------------------------------------


def test_the_result_does_not_depend_on_the_workers(amx_v1: Exploration) -> None:
    both = explored("amx-v1", "tiny", count=2)
    assert summed_up(both) == summed_up(amx_v1)


def test_what_is_forgotten_to_save_memory_changes_nothing(amx_v1: Exploration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visited, "_STATES", 1000)
    monkeypatch.setattr(transitions, "_MANY", 300)
    assert summed_up(explored("amx-v1", "tiny")) == summed_up(amx_v1)


def test_going_on_from_a_frontier_comes_to_the_same(amx_v1: Exploration, tmp_path: Path) -> None:
    search = begin(resolve("amx-v1"), "tiny")
    parts = 0
    while not search.exhausted:
        with workers(1, here_if_one=True) as pool:
            limit = search.seconds + 0.5 if parts < 2 else None  # each part begins with nothing cached
            report = explore(search, pool, Limits(seconds=limit))
        assert report.exhausted or (report.stopped == "out of time" and report.frontier)
        with (tmp_path / "one.frontier").open("wb") as file:
            frontier.write(search, file)
        search = frontier.read(tmp_path / "one.frontier", new_session())
        parts += 1
    assert parts > 1
    assert summed_up(report) == summed_up(amx_v1)


def _shorter(about: bytes) -> bytes:
    return json.dumps(json.loads(about) | {"pending": []}).encode()


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("search.json", lambda data: data.replace(b"frontier", b"border", 1)),
        ("search.json", _shorter),
        ("digests", lambda data: data[:-1]),
        ("digests", lambda data: data[:16] + data[:-16]),
        ("parents", lambda data: data[:-4]),
        ("parents", lambda data: data[:-4] + b"\xff" * 4),
        ("ops", lambda data: b""),
        ("packed", lambda data: data[1:]),
    ],
)
def test_a_frontier_that_is_damaged_is_refused(tmp_path: Path, member: str, change: Callable[[bytes], bytes]) -> None:
    search = begin(resolve("v5.17"), "tiny")
    with workers(1, here_if_one=True) as pool:
        search.run(pool, Limits(depth=3))
    whole, damaged = tmp_path / "whole.frontier", tmp_path / "damaged.frontier"
    with whole.open("wb") as file:
        frontier.write(search, file)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, change(data) if name == member else data)
    assert len(frontier.read(whole, new_session()).store) == len(search.store)
    with pytest.raises(frontier.FrontierError):
        frontier.read(damaged, new_session())


def test_ctrl_c_loses_nothing(amx_v1: Exploration, monkeypatch: pytest.MonkeyPatch) -> None:
    search = begin(resolve("amx-v1"), "tiny")

    def press(event: Event) -> None:
        if isinstance(event, Progressed) and event.counts["depth"] == 8:
            signal.raise_signal(signal.SIGINT)

    with workers(1, here_if_one=True) as pool:
        report = explore(search, pool, Limits(), tell=press)
    assert (report.stopped, report.depth) == ("interrupted", 8)
    assert lengths(report) == {bucket: ops for bucket, ops in lengths(amx_v1).items() if ops <= 8}


# -- the command -------------------------------------------------------------------------------------------------------


def test_findings_are_saved_and_counted(run: Run) -> None:
    code, out, err = run("explore", "--depth", "5", "--save", "found", "--format", "json")
    report = json.loads(out)
    assert code == 1
    assert {finding["bucket"] for finding in report["findings"]} >= {"permission-only-grows@guest"}
    for finding in report["findings"]:
        assert Path(finding["file"]).read_text() == finding["program"]
        assert f"found {finding['bucket']}" in err
    assert (report["revision"], report["scope"], report["depth"], report["exhausted"]) == ("amx-v1", "tiny", 5, False)
    assert report["file"] == "found/amx-v1-tiny.frontier"
    assert set(report["coverage"]) == {format_op(op) for op in TINY.ops}
    assert report["not_checked"] == ["restore-order-is-free", "migration-is-invisible"]
    assert run("replay", report["findings"][0]["file"])[0] == 0


def test_it_goes_on_where_it_stopped(run: Run) -> None:
    run("explore", "--depth", "4", "--format", "json")
    code, out, _ = run("explore", "--resume", "findings/amx-v1-tiny.frontier", "--depth", "6", "--format", "json")
    whole = json.loads(run("explore", "--depth", "6", "--format", "json")[1])
    resumed = json.loads(out)
    assert code == 1
    for key in ("states", "transitions", "depth", "coverage", "goals", "findings", "frontier"):
        assert resumed[key] == whole[key]


def test_a_limit_ends_it_in_an_orderly_way(run: Run) -> None:
    code, out, _ = run("explore", "--revision", "v7.3", "--memory", "1m", "--depth", "30")
    assert code == 3
    assert "not exhausted (out of memory): every program of up to" in " ".join(out.split())
    assert "go on: xfdfuzz explore --resume findings/v7.3-tiny.frontier" in out


def test_what_is_known_is_no_news(run: Run) -> None:
    run("explore", "--depth", "1", "--save", "known")
    code, out, err = run("explore", "--depth", "1", "--known", "known")
    assert code == 0
    assert "1 known bucket of 1 program" in err
    assert "but for 1 known bucket." in " ".join(out.split())


def test_the_graph_has_every_state_and_what_was_found(run: Run) -> None:
    run("explore", "--depth", "3", "--graph", "states.dot")
    report = json.loads(run("explore", "--depth", "3", "--format", "json")[1])
    text = Path("states.dot").read_text()
    assert text.splitlines()[1] == "digraph states {"
    assert all(f"-> {number} [" in text for number in range(1, report["states"]))
    assert text.count("color=red") == 2 * len(report["findings"])
    assert 't0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0"' in text
    assert "permission-only-grows@guest" in text


def test_coverage_shows_dead_ops(run: Run) -> None:
    out = run("explore", "--depth", "2", "--coverage")[1]
    assert "v0 vmenter" in out
    assert "never enabled" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("--scope", "huge"),
            "unknown scope 'huge': expected one of tiny, contents, small, migration, two-vcpus, host, signals",
        ),
        (("--resume", "nowhere.frontier"), "nowhere.frontier: No such file or directory"),
        (("--resume", "broken.frontier"), "broken.frontier: not a frontier, or a broken one: File is not a zip file"),
        (
            ("--resume", "x.frontier", "--scope", "tiny"),
            "--scope is what x.frontier says: leave it out beside --resume",
        ),
        (("--memory", "lots"), "argument --memory: expected an amount of memory such as 500m or 4g, got 'lots'"),
        (("--known", "empty.xfd"), "empty.xfd: No such file or directory"),
    ],
)
def test_bad_input_is_one_line(run: Run, argv: tuple[str, ...], message: str) -> None:
    Path("broken.frontier").write_text("nothing")
    code, out, err = run("explore", *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_an_invariant_that_keeps_something_is_refused(run: Run) -> None:
    Path("keeps.py").write_text(
        "from xfdfuzz.invariants.vocabulary import invariant\n"
        "calls = []\n"
        '@invariant("keeps", "abi")\n'
        "def keeps(view):\n"
        '    """My own."""\n'
        "    calls.append(view)\n"
        "    task = view.k.tasks[0]\n"
        "    return [] if (task.sas_ss_size if len(calls) % 2 else task.pkru) else []\n"
    )
    code, out, err = run("explore", "--depth", "8", "--invariants", "keeps.py")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("an invariant looks at more than its view: one state is judged in two ways")


@pytest.mark.parametrize("count", ["1", "2"])
def test_an_error_in_a_users_invariant_is_one_line_with_its_place(run: Run, count: str) -> None:
    Path("wrong.py").write_text(
        "from xfdfuzz.invariants.vocabulary import invariant\n"
        '@invariant("wrong", "abi")\n'
        "def wrong(view):\n"
        '    """My own."""\n'
        "    return [] if view.step.result.ret == 'ok' else view.nothing\n"
    )
    code, out, err = run("explore", "--depth", "3", "--invariants", "wrong.py", "--workers", count)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("wrong.py:5: AttributeError: 'View' object has no attribute 'nothing'")


def test_every_scope_is_listed_with_what_it_leaves_out(run: Run) -> None:
    rows = [json.loads(row) for row in run("list", "scopes", "--format", "json")[1].splitlines()]
    assert [row["name"] for row in rows] == ["tiny", "contents", "small", "migration", "two-vcpus", "host", "signals"]
    assert all(row["leaves out"] and row["ops"] for row in rows)
