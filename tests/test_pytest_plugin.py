"""Programs as tests of pytest, in somebody's tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import xfdfuzz.report.verdict  # noqa: F401 - what a run of pytester imports anew, it forgets again

pytest_plugins = ["pytester"]

PROGRAM = """\
# xfdfuzz program 1
# title: a permission request overwrites the permissions
# expect: amx-v1 violates permission-only-grows
# expect: v7.3 clean
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
"""
BARE = "".join(line for line in PROGRAM.splitlines(keepends=True) if "expect" not in line)
INVARIANT = """\
from xfdfuzz import Broken, invariant


@invariant("no-vm", "abi", ("mine",), state=True)
def no_vm(view):
    \"\"\"There shall be none.\"\"\"
    if any(vm.exists for vm in view.k.vms):
        yield Broken("there is one")
"""


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of the summary are not cut."""
    monkeypatch.setenv("COLUMNS", "300")


def result_of(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Of pytest in the current directory, without Hypothesis' plugin, which would be loaded each time."""
    return pytester.runpytest_inprocess("-p", "no:hypothesispytest", *arguments)


def write(**files: str) -> None:
    for name, text in files.items():
        Path(f"{name}.xfd").write_text(text)


def test_a_test_for_each_revision_that_the_program_names(pytester: pytest.Pytester) -> None:
    write(p=PROGRAM)
    done = result_of(pytester, "-v")
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["p.xfd::amx-v1 PASSED*", "p.xfd::v7.3 PASSED*"])


def test_a_failure_shows_what_replay_shows(pytester: pytest.Pytester) -> None:
    write(p=PROGRAM.replace("amx-v1 violates permission-only-grows", "amx-v1 clean"), bare=BARE, ok=PROGRAM)
    done = result_of(pytester, "-o", "xfd_revisions=", "--xfd-revision", "amx-v1")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(
        [
            "* bare.xfd on amx-v1 *",
            "* p.xfd on amx-v1 *",
            "a permission request overwrites the permissions on amx-v1",
            "  machine cpus=1",
            "-> 1  t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
            "      ! permission-only-grows (abi): *",
            "FAILED bare.xfd::amx-v1 - expected no violation, breaks permission-only-grows",
            "FAILED p.xfd::amx-v1 - expected clean, breaks permission-only-grows",
        ]
    )
    assert "Traceback" not in str(done.stdout)


def test_the_summary_survives_the_way_from_a_worker_of_xdist(pytester: pytest.Pytester) -> None:
    write(bare=BARE, bad=BARE + "t0 dance\n")
    done = result_of(pytester, "-n1", "--continue-on-collection-errors", "--xfd-revision", "amx-v1")
    done.stdout.fnmatch_lines(
        [
            "      ! permission-only-grows (abi): *",
            "FAILED bare.xfd::amx-v1 - expected no violation, breaks permission-only-grows",
            "ERROR bad.xfd - bad.xfd:7:4: expected *",
        ]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PROGRAM + "t0 ioctl(kvm, KVM_DANCE)\n", "p.xfd:9:15: expected KVM_CHECK_EXTENSION*"),
        (PROGRAM.replace("v7.3", "v7.9"), "p.xfd:4:11: unknown revision v7.9*"),
        (PROGRAM.replace("only-grows", "only-shrinks"), "p.xfd:3:27: unknown invariant permission-only-shrinks*"),
        ("", "p.xfd:1:1: expected '# xfdfuzz program 1', the first line of every program"),
    ],
)
def test_a_broken_program_is_not_collected(pytester: pytest.Pytester, text: str, message: str) -> None:
    write(p=text)
    done = result_of(pytester)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([message, f"ERROR p.xfd - {message}"])
    assert "Traceback" not in str(done.stdout)


@pytest.mark.parametrize("where", [".", "programs"])
def test_a_series_and_its_programs_stand_beside_each_other(
    pytester: pytest.Pytester, same: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What the ini file names is found from rootdir on, wherever pytest is started."""
    pytester.makepyprojecttoml(
        '[tool.pytest.ini_options]\nxfd_revisions = ["mine.py", "amx-v1"]\nxfd_invariants = ["promise.py"]\n'
    )
    same("mine.py", "my-series")
    pytester.makepyfile(promise=INVARIANT)
    pytester.mkdir("programs")
    write(**{"programs/p": PROGRAM.replace("v7.3", "my-series").replace("clean", "violates no-vm")})
    monkeypatch.chdir(where)
    done = result_of(pytester, "-v")
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["*p.xfd::my-series PASSED*", "*p.xfd::amx-v1 PASSED*"])


def test_revisions_of_the_command_line_take_the_place_of_the_ini_files(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nxfd_revisions = v5.17\n")
    write(p=PROGRAM)
    done = result_of(pytester, "-v", "--xfd-revision", "amx-v1", "--xfd-revision", "v7.3+b45f72177594")
    done.stdout.fnmatch_lines(["ERROR p.xfd - v7.3 has b45f72177594 already"])
    done = result_of(pytester, "-v", "--xfd-revision", "amx-v1", "--xfd-revision", "v7.3")
    done.assert_outcomes(passed=2)


def test_what_cannot_be_judged_fails(pytester: pytest.Pytester) -> None:
    write(p="# xfdfuzz program 1\nmachine cpus=1\n\nt1 tileload(1)\n")
    done = result_of(pytester)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["FAILED p.xfd::v7.3 - nothing was executed: 1 of 1 ops could not happen"])
