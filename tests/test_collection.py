"""`xfdfuzz corpus`: programs that are kept together, each once and saying what it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xfdfuzz.engines.compare.collection import slug
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import names, selects

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent
TITLE = "# title: The first request loses what was permitted\n"
PROGRAM = f"""\
# xfdfuzz program 1
{TITLE}# expect: amx-v1 violates permission-only-grows
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
"""
LONGER = PROGRAM + "t0 ioctl(kvm, KVM_CREATE_VM) = vm0\n"
#: Breaks xfd-msrs-are-listed and nothing else.
OTHER = """\
# xfdfuzz program 1
# title: Not on the list
machine cpus=1

t0 ioctl(kvm, KVM_GET_MSR_INDEX_LIST, IA32_XFD)
"""
CLEAN = "# xfdfuzz program 1\n# title: Nothing\nmachine cpus=1\n\nt0 ioctl(kvm, KVM_CREATE_VM)\n"
TWO = ("--revision", "amx-v1", "--revision", "v7.3", "--workers", "1")


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


# -- add ---------------------------------------------------------------------------------------------------------------


def test_what_is_added_says_what_it_does_on_every_revision(run: Run) -> None:
    code, out, err = run("corpus", "add", write("finding.xfd", PROGRAM), "--workers", "1")
    saved = Path("corpus/the-first-request-loses-what-was-permitted.xfd")
    assert (code, out, err) == (0, f"added      finding.xfd -> {saved}\n", "")
    program = parse(saved.read_text())
    assert str(program.expect[0]) == "amx-v1 violates permission-only-grows"
    for name in names():
        (said,) = [e for e in program.expect if selects(e.revisions, name)]
        assert said.invariants == judge(program, name, expectations=False).broken
    assert len(program.expect) < len(names()) * 2 / 3  # by ranges
    assert run("corpus", "check", "corpus")[0] == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROGRAM, "corpus/a.xfd is the same program"),
        (LONGER, "corpus/a.xfd shows all that it breaks"),
        (CLEAN, "it breaks nothing"),
        (OTHER.replace("# title: Not on the list\n", ""), "it has no title that could be its name: '# title: ...'"),
        (OTHER.replace("machine", "# expect: v7.3 violates no-warning\nmachine"), "v7.3: expected to break no-warning"),
        (OTHER.rstrip() + " = 1\n", "amx-v1: op 1: expected 1, got "),
    ],
)  # fmt: skip
def test_what_tells_nothing_new_or_nothing_true_is_refused(run: Run, text: str, reason: str) -> None:
    write("corpus/a.xfd", PROGRAM)
    code, out, _ = run("corpus", "add", write("finding.xfd", text), *TWO)
    assert code == 1
    assert out.startswith(f"refused    finding.xfd: {reason}")
    assert [path.name for path in Path("corpus").iterdir()] == ["a.xfd"]


def test_of_two_that_show_the_same_the_first_is_added(run: Run) -> None:
    write("new/a.xfd", PROGRAM)
    write("new/b.xfd", LONGER)
    write("new/c.xfd", OTHER.replace("Not on the list", "The first request loses what was permitted"))
    code, out, _ = run("corpus", "add", "new", "--to", "kept", "--format", "json", *TWO)
    assert code == 1
    first, second = (f"kept/the-first-request-loses-what-was-permitted{end}.xfd" for end in ("", "-2"))
    assert [(one["outcome"], one["saved"], one["reasons"]) for one in map(json.loads, out.splitlines())] == [
        ("added", first, []),
        ("refused", None, [f"{first} shows all that it breaks"]),
        ("added", second, []),
    ]


def test_json_keys_are_documented(run: Run) -> None:
    section = (ROOT / "docs" / "cli.md").read_text().split("## `xfdfuzz corpus ")[1].split("\n## ")[0]
    write("a.xfd", PROGRAM)
    for action in ("check", "stats"):
        keys = json.loads(run("corpus", action, "a.xfd", "--format", "json")[1]).keys()
        assert [key for key in keys if f"`{key}`" not in section] == []


def test_a_dry_run_writes_nothing(run: Run) -> None:
    assert run("corpus", "add", write("finding.xfd", PROGRAM), "--dry-run", *TWO)[0] == 0
    assert not Path("corpus").exists()


def test_results_that_differ_between_revisions_are_left_out(run: Run) -> None:
    text = PROGRAM + "t0 ioctl(kvm, KVM_GET_MSR_INDEX_LIST, IA32_XFD)\nt0 ioctl(kvm, KVM_CREATE_VM) = vm0\n"
    different = {judge(text, name, expectations=False).results[1] for name in ("amx-v1", "v7.3")}
    assert len(different) == 2
    text = text.replace("IA32_XFD)", f"IA32_XFD) = {different.pop()}")
    assert run("corpus", "add", write("finding.xfd", text), *TWO)[0] == 0
    (saved,) = Path("corpus").iterdir()
    assert parse(saved.read_text()).results == ("0", None, "vm0")


def test_names_are_the_first_words_of_titles() -> None:
    assert slug("KVM_SET_MSRS(IA32_XFD = 0): it's lost!") == "kvm-set-msrs-ia32-xfd-0-it-s-lost"
    assert slug("word " * 40) == "-".join(["word"] * 12)
    assert slug("x" * 99) == "x" * 60
    assert slug("...") == ""


# -- check -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("A_b", PROGRAM, "its name: expected lower-case letters, digits and -"),
        ("a", PROGRAM.replace(TITLE, ""), "expected a line '# title: ...'"),
        ("a", CLEAN, "expected a line '# expect: REVISION violates INVARIANT', or clean"),
        ("a", PROGRAM.replace("\nt0", "\n\nt0"), "line 6 is not as it is written: expected 't0 arch_prctl"),
        ("a", PROGRAM + "\n", "line 7 is not as it is written: expected nothing more"),
        ("a", PROGRAM.replace("amx-v1", "v7.3"), "v7.3: expected to break permission-only-grows, breaks nothing"),
        ("a", PROGRAM.replace("= 0", "= -EPERM"), "amx-v1: op 1: expected -EPERM, got 0"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(run: Run, name: str, text: str, problem: str) -> None:
    code, out, _ = run("corpus", "check", write(f"{name}.xfd", text))
    assert code == 1
    assert out.startswith(f"FAIL       {name}.xfd: {problem}")
    assert len(out.splitlines()) == 1


def test_what_cannot_be_read_is_told_and_the_others_are_checked(run: Run) -> None:
    files = write("a.xfd", PROGRAM.replace("XTILEDATA", "XTILES")), write("b.xfd", PROGRAM)
    code, out, _ = run("corpus", "check", *files, write("c.xfd", PROGRAM.replace("first", "same")))
    assert code == 2
    told = out.splitlines()
    assert told[0].startswith("FAIL       a.xfd: 6:")
    assert told[1:] == ["ok         b.xfd", "FAIL       c.xfd: the same program as b.xfd"]


def test_the_projects_own_corpus_is_fine_by_its_names_and_has_no_program_twice(run: Run) -> None:
    """What else is checked, tests/test_corpus.py looks at, file by file."""
    files = [path for path in sorted(ROOT.glob("corpus/*/*.xfd")) if path.parent.name in ("bugs", "witness")]
    code, out, _ = run("corpus", "check", *map(str, files))
    assert (code, {line.split()[0] for line in out.splitlines()}) == (0, {"ok"})


# -- prune and stats ---------------------------------------------------------------------------------------------------


def test_prune_drops_what_others_show_and_shortens_the_rest(run: Run) -> None:
    extra = "t0 vmovups(1)\n"
    write("corpus/a.xfd", PROGRAM)
    write("corpus/b.xfd", LONGER + extra)
    write("corpus/c.xfd", OTHER + extra)
    write("corpus/told.xfd", LONGER.replace("machine", "# That is on purpose.\nmachine"))
    before = {path: path.read_text() for path in Path("corpus").iterdir()}
    expected = [
        "dropped    corpus/b.xfd: corpus/a.xfd shows all that it breaks",
        "dropped    corpus/a.xfd: corpus/told.xfd shows all that it breaks",
        "shortened  corpus/c.xfd -> corpus/c.xfd: 2 ops, now 1",
    ]
    code, out, _ = run("corpus", "prune", "corpus", "--dry-run", *TWO)
    assert (code, out.splitlines()) == (1, expected)
    assert {path: path.read_text() for path in Path("corpus").iterdir()} == before
    code, out, _ = run("corpus", "prune", "corpus", *TWO)
    assert (code, out.splitlines()) == (0, expected)
    assert sorted(path.name for path in Path("corpus").iterdir()) == ["c.xfd", "told.xfd"]
    assert Path("corpus/c.xfd").read_text() == OTHER
    assert run("corpus", "prune", "corpus", "--dry-run", *TWO)[:2] == (0, "")


def test_stats_count_what_the_lines_say(run: Run) -> None:
    write("corpus/a.xfd", PROGRAM.replace("machine", "# expect: v5.18.. clean\nmachine"))
    write("corpus/b.xfd", CLEAN)
    code, out, _ = run("corpus", "stats", "corpus", "--format", "json")
    found = json.loads(out)
    assert (code, found["programs"]) == (0, 2)
    assert found["invariants"] == {"permission-only-grows": 1}
    assert found["severities"] == {INVARIANTS["permission-only-grows"].severity: 1, "none": 1}
    assert found["revisions"]["amx-v1"] == {"violate": 1, "clean": 0}
    assert found["revisions"]["v6.6"] == {"violate": 0, "clean": 1}
    assert found["revisions"]["v5.17"] == {"violate": 0, "clean": 0}
    text = run("corpus", "stats", "corpus")[1]
    assert "\nv6.6          0        1\n" in text
    assert text.endswith("\ninvariant              programs\npermission-only-grows  1\n")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("check", "missing.xfd", "--to", "there"), 2, "--to is for add, not for check"),
        (("add", "missing.xfd"), 2, "missing.xfd: No such file or directory"),
        (("stats", "."), 3, "no *.xfd file below ."),
        (("prune", ".", "--revision", "v9"), 2, "unknown revision v9"),
    ],
)
def test_bad_input(run: Run, argv: tuple[str, ...], code: int, message: str) -> None:
    got, out, err = run("corpus", *argv)
    assert (got, out) == (code, "")
    assert err.startswith(f"xfdfuzz: {message}")
    assert len(err.splitlines()) == 1
