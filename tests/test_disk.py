"""Disks that are full, paths that are no files, what killed runs have left, two runs in one directory."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.lockstep import Pair, differences
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.text import parse
from xfdfuzz.report import directory, files
from xfdfuzz.revisions import resolve

Run = Callable[..., tuple[int, str, str]]
REQUEST = "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)"
LEFT_OVER = ".v5.17-no-warning-00000000.xfd.abcd1234.xfdfuzz-part"


def fill(directory: Path, *, leave: int = 0) -> None:
    """Fill the disk but for ``leave`` bytes."""
    with (directory / "filling").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(directory / "filling", (directory / "filling").stat().st_size - leave)


@pytest.fixture
def small() -> Iterator[Path]:
    """A disk of 64 kB."""
    path = Path("small")
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a tmpfs, as root can: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_is_told_before_the_search(run: Run, small: Path) -> None:
    fill(small)
    code, out, err = run("fuzz", "--examples", "5", "--save", "small")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "xfdfuzz: cannot save to small: No space left on device"
    assert [path.name for path in small.iterdir()] == ["filling"]


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("fuzz", "--revision", "v5.17", "--seed", "1", "--examples", "120"), "findings"),
        (("diff", "v5.17", "v5.18", "--seed", "1", "--examples", "120"), "differences"),
        (("explore", "--depth", "8"), "findings"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_a_disk_does_not_hold_is_printed_whole(run: Run, small: Path, command: tuple[str, ...], key: str) -> None:
    fill(small, leave=2 * 4096)
    code, out, err = run(*command, "--save", "small", "--format", "json")
    assert code == 3
    assert err.count("cannot save to small: No space left on device") == 1
    assert "None" not in err
    found = json.loads(out)[key]
    unsaved = [one for one in found if one["file"] is None]
    assert unsaved
    for one in unsaved:
        assert parse(one["program"]).ops
        assert f"found {one['bucket']}" in err
    saved = {Path(one["file"]) for one in found if one["file"]}
    assert saved == {*small.glob("*.xfd")} | {path for path in saved if path.suffix != ".xfd"}
    for one in found:
        if one["file"]:
            assert Path(one["file"]).read_text() == one["program"]
    assert not [*small.glob(".*")]


def test_an_unsaved_finding_can_be_copied_from_the_text(run: Run, small: Path) -> None:
    fill(small, leave=4096)
    code, out, _ = run("explore", "--depth", "4", "--save", "small")
    assert code == 3
    # a header, a blank line, ops, a blank line
    texts = re.findall(r"its program:\n\n(# xfdfuzz program 1\n(?:.+\n)+\n(?:.+\n)+)\n", out)
    assert len(texts) == out.count("not saved; its program:") > 0
    for text in texts:
        assert judge(parse(text), resolve("amx-v1"), expectations=False).violations


def test_a_skeleton_that_does_not_fit_is_not_left_half_written(run: Run, small: Path) -> None:
    fill(small)
    command = ("new", "invariant", "my-own", "--directory", "small")
    assert run(*command) == (2, "", "xfdfuzz: small/my_own.py: No space left on device\n")
    assert [path.name for path in small.iterdir()] == ["filling"]
    (small / "filling").unlink()
    assert run(*command)[0] == 0


@pytest.mark.parametrize("kind", ["directory", "fifo", "missing"])
def test_a_graph_that_cannot_be_written_is_told_before_the_search(run: Run, kind: str) -> None:
    path = Path("missing/graph") if kind == "missing" else Path("graph")
    if kind == "directory":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    code, out, err = run("explore", "--graph", str(path))
    assert (code, out) == (2, "")
    assert err.startswith(f"xfdfuzz: {path}: cannot be written: ")
    assert not [*Path().glob("findings/*.xfd")]


def test_a_read_only_disk_is_told_before_the_search(run: Run, small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert run("fuzz", "--save", "small")[::2] == (2, "xfdfuzz: cannot save to small: Read-only file system\n")
    assert run("explore", "--graph", "small/graph")[0] == 2
    assert run("new", "invariant", "my-own", "--directory", "small")[0] == 2


@pytest.mark.parametrize("kind", ["fifo", "file"])
def test_what_is_no_directory_is_not_saved_to(run: Run, kind: str) -> None:
    path = Path("findings")
    path.touch() if kind == "file" else os.mkfifo(path)
    code, _, err = run("fuzz", "--examples", "5")
    assert code == 2
    assert err.startswith("xfdfuzz: cannot save to findings: ")


def test_what_a_killed_run_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    others = [".v5.17-x.xfd.abcd1234", "x.xfdfuzz-part", ".hidden.xfd", ".a.abcd1234.xfdfuzz-part.bak"]
    for name in [LEFT_OVER, *others]:
        (tmp_path / name).write_text("# half")
    with (tmp_path / ".alive.xfd.abcd1234.xfdfuzz-part").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        files.check_directory(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, Path(alive.name).name}


def test_two_campaigns_in_one_directory_lose_nothing_and_save_a_bucket_once() -> None:
    command = [sys.executable, "-m", "xfdfuzz", "fuzz", "--revision", "v5.17", "--time", "3", "--format", "json"]
    pipe = subprocess.PIPE
    both = [subprocess.Popen([*command, "--seed", seed], stdout=pipe, stderr=pipe, text=True) for seed in "12"]
    outs = [child.communicate(timeout=90) for child in both]
    assert [child.returncode for child in both] == [1, 1], outs
    first, second = ({(f["bucket"], f["shape"]): f for f in json.loads(out)["findings"]} for out, _ in outs)
    assert first.keys() & second.keys()
    for kind in first.keys() & second.keys():
        assert first[kind]["file"] == second[kind]["file"]
    found = [*first.values(), *second.values()]
    assert {Path(one["file"]) for one in found} == {*Path("findings").iterdir()}
    for one in found:
        saved = parse(Path(one["file"]).read_text())
        assert saved.ops == parse(one["program"]).ops
        assert one["bucket"] in judge(saved, resolve("v5.17"), expectations=False).buckets


def by_hand(*ops: str) -> Finding:
    """What breaks permission-only-grows on v5.17, with other ops before."""
    program = parse("\n".join(("# xfdfuzz program 1", "machine cpus=1", "", *ops, REQUEST, "")))
    revision = resolve("v5.17")
    return Finding(judge(program, revision, expectations=False).violations[-1], program, revision)


def test_what_another_campaign_has_saved_is_not_saved_again_but_said() -> None:
    kept = directory.keep(by_hand("t0 ioctl(kvm, KVM_CREATE_VM)"), Path())
    again = directory.keep(by_hand(), Path())
    assert (again.file, again.program, again.violation) == (kept.file, kept.program, kept.violation)
    assert [kept.file] == [*Path().iterdir()]
    # one that shows it no more, or is of another revision or bucket, is not it
    assert kept.file is not None
    kept.file.write_text(kept.file.read_text().replace(REQUEST, "t0 ioctl(kvm, KVM_CREATE_VM)"))
    for other in (by_hand(), replace(by_hand(), revision=resolve("v5.18"))):
        assert directory.keep(other, Path()).program == other.program
    assert len([*Path().iterdir()]) == 3


def test_one_program_of_two_buckets_is_one_file_that_names_both() -> None:
    one = by_hand()
    two = replace(one, violation=replace(one.violation, site="elsewhere"))
    kept = [directory.keep(found, Path()).file for found in (one, two, one)]
    (file,) = {*kept}
    assert file is not None
    assert files.buckets(parse(file.read_text())) == (one.bucket, two.bucket)


def test_differences_are_saved_once_too() -> None:
    pair = Pair(resolve("v5.17"), resolve("v5.18"))
    kept = []
    for before in ((), ("t0 ioctl(kvm, KVM_CREATE_VM)",)):
        program = by_hand(*before).program
        difference, *_ = differences(program, pair)
        kept.append(directory.keep(Discrepancy(difference, program, pair), Path()).file)
    assert [*Path().iterdir()] == [kept[0]] == [kept[1]]


def test_a_campaign_that_was_stopped_while_it_saved_holds_nobody_up() -> None:
    handle = os.open(".", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert directory.keep(by_hand(), Path()).file is not None
    os.close(handle)
