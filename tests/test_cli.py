"""The command line as a user meets it: exit codes, one clear line for bad input, nothing lost."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz import cli
from xfdfuzz.cli.examples import EXAMPLES
from xfdfuzz.cli.exits import MEANINGS, OF_COMMANDS
from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.stream.events import Ended, Found
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import PATCHES, PROPOSED, Revision, names, resolve
from xfdfuzz.revisions.left_out import LEFT_OUT

ROOT = Path(__file__).parent.parent
PROGRAM = """\
# xfdfuzz program 1
# title: a permission request overwrites the permissions
# expect: amx-v1 violates permission-only-grows
# expect: v7.3 clean
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
"""
UNEXPECTED = "".join(line for line in PROGRAM.splitlines(keepends=True) if "expect" not in line)

Run = Callable[..., tuple[int, str, str]]


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def process(*argv: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "xfdfuzz", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stderr=subprocess.PIPE,
        **options,
    )


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["fuzz", "--tim", "3"], "--tim"),
        (["fuzz", "--time", "0"], "a duration such as 90, 10m or 2h"),
        (["fuzz", "--examples", "-1"], "a number from 1 on, got '-1'"),
        (["fuzz", "--workers", "-1"], "a number from 1 on, got '-1'"),
        (["fuzz", "--workers", "0"], "a number from 1 on, got '0'"),
        (["fuzz", "--seed", "-1"], "a number from 0 on, got '-1'"),
        (["fuzz", "--seed", "1" * 26], "a number of 18 digits at most, got 26"),
        (["fuzz", "--revision", "v7.3", "--revert", "b45f72177594", "--revert", "b45f72"], "594 is reverted twice"),
        (["fuzz", "--apply", "063452fd94d1x"], "unknown commit 063452fd94d1x"),
        (["fuzz", "--apply", "063452fd94d1" + 29 * "0"], "unknown commit 063452fd94d1"),
        (["fuzz", "--apply", "open-1-clear-unloaded-too"], "unknown commit open-1-clear-unloaded-too"),
        (["fuzz", "--steps", "0"], "from 1 on"),
        (["fuzz", "--time", "3", "--examples", "3"], "not allowed with"),
        (["fuzz", "--revision", "amx-v9"], "unknown revision amx-v9"),
        (["fuzz", "--revision", "5.9"], "unknown revision 5.9: older than v5.16, the oldest"),
        (["fuzz", "--revision", "mainlne"], "unknown revision mainlne: did you mean mainline?"),
        (["fuzz", "--revision", "mainlne+b45f72177594"], "594: did you mean mainline?"),
        (["fuzz", "--revision", "amx-V6"], "unknown revision amx-V6: did you mean amx-v6?"),
        (["fuzz", "--apply", "deadbeef"], "unknown commit deadbeef"),
        (["fuzz", "--revert", "063452fd94d1"], "amx-v1 does not have 063452fd94d1"),
        (["fuzz", "--save", "file/below"], "cannot save to file/below: Not a directory"),
        (["fuzz", "--save", ""], "--save: expected the name of a directory"),
        (["fuzz", "--known"], "--known"),
        (["fuzz", "--known", "missing.xfd"], "missing.xfd: No such file"),
        (["fuzz", "--known", "file"], "file:1:1: expected '# xfdfuzz program 1'"),
        (["fuzz", "--invariants", "missing.py"], "missing.py: No such file"),
        (["fuzz", "--invariants", "file"], "file: expected a Python file"),
        (["replay"], "FILE|DIR"),
        (["replay", "missing.xfd"], "missing.xfd: No such file or directory"),
        (["replay", "file", "--revision", "amx-v9"], "unknown revision amx-v9"),
        (["replay", "file"], "file:1:1: expected '# xfdfuzz program 1'"),
        (["list"], "kind"),
        (["list", "bugs"], "bugs"),
        (["list", "ops", "--revision", "amx-v9"], "unknown revision amx-v9"),
    ],
)
def test_bad_input_gives_one_line_and_2(run: Run, argv: list[str], message: str) -> None:
    write("file", "no program\n")
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("xfdfuzz")
    assert message in err


@pytest.mark.parametrize("commit", ["063452fd94d1", "063452fd", "063452fd94d1" + 28 * "a"])
def test_a_commit_may_be_shorter_or_whole(run: Run, commit: str) -> None:
    assert run("replay", write("p.xfd", UNEXPECTED), "--revision", "v5.17", "--apply", commit)[0] == 0


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("ARGS=--revision v7.3",), 2)])
def test_make_fuzz_is_a_job_when_it_is_told_what_to_do(arguments: tuple[str, ...], code: int) -> None:
    """make itself exits with 2 whatever failed."""
    write("pyproject.toml", "")
    write("v/bin/xfdfuzz", "#!/bin/sh\nexit 1\n")
    Path("v/bin/xfdfuzz").chmod(0o755)
    write("v/.installed", "")
    command = ["make", "-f", str(ROOT / "Makefile"), "VENV=v", "fuzz", *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code


#: A finding of a series whose file is not at hand.
OF_A_SERIES = """# xfdfuzz program 1
# expect: mine-v1 violates mine-promises
machine cpus=1

