"""Revisions: what composes, what refuses, and that a patch does what it says."""

from __future__ import annotations

import re

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import FpuStatePerm
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import PATCHES, RevisionError, names, resolve, selects
from xfdfuzz.revisions.left_out import LEFT_OUT
from xfdfuzz.revisions.queue import DECLARED, Patch, compose

OVERWRITE = """# xfdfuzz program 1
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0
t0 arch_prctl(ARCH_GET_XCOMP_PERM)
"""


def permission(name: str, *apply: str) -> str:
    return judge(parse(OVERWRITE), resolve(name, apply), expectations=False).results[1]


def test_every_revision_has_a_kernel_that_boots_and_runs() -> None:
    program = parse("# xfdfuzz program 1\nmachine cpus=1\n\nt0 ioctl(kvm, KVM_CREATE_VM) = vm0\n")
    for name in names():
        assert judge(program, resolve(name)).ok, name


def test_aliases_name_the_same_revision() -> None:
    assert resolve("mainline").label == resolve("v7.3").label == resolve("v7.3.4").label


def test_the_label_names_what_was_applied_and_reverted() -> None:
    assert resolve("v5.17", ["063452fd94d1"]).label == "v5.17+063452fd94d1"
    assert resolve("v7.3", revert=["b45f72177594"]).label == "v7.3-b45f72177594"


def test_a_fix_applied_to_an_old_revision_cures_it() -> None:
    assert permission("v5.17") == "0 [xtiledata]"
    assert permission("v5.17", "063452fd94d1") == "0 [x87|sse|avx|avx512|pkru|xtile]"
    assert permission("v5.16", "063452fd94d1") == permission("v5.18") == "0 [x87|sse|avx|avx512|pkru|xtile]"


def test_mainline_is_a_prefix_of_the_queue() -> None:
    queue = [p.commit for p in PATCHES.values()]
    for name in ("v5.17", "v5.18", "v6.6", "v6.12", "v6.18", "v7.3"):
        commits = [p.commit for p in resolve(name).patches]
        assert commits == queue[: len(commits)], name


def test_every_declared_patch_has_a_place_in_the_queue_and_versions_ascend() -> None:
    queue = [p for p in PATCHES.values() if p.cls.__module__.startswith("xfdfuzz.")]
    assert set(queue) == {p for p in DECLARED.values() if p.cls.__module__.startswith("xfdfuzz.")}
    versions = [tuple(int(part) for part in p.version[1:].split(".")) for p in queue]
    assert versions == sorted(versions)


def test_v5_17_is_the_last_posting_and_what_came_until_its_release() -> None:
    posted, merged = resolve("amx-v6"), resolve("v5.17")
    assert not posted.patches
    commits = [p.commit for p in merged.patches]
    assert commits == ["c6617c61e8fe", "dd6e63122018", "ad856280ddea", "988896bb6182"]
    assert resolve("amx-v6", commits).kernel.__mro__[1:] == merged.kernel.__mro__[1:]


def test_what_was_posted_on_mainline_has_its_patches_but_not_the_one_that_was_taken_instead() -> None:
    commits = {p.commit for p in resolve("amx-px25").patches}
    assert {p.commit for p in resolve("v6.18").patches} < commits
    assert "9bc610b6a2a7" in commits
    assert "b45f72177594" not in commits


def test_a_stable_version_has_its_backports_and_not_what_came_between() -> None:
    commits = {p.commit for p in resolve("v6.1.192").patches}
    assert "b45f72177594" in commits
    assert "55cd57b596e8" not in commits
    assert "b45f72177594" not in {p.commit for p in resolve("v6.17.13").patches}


@pytest.mark.parametrize(
    ("commit", "line", "first"),
    [
        ("b45f72177594", "v6.6", 122),
        ("b45f72177594", "v6.12", 67),
        ("10e4b5166df9", "v6.8", 3),
        ("10e4b5166df9", "v6.1", 84),
        ("388eff894d6b", "v6.17", 8),
    ],
)
def test_a_stable_line_has_a_backport_from_its_first_version_with_it_on(commit: str, line: str, first: int) -> None:
    """CVE-2026-23005, CVE-2024-35801 and CVE-2025-68171, as the kernel's list of them has it."""
    having = [commit in {p.commit for p in resolve(f"{line}.{number}").patches} for number in (first - 1, first)]
    assert having == [False, True]


def test_what_is_left_out_is_a_commit_once_and_not_in_the_queue() -> None:
    commits = [one.commit for one in LEFT_OUT]
    assert all(re.fullmatch("[0-9a-f]{12}", commit) for commit in commits)
    assert len({*commits}) == len(commits)
    assert not PATCHES.keys() & {*commits}
    for one in LEFT_OUT:
        assert (5, 16) <= tuple(map(int, one.version[1:].split("."))) <= (7, 4)
        assert (one.version == "v5.16") == one.reason.startswith("v5.16, which the model begins with, has it")
        assert one.title
        assert all(commit in PATCHES for commit in re.findall(r"\b[0-9a-f]{12}\b", one.reason)), one


def test_what_is_left_out_is_refused_with_the_reason() -> None:
    whole = "1cec9ac2d071cfd2da562241aab0ef701355762a"
    for name, apply, revert in (("v7.3", [whole], []), ("v7.3", [], ["1cec9a"]), (whole, [], [])):
        with pytest.raises(RevisionError, match=r"1cec9ac2d071 .* is not in the queue: .* a warning names"):
            resolve(name, apply, revert)


