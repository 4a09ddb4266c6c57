"""Findings as mails, and programs out of mails."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from xfdfuzz import cli
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.program.mail import ABOVE, BELOW, WIDTH, cut, folded
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.report import mail
from xfdfuzz.report.page.runs import finding, run_on
from xfdfuzz.revisions import names

CORPUS = Path(__file__).parent.parent / "corpus"
WINDOW = CORPUS / "bugs" / "v1-warn-enter-guest.xfd"
OPEN = CORPUS / "open" / "set-xsave-then-set-msrs-xfd.xfd"
PROGRAM = """\
# xfdfuzz program 1
# title: a permission request overwrites the permissions
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
"""


def written(file: Path) -> str:
    load_once()
    program = parse(file.read_text(), str(file))
    runs = [*run_on(program, names(), (), ())]
    found = finding(file, program, runs)
    return mail.text(found, [run for run in runs if run is not found.chosen])


def quoted(text: str, prefix: str = "> ") -> str:
    """As an answer has it, with a remark in the middle of the program."""
    lines = [f"{prefix}{line}".rstrip() for line in text.splitlines()]
    lines.insert(next(nr for nr, line in enumerate(lines) if "machine cpus" in line) + 1, "I wonder about this line.")
    return "\n".join(["On Mon, somebody wrote:", *lines, "", "Thanks", ""])


@pytest.mark.parametrize("file", sorted((CORPUS / "bugs").glob("*.xfd")), ids=lambda file: file.stem)
def test_a_mail_is_narrow_and_its_program_survives_being_quoted(file: Path) -> None:
    try:
        text = written(file)
    except ValueError:  # one that tells kernels apart by what they return
        assert " violates " not in file.read_text()
        return
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= WIDTH
    program = parse(file.read_text())
    for copy in (text, quoted(text), quoted(quoted(text)), quoted(text, ">")):
        found = cut(copy)
        assert found is not None
        assert parse(found) == program


def test_a_mail_says_what_is_broken_where_and_since_when() -> None:
    text = written(WINDOW)
    head, _, body = text.partition("\n\n")
    assert "In-Reply-To: <20211208000359.2853257-1-yang.zhong@intel.com>" in head.splitlines()
    flat = " ".join(body.split())
    for part in (
        "checked a model of this series as posted (amx-v1) with 063452fd94d1",
        "6 t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0}) = 0 warn in kvm_set_msr_common vmx_set_msr msr_io",
        "Because: v0.cpuid.xfd 1 left by step 4",
        "amx-review-a violates request-is-eventually-cleared",
        "v7.3-cured v5.16-cured clean",
        "063452fd94d1 is added to those that lack it.",
    ):
        assert part in flat
    assert "Faults injected" not in flat
    assert f"{ABOVE} {WINDOW.name}\n# xfdfuzz program 1\n" in body
    assert f"\n{BELOW}\n" in body


def test_what_other_kernels_do_is_computed(tmp_path: Path) -> None:
    """Not taken from what the file expects."""
    file = tmp_path / "p.xfd"
    file.write_text(PROGRAM.replace("machine", "# expect: v7.3 violates permission-only-grows\nmachine"))
    flat = " ".join(written(file).split())
    assert "model of this series as posted (amx-v1)" in flat or "model of Linux" in flat
    clean = flat[flat.index("other kernels:") : flat.index("Not run on hardware")]
    assert "v7.3 " in clean.replace("violates permission-only-grows", "|").rpartition("|")[2]


def test_injected_faults_are_said(tmp_path: Path) -> None:
    file = CORPUS / "bugs" / "v1-realloc-failure-ignored.xfd"
    steps = [nr for nr, line in enumerate(parse(file.read_text()).ops, 1) if type(line).__name__ == "FailAlloc"]
    assert f"Faults injected: allocations are made to fail (step {steps[0]})" in " ".join(written(file).split())


def test_a_program_in_short_lines_is_the_same() -> None:
    program = parse(WINDOW.read_text())
    text = folded(format_program(program))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert " \\\n" in text
    assert parse(text) == program


def test_lines_that_a_mailer_has_broken_are_put_together() -> None:
    broken = PROGRAM.replace("PERM, XTILEDATA", "PERM,\nXTILEDATA").replace("KVM_CREATE_VM)", "\nKVM_CREATE_VM)")
    found = cut(f"See:\n\n{broken}\n-- \nme\n")
    assert found is not None
    assert parse(found) == parse(PROGRAM)


def test_a_mail_of_a_mailbox_is_decoded() -> None:
    encoded = PROGRAM.replace("= ", "=3D ").replace("XTILEDATA)", "XTILE=\nDATA)")
    start = "From x Mon Sep 17 00:00:00 2001\nMessage-Id: <a@b>\n"
    found = cut(f"{start}\nnothing\n{start}Content-Transfer-Encoding: quoted-printable\n\n{encoded}")
    assert found is not None
    assert parse(found) == parse(PROGRAM)
    assert cut("no program\n") is None


class Stdin:
    def __init__(self, text: str) -> None:
        self.buffer = io.BytesIO(text.encode())


def test_replay_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(WINDOW), "--format", "mail"]) == 0
    monkeypatch.setattr("sys.stdin", Stdin(quoted(capsys.readouterr().out)))
    assert cli.main(["replay", "-", "--revision", "amx-v1", "-q"]) == 0
    from_mail = capsys.readouterr().out
    assert cli.main(["replay", str(WINDOW), "--revision", "amx-v1", "-q"]) == 0
    assert from_mail == capsys.readouterr().out.replace(str(WINDOW), "-")
    monkeypatch.setattr("sys.stdin", Stdin("nothing\n"))
    assert cli.main(["replay", "-"]) == 2
    assert capsys.readouterr().err == "xfdfuzz: -: no program on standard input: no line '# xfdfuzz program 1'\n"
    assert cli.main(["replay", "-", "--revision", "-"]) == 2


def test_what_may_be_a_vulnerability_gets_no_mail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for revision in ([], ["--revision", "v5.17"]):  # it is one of the newest mainline, whatever the mail is about
        assert cli.main(["report", str(OPEN), "--format", "mail", *revision]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), "SECURITY.md" in err) == ("", 1, True)
    file = tmp_path / "mail"
    assert cli.main(["report", str(OPEN), "--format", "mail", "--i-have-reported-it", "-o", str(file)]) == 0
    assert "host-xrstor-never-faults" in file.read_text()


def test_a_mail_is_about_one_program_that_breaks_something(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(WINDOW), "--format", "mail", "--revision", "v7.3"]) == 3
    assert "nothing is broken, so there is no mail" in capsys.readouterr().err
    assert cli.main(["report", str(WINDOW), str(OPEN), "--format", "mail"]) == 2
    assert cli.main(["report", str(WINDOW)]) == 2
    assert "expected -o OUT, or --format mail" in capsys.readouterr().err