t0 ldmxcsr(1) = -EINVAL
"""


@pytest.mark.parametrize("command", [("replay", "--revision", "v7.3"), ("matrix", "--revision", "v7.3")])
def test_what_is_expected_of_an_unknown_series_does_not_concern_the_kernel_asked_for(
    run: Run, command: tuple[str, ...]
) -> None:
    name = write("p.xfd", OF_A_SERIES)
    code, _, err = run(*command, name)
    assert (code, err) == (0, "xfdfuzz: p.xfd: left out what it expects of mine-v1, not known here\n")
    assert "-EINVAL" not in run(*command, name)[1]


def test_a_finding_of_an_unknown_series_says_how_to_go_on(run: Run) -> None:
    code, out, err = run("replay", write("p.xfd", OF_A_SERIES))
    assert (code, out) == (2, "")
    assert err.startswith("xfdfuzz: p.xfd:2:11: unknown revision mine-v1: ")
    assert err.endswith("; this line does not count with --revision REVISION\n")


def test_a_series_is_told_from_the_kernel_below_it_with_its_finding_alone(run: Run) -> None:
    """bisect is told which kernels it is about."""
    name = write("p.xfd", OF_A_SERIES)
    assert "left out what it expects of mine-v1" in run("bisect", name, "--from", "v6.18", "--to", "v7.3")[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PROGRAM + "t0 ioctl(kvm, KVM_DANCE)\n", "p.xfd:9:15: expected "),
        (PROGRAM.replace("permission-only-grows", "no-such-thing"), "p.xfd:3:27: unknown invariant no-such-thing"),
        (PROGRAM.replace("v7.3", "v7.9"), "p.xfd:4:11: unknown revision v7.9"),
        (PROGRAM.replace("# expect: v7.3 clean", "# apply: deadbeef"), "p.xfd:4:10: unknown commit deadbeef"),
        (PROGRAM.replace("# expect: v7.3 clean", "# revert: cafecafe"), "p.xfd:4:11: unknown commit cafecafe"),
        (
            PROGRAM.replace("# expect: v7.3 clean", "# apply: 063452fd94d1\n# revert: 063452fd94"),
            "p.xfd:5:11: 063452fd94 is applied and reverted",
        ),
        (
            PROGRAM.replace("v7.3", "*"),
            "p.xfd:4:11: contradicts line 3 on amx-v1: amx-v1 violates permission-only-grows",
        ),
        (
            PROGRAM.replace("v7.3 clean", "v7.3 result 2 = vm0\n# expect: v5.17.. result 2 = vm1"),
            "p.xfd:5:11: contradicts line 4 on v7.3: v7.3 result 2 = vm0",
        ),
    ],
)
def test_a_broken_program_is_told_with_its_place(run: Run, text: str, message: str) -> None:
    code, out, err = run("replay", write("p.xfd", text))
    assert (code, out) == (2, "")
    assert err.startswith(f"xfdfuzz: {message}")
    assert len(err.splitlines()) == 1


def test_very_many_expectations_are_read_in_a_moment(run: Run) -> None:
    """In a time that grows with their number, not with its square, which took more than a minute."""
    lines = ["# expect: v7.3 clean\n", "# expect: v7.3.. result 1 = 0\n", "# expect: v7.3 result 2 = vm0\n"]
    start = time.process_time()
    text = UNEXPECTED.replace("machine", "".join(lines * 7_000) + "machine")
    assert run("replay", write("p.xfd", text))[0] == 0
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "argv",
    [
        ("replay", "zero.xfd"),
        ("fuzz", "--known", "zero.xfd"),
        ("list", "ops", "--invariants", "zero.py"),
        ("list", "ops", "--revision", "zero.py"),
        ("conform", "zero.jsonl"),
    ],
    ids=" ".join,
)
def test_a_file_without_an_end_is_refused(run: Run, argv: tuple[str, ...]) -> None:
    Path(argv[-1]).symlink_to("/dev/zero")
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"xfdfuzz: {argv[-1]}: (a line is )?larger than 64 MiB\n", err)


def test_binary_and_unreadable_input(run: Run) -> None:
    Path("p.xfd").write_bytes(b"\xff\xfe")
    assert run("replay", "p.xfd")[::2] == (2, "xfdfuzz: p.xfd: not a UTF-8 text (byte 0)\n")
    Path("d.xfd").mkdir()
    assert run("replay", "d.xfd")[::2] == (3, "xfdfuzz: no *.xfd file below d.xfd\n")


def test_carriage_returns_end_lines_only_before_a_line_feed(run: Run) -> None:
    Path("p.xfd").write_bytes(PROGRAM.replace("\n", "\r\n").encode())
    assert run("replay", "p.xfd")[0] == 0
    Path("p.xfd").write_bytes(PROGRAM.replace("a permission", "a\rpermission").encode())
    message = "xfdfuzz: p.xfd:2:11: expected text, not the control character U+000D\n"
    assert run("replay", "p.xfd") == (2, "", message)


INVARIANT = """\
from xfdfuzz.invariants.vocabulary import Broken, invariant


@invariant("mine", "abi"{more})
def mine(view):
    \"\"\"My own.\"\"\"
    {body}
"""


#: A series that may do anything at a permission request.
EXITS = """\
from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.revisions import Series
series = Series("my-series", base="v7.3", title="mine")


@series.patch("my-series-1", "x86/fpu: mine")
class Mine(Xstate):
    def write_state_perm(self, *arguments):
        {body}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", "mine.py:1:7: invalid syntax"),
        ("x = 1\ny = '\\0'\n".replace("\\0", "\0"), "mine.py:2:6: not a text: it has a NUL byte"),
        ("import nowhere\n", "mine.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("raise SystemExit(0)\n", "mine.py:1: SystemExit: 0"),
        (INVARIANT.format(more=", revisions=('v9',)", body="return []"), "mine.py:4: unknown revision v9"),
        (INVARIANT.format(more="", body="return [1 / 0]"), "mine.py:7: ZeroDivisionError: division by zero"),
        ("\n\ndef f():\n    return {}['x']\n\n\nf()\n", "mine.py:4: KeyError: 'x'"),
        ("from pathlib import Path\n", "mine.py:1: expected an @invariant in the file, found none"),
        (INVARIANT.format(more="", body="return []").replace("@inv", "# @inv"), "mine.py:1: expected an @invariant in"),
        (INVARIANT.format(more="", body="raise SystemExit(0)"), "mine.py:7: SystemExit: 0"),
        (INVARIANT.format(more="", body="pass"), "mine.py:4: invariant mine returns None: expected an iterable of Br"),
        (INVARIANT.format(more=", events=('bad',)", body="return []"), "mine.py:4: ValueError: invariant mine: event"),
    ],
)
def test_a_broken_invariants_file_is_the_users(run: Run, text: str, message: str) -> None:
    code, _, err = run("replay", write("p.xfd", PROGRAM), "--invariants", write("mine.py", text))
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_binary_invariants_file(run: Run) -> None:
    Path("mine.py").write_bytes(b"# one\nx = '\xff'\n")
    assert run("list", "ops", "--invariants", "mine.py") == (2, "", "xfdfuzz: mine.py:2:6: not a UTF-8 text\n")
    Path("mine.py").write_bytes(
        b"# coding: latin-1\nx = '\xff'\n" + INVARIANT.format(more="", body="return []").encode()
    )
    assert run("list", "ops", "--invariants", "mine.py")[0] == 0