def test_what_v5_16_has_is_known_as_that() -> None:
    for commit in ("2308ee57d93d", "c351101678ce", "6c3118c32129"):
        with pytest.raises(
            RevisionError, match=rf"{commit} .* is not in the queue: v5.16, which the model begins with, has it"
        ):
            resolve("v7.3", revert=[commit])


@pytest.mark.parametrize("release", ["v5.16", "v5.19", "v6.0", "v6.5", "v6.19", "v7.2"])
def test_a_release_is_mainline_up_to_its_version(release: str) -> None:
    wanted = tuple(map(int, release[1:].split(".")))
    newer = [p for p in PATCHES.values() if tuple(map(int, p.version[1:].split("."))) > wanted]
    assert not {p.commit for p in newer} & {p.commit for p in resolve(release).patches}
    assert len(resolve(release).patches) + len(newer) == len(PATCHES)


def test_a_version_may_have_patches_added_and_left_out() -> None:
    assert resolve("6.8+b45f72177594").label == "v6.8+b45f72177594"
    assert resolve("v6.8.12-10e4b5166df9").reverted == ("10e4b5166df9",)
    assert resolve("6.8.12-ubuntu").label == "v6.8.12"
    with pytest.raises(RevisionError, match="unknown commit 063"):
        resolve("v6.8+063")


@pytest.mark.parametrize(
    ("name", "apply", "revert", "message"),
    [
        ("v9.9", [], [], "unknown revision v9.9: expected one of amx-v1, "),
        ("v5.17", ["123456789abc"], [], "unknown commit 123456789abc"),
        ("v5.17", ["0634"], [], "unknown commit 0634"),
        ("v7.3", ["b45f72177594"], [], "v7.3 has b45f72177594 already"),
        ("v5.17", [], ["b45f72177594"], "v5.17 does not have b45f72177594"),
        ("v5.16", ["b45f72177594"], [], "b45f72177594 does not apply to v5.16"),
        ("v7.3", [], ["063452fd94d1"], "cannot revert 063452fd94d1: d8414603b29f"),
    ],
)
def test_what_cannot_be_composed_is_refused_in_one_line(
    name: str, apply: list[str], revert: list[str], message: str
) -> None:
    with pytest.raises(RevisionError, match=f"^{message}") as refused:
        resolve(name, apply, revert)
    assert "\n" not in str(refused.value)


def test_a_patch_that_stands_on_another_patch_is_refused_without_it() -> None:
    below = PATCHES["063452fd94d1"]

    class OnTop(below.cls):  # type: ignore[name-defined, misc]
        def write_state_perm(self, perm: FpuStatePerm, permitted: int, requested: int) -> None:
            perm.state_perm = permitted

    assert issubclass(OnTop, Xstate)
    top = Patch("fedcba987654", "stands on another", "v9.0", (), (), OnTop)
    with pytest.raises(RevisionError, match="does not apply"):
        compose("test", Kernel, [top])


@pytest.mark.parametrize(
    ("spec", "selected", "refused"),
    [
        ("v5.18..", ["v5.18", "v7.3", "mainline"], ["v5.17", "v6.1.192", "amx-v1"]),
        ("..v5.17", ["v5.16", "v5.17"], ["v5.18"]),
        ("v5.17..v6.6", ["v5.17", "v6.6"], ["v6.12"]),
        ("amx-v1..amx-review-b", ["amx-review-a"], ["amx-review-c", "v5.17"]),
        ("amx-tglx..amx-v4", ["amx-tglx", "amx-v2", "amx-v3", "amx-v4"], ["amx-review-c", "amx-v5"]),
        ("amx-v2..", ["amx-v5", "amx-v6"], ["amx-tglx", "amx-px25", "v5.17"]),
        ("amx-px25", ["amx-px25"], ["amx-v6", "v6.18"]),
        ("v6.1.192", ["v6.1.192"], ["v6.6"]),
        ("*", ["amx-v1", "v7.3", "v6.17.13"], []),
    ],
)
def test_ranges(spec: str, selected: list[str], refused: list[str]) -> None:
    assert all(selects(spec, name) for name in selected)
    assert not any(selects(spec, name) for name in refused)


def test_a_range_across_lines_is_an_error() -> None:
    with pytest.raises(RevisionError, match=r"amx-v1\.\.v5\.17"):
        selects("amx-v1..v5.17", "v5.16")


@pytest.mark.parametrize("commit", list(PATCHES))
def test_a_revert_is_refused_or_changes_the_kernel(commit: str) -> None:
    """A revert that composes and changes nothing would make a campaign say "clean" about the wrong kernel."""
    whole = resolve("v7.3").kernel
    try:
        without = resolve("v7.3", revert=[commit]).kernel
    except RevisionError:
        return
    changed = [name for name in vars(PATCHES[commit].cls) if not name.startswith("__")]
    assert any(_resolved(whole, name) != _resolved(without, name) for name in changed)


def _resolved(kernel: type[Kernel], name: str) -> list[object]:
    """Every definition that takes part in ``name``: a method that calls super() goes on down the stack."""
    return [vars(cls)[name] for cls in kernel.__mro__ if name in vars(cls)]
