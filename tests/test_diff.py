"""`xfdfuzz diff`: what a user sees differ between two revisions, as programs that replay."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz.engines.judge.lockstep import Pair, differences
from xfdfuzz.engines.judge.lockstep import run as run_both
from xfdfuzz.engines.search.campaign import Run
from xfdfuzz.engines.search.differences import DifferenceCampaign, diff
from xfdfuzz.engines.search.plan import Budget, Plan, Spent
from xfdfuzz.engines.search.scout import Scout
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

Command = Callable[..., tuple[int, str, str]]

WITNESS = Path(__file__).parent.parent / "corpus" / "witness"


def pair(first: str, second: str) -> Pair:
    return Pair(resolve(first), resolve(second))


def buckets(text: str, first: str, second: str) -> list[str]:
    program = parse(f"# xfdfuzz program 1\nmachine cpus=1\n\n{text}")
    return [difference.bucket for difference in differences(program, pair(first, second))]


PERMITTED = """\
t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx})
"""


def test_an_overwritten_permission_is_a_value_that_differs() -> None:
    text = "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\nt0 arch_prctl(ARCH_GET_XCOMP_PERM)\n"
    assert buckets(text, "v5.17", "v5.17+063452fd94d1") == [
        "permission-only-grows@host broken on v5.17 only",
        "GetXcompPerm: value",
    ]


def test_the_bits_of_an_image_and_the_death_of_a_host_are_told_apart() -> None:
    text = (
        f"{PERMITTED}t0 ioctl(v0, KVM_SET_MSRS, {{IA32_XFD: 0x40000}})\n"
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: xtile, data: 1})\n"
        "t0 ioctl(v0, KVM_GET_XSAVE2)\nt0 ioctl(v0, KVM_RUN) ...\n"
    )
    assert buckets(text, "v6.12", "v6.12+b45f72177594") == [
        "KvmGetXsave2: xstate_bv of the image, xtiledata",
        "get-xsave-hides-disabled@KvmGetXsave2 broken on v6.12 only",
        "KvmRun: gives panic | ok",
        "KvmRun: warn in handle_xfd_event on v6.12 only",
        "KvmRun: xrstor-fault in exc_device_not_available on v6.12 only",
    ]


def test_where_the_two_go_different_ways_a_program_ends() -> None:
    text = "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\nt0 arch_prctl(ARCH_GET_XCOMP_GUEST_PERM)\n"
    compared = list(run_both(parse(f"# xfdfuzz program 1\nmachine cpus=1\n\n{text}"), pair("v5.16", "v5.17")))
    assert [c.diverged for c in compared] == [True]
    assert compared[0].differences[0].bucket == "ReqXcompGuestPerm: gives -EINVAL | 0"


def test_what_only_one_revision_promises_is_not_compared() -> None:
    """amx-v1 has invariants of its own, which v5.17 cannot break."""
    program = parse((WITNESS / "t02-stale-request.xfd").read_text())
    told = " ".join(difference.bucket for difference in differences(program, pair("amx-v1", "v5.17")))
    assert told
    assert "request-is-not-stale" not in told


@pytest.mark.parametrize("engine", ["hypothesis", "scout"])
def test_a_revision_does_not_differ_from_itself(engine: str) -> None:
    report = diff(pair("v7.3", "mainline"), Plan(seed=1, engine=engine, examples=40))
    assert report.stats.examples == 40
    assert report.found == ()


def test_every_difference_is_saved_as_a_program_that_holds(run: Command) -> None:
    code, out, err = run("diff", "v5.17", "v5.18", "--seed", "1", "--examples", "60")
    assert code == 1
    files = sorted(Path("differences").iterdir())
    assert files
    for file in files:
        assert f"  xfdfuzz replay {file} --revision v5.17" in out
        assert f"saved {file}" in err
    code, out, err = run("replay", "differences")
    assert code == 0, out + err
    assert f"{len(files)} programs, {2 * len(files)} verdicts: {2 * len(files)} ok, 0 FAIL" in out


def test_what_the_scout_finds_on_two_kernels_is_as_short(run: Command) -> None:
    common = ("v7.3-b45f72177594", "v7.3", "--seed", "1", "--examples", "500", "--format", "json")
    found = json.loads(run("diff", *common, "--engine", "scout")[1])["differences"]
    dies = next(one for one in found if one["bucket"] == "KvmRun: gives panic | ok")
    ops = [line for line in dies["program"].splitlines() if line and not line.startswith(("#", "machine"))]
    assert len(ops) <= 13
    for one in found:
        assert one["bucket"] in [
            d.bucket for d in differences(parse(one["program"]), pair("v7.3-b45f72177594", "v7.3"))
        ]


def test_a_patch_alone_is_found_and_named_in_comments(run: Command) -> None:
    code, out, _ = run("diff", "v5.17", "v5.17+063452fd94d1", "--seed", "1", "--examples", "60", "--format", "json")
    assert code == 1
    report = json.loads(out)
    assert report["revisions"] == ["v5.17", "v5.17+063452fd94d1"]
    overwritten = next(found for found in report["differences"] if "permission-only-grows@" in found["bucket"])
    assert "# expect: v5.17 violates permission-only-grows\n" in overwritten["program"]
    assert "# v5.17+063452fd94d1: nothing\n" in overwritten["program"]
    assert Path(overwritten["file"]).read_text() == overwritten["program"]


def test_a_difference_that_a_fresh_process_does_not_confirm_is_a_doubt(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xfdfuzz.engines.judge.confirm.Confirmer._answer", lambda *_: [])
    code, _, err = run("diff", "v5.17", "v5.18", "--seed", "1", "--examples", "20")
    assert code == 3
    assert "does not show in a fresh process" in err


def test_a_seed_gives_the_same_differences_again(run: Command) -> None:
    command = ("diff", "amx-v1", "v5.17", "--seed", "3", "--examples", "30", "--format", "json")
    first, second = (json.loads(run(*command)[1]) for _ in range(2))
    for one in (first, second):
        # how often a function ran depends on what a process has kept of the campaign before
        del one["seconds"], one["reach"]["functions"]
    assert first["differences"]
    assert first["doubts"] == []
    assert first == second


def test_the_command_that_repeats_names_a_file_of_the_users(run: Command, same: Callable[[str, str], Path]) -> None:
    same("same.py", "diffed-series")
    code, out, _ = run("diff", "v7.3", "same.py", "--seed", "1", "--examples", "5")
    assert code == 0
    path = Path("same.py").resolve()
    options = "--seed 1 --examples 5 --steps 50 --engine both --save differences"
    repeat = f"repeat: xfdfuzz diff v7.3 {path} {options}"
    *_, summary, last = out.splitlines()
    assert summary.startswith("v7.3 | diffed-series: 0 differences in 5 examples")
    assert last == repeat


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["v7.3"], "R2"),
        (["v7.3", "v9"], "unknown revision v9"),
        (["v5.16", "v5.16+b45f72177594"], "b45f72177594 does not apply to v5.16"),
        (["v7.3", "v5.17", "--save", "file/below"], "cannot save to file/below: Not a directory"),
    ],
)
def test_bad_input(run: Command, argv: list[str], message: str) -> None:
    Path("file").write_text("")
    code, out, err = run("diff", *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


# -- what shows late ---------------------------------------------------------------------------------------------------

FORGETS = """\
from xfdfuzz import Series
from xfdfuzz.kernel.fpu.core import FpuCore