@pytest.mark.parametrize(
    "argv",
    [
        ("fuzz", "--revision", "my.py", "--engine", "scout"),
        ("fuzz", "--revision", "my.py", "--engine", "hypothesis"),
        ("fuzz", "--revision", "my.py", "--workers", "2"),
        ("replay", "p.xfd", "--revision", "my.py"),
        ("explore", "--revision", "my.py", "--scope", "tiny"),
        ("matrix", "p.xfd", "--revision", "my.py"),
        ("bisect", "p.xfd", "--from", "v7.3", "--to", "my.py"),
        ("diff", "v7.3", "my.py"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("where", ["invariant", "series"])
def test_sys_exit_in_a_users_file_is_an_error_there(run: Run, argv: tuple[str, ...], where: str) -> None:
    """And never a run that ended well."""
    body = "raise SystemExit(0)"
    write("p.xfd", UNEXPECTED)
    write("mine.py", INVARIANT.format(more="", body=body if where == "invariant" else "return []"))
    write("my.py", EXITS.format(body=body if where == "series" else "super().write_state_perm(*arguments)"))
    code, _, err = run(*argv, "--invariants", "mine.py")
    place = "mine.py:7" if where == "invariant" else "my.py:9"
    assert code == 2
    assert err.splitlines()[-1].endswith(f"{place}: SystemExit: 0")
    assert "Traceback" not in err


def test_a_predicate_that_returns_nothing_ends_a_fuzz_run(run: Run) -> None:
    write("mine.py", INVARIANT.format(more="", body="pass"))
    code, _, err = run("fuzz", "--revision", "v7.3", "--examples", "5", "--seed", "1", "--invariants", "mine.py")
    assert code == 2
    assert err.splitlines()[-1].endswith("mine.py:4: invariant mine returns None: expected an iterable of Broken")
    assert "Traceback" not in err


def test_a_broken_package_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("theirs", "nowhere", "xfdfuzz.invariants")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])
    code, out, err = run("list", "invariants")
    assert (code, out) == (2, "")
    assert err == "xfdfuzz: entry point theirs = nowhere: ModuleNotFoundError: No module named 'nowhere'\n"


def test_an_invariant_of_the_users_own(run: Run) -> None:
    write("mine.py", INVARIANT.format(more="", body='yield Broken("no reason")'))
    code, out, _ = run("replay", write("p.xfd", UNEXPECTED), "--revision", "v7.3", "--invariants", "mine.py")
    assert code == 1
    assert "! mine (abi): no reason" in out
    assert "mine" in run("list", "invariants", "--invariants", "mine.py")[1].split()


def test_an_internal_error_is_3_with_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("xfdfuzz.engines.judge.verdict.judge", fail)
    code, _, err = run("replay", write("p.xfd", PROGRAM))
    assert code == 3
    assert "RuntimeError: oops" in err
    assert err.splitlines()[-1] == "xfdfuzz: internal error: RuntimeError"


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_has_the_commands_own_exit_codes_and_two_examples(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    codes = [int(line.split()[0]) for line in out.splitlines() if re.match(r"  \d  ", line)]
    assert codes == [*OF_COMMANDS[name]]
    for example in EXAMPLES[name]:
        assert f"\n  {example}\n" in out
        cli.build_parser().parse_args(shlex.split(example)[1:])


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {"fuzz", "explore", "diff"}))
def test_help_fits_a_screen(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(name, "--help")[1].splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80


def test_help_has_all_of_it(run: Run) -> None:
    whole, screen = run("help", "fuzz")[1], run("fuzz", "--help")[1]
    assert len(screen.splitlines()) < len(whole.splitlines())
    for option in (option for action in commands()["fuzz"]._actions for option in action.option_strings):
        assert re.search(rf"(^|[ ,]){option}\b", whole)
        assert option in screen.split() or f"{option}," in screen.split()
    assert run("help")[1] == run("--help")[1]
    assert run("help", "nothing")[0] == 2


def test_help_and_the_documentation_have_the_same_exit_codes(run: Run) -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    general = re.findall(r"^\| (\d) \| (.*) \|$", text, re.MULTILINE)
    assert [(str(code), meaning) for code, meaning in MEANINGS.items()] == [(c, t.replace("`", "")) for c, t in general]
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| ?(.*?) \| ?(.*?) \|$", text[text.index("## Exit codes") :], re.MULTILINE
    )
    own = {name: {code: cell for code, cell in zip((0, 1, 3), cells, strict=True) if cell} for name, *cells in rows}
    assert own == OF_COMMANDS
    assert OF_COMMANDS.keys() == EXAMPLES.keys() == commands().keys()
    assert "kernel:1, init " in run("help", "notation")[1]
    assert "help notation" not in run("replay", write("p.xfd", PROGRAM))[1]  # a pipe has no use for it
    code, out, _ = run("help", "exit-codes")
    told = " ".join(out.split())
    assert code == 0
    assert all(f"{nr} {meaning}" in told for each in (MEANINGS, *OF_COMMANDS.values()) for nr, meaning in each.items())


