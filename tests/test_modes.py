"""`fuzz --mode`: what a change breaks alone, going on from what was saved, tidying it up."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.campaign import Discovered
from xfdfuzz.engines.search.change import ChangeCampaign
from xfdfuzz.engines.search.database import Database, Kept, ProgramFiles
from xfdfuzz.engines.search.prune import Saved, needless, prune
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.report.files import save
from xfdfuzz.revisions import RevisionError, base_of, resolve

Run = Callable[..., tuple[int, str, str]]
#: On v5.17 with a bug of its own: a guest's XFD does not reach its fpstate.
BROKEN = """\
from xfdfuzz import Series
from xfdfuzz.revisions.amx_v6 import AmxV6

series = Series("broken", base="v5.17", title="broken")


@series.patch("broken-1", "x86/fpu: Forget the guest's XFD")
class Forgets(AmxV6):
    def fpu_update_guest_xfd(self, guest_fpu, xfd):
        pass
"""
SAME = BROKEN.replace("        pass", "        super().fpu_update_guest_xfd(guest_fpu, xfd)")
HEAD = "# xfdfuzz program 1\nmachine cpus=1\n\n"
#: On v5.17 a request of either kind overwrites the permissions: two buckets.
HOST = "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\n"
GUEST = "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n"
VM = "t0 ioctl(kvm, KVM_CREATE_VM)\n"


# -- change ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_change_that_changes_nothing_breaks_nothing(run: Run, workers: str) -> None:
    """Whatever the seed; without the mode it has all that v5.17 has."""
    Path("same.py").write_text(SAME)
    job = ["fuzz", "--revision", "same.py", "--examples", "60", "--format", "json", "--workers", workers]
    code, out, _ = run(*job, "--mode", "change")
    assert (code, json.loads(out)["findings"]) == (0, [])
    if workers == "1":
        assert json.loads(run(*job)[1])["findings"]


def test_what_a_change_breaks_is_found_behind_what_was_broken_before(run: Run) -> None:
    Path("broken.py").write_text(BROKEN)
    job = ["fuzz", "--revision", "broken.py", "--mode", "change", "--engine", "scout"]
    code, out, err = run(*job, "--examples", "120", "--seed", "2", "--format", "json")
    found = json.loads(out)["findings"]
    assert code == 1
    assert found
    assert "--mode change" in err
    for finding in found:
        program = parse(finding["program"])
        assert finding["bucket"] in judge(program, resolve("broken.py"), expectations=False).buckets
        assert finding["bucket"] not in judge(program, resolve("v5.17"), expectations=False).buckets


#: A vCPU moves to a CPU, which then goes down and comes up.
HOTPLUG = """\
# xfdfuzz program 1
machine cpus=2

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
{before}t0 ioctl(v0, KVM_RUN) ...
{written}cpu0 schedule(kthread)
cpu1 schedule(t0)
v0 vmenter
v0 hlt
cpu1 hotplug
"""
CPUID = "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|avx512|pkru|xtile, xfd, amx})\n"
WRITTEN = "v0 vmenter\nv0 wrmsr(IA32_XFD, 0x40000)\nv0 handle\n"


def test_a_bucket_of_the_base_hides_no_other_program_that_breaks_it() -> None:
    """On v6.6 the shadow is wrong after hotplug if the guest never had XFD; on the series also if it had set it."""
    Path("broken.py").write_text(BROKEN.replace("v5.17", "v6.6"))
    revision, base = resolve("broken.py"), resolve("v6.6")
    bucket = "xfd-shadow-matches-msr@Hotplug"
    both = parse(HOTPLUG.format(before="", written=""))
    alone = parse(HOTPLUG.format(before=CPUID, written=WRITTEN))
    shown = [
        (bucket in judge(program, kernel, expectations=False).buckets)
        for program in (both, alone)
        for kernel in (revision, base)
    ]
    assert shown == [True, True, True, False]
    campaign = ChangeCampaign(revision=revision, base=base)
    assert bucket not in [one.bucket for one in campaign.shown(both)]
    assert bucket in [one.bucket for one in campaign.shown(alone)]
    campaign.replay(both)
    with pytest.raises(Discovered):
        campaign.looking_for(bucket).replay(alone)


#: An exit that only the base takes keeps t0 in KVM_RUN there, so it does not come to its request.
BUSY = f"""\
# xfdfuzz program 1
machine cpus=1