series = Series("forgets", base="v7.3", title="Forget whose registers they are")


@series.patch("forgets-1", "x86/fpu: Forget whose registers they are")
class Patch(FpuCore):
    def switch_fpu_return(self):
        \"""Leave no CPU from which the registers could be taken (arch/x86/kernel/fpu/context.h).\"""
        super().switch_fpu_return()
        LAST
"""


@dataclass(kw_only=True)
class Counting(DifferenceCampaign):
    """Counts the programs that go on from where another one was."""

    resumed: list[int] = field(default_factory=list)

    def again(self, machine: Machine, saved: Any) -> Run:
        self.resumed.append(self.stats.examples)
        run = super().again(machine, saved)
        assert run.parted
        return run


@pytest.mark.parametrize(("last", "parts"), [("self.current.fpu.last_cpu = -1", True), ("pass", False)])
def test_the_scout_goes_on_from_where_the_states_came_to_differ(tmp_path: Path, last: str, parts: bool) -> None:
    """Whatever of it can be seen is nothing that is looked for here."""
    file = tmp_path / "forgets.py"
    file.write_text(FORGETS.replace("LAST", last))
    campaign = Counting(pair=pair("v7.3", str(file)), wanted="nothing that there is")
    with suppress(Spent), campaign.after_each_example(Budget(examples=200).spend_example):
        Scout(campaign, 1, 50).search()
    assert campaign.stats.examples == 200
    assert (campaign.stats.partings > 0) == parts
    assert bool(campaign.resumed) == parts
    reach = campaign.reach([])
    assert reach
    assert reach.partings == campaign.stats.partings