def test_the_version(run: Run) -> None:
    code, out, err = run("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"xfdfuzz \S+\n", out)


def test_help_and_replay_do_not_import_hypothesis() -> None:
    write("p.xfd", PROGRAM)
    script = "import sys; from xfdfuzz.cli import main; main({}); sys.exit('hypothesis' in sys.modules)"
    for argv in (["--help"], ["replay", "p.xfd"], ["list", "ops"]):
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", script.format(argv)], env=env, stdout=subprocess.DEVNULL)
        assert done.returncode == 0


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for name, command in commands().items():
        assert f"`xfdfuzz {name}" in text
        section = text.split(f"## `xfdfuzz {name}")[1].split("\n## ")[0] + text.split("## `xfdfuzz ")[0]
        for action in command._actions:
            for option in action.option_strings:
                assert f"`{option}" in section, f"{name} {option}"
            for choice in action.choices or ():
                assert choice in section


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = cli.build_parser()._actions
    (found,) = (action for action in actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def test_json_keys_of_the_comparisons_are_documented(run: Run) -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    write("p.xfd", PROGRAM)
    commands = {
        "matrix": ("matrix", "p.xfd"),
        "bisect": ("bisect", "p.xfd"),
        "diff": ("diff", "v5.17", "v5.18", "--examples", "20", "--seed", "1"),
        "new": ("new", "revision", "my-series"),
        "report": ("report", "p.xfd", "-o", "p.html", "--revision", "amx-v1"),
    }
    for name, argv in commands.items():
        section = text.split(f"## `xfdfuzz {name}")[1].split("\n## ")[0]
        value = json.loads(run(*argv, "--format", "json")[1])
        inner = [*value.get("verdicts", {}).values(), *value.get("tried", []), *value.get("changes", [])]
        inner += value.get("differences", [])
        assert inner or name in ("new", "report")
        keys = {key for one in (value, *inner) for key in one}
        assert [key for key in keys if f"`{key}`" not in section] == [], name


def test_json_keys_are_documented(run: Run) -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    run_json = [run("list", kind, "--format", "json")[1].splitlines()[0] for kind in ("revisions", "patches", "ops")]
    run_json += [run("replay", write("p.xfd", PROGRAM), "--format", "json")[1]]
    run_json += run("fuzz", "--examples", "20", "--seed", "1", "--format", "json")[1].splitlines()
    for value in map(json.loads, run_json):
        keys = {*value, *next(iter(value.get("verdicts", {}).values()), {}), *(value.get("findings") or [{}])[0]}
        assert [key for key in keys if f"`{key}`" not in text] == []


# -- replay ------------------------------------------------------------------------------------------------------------


def test_expectations_that_hold(run: Run) -> None:
    code, out, err = run("replay", write("p.xfd", PROGRAM))
    assert (code, err) == (0, "")
    assert "! permission-only-grows (abi)" in out
    assert out.splitlines()[-3:] == [
        "ok    p.xfd  amx-v1  violates permission-only-grows, as expected",
        "ok    p.xfd  v7.3  clean",
        "permission-only-grows@guest: on amx-v1 only",
    ]


def test_a_wrong_result_is_named(run: Run) -> None:
    code, out, _ = run("replay", write("p.xfd", PROGRAM.replace("= vm0", "= vm1")), "--revision", "v7.3")
    assert code == 1
    assert out.splitlines()[-1] == "FAIL  p.xfd  v7.3  op 2: expected vm1, got vm0"


def test_without_expectations_a_violation_counts(run: Run) -> None:
    write("p.xfd", re.sub(" = .*", "", UNEXPECTED))
    assert run("replay", "p.xfd", "--revision", "amx-v1")[0] == 1
    assert run("replay", "p.xfd", "--revision", "v7.3")[0] == 0


def test_with_a_reverted_patch_expectations_do_not_count(run: Run) -> None:
    write("p.xfd", PROGRAM)
    code, out, _ = run("replay", "p.xfd", "--revision", "v5.18", "--revert", "063452fd94d1")
    assert code == 1
    assert "v5.18-063452fd94d1  violates permission-only-grows" in out


def test_a_directory_is_everything_below_it_and_the_worst_code_wins(run: Run) -> None:
    for name in ("a", "b", "sub/c", "sub/d"):
        write(f"dir/{name}.xfd", PROGRAM)
    write("dir/readme.md", "no program")
    code, out, _ = run("replay", "dir", "dir/a.xfd", "--revision", "v7.3")
    assert code == 0
    lines = [f"ok    dir/{n}.xfd  v7.3  clean" for n in ("a", "b", "sub/c", "sub/d")]
    assert out.splitlines() == [*lines, "", "4 programs, 4 verdicts: 4 ok, 0 FAIL"]
    write("dir/b.xfd", PROGRAM.replace("= vm0", "= -ENOMEM"))
    code, out, _ = run("replay", "dir", "--revision", "v7.3")
    assert code == 1
    failure = "FAIL  dir/b.xfd  v7.3  op 2: expected -ENOMEM, got vm0"
    sums = ["", failure, "4 programs, 4 verdicts: 3 ok, 1 FAIL"]
    assert out.splitlines() == [lines[0], failure, *lines[2:], *sums]
    assert run("replay", "dir", "--revision", "v7.3", "-q")[1].splitlines() == [failure, "", sums[-1]]
    _, out, _ = run("replay", "dir", "--revision", "v7.3", "-v")
    assert out.count("machine cpus=1") == 1
    assert out.splitlines()[-3:] == sums
    write("dir/a.xfd", "broken")
    code, out, err = run("replay", "dir", "--revision", "v7.3")
    assert code == 2
    assert "FAIL  dir/b.xfd" in out
    assert err.startswith("xfdfuzz: dir/a.xfd:1:1: ")


def test_of_many_programs_one_that_is_as_expected_is_a_line(run: Run) -> None:
    for name in "abcd":
        write(f"dir/{name}.xfd", PROGRAM)
    assert run("replay", "dir")[1].splitlines() == [
        *(f"ok    dir/{name}.xfd  2 revisions" for name in "abcd"),
        "",
        "4 programs, 8 verdicts: 8 ok, 0 FAIL",
    ]


def test_results_of_another_revision_are_no_failure(run: Run) -> None:
    """Asked is whether it has the bug; a line that speaks of the revision makes them one."""
    text = PROGRAM.replace("# expect: v7.3 clean\n", "").replace("= vm0", "= -ENOMEM")
    assert "v7.3" not in text
    code, out, _ = run("replay", write("p.xfd", text), "--revision", "v7.3", "--format", "json")
    verdict = json.loads(out)["verdicts"]["v7.3"]
    assert (code, verdict["expected"], verdict["differs"]) == (0, True, "op 2: expected -ENOMEM, got vm0")
    assert run("replay", "p.xfd", "--revision", "v7.3", "-q")[1] == (
        "ok    p.xfd  v7.3  clean; differs from op 2: expected -ENOMEM, got vm0\n"
    )
    assert run("replay", "p.xfd", "--revision", "amx-v1")[0] == 1
    # what is broken counts everywhere
    assert run("replay", "p.xfd", "--revision", "amx-review-a")[0] == 1


def test_an_alias_is_said_to_be_one(run: Run) -> None:
    code, out, err = run("replay", write("p.xfd", PROGRAM), "--revision", "v7.3.4", "-q")
    assert (code, out, err) == (0, "ok    p.xfd  v7.3  clean\n", "v7.3.4: modelled as v7.3\n")
    assert "v7.3.4" in run("list", "revisions")[1]


@pytest.mark.parametrize(
    ("version", "model", "doubted", "known"),
    [
        ("6.8", "v6.8", (), ("b45f72177594",)),
        ("v6.8.12", "v6.8.12", ("1937e18cc3cf",), ("10e4b5166df9",)),
        ("6.8.0-31-generic", "v6.8", ("10e4b5166df9", "1937e18cc3cf"), ()),
        ("v6.12.66", "v6.12.66", ("1937e18cc3cf",), ("b45f72177594", "388eff894d6b", "e2b43fb25243")),
        ("v6.12.117", "v6.12.117", (), ("1937e18cc3cf",)),
        ("7.3-rc2", "v7.3", ("184bd464bdb6",), ("b45f72177594",)),
        ("9.9", "v7.3", (), ("b45f72177594",)),
    ],
)
def test_a_reporters_kernel_is_the_nearest_and_what_nobody_knows_of_it_is_said(
    run: Run, version: str, model: str, doubted: tuple[str, ...], known: tuple[str, ...]
) -> None:
    code, out, err = run("replay", write("p.xfd", UNEXPECTED), "--revision", version, "-q")
    assert (code, out) == (0, f"ok    p.xfd  {model}  clean\n")
    assert len(err.splitlines()) == (version != model or bool(doubted))
    assert all(commit in err for commit in doubted)
    assert not any(commit in err for commit in known)


def test_the_corpus_that_comes_along_is_found_anywhere(run: Run) -> None:
    code, out, _ = run("replay", "corpus/bugs/v1-warn-enter-guest.xfd", "-q")
    assert (code, out.startswith("ok    corpus/bugs/v1-warn-enter-guest.xfd  amx-v1")) == (0, True)
    assert run("replay", "corpus/bugs/nowhere.xfd")[2] == (
        "xfdfuzz: corpus/bugs/nowhere.xfd: No such file or directory\n"
    )
    assert run("replay", "corpus/witness", "-q")[0] == 0


def test_patches_that_the_model_leaves_out_are_listed_with_the_reason(run: Run) -> None:
    code, out, _ = run("list", "patches", "--left-out")
    assert (code, len(out.splitlines())) == (0, len(LEFT_OUT) + 1)
    row = json.loads(run("list", "patches", "1cec9ac2d071", "--left-out", "--format", "json")[1])
    assert row.keys() == {"commit", "version", "title", "reason"}
    assert row["reason"] in json.loads(run("explain", "1cec9ac2d071", "--format", "json")[1])["doc"]
    assert row["reason"] in run("fuzz", "--revision", "v7.3", "--revert", "1cec9ac2d071")[2]
    assert run("list", "ops", "--left-out")[0] == run("list", "patches", "b45f72177594", "--left-out")[0] == 2


def test_one_of_a_list_is_explained(run: Run) -> None:
    assert run("list", "invariants", "no-warning") == run("explain", "no-warning")
    code, _, err = run("list", "patches", "b45f72177595")
    assert (code, err.split(":")[1].strip()) == (2, "unknown commit b45f72177595")


REFUSED = """\
# xfdfuzz program 1
machine cpus=1

t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_XCRS, avx)
t0 ioctl(v0, KVM_SET_XCRS, avx) = -EINVAL
t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD) keep
t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 1})
t0 ioctl(v0, KVM_SET_MSRS) of v0
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 interrupt
t0 ... KVM_RUN
"""


def test_a_clean_program_names_the_calls_that_failed_and_were_not_meant_to(run: Run) -> None:
    """XCR0 without x87, and an IA32_XFD of no feature; a signal that ends KVM_RUN is no failure."""
    Path("p.xfd").write_text(REFUSED)
    code, out, _ = run("replay", "p.xfd", "--revision", "v7.3", "--quiet")
    assert (code, out) == (0, "ok    p.xfd  v7.3  clean; calls that failed: op 3 = -EINVAL, op 6 = 0 (of 1)\n")
    many = REFUSED.replace("t0 ioctl(v0, KVM_SET_XCRS, avx)\n", "t0 ioctl(v0, KVM_SET_XCRS, avx)\n" * 5)
    Path("p.xfd").write_text(many)
    _, out, _ = run("replay", "p.xfd", "--revision", "v7.3", "--quiet")
    assert out.endswith("op 7 = -EINVAL and 1 more\n")


def test_a_program_that_executes_nothing_is_not_clean(run: Run) -> None:
    code, _, err = run("replay", write("p.xfd", "# xfdfuzz program 1\nmachine cpus=1\n\nv0 vmenter\n"))
    assert (code, err) == (3, "xfdfuzz: p.xfd: nothing was executed on v7.3\n")
    code, out, _ = run("replay", "p.xfd", "--format", "json")
    assert (code, json.loads(out)["verdicts"]["v7.3"]["expected"]) == (3, False)
    assert "FAIL  p.xfd  v7.3  nothing was executed: 1 of 1 ops could not happen" in run("replay", "p.xfd")[1]


def test_an_op_that_cannot_happen_says_why_and_fails(run: Run) -> None:
    """Unless the program expects it; then what stands behind it may follow from it."""
    more = "t1 user\nv0 vmenter\n"
    code, out, _ = run("replay", write("p.xfd", PROGRAM + more), "--revision", "v7.3")
    assert (code, out.splitlines()[-1]) == (
        1,
        "FAIL  p.xfd  v7.3  op 3 could not happen: t1 is on no CPU; 2 of 4 ops could not happen",
    )
    assert "t1 user = not-enabled (t1 is on no CPU)" in out
    code, out, _ = run("replay", "p.xfd", "--revision", "v7.3", "--format", "json")
    assert json.loads(out)["verdicts"]["v7.3"]["hindrances"] == {"3": "t1 is on no CPU", "4": "there is no v0"}
    write("p.xfd", PROGRAM + more.replace("user", "user = not-enabled"))
    assert run("replay", "p.xfd", "--revision", "v7.3", "-q")[0] == 0
    code, out, _ = run("replay", write("p.xfd", PROGRAM + "t1 user = 0\n"), "--revision", "v7.3", "-q")
    assert (code, "op 3: expected 0, got not-enabled (t1 is on no CPU)" in out) == (1, True)


def test_what_a_dead_host_cannot_do_is_no_failure_of_its_own(run: Run) -> None:
    text = (Path(__file__).parent.parent / "corpus/open/set-xsave-then-set-msrs-xfd.xfd").read_text()
    code, out, _ = run("replay", write("p.xfd", text + "t0 user\n"), "--revision", "v7.3")
    assert (code, "t0 user = not-enabled (the host is dead)" in out) == (0, True)


def test_a_program_that_names_no_revision_is_judged_on_the_newest(run: Run) -> None:
    write("p.xfd", UNEXPECTED)
    code, out, _ = run("replay", "p.xfd")
    assert code == 0
    assert out.splitlines()[-1] == "no expect: line and no --revision, so judged on v7.3; on all: xfdfuzz matrix p.xfd"
    for named in (run("replay", "p.xfd", "--revision", "v7.3"), run("replay", write("q.xfd", PROGRAM))):
        assert "so judged on" not in named[1]


def test_results_alone(run: Run) -> None:
    for quiet in ((), ("-q",)):
        code, out, _ = run("replay", write("p.xfd", PROGRAM), "--revision", "amx-v1", "--results", *quiet)
        assert code == 0
        assert out.splitlines()[:2] == [
            "   1  t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0  ! permission-only-grows@guest",
            "   2  t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        ]
        assert out.splitlines()[2].startswith("ok    p.xfd  amx-v1  violates permission-only-grows")


def test_what_has_no_effect_is_said_beside_the_result(run: Run) -> None:
    ops = (
        "t0 ptrace(PTRACE_SETREGSET, t1, {xstate_bv: x87, avx: 3})",
        "t0 ptrace(PTRACE_SETREGSET, t1, NT_PRFPREG, {data: 2, x87: 3, sse: 3})",
        "t0 ptrace(PTRACE_SETREGSET, t1, NT_PRFPREG, {data: 2, sse: 3})",
    )
    text = "\n".join(["# xfdfuzz program 1", "machine cpus=1", "", *ops, ""])
    code, out, _ = run("replay", write("p.xfd", text), "--revision", "v7.3", "--results")
    assert (code, [line.strip() for line in out.splitlines() if "no effect" in line]) == (
        0,
        ["avx: has no effect: XSTATE_BV lacks it", "data: has no effect: all that it could fill is named"],
    )


@pytest.mark.parametrize(
    ("words", "xstate_bv", "told"),
    [
        ("no-amx", "avx", ""),
        ("no-amx", "x87", "neither sse nor avx"),
        ("no-amx no-pasid no-xsaves no-xsavec", "x87", ""),
        ("no-amx no-pasid no-xsaves no-xsavec", "opmask", "none of x87, sse and avx"),
    ],
)
def test_mxcsr_goes_with_x87_where_images_are_not_compacted(run: Run, words: str, xstate_bv: str, told: str) -> None:
    op = f"t0 ptrace(PTRACE_SETREGSET, t1, {{xstate_bv: {xstate_bv}, mxcsr: 3}})"
    text = "\n".join(["# xfdfuzz program 1", f"machine cpus=1 {words}", "", op, ""])
    _, out, _ = run("replay", write("p.xfd", text), "--revision", "v7.3", "--results")
    said = [line.strip() for line in out.splitlines() if "no effect" in line]
    assert said == ([f"mxcsr: has no effect: XSTATE_BV has {told}"] if told else [])


STANDARD = """# xfdfuzz program 1
machine cpus=1 no-amx no-pku no-xsaves no-xsavec

t0 ldmxcsr(1)
cpu0 schedule(t1)
t1 ptrace(PTRACE_GETREGSET, t0, NT_X86_XSTATE)
"""


def test_what_is_known_stands_below_a_violation_that_nobody_expects(run: Run) -> None:
    finding = "known: ptrace-reads-the-registers@mxcsr: open finding 16"
    _, out, _ = run("replay", write("p.xfd", STANDARD))
    assert finding in out.splitlines()
    _, out, _ = run("replay", "p.xfd", "-q")
    assert "known:" not in out
    # nobody is told of what is expected
    expected = STANDARD.replace("machine", "# expect: v7.3 violates ptrace-reads-the-registers\nmachine")
    _, out, _ = run("replay", write("q.xfd", expected))
    assert "known:" not in out


def test_a_fix_that_a_kernel_lacks_is_named(run: Run) -> None:
    text = "# xfdfuzz program 1\nmachine cpus=1\n\nt0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\n"
    _, out, _ = run("replay", write("p.xfd", text), "--revision", "v5.17")
    (told,) = [line for line in out.splitlines() if line.startswith("known:")]
    assert told.startswith("known: permission-only-grows@host: 063452fd94d1 cures it (x86/fpu/xstate: Fix the ARCH_REQ")


def test_the_header_can_leave_a_patch_out(run: Run) -> None:
    header = "# expect: v5.17..v5.18 violates permission-only-grows\n# revert: 063452fd94d1\nmachine"
    write("p.xfd", UNEXPECTED.replace("machine", header))
    code, out, err = run("replay", "p.xfd")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith(("ok", "FAIL"))] == [
        "ok    p.xfd  v5.17  violates permission-only-grows, as expected",  # which never had it
        "ok    p.xfd  v5.18-063452fd94d1  violates permission-only-grows, as expected",
    ]


def test_what_follows_from_an_op_that_could_not_happen_does_not_fill_the_line(run: Run) -> None:
    ops = "t0 wrpkru(1)\n" + "".join(f"v0 xgetbv(0) = ok [{nr}]\n" for nr in range(1, 6))
    Path("p.xfd").write_text(f"# xfdfuzz program 1\nmachine cpus=1\n\n{ops}")
    last = run("replay", "p.xfd", "-q")[1].splitlines()[-1]
    assert "op 4: expected ok [3]" in last
    assert "op 5:" not in last
    assert "; 2 more; 5 of 6 ops could not happen" in last


def test_replay_as_json(run: Run) -> None:
    code, out, _ = run("replay", write("a.xfd", PROGRAM), write("b.xfd", PROGRAM), "--format", "json")
    assert code == 0
    first, second = map(json.loads, out.splitlines())
    assert (first["file"], second["file"]) == ("a.xfd", "b.xfd")
    (reason,) = first["verdicts"]["amx-v1"].pop("because")
    assert (reason["invariant"], reason["step"]) == ("permission-only-grows", 1)
    assert first["verdicts"]["v7.3"].pop("because") == []
    assert first["verdicts"] == {
        "amx-v1": {
            "violations": ["permission-only-grows"],
            "results": ["0", "vm0"],
            "expected": True,
            "hindrances": {},
            "windows": {},
            "differs": None,
        },
        "v7.3": {
            "violations": [],
            "results": ["0", "vm0"],
            "expected": True,
            "hindrances": {},
            "windows": {},
            "differs": None,
        },
    }


def test_what_a_program_begins_with(run: Run) -> None:
    """As `list ops` and docs/program-format.md say it: op by op, as a program that a reader would write of it."""
    code, out, _ = run("list", "ops")
    assert (code, "t0 executes user code on cpu0, t1 is on no CPU" in out) == (0, True)
    text = """\
# xfdfuzz program 1
machine cpus=2

t1 user = not-enabled
t2 user = not-enabled
t0 user = ok
cpu1 idle = ok
v0 init = not-enabled
t0 arch_prctl(ARCH_GET_XCOMP_PERM) = 0 [x87|sse|avx|avx512|pkru|xtilecfg]
t0 xgetbv(1) = ok [pkru]
t0 sigreturn = not-enabled
cpu1 schedule(t1) = ok
t1 ioctl(kvm, KVM_CREATE_VM) = vm0
t1 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_GET_CPUID2) = not-enabled
t1 fork = t2
t0 clone(CLONE_THREAD) = t3
t3 user = not-enabled
"""
    assert run("replay", write("p.xfd", text), "-q") == (
        0,
        "ok    p.xfd  v7.3  clean; 6 of 15 ops could not happen\n",
        "",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_reader_that_goes_away_is_no_error() -> None:
    write("p.xfd", PROGRAM)
    with process("replay", "p.xfd", stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        assert (child.stderr.read(), child.wait()) == ("", 3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    write("p.xfd", PROGRAM)
    with Path("/dev/full").open("w") as full, process("replay", "p.xfd", stdout=full) as child:
        assert child.stderr is not None
        assert (child.stderr.read(), child.wait()) == ("xfdfuzz: No space left on device\n", 3)


def shell(command: str, **variables: str) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of a shell's command, in which `xfdfuzz` is this one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    words = ["bash", "-c", f'xfdfuzz() {{ "{sys.executable}" -m xfdfuzz "$@"; }}; {command}']
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["--version", "--help", "fuzz --help", "list ops", "replay p.xfd"])
@pytest.mark.parametrize(
    ("where", "message"), [(">/dev/full", "No space left on device"), (">&-", "standard output is closed")]
)
def test_what_cannot_be_printed_is_one_line(command: str, where: str, message: str) -> None:
    write("p.xfd", PROGRAM)
    assert shell(f"xfdfuzz {command} {where}") == (3, "", f"xfdfuzz: {message}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_a_lost_standard_error_takes_nothing_along(where: str) -> None:
    """Neither what is found, nor the exit code of what cannot be read."""
    code, out, err = shell(f"xfdfuzz fuzz --examples 5 --seed 1 --format json {where}")
    assert (code, err) == (1, "")
    assert json.loads(out)["findings"]
    assert shell(f"xfdfuzz replay missing.xfd {where}") == (2, "", "")


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_what_the_encoding_lacks_is_escaped(variables: dict[str, str]) -> None:
    wrong = PROGRAM.replace("violates permission-only-grows", "clean")
    write("p.xfd", wrong.replace("overwrites", "\u00fcberschreibt"))
    write("\u00fc.xfd", PROGRAM)
    code, out, err = shell("xfdfuzz replay *.xfd", **variables)
    assert (code, err) == (1, "")
    assert r"a permission request \xfcberschreibt the permissions" in out
    assert re.search(r"^ok    \\(xfc|udcc3\\udcbc)\.xfd  v7\.3  clean$", out, re.MULTILINE)


# -- list --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [
        ("revisions", "name", names()),
        ("patches", "commit", [*PATCHES, *PROPOSED]),
        ("ops", "name", list(OPS)),
        ("invariants", "name", list(load())),
        ("goals", "name", list(GOALS)),
    ],
)
def test_lists_are_complete(run: Run, kind: str, key: str, expected: list[str]) -> None:
    code, out, _ = run("list", kind)
    assert code == 0
    assert [line.split()[0] for line in out.partition("\n\n")[0].splitlines()[1:]] == expected
    rows = [json.loads(line) for line in run("list", kind, "--format", "json")[1].splitlines()]
    assert [row[key] for row in rows] == expected
    assert {type(value) for row in rows for value in row.values()} <= {str, list}


def test_lists_of_one_revision(run: Run) -> None:
    def rows(kind: str, revision: str) -> list[Any]:
        return [json.loads(r) for r in run("list", kind, "--revision", revision, "--format", "json")[1].splitlines()]

    assert [row["name"] for row in rows("revisions", "v5.18")] == ["v5.18"]
    patches = rows("patches", "v5.18")
    assert [row["commit"] for row in patches] == [*PATCHES, *PROPOSED]
    assert [row["commit"] for row in patches if row["in"] == "yes"] == [p.commit for p in resolve("v5.18").patches]
    assert {row["in"] for row in patches} == {"yes", "no"}
    assert "no-realloc-on-enter" in [row["name"] for row in rows("invariants", "amx-v1")]
    assert "no-realloc-on-enter" not in [row["name"] for row in rows("invariants", "v7.3")]


def test_the_list_of_invariants_names_what_they_come_from(run: Run) -> None:
    rows = run("list", "invariants")[1].splitlines()
    (row,) = (row for row in rows if row.startswith("no-realloc-on-enter "))
    assert row.endswith(" (INV-01, REQ)")


def test_the_short_names_of_the_specification_are_explained() -> None:
    text = (ROOT / "docs" / "invariants.md").read_text()
    used = {name for inv in load().values() for name in inv.references if not name.startswith("INV-")}
    assert sorted(used) == re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE)


# -- fuzz --------------------------------------------------------------------------------------------------------------


def test_a_real_run_finds_saves_and_prints(run: Run) -> None:
    code, out, err = run("fuzz", "--examples", "6", "--seed", "1")
    assert code == 1, err
    whole = run("fuzz", "--examples", "6", "--seed", "1", "-v")[1]
    files = sorted(Path("findings").iterdir())
    assert files
    for file in files:
        program = parse(file.read_text(), str(file))
        assert all(program.results)
        assert f"  xfdfuzz replay {file}\n" in out
        assert f"saved   {file}" in whole
    assert len(out.splitlines()) < 10 + len(files) * 2
    assert "coverage:" in whole
    assert "coverage:" not in out
    assert "amx-v1: seed 1; repeat: xfdfuzz fuzz --revision amx-v1 --seed 1 --examples 6" in err
    assert run("replay", "findings", "-q")[0] == 0


def test_a_real_run_as_json_repeats_with_its_seed(run: Run) -> None:
    code, out, _ = run("fuzz", "--examples", "15", "--format", "json")
    assert code == 1
    first = json.loads(out)
    assert first["findings"][0]["file"].startswith("findings/amx-v1-")
    second = json.loads(run("fuzz", "--examples", "15", "--seed", str(first["seed"]), "--format", "json")[1])
    del first["seconds"], second["seconds"]
    assert first == second


def fake(monkeypatch: pytest.MonkeyPatch, *programs: str, **report: Any) -> list[dict[str, Any]]:
    """Put an engine in place that finds the given programs; returns what it is called with."""
    calls: list[dict[str, Any]] = []

    def fuzz(revision: Revision, plan: Plan, **options: Any) -> Report[Finding]:
        calls.append({"revision": revision.label, **vars(plan), **options})
        found = [finding_of(parse(text), revision) for text in programs]
        for finding in found:
            options["tell"](Found(revision.label, finding))
        stats = Stats(examples=1, steps=report.get("steps", 5), seconds=1.0)
        result = Report((revision,), plan, stats, tuple(found), report.get("interrupted", False))
        options["tell"](Ended(revision.label, result, result.interrupted))
        return result

    monkeypatch.setattr("xfdfuzz.engines.search.violations.fuzz", fuzz)
    return calls


def finding_of(program: Any, revision: Revision) -> Finding:
    violation = judge(program, revision, expectations=False).violations[0]
    return Finding(violation, program, revision)


def test_what_the_engine_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake(monkeypatch)
    assert run("fuzz", "--revision", "v5.18", "--time", "2m", "--seed", "5")[0] == 0
    assert run("fuzz", "--revision", "v5.18", "--also", "mainline", "--time", "30s", "--seed", "5")[0] == 0
    assert run("fuzz", "--examples", "9", "--steps", "7")[0] == 0
    asked = [(c["revision"], c["examples"], c["steps"]) for c in calls]
    assert asked == [("v5.18", None, 50), ("v5.18", None, 50), ("v7.3", None, 50), ("amx-v1", 9, 7)]
    assert [c["seed"] for c in calls[:3]] == [5, 5, 5]
    # half of it for the first one, all that is left for the second
    assert [c["seconds"] for c in calls[:2]] == [120.0, 15.0]
    assert 15.0 < calls[2]["seconds"] <= 30.0
    assert calls[3]["seconds"] is None


def test_a_finding_is_saved_before_it_is_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, PROGRAM)
    order: list[str] = []
    monkeypatch.setattr("xfdfuzz.report.progress.Progress.found", lambda self, f: order.append(f.file.read_text()))
    assert run("fuzz")[0] == 1
    assert order[0].startswith("# xfdfuzz program 1\n# title: permission-only-grows: ")


def test_known_programs_are_no_news(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake(monkeypatch)
    write("open/p.xfd", PROGRAM)
    write("open/sub/q.xfd", PROGRAM)
    code, _, err = run("fuzz", "--revision", "amx-v1", "--revision", "v7.3", "--known", "open", "open/p.xfd")
    assert code == 0
    assert [[*call["known"].reasons] for call in calls] == [["permission-only-grows@guest"], []]
    assert "amx-v1: 1 known bucket of 2 programs" in err
    assert "v7.3: 0 known buckets of 2 programs" in err
    assert "--known open --known open/p.xfd" in err
    run("fuzz")
    assert not calls[-1]["known"].reasons


def test_a_real_run_finds_nothing_twice(run: Run) -> None:
    def kinds(*more: str) -> set[tuple[str, str]]:
        out = run("fuzz", "--examples", "15", "--seed", "1", "--format", "json", *more)[1]
        return {(finding["bucket"], finding["shape"]) for finding in json.loads(out)["findings"]}

    first = kinds("--known", "nothing")
    assert first
    # it gets further, because it does not stop at what it knows
    assert not first & kinds("--known", "findings", "--save", "new")


def test_a_disk_that_fills_up_loses_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fake(monkeypatch, PROGRAM, PROGRAM)
    monkeypatch.setattr("xfdfuzz.report.directory.keep", full)
    code, out, err = run("fuzz", "--revision", "amx-v1", "--revision", "v5.17")
    assert code == 3
    assert err.count("xfdfuzz: cannot save to findings: No space left on device") == 1
    assert "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0" in out
    _, whole = out.split("not saved; its program:\n\n", 1)
    assert parse(whole[: whole.index("\n\n", whole.index("\n\n") + 2)]).ops == parse(PROGRAM).ops


def test_interrupted_and_empty_runs_cannot_be_judged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake(monkeypatch, PROGRAM, interrupted=True)
    code, out, _ = run("fuzz", "--revision", "amx-v1", "--revision", "amx-review-a")
    assert (code, len(calls)) == (3, 1)
    assert "1 finding in" in out
    assert "(interrupted)" in out
    fake(monkeypatch, steps=0)
    assert run("fuzz")[0] == 3


@pytest.mark.parametrize("becomes", [None, RuntimeError("Error calling __set_name__ on 'Field' instance")])
def test_ctrl_c_outside_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch, becomes: Exception | None) -> None:
    """Python makes another error of it where it comes in __set_name__(), as while a dataclass is made."""

    def interrupt(*_: object, **__: object) -> None:
        if becomes:
            raise becomes from KeyboardInterrupt()
        raise KeyboardInterrupt

    monkeypatch.setattr("xfdfuzz.engines.judge.verdict.judge", interrupt)
    assert run("replay", write("p.xfd", PROGRAM))[::2] == (3, "xfdfuzz: interrupted\n")


@pytest.mark.parametrize(
    "module", ["argparse", "xfdfuzz.cli.exits", "xfdfuzz.cli", "rich.text", "xfdfuzz.kernel.state"]
)
@pytest.mark.parametrize("start", ["-m xfdfuzz", "script.py"])
def test_ctrl_c_while_modules_are_imported(module: str, start: str) -> None:
    (script,) = (entry for entry in entry_points(group="console_scripts") if entry.name == "xfdfuzz")
    write("script.py", f"import sys\nfrom {script.module} import {script.attr} as main\nsys.exit(main())\n")
    command = [sys.executable, "-X", "importtime", *start.split(), "fuzz", "--time", "60"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        for imported in child.stderr:
            if imported.split("|")[-1].strip() == module:
                child.send_signal(signal.SIGINT)
                break
        said = [line for line in child.stderr if not line.startswith("import time:")]
    assert (child.returncode, said) == (3, ["xfdfuzz: interrupted\n"])


def test_sigterm_while_the_command_line_is_imported() -> None:
    """As Ctrl-C."""
    command = [sys.executable, "-X", "importtime", "-m", "xfdfuzz", "fuzz", "--time", "60"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        next(line for line in child.stderr if line.split("|")[-1].strip() == "argparse")
        child.send_signal(signal.SIGTERM)
        assert "xfdfuzz: interrupted\n" in child.stderr.readlines()
    assert child.returncode == 3
