"""Reproducers in C: every program of the corpus that user space controls compiles, and what is harmless runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xfdfuzz.cli import main
from xfdfuzz.native.control import unfit
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import parse
from xfdfuzz.report.export.parts import chosen, needed, parts_of
from xfdfuzz.report.export.subject import Subject, subject_of
from xfdfuzz.report.export.writer import source
from xfdfuzz.revisions import resolve

CORPUS = Path(__file__).parent.parent / "corpus"
STRICT = ("-Wall", "-Wextra", "-Werror")
HEADER = "# xfdfuzz program 1\nmachine cpus=1\n"
#: One for each way in which a file differs from others: a guest, a race, signals, exec, fork, a thread, ptrace.
SAMPLE = (
    "open/set-xsave-then-set-msrs-xfd",
    "open/wrmsr-xfd-while-registers-are-anothers-enables",
    "open/sigreturn-leaves-anothers-tiles",
    "open/wrmsr-xfd-lost-in-migration",
    "bugs/cand-perm-lock-inherited",
    "conformance/31-context-switch-among-threads",
    "conformance/32-ptrace-sets-the-tiles",
)
#: What the model says breaks nothing on any current kernel, and what needs no more of KVM than its ioctls.
HARMLESS = (
    "conformance/25-permission-contains-tilecfg",
    "conformance/29-fork-inherits-permission",
    "conformance/31-context-switch-among-threads",
    "conformance/32-ptrace-reads-the-tiles",
    "conformance/33-handler-changes-the-tiles",
    "conformance/36-guest-permission-is-frozen",
    "conformance/37-permission-stays",
    "conformance/43-set-msrs-of-0-always-works",
)
gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")


def read(name: str) -> Program:
    return parse((CORPUS / f"{name}.xfd").read_text(), name)


def written(program: Program, name: str = "p.xfd", **options: bool) -> str:
    """The file, without asking all kernels what it endangers."""
    return source(Subject(program, resolve("v7.3"), resolve("v7.3-cured"), (), ()), name, **options)


def build(text: str, file: Path, *flags: str, compiler: str = "gcc") -> str:
    """What the compiler says."""
    file.write_text(text)
    command = [compiler, *STRICT, *flags, "-o", str(file.with_suffix("")), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.stderr if done.returncode else ""


def run(binary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a reproducer in a session of its own, of which nothing may be left."""
    with subprocess.Popen(
        [binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        out, _ = process.communicate(timeout=120)
    assert [*of_session(process.pid)] == []
    return subprocess.CompletedProcess([str(binary)], process.returncode, out)


def of_session(session: int) -> Iterator[str]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            yield stat.parent.name


# -- every program -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """The files of all programs of the corpus that have one."""
    found = {}
    for file in sorted(CORPUS.rglob("*.xfd")):
        program = parse(file.read_text(), file.name)
        if not unfit(program):
            found[file.stem] = written(program, file.name)
    assert len(found) > 150
    return found


@gcc
def test_the_corpus_compiles_without_a_warning(texts: dict[str, str], tmp_path: Path) -> None:
    """The headers are compiled once: they are most of a file."""
    headers = tmp_path / "all.h"
    includes = {line for text in texts.values() for line in text.splitlines() if line.startswith("#include <")}
    headers.write_text("\n".join(["#define _GNU_SOURCE", *sorted(includes), ""]))
    subprocess.run(["gcc", *STRICT, "-x", "c-header", "-o", f"{headers}.gch", headers], check=True, timeout=120)

    def compiled(item: tuple[str, str]) -> str:
        return build(item[1], tmp_path / f"{item[0]}.c", "-fsyntax-only", "-include", str(headers))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        assert [text for text in pool.map(compiled, texts.items()) if text] == []


def test_no_file_has_what_it_does_not_use(texts: dict[str, str]) -> None:
    """A compiler that only checks the syntax does not say so."""
    for name, text in texts.items():
        code = re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', " ", text, flags=re.DOTALL)
        defined = re.findall(r"^static [^;={(]*?\b(\w+)(?:\(|\[|;| =)", code, flags=re.MULTILINE)
        used = Counter(re.findall(r"\w+", code))
        assert [one for one in defined if used[one] < 2 and one not in ("struct", "__attribute__")] == [], name


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compilers_optimise_without_a_warning(compiler: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    for name in SAMPLE:
        said = build(written(read(name)), tmp_path / "p.c", "-O2", "-c", compiler=compiler)
        assert not said, name


@gcc
@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_program_passes_or_says_why_it_is_skipped(name: str, tmp_path: Path) -> None:
    subject = subject_of(read(name), resolve("v7.3"))
    assert (subject.broken, subject.dangers) == ((), ())
    assert not build(source(subject, name), tmp_path / "p.c", "-O2")
    done = run(tmp_path / "p")
    assert done.stdout.startswith("TAP version 13\n")
    if done.returncode == 4:
        assert re.search(r"^1\.\.0 # SKIP \w", done.stdout, re.MULTILINE)
        return
    assert done.returncode == 0, done.stdout
    (plan,) = re.findall(r"^1\.\.(\d+)$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^ok \d+ ", done.stdout, re.MULTILINE)) == int(plan) > 0


@gcc
def test_what_is_wrong_fails(tmp_path: Path) -> None:
    """A kernel that gives another errno than the contract does: here the contract is another one."""
    text = written(parse(HEADER + "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, 99)\n"))
    assert ", -EINVAL);" in text
    assert not build(text.replace(", -EINVAL);", ", -EBUSY);"), tmp_path / "p.c")
    done = run(tmp_path / "p")
    assert done.returncode == 1
    assert "not ok 1 1. t0 arch_prctl(ARCH_REQ_XCOMP_PERM, 99) = -EINVAL\n# got -EINVAL\n" in done.stdout


@gcc
def test_foreign_and_lost_contents_are_told(tmp_path: Path) -> None:
    """The check of an image names whose contents it found; AVX needs no more than any processor has."""
    text = written(parse(HEADER + "t0 vmovups(3)\nt0 xsave(avx)\n"))
    swapped = text.replace("{ AVX, T(0, 3) }", "{ AVX, T(1, 3) }")
    assert swapped != text
    assert not build(swapped, tmp_path / "p.c")
    done = run(tmp_path / "p")
    if done.returncode == 4:
        pytest.skip(done.stdout)
    assert done.returncode == 1
    assert "# got component 2 holds task 0's 3\n" in done.stdout


@gcc
def test_registers_without_a_bit_are_loaded_and_told(tmp_path: Path) -> None:
    """FCW 0 and MXCSR 0 of any processor: MXCSR is checked, of x87 ST0."""
    text = written(parse(HEADER + "t0 fld(zero)\nt0 ldmxcsr(zero)\nt0 stmxcsr = ok [zero]\nt0 xsave(x87)\n"))
    assert not build(text, tmp_path / "p.c")
    done = run(tmp_path / "p")
    if done.returncode == 4:
        pytest.skip(done.stdout)
    assert not done.returncode, done.stdout


@gcc
def test_a_race_tells_how_often_it_looked(tmp_path: Path) -> None:
    """t1 looks at its PKRU, or sleeps, while t0 does what t1 is to meet: a signal, in its two halves."""
    text = written(
        parse(
            HEADER
            + "t0 signal ...\ncpu0 schedule(t1)\nt1 arch_prctl(ARCH_GET_XCOMP_PERM)\ncpu0 schedule(t0)\nt0 ... signal\n"
            "t0 sigreturn\n"
        )
    )
    assert "approximated by running both at the same time" in text
    assert not build(text, tmp_path / "p.c", "-O2")
    done = run(tmp_path / "p", "--seconds=0.3")
    if done.returncode == 4:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout
    # the frame is looked at for PKRU and tiles, where there are any
    assert re.search(r"^ok 1 (# SKIP )?1\. t0 signal", done.stdout, re.MULTILINE)
    (rounds,) = re.findall(r"^# (\d+) rounds in 0 s", done.stdout, re.MULTILINE)
    (looks,) = re.findall(r"ok \d+ 3\. .*\n# right all (\d+) times", done.stdout)
    assert int(looks) >= 1 <= int(rounds)


@gcc
def test_a_dangerous_program_asks_first(tmp_path: Path) -> None:
    subject = subject_of(read("open/set-xsave-then-set-msrs-xfd"), None)
    assert subject.revision.name == "v7.3"
    text = source(subject, "p.xfd")
    assert " * DANGER: the host may die (model: " in text
    assert subject.private
    assert "\n * PRIVATE: " in text
    assert "BUG: v7.3 panics here" in text
    assert not build(text, tmp_path / "p.c")
    done = run(tmp_path / "p")
    assert done.returncode == 4
    assert "--i-own-this-machine" in done.stdout
    assert run(tmp_path / "p", "--nonsense").returncode == 1


# -- what a file says --------------------------------------------------------------------------------------------------


def test_each_op_has_its_line_with_the_result_and_the_bug() -> None:
    text = source(subject_of(read("open/wrmsr-xfd-lost-in-migration"), resolve("v6.12")), "p.xfd")
    assert text.startswith("// SPDX-License-Identifier: GPL-2.0-only\n/*\n * An emulated WRMSR(IA32_XFD) is lost")
    assert "/* 2. t0 ioctl(kvm, KVM_CREATE_VM) = vm0 */" in text
    assert " * 14. v0 rdmsr(IA32_XFD) = ok [0x40000]\n" in text
    assert " *    BUG: v6.12 gives ok [0x0]\n" in text
    assert "(approximated by moving the task from CPU to CPU at random, in many rounds)" in text
    assert re.search(r"0x0f, 0x30,\s+/\* wrmsr \*/", text)
    assert "start_mover(0, 2)" in text


def test_a_comment_of_a_program_ends_no_comment_of_c() -> None:
    text = written(parse("# xfdfuzz program 1\n# title: a */ b\n# c /* d\nmachine cpus=1\n\nt0 user\n"))
    head = text.partition("#define")[0]
    assert head.count("*/") == head.count("/*") == 1


@pytest.mark.parametrize(("name", "header"), [("perm-overwrite", "../kselftest.h"), ("v4-guest-fpu-expands", "")])
def test_a_selftest_uses_the_helpers_of_the_tree(name: str, header: str) -> None:
    found = [file for file in CORPUS.rglob("*.xfd") if file.stem == name]
    program = parse(found[0].read_text()) if found else parse(HEADER + "t0 ioctl(kvm, KVM_CREATE_VM)\n")
    text = written(program, kselftest=True)
    assert f'#include "{header or "kvm_util.h"}"' in text
    assert "ksft_count" not in text
    assert ("vm_create_barebones()" in text) == (not header)


def test_of_the_harness_there_is_what_is_called() -> None:
    text = written(parse(HEADER + "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\n"))
    assert "kvm" not in text.lower().replace("xfdfuzz", "")
    assert len(text.splitlines()) < 200


def test_parts_bring_what_they_need() -> None:
    two = "static void two(void)\n{ one(); }\n"
    parts = parts_of(f"//@ always\nint a;\n//@\nstatic int one(void);\n//@\n{two}//@ X\n#x\n")
    assert needed(parts, "") == "int a;\n"
    assert needed(parts, "two();") == f"int a;\nstatic int one(void);\n\n{two}"
    assert needed(parts, '/* two */ "one" X') == "int a;\n#x\n"
    assert chosen("a\n/*@ if b */\nc\n/*@ else */\nd\n/*@ end */\n", {"b"}) == "a\nc\n"
    assert chosen("a\n/*@ if b */\nc\n/*@ else */\nd\n/*@ end */\n", ()) == "a\nd\n"


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A place with a program."""
    monkeypatch.chdir(tmp_path)

    def save(text: str) -> Path:
        file = tmp_path / "my program.xfd"
        file.write_text(HEADER + text)
        return file

    return save


def test_export_writes_a_file_and_says_what_next(
    here: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = here("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\n")
    assert main(["export", str(file), "--revision", "v6.12"]) == 0
    assert capsys.readouterr().out == (
        "wrote my-program.c: results of v6.12, held against v7.3\n"
        "now: gcc -O2 -Wall -o ./my-program my-program.c && ./my-program\n"
    )
    assert Path("my-program.c").read_text().endswith("}\n")
    assert main(["export", str(file), "-o", "x.c", "--format", "json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row == {"file": str(file), "out": "x.c", "revision": "v7.3", "good": "v7.3", "dangers": []} | {
        "revision": row["revision"],
        "private": False,
    }
    assert main(["export", str(file), "-o", "-"]) == 0
    assert capsys.readouterr().out.startswith("// SPDX")


def test_export_says_why_it_cannot(here: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = here("t0 user\nt0 suspend\n")
    assert main(["export", str(file)]) == 4
    assert capsys.readouterr().err == (
        f"xfdfuzz: {file}: user space does not control it: op 2 (Suspend): it suspends the whole machine\n"
    )
    assert not Path("my-program.c").exists()
