"""`xfdfuzz matrix`: programs x revisions, as a reader and a script get it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest

from xfdfuzz.engines.compare.matrix import Cell, Row, matrix
from xfdfuzz.program.text import parse
from xfdfuzz.report import matrix as report
from xfdfuzz.report.console import console
from xfdfuzz.report.headline import Outcome, sentence
from xfdfuzz.revisions import names, resolve
from xfdfuzz.revisions.ranges import in_ranges

Run = Callable[..., tuple[int, str, str]]

OVERWRITE = """\
# xfdfuzz program 1
# expect: ..v5.17 violates permission-only-grows
# expect: v5.18.. clean
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0
"""
#: Nothing happens to a vCPU that does not exist.
IDLE = "# xfdfuzz program 1\nmachine cpus=1\n\nv0 vmenter\n"
CORPUS = Path(__file__).parent.parent / "corpus"


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def test_of_one_program_a_row_is_a_revision(run: Run) -> None:
    write("p.xfd", OVERWRITE)
    code, out, err = run("matrix", "p.xfd", "--revision", "v5.17", "--revision", "v5.18")
    assert (code, err) == (0, "")
    assert out.splitlines()[:3] == ["revision  verdict", "v5.17     permission-only-grows", "v5.18     clean"]


def test_of_one_program_a_sentence_says_where_its_finding_is(run: Run) -> None:
    write("p.xfd", OVERWRITE)
    where = "permission-only-grows@host: on amx-v1 to amx-v6, v5.16 and v5.17\n"
    assert run("matrix", "p.xfd")[1].endswith(f"\n\n{where}")
    some = [word for name in ("v5.18", "v5.17", "v6.6") for word in ("--revision", name)]
    assert run("replay", "p.xfd", *some)[1].endswith("permission-only-grows@host: on v5.17 only\n")
    assert "on v5.17 only" not in run("replay", "p.xfd", "-q", *some)[1]
    assert " only" not in run("replay", "p.xfd", "--revision", "v5.17")[1]


def test_what_is_broken_and_not_spoken_of_leads_to_what_is_known_of_it(run: Run) -> None:
    write("p.xfd", "# xfdfuzz program 1\nmachine cpus=1\n\nt0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\n")
    told = run("matrix", "p.xfd", "--revision", "v5.16", "--revision", "v5.17", "--revision", "v7.3")[1]
    command = "xfdfuzz replay p.xfd --revision v5.17"
    assert told.endswith(f"\nwhether that is known on v5.17: {command}\n")
    assert "known: permission-only-grows@host: 063452fd94d1 cures it" in run(*command.split()[1:])[1]


def test_what_could_not_be_tried_and_what_else_is_broken_is_told_apart() -> None:
    found = [
        Outcome("v5.17", ("a", "b"), whole=True),
        Outcome("v5.18", ("b",), whole=True),
        Outcome("v6.6", ("b",), whole=False),
        Outcome("v6.12", (), whole=False),
        Outcome("v6.18", (), whole=True),
    ]
    untried = "not known of v6.6 and v6.12 (an op could not happen)"
    assert sentence("a", found) == f"on v5.17 only; {untried}; only other violations on v5.18"
    assert sentence("b", found[:3]) == "on all 3 kernels"


def test_kernels_in_a_row_are_a_range() -> None:
    assert in_ranges(["amx-v4", "amx-v5", "v5.17", "v5.18", "v6.6", "v6.1.192", "mine.py"]) == [
        "amx-v4",
        "amx-v5",
        "v5.17 to v6.6",
        "v6.1.192",
        "mine.py",
    ]
    assert in_ranges(["v5.16", "v5.18", "v6.12"]) == ["v5.16", "v5.18", "v6.12"]


def test_every_revision_is_a_column_without_the_option(run: Run) -> None:
    code, out, _ = run("matrix", write("p.xfd", OVERWRITE), "--format", "json")
    verdicts = json.loads(out)["verdicts"]
    assert code == 0
    assert list(verdicts) == names()
    assert verdicts["v5.17"] == {
        "state": "violates",
        "violations": ["permission-only-grows"],
        "left_out": 0,
        "differs": None,
        "missed": [],
        "expected": True,
    }
    clean = {"state": "clean", "violations": [], "left_out": 0, "differs": None, "missed": [], "expected": None}
    assert verdicts["v6.1.192"] == clean


def test_what_an_op_did_instead_is_told_with_its_reason(run: Run) -> None:
    text = "# xfdfuzz program 1\nmachine cpus=1\n\nt0 vmovups(1) = ok\n"
    code, out, _ = run("matrix", write("p.xfd", f"{text}t0 xgetbv(0) = ok [x87|sse]\n"), "--revision", "v7.3")
    assert (code, out.splitlines()[1]) == (
        0,
        "v7.3      clean; op 2: expected ok [x87|sse], got ok [x87|sse|avx|avx512|pkru|xtile]",
    )
    code, out, _ = run("matrix", write("p.xfd", f"{text}v0 vmenter\n"), "--revision", "v7.3")
    assert out.splitlines()[1].endswith("clean; 1 of 2 ops could not happen; op 2 could not happen: there is no v0")


def test_of_several_programs_letters_stand_for_the_invariants(run: Run) -> None:
    write("idle.xfd", IDLE)
    write("part.xfd", IDLE + "t0 ioctl(kvm, KVM_CREATE_VM)\n")
    death = str(CORPUS / "witness" / "t11-set-xsave-under-xfd.xfd")
    columns = ("--revision", "v5.17", "--revision", "v7.3", "--revision", "v5.16")
    code, out, _ = run(
        "matrix", write("a.xfd", OVERWRITE), death, "idle.xfd", "part.xfd", *columns, "--format", "markdown"
    )
    assert code == 3
    lines = out.splitlines()
    assert lines[0] == "| program | v5.17 | v7.3 | v5.16 |"
    assert lines[2] == "| a.xfd | A | . | A |"
    assert lines[3] == f"| {death} | *B,C | . | . |"
    assert lines[4] == "| idle.xfd | - | - | - |"
    assert lines[5] == "| part.xfd | ~ | ~ | ~ |"
    assert lines[6:] == [
        "",
        "* `.` clean",
        "* `~` clean as far as it went: some ops could not happen, or hit nothing",
        "* `*` the host dies",
        "* `-` no op could happen",
        "* `A` permission-only-grows",
        "* `B` host-xrstor-never-faults",
        "* `C` no-warning",
    ]


def test_a_revision_that_cannot_have_the_programs_patches_is_not_applicable(run: Run) -> None:
    write("p.xfd", OVERWRITE.replace("machine", "# apply: b45f72177594\nmachine"))
    code, out, _ = run("matrix", "p.xfd", "--revision", "v5.16", "--revision", "v6.12", "--format", "json")
    assert code == 0
    assert {label: v["state"] for label, v in json.loads(out)["verdicts"].items()} == {"v5.16": "n/a", "v6.12": "clean"}
    assert "n/a: b45f72177594 does not apply to v5.16" in run("matrix", "p.xfd", "--revision", "v5.16")[1]


def test_a_cell_that_contradicts_the_program_is_marked(run: Run) -> None:
    write("p.xfd", OVERWRITE.replace("v5.18.. clean", "v6.6 violates no-warning"))
    code, out, _ = run("matrix", "p.xfd", "--revision", "v6.6", "--revision", "v6.6+b45f72177594")
    assert code == 1
    assert "v6.6               clean (not what is expected)" in out
    assert "v6.6+b45f72177594  clean\n" in out


def test_several_processes_give_what_one_gives(run: Run, same: Callable[[str, str], Path]) -> None:
    """They get what the user gave: an invariant of his own and a series from outside the tree."""
    write("a.xfd", OVERWRITE)
    write("b.xfd", IDLE + "t0 ioctl(kvm, KVM_CREATE_VM)\n")
    write(
        "mine.py",
        "from xfdfuzz.invariants.vocabulary import Broken, invariant\n\n\n"
        '@invariant("mine-of-the-matrix", "abi")\ndef mine(view):\n    """Mine."""\n    yield Broken("seen")\n',
    )
    same("my.py", "matrix-series")
    command = ("matrix", "a.xfd", "b.xfd", "--revision", "my.py", "--revision", "v5.17", "--invariants", "mine.py")
    one, two = (run(*command, "--workers", workers, "--format", "json") for workers in ("1", "2"))
    assert one == two
    first = json.loads(two[1].splitlines()[0])
    assert first["verdicts"]["matrix-series"]["violations"] == ["mine-of-the-matrix"]


def test_an_error_in_a_users_invariant_is_one_line_from_any_process(run: Run) -> None:
    write("a.xfd", OVERWRITE)
    write("b.xfd", OVERWRITE)
    write(
        "mine.py",
        "from xfdfuzz.invariants.vocabulary import invariant\n\n\n"
        '@invariant("mine-that-fails", "abi")\ndef mine(view):\n    """Mine."""\n    return [1 / 0]\n',
    )
    for workers in ("1", "2"):
        command = ("matrix", "a.xfd", "b.xfd", "--revision", "v7.3", "--invariants", "mine.py", "--workers", workers)
        code, _, err = run(*command)
        assert (code, len(err.splitlines())) == (2, 1)
        assert err.endswith("mine.py:7: ZeroDivisionError: division by zero\n")


def test_a_file_that_is_no_program_does_not_keep_the_others_from_being_judged(run: Run) -> None:
    """As `replay` has it."""
    write("a.xfd", "# xfdfuzz program 1\nmachine\nt0 frob\n")
    write("b.xfd", OVERWRITE)
    command = ("matrix", "a.xfd", "b.xfd", "--revision", "v7.3", "--workers", "1")
    code, out, err = run(*command)
    assert (code, err) == (2, "xfdfuzz: a.xfd:3:4: expected an op of t: see xfdfuzz list ops\n")
    assert out == "revision  verdict\nv7.3      clean\n\n"
    code, out, _ = run(*command, "--format", "json")
    assert (code, [json.loads(line)["file"] for line in out.splitlines()]) == (2, ["b.xfd"])
    assert run("matrix", "a.xfd", "--revision", "v7.3")[:2] == (2, "")


def test_the_corpus_comes_along(run: Run) -> None:
    code, out, err = run("matrix", "--corpus", "--revision", "v7.3", "--format", "json", "--workers", "1")
    assert code in (0, 1)  # tests/test_corpus.py says which of them holds
    assert all(line.startswith("matrix: ") for line in err.splitlines())  # what says how far it is, on a slow machine
    files = [json.loads(line)["file"] for line in out.splitlines()]
    assert sorted(files) == sorted(str(Path("corpus", f.relative_to(CORPUS))) for f in CORPUS.rglob("*.xfd"))


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 2, "expected FILE, DIR or --corpus"),
        (["missing.xfd"], 2, "missing.xfd: No such file"),
        (["."], 3, "no *.xfd file below ."),
        (["p.xfd", "--revision", "v9"], 2, "unknown revision v9"),
        (["p.xfd", "--workers", "0"], 2, "from 1 on"),
    ],
)
def test_bad_input(run: Run, argv: list[str], code: int, message: str) -> None:
    Path("p.xfd").write_text(OVERWRITE) if argv[:1] == ["p.xfd"] else None
    given, out, err = run("matrix", *argv)
    assert (given, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_any_executor_will_do() -> None:
    with ThreadPoolExecutor(2) as executor:
        rows = list(matrix([("p", parse(OVERWRITE))], [resolve("v5.17"), resolve("v5.18")], executor))
    assert [cell.state for cell in rows[0].cells] == ["violates", "clean"]


def test_on_a_terminal_columns_that_do_not_fit_stand_below() -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    out = console(stream)
    out.width = 25
    rows = [Row(name, parse(OVERWRITE), (Cell("clean"),) * 3) for name in ("a.xfd", "b.xfd")]
    report.terminal(out, rows, ["v5.16", "v6.12.117", "v7.3"])
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert [line.split() for line in text.splitlines()[:7]] == [
        ["program", "v5.16", "v6.12.117"],
        ["a.xfd", ".", "."],
        ["b.xfd", ".", "."],
        [],
        ["program", "v7.3"],
        ["a.xfd", "."],
        ["b.xfd", "."],
    ]
