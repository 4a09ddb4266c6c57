"""What a user asks xfdfuzz about itself: `explain`, `doctor`, `completion`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz.cli import doctor
from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.results import RESULTS, form
from xfdfuzz.program.step import NOT_ENABLED, PANIC
from xfdfuzz.program.text import parse
from xfdfuzz.report.explanation import EXPLAINED
from xfdfuzz.revisions import ALIASES, PATCHES, PROPOSED, names, resolve
from xfdfuzz.strategies.scopes import SCOPES

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent


def explained(run: Run, name: str) -> list[dict[str, Any]]:
    code, out, err = run("explain", name, "--format", "json")
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


# -- explain -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["amx-v1", "v5.16", "v6.12", "v7.3"])
def test_the_corpus_has_no_result_that_the_table_lacks(revision: str) -> None:
    assert list(RESULTS) == list(OPS)
    kernel, lacks = resolve(revision).kernel, set()
    for file in sorted((ROOT / "corpus").rglob("*.xfd")):
        program = parse(file.read_text(encoding="utf-8"), file.name)
        for step in Executor(kernel, program.machine).run(program.ops):
            name = type(step.op).__name__
            if step.result.ret not in (NOT_ENABLED, PANIC) and form(step.result) not in RESULTS[name]:
                lacks.add((name, form(step.result)))
    assert not lacks


def test_an_op_is_explained_with_its_results(run: Run) -> None:
    (told,) = explained(run, "KvmCreateVcpu")
    assert told["facts"]["results"] == ["v<n>", "-EEXIST", "-EINVAL", "-EIO", "-ENOMEM"]


def one_of_each() -> dict[str, str]:
    """Name -> kind: the first and the last of each list, by the lists' own order."""
    kinds: dict[str, list[str]] = {
        "invariant": [*INVARIANTS],
        "goal": [*GOALS],
        "op": [*OPS],
        "scope": [*SCOPES],
        "patch": [*PATCHES, *PROPOSED],
    }
    found = {name: kind for kind, known in kinds.items() for name in (known[0], known[-1])}
    return found | dict.fromkeys((names()[0], names()[-1], *ALIASES), "revision")


def test_whatever_has_a_name_is_explained_on_a_screen(run: Run) -> None:
    for name, kind in one_of_each().items():
        (meaning,) = explained(run, name)
        assert meaning["kind"] == kind
        assert meaning["name"] == ALIASES.get(name, name)
        text = run("explain", name)[1]
        assert text.startswith(f"{meaning['name']}  {kind}: ")
        assert len(text.splitlines()) <= 24


def test_an_invariant_says_why_where_and_who_breaks_it(run: Run) -> None:
    (meaning,) = explained(run, "no-realloc-on-enter@anywhere")
    invariant = INVARIANTS["no-realloc-on-enter"]
    assert meaning["summary"] == f"severity {invariant.severity}"
    assert meaning["doc"] == invariant.doc
    assert "corpus/bugs/v1-warn-enter-guest.xfd" in meaning["facts"]["broken by"]
    assert "corpus/bugs/perm-overwrite.xfd" not in meaning["facts"]["broken by"]
    assert meaning["facts"]["source"] == list(invariant.references)


def test_a_patch_says_which_revisions_have_it(run: Run) -> None:
    for name in ("b45f72177594", "b45f72", "b45f72177594" + 28 * "0"):
        (meaning,) = explained(run, name)
        assert meaning["name"] == "b45f72177594"
        assert "v7.3" in meaning["facts"]["in"]
        assert "v6.18" not in meaning["facts"]["in"]


def test_a_label_says_what_was_added_and_left_out(run: Run, same: Callable[[str, str], Path]) -> None:
    (meaning,) = explained(run, "v6.12+b45f72177594-10e4b5166df9")
    assert meaning["name"] == resolve("v6.12+b45f72177594-10e4b5166df9").label
    assert (meaning["facts"]["added"], meaning["facts"]["left out"]) == (["b45f72177594"], ["10e4b5166df9"])
    (meaning,) = explained(run, str(same("mine.py", "my-series")))
    assert (meaning["name"], meaning["facts"]["stands on"]) == ("my-series", "v7.3")


def test_a_reporters_kernel_says_what_it_is_modelled_as(run: Run) -> None:
    for name, title in (
        ("v6.8.12", "v6.8.12  revision: stable; nobody has looked whether it has "),
        ("6.5", "v6.5  revision: "),
    ):
        code, out, _ = run("explain", name)
        assert (code, out.startswith(title)) == (0, True)