{GUEST}{VM}t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
{CPUID}t0 ioctl(v0, KVM_SET_MSRS, {{IA32_XFD: 0x40000}})
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|avx512|pkru|xtile)
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 tilestore
v0 interrupt
t0 ... KVM_RUN
{HOST}"""


def test_what_the_base_does_not_come_to_is_not_the_changes() -> None:
    Path("broken.py").write_text(BROKEN)
    revision, base = resolve("broken.py"), resolve("v5.17")
    program, bucket = parse(BUSY), "permission-only-grows@host"
    shown = judge(program, revision, expectations=False), judge(program, base, expectations=False)
    assert [bucket in verdict.buckets for verdict in shown] == [True, False]
    assert (shown[0].left_out, shown[1].results[-1]) == (0, "not-enabled")
    campaign = ChangeCampaign(revision=revision, base=base)
    assert [one.bucket for one in campaign.shown(program)] == ["guest-sees-its-xfd@VmEnter"]
    assert not campaign.alone(program, bucket)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("v6.12+b45f72177594", "v6.12"),
        ("v7.3-b45f72177594", "v7.3"),
        ("same.py", "v5.17"),
        ("same.py-same-1", "same"),
        ("amx-v4", "v5.16"),
        ("781c64bfcb73", "781c64bfcb73-781c64bfcb73"),
        ("v7.3-cured", "v7.3"),
    ],
)
def test_the_base_of_a_change(name: str, base: str) -> None:
    Path("same.py").write_text(SAME.replace("broken", "same"))
    assert base_of(resolve(name)).label == base


def test_what_is_no_change_has_no_base(run: Run) -> None:
    with pytest.raises(RevisionError, match=r"v6\.6 is no change of another revision"):
        base_of(resolve("v6.6"))
    code, out, err = run("fuzz", "--revision", "amx-v4", "--revision", "v6.6", "--mode", "change")
    assert (code, out) == (2, "")
    assert err.startswith("xfdfuzz: --mode change: v6.6 is no change of another revision: expected a file *.py")
    assert len(err.splitlines()) == 1


# -- batch -------------------------------------------------------------------------------------------------------------


def test_a_batch_begins_with_what_was_saved(run: Run) -> None:
    """So it finds again what one example of a search does not."""
    Path("findings").mkdir()
    Path("findings/a.xfd").write_text(HEAD + GUEST * 2)
    Path("findings/b.xfd").write_text(HEAD + HOST * 2)
    Path("findings/c.xfd").write_text("no program\n")
    Path("findings/d.txt").write_text(HEAD)
    code, out, err = run("fuzz", "--revision", "v5.17", "--mode", "batch", "--examples", "2", "--format", "json")
    assert code == 1
    assert "v5.17: begins with 2 programs of before (1 skipped: none of this version)" in err
    assert "--mode batch" in err
    found = {finding["bucket"]: finding["engine"] for finding in json.loads(out)["findings"]}
    assert found == {"permission-only-grows@guest": "database", "permission-only-grows@host": "database"}


# -- prune -------------------------------------------------------------------------------------------------------------


def files() -> dict[str, str]:
    return {path.name: path.read_text() for path in Path("findings").iterdir()}


def test_pruning_leaves_a_program_for_each_bucket_and_touches_nothing_else(run: Run) -> None:
    Path("findings").mkdir()
    named = "findings/v5.17-permission-only-grows-0000000{}.xfd"
    Path(named.format(1)).write_text(HEAD + GUEST * 3)
    Path(named.format(2)).write_text(HEAD + VM + GUEST * 2)
    Path(named.format(3)).write_text(HEAD + HOST * 4)
    Path(named.format(4)).write_text(HEAD + VM)
    others = {"mine.xfd": HEAD + GUEST * 4, "v5.18-permission-only-grows-00000001.xfd": HEAD + GUEST * 4}
    for name, text in others.items():
        Path("findings", name).write_text(text)
    code, out, _ = run("fuzz", "--revision", "v5.17", "--mode", "prune", "--format", "json")
    assert code == 0
    told = json.loads(out)
    kept = {one["bucket"]: Path(one["file"]).name for one in told["kept"]}
    assert kept.keys() == {"permission-only-grows@guest", "permission-only-grows@host"}
    assert told["removed"] == [named.format(n) for n in (1, 2, 3)]
    assert told["silent"] == [named.format(4)]
    left = files()
    assert left.keys() == {*others, *kept.values(), Path(named.format(4)).name}
    assert all(left[name] == text for name, text in others.items())
    for bucket, name in kept.items():
        program = parse(left[name])
        assert bucket in judge(program, resolve("v5.17"), expectations=False).buckets
        assert len(program.ops) == 1
    assert run("replay", *(f"findings/{name}" for name in kept.values()))[0] == 0
    # a second time there is nothing to do
    assert json.loads(run("fuzz", "--revision", "v5.17", "--mode", "prune", "--format", "json")[1])["removed"] == []
    assert files() == left
    assert "v5.17: 2 findings kept, 0 removed, 1 silent" in run("fuzz", "--revision", "v5.17", "--mode", "prune")[1]


def test_the_baseline_is_checked(run: Run) -> None:
    entry = "[[known]]\nbucket = 'permission-only-grows@guest'\nrevisions = '{}'\nprogram = '''\n{}'''\n"
    job = ["fuzz", "--revision", "v5.17", "--mode", "prune", "--baseline", "b.toml"]
    Path("b.toml").write_text(entry.format("v5.17", HEAD + GUEST))
    assert run(*job)[0] == 0
    Path("b.toml").write_text(entry.format("v7.3", HEAD + GUEST))
    code, _, err = run(*job)
    assert code == 1
    assert "permission-only-grows@guest: does not show on v7.3" in err


def test_where_nothing_was_saved_there_is_nothing_to_do(run: Run) -> None:
    code, out, err = run("fuzz", "--revision", "v5.17", "--mode", "prune")
    assert (code, out, err) == (0, "v5.17: 0 findings kept, 0 removed, 0 silent\n", "")
    assert not Path("findings").exists()


def test_what_searches_have_saved_is_made_plainer(run: Run) -> None:
    """Files of searches say of which buckets they are."""
    Path("findings").mkdir()
    longer = Finding(judge(HEAD + VM + GUEST, "v5.17").violations[0], parse(HEAD + VM + GUEST), resolve("v5.17"))
    old = save(longer, Path("findings"))
    assert run("fuzz", "--revision", "v5.17", "--mode", "prune")[0] == 0
    (left,) = Path("findings").iterdir()
    assert left != old
    assert [*parse(left.read_text()).ops] == [*parse(HEAD + GUEST).ops]
    assert "permission-only-grows@guest" in left.read_text()


def test_nothing_is_removed_where_nothing_can_be_saved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Path("findings").mkdir()
    Path("findings/v5.17-permission-only-grows-00000001.xfd").write_text(HEAD + GUEST * 3)
    before = files()
    monkeypatch.setattr("xfdfuzz.report.files.save_bytes", full)
    code, _, err = run("fuzz", "--revision", "v5.17", "--mode", "prune")
    assert (code, err) == (3, "xfdfuzz: cannot prune findings: No space left on device\n")
    assert files() == before


def test_what_is_private_stays_so(run: Run) -> None:
    Path("findings/private").mkdir(parents=True)
    Path("findings/private/v5.17-permission-only-grows-00000001.xfd").write_text(HEAD + GUEST * 3)
    code, out, _ = run("fuzz", "--revision", "v5.17", "--mode", "prune", "--private")
    assert (code, out) == (0, "v5.17: 1 finding kept, 1 removed, 0 silent\n")
    (kept,) = Path("findings").rglob("*.xfd")
    assert kept.parent == Path("findings/private")
    code, _, err = run("fuzz", "--revision", "v5.17", "--mode", "batch", "--examples", "2", "--private")
    assert "begins with 1 program of before" in err


def test_without_time_the_shortest_is_left_as_it_is() -> None:
    saved = {n: Saved(parse(HEAD + VM * n + GUEST * 2), "permission-only-grows") for n in (3, 1, 2)}
    pruned = prune(saved, resolve("v5.17"), in_time=lambda: False)
    assert [len(finding.program.ops) for finding in pruned.kept] == [3]
    assert set(pruned.needless) == {1, 2, 3}


def test_pruned_findings_are_in_the_reports(run: Run) -> None:
    Path("findings").mkdir()
    Path("findings/v5.17-permission-only-grows-00000001.xfd").write_text(HEAD + GUEST * 3)
    assert run("fuzz", "--revision", "v5.17", "--mode", "prune", "--output", "junit=r.xml")[0] == 0
    assert "permission-only-grows@guest" in Path("r.xml").read_text()


def test_what_adds_nothing_is_needless() -> None:
    one, longer, other = parse(HEAD + VM), parse(HEAD + VM + HOST), parse(HEAD + VM + VM + HOST)
    assert needless([other, longer, one], resolve("v5.17")) == [other]
    assert needless([longer, one], resolve("v5.17")) == []


def test_what_is_needless_goes_from_the_databases(run: Run) -> None:
    job = ["fuzz", "--revision", "v5.17", "--database", "kept", "--format", "json"]
    for seed in ("1", "2"):
        run(*job, "--examples", "20", "--seed", seed)
    told = json.loads(run(*job, "--mode", "prune")[1])
    again = json.loads(run(*job, "--mode", "prune")[1])
    assert told["database_programs"] > told["database_dropped"] >= 0
    assert again["database_programs"] == told["database_programs"] - told["database_dropped"]
    assert again["database_dropped"] == 0


def test_a_program_of_a_database_is_dropped_with_all_its_texts(tmp_path: Path) -> None:
    from hypothesis.database import InMemoryExampleDatabase

    memory = InMemoryExampleDatabase()
    kept = Kept([Database("memory", memory)], [resolve("v5.17")], pytest.fail)
    key = b"xfdfuzz/1/v5.17"
    for text in (HEAD + VM, "# xfdfuzz program 1\n# title: the same\n" + HEAD.split("\n", 1)[1] + VM):
        memory.save(key, text.encode())
    (program,) = kept.programs()
    kept.drop(program)
    assert kept.programs() == []


def test_nothing_is_kept_in_program_files() -> None:
    Path("a.xfd").write_text(HEAD + VM)
    kept = Kept([Database("here", ProgramFiles(Path()))], [resolve("v5.17")], pytest.fail)
    (program,) = kept.programs()
    kept.keep(parse(HEAD + HOST))
    kept.drop(program)
    assert [format_program(one) for one in kept.programs()] == [format_program(program)]


#: In plainer forms of it an op does not happen on amx-v1, and does on v5.16, where it matters.
HAPPENS_BELOW = """\
# xfdfuzz program 1
machine cpus=1 mpx cet

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|mpx|avx512|pkru|xtile, xss: cet_user|cet_kernel, xfd, amx})
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 xsetbv(x87|sse|avx|mpx|avx512|pkru|xtile)
v0 handle
t0 ... KVM_RUN
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 vmlaunch intercept-nm
v0 handle
v0 vmenter
v0 stts
v0 tileload(3)
v0 handle
v0 vmenter
v0 wrmsr(IA32_XFD_ERR, 0x40000)
v0 interrupt
t0 ... KVM_RUN
t0 tileload(1)
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 wrmsr(IA32_XSS, 0x1800)
v0 handle
v0 vmenter
"""


def test_what_happens_on_the_base_alone_is_no_part_of_what_a_change_breaks() -> None:
    campaign, key = ChangeCampaign(revision=resolve("amx-v1"), base=resolve("v5.16")), "guest-sees-its-xfd-err@VmEnter"
    smallest = campaign.minimise(parse(HAPPENS_BELOW), key)
    assert len(smallest.ops) < len(parse(HAPPENS_BELOW).ops)
    assert key in [found.bucket for found in campaign.shown(parse(format_program(smallest)))]