def test_an_op_is_known_by_what_it_is_called_in_a_program(run: Run) -> None:
    assert [meaning["name"] for meaning in explained(run, "KVM_SET_XSAVE")] == ["LoadXsave", "KvmSetXsave"]
    assert {meaning["name"] for meaning in explained(run, "tileload")} == {"GuestTileload", "UserTileload"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-realloc-on-entry", "unknown name no-realloc-on-entry: did you mean no-realloc-on-enter"),
        ("kvm_set_xsav", "unknown name kvm_set_xsav: did you mean KVM_SET_XSAVE or "),
        ("ioctl", "unknown name ioctl: see xfdfuzz list"),  # nearly every op
        ("v6.12+deadbeef", "unknown commit deadbeef"),
        ("089f9fba56fa", "unknown commit 089f9fba56fa: expected one of `xfdfuzz list patches`; a series can take out "),
        ("", "unknown name : see xfdfuzz list"),
    ],
)
def test_an_unknown_name_is_one_line_with_what_is_near(run: Run, name: str, message: str) -> None:
    code, out, err = run("explain", name)
    assert (code, out) == (2, "")
    assert err.startswith(f"xfdfuzz: {message}")
    assert len(err.splitlines()) == 1


# -- doctor ------------------------------------------------------------------------------------------------------------


def test_the_doctor_knows_what_is_installed(run: Run) -> None:
    code, out, _ = run("doctor", "--format", "json")
    facts = {fact["name"]: fact for fact in map(json.loads, out.splitlines())}
    assert code == 0
    for name in ("xfdfuzz", "hypothesis", "lark"):
        assert (facts[name]["state"], facts[name]["needed"]) == (metadata.version(name), True)
    assert facts["textual"]["detail"] == "for the extra tui"
    assert facts["/dev/kvm"]["state"] in ("usable", "unusable")
    assert run("doctor")[1].startswith("what ")


def test_the_doctor_says_how_to_get_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        return ["nothing-of-that-name>=1", "no-such-extra>=2; extra == 'rare'"]

    monkeypatch.setattr(metadata, "requires", requires)
    code, out, err = run("doctor")
    assert (code, err) == (3, "xfdfuzz: cannot work without nothing-of-that-name\n")
    assert "pip install 'nothing-of-that-name'" in out
    assert "for the extra rare: pip install 'xfdfuzz[rare]'" in out


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EACCES, "the group kvm"), (errno.ENOENT, "no module"), (errno.EBUSY, os.strerror(errno.EBUSY))],
)
def test_the_doctor_says_why_there_are_no_guests(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    fact = doctor._kvm()
    assert fact.state == "unusable"
    assert reason in fact.detail


# -- completion --------------------------------------------------------------------------------------------------------

#: What bash asks for the completion of the words of a command line.
ASK = """
words=("$@"); COMP_WORDS=("${words[@]}"); COMP_CWORD=$((${#words[@]} - 1))
"$(complete -p xfdfuzz | sed 's/.*-F \\([^ ]*\\).*/\\1/')" xfdfuzz "${words[-1]}" "${words[-2]}"
echo "${COMPREPLY[@]}"
"""


def test_bash_completes_names(run: Run) -> None:
    script = run("completion", "bash")[1]
    for words, expected in {
        "fuzz --revision amx-review-": ["amx-review-a", "amx-review-b", "amx-review-c"],
        "fuzz --apply b45f7": ["b45f72177594"],
        "diff v6.6 main": ["mainline"],
        "explore --scope two": ["two-vcpus"],
        "bisect --invariant no-real": ["no-realloc-on-enter"],
        "explain KVM_SET_XS": ["KVM_SET_XSAVE"],
        "corpus ch": ["check"],
    }.items():
        command = ["bash", "-c", script + ASK, "bash", "xfdfuzz", *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected, words


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_read_their_script(run: Run, shell: str) -> None:
    code, script, _ = run("completion", shell)
    assert code == 0
    assert "amx-review-c" in script
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here to read it: apt-get install {shell}")
    Path("script").write_text(script)
    check = ["zsh", "-n", "script"] if shell == "zsh" else ["tcsh", "-f", "-c", "source script"]
    assert subprocess.run(check, capture_output=True, check=False).stderr == b""


def test_without_shtab_it_says_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    message = "xfdfuzz: completion needs shtab: pip install 'xfdfuzz[completion]'\n"
    assert run("completion", "bash") == (2, "", message)


# -- documentation -----------------------------------------------------------------------------------------------------


def test_the_row_of_what_needs_no_explanation(run: Run) -> None:
    assert [
        json.loads(line)["name"] for line in run("list", "fields", "v.xcr0", "--format", "json")[1].splitlines()
    ] == ["v.xcr0"]
    found = run("list", "warnings", "fpu_guest_realloc_fpstate", "--format", "json")[1].splitlines()
    assert [json.loads(line)["condition"] for line in found] == ["enter_guest"]
    assert run("list", "fields", "xcr")[::2] == (2, "xfdfuzz: unknown field xcr: see xfdfuzz list fields\n")


def test_kinds_and_json_keys_are_documented(run: Run) -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for command, *argv in (["explain", "tiny"], ["doctor"]):
        section = text.split(f"## `xfdfuzz {command}")[1].split("\n## ")[0]
        keys = json.loads(run(command, *argv, "--format", "json")[1].splitlines()[0]).keys()
        assert [key for key in keys if f"`{key}`" not in section] == []
    section = text.split("## `xfdfuzz explain")[1].split("\n## ")[0]
    assert [kind for kind in EXPLAINED if kind.removesuffix("s").removesuffix("e") not in section] == []
