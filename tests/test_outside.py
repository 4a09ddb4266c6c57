"""Series from outside the tree: what a file can say, and how it is refused."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.confirm import Confirmer
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import PATCHES, RevisionError, concerns, names, resolve, selects
from xfdfuzz.revisions.fit import check_fit
from xfdfuzz.revisions.table import named

Run = Callable[..., tuple[int, str, str]]

#: It puts the permission overwrite back that 063452fd94d1 cured.
SERIES = '''\
from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.revisions import Series

series = Series("my-series", base="{base}", title="permissions, simplified", source="mail")


@series.patch("my-series-1", "x86/fpu: simplify permissions", fixes=("063452fd94d1",))
class Simplified(Xstate):
    """A request is the whole permission."""

    def write_state_perm(self, perm, permitted, requested):
        """(fpu/xstate.c)."""
        {body}
'''
OVERWRITES = SERIES.format(base="v7.3", body="perm.state_perm = requested")
PROGRAM = """\
# xfdfuzz program 1
# expect: my-series violates permission-only-grows
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
"""
BARE = "# xfdfuzz program 1\nmachine cpus=1\n\nt0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n"


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def test_a_file_is_a_revision_with_its_own_name() -> None:
    revision = resolve(write("my.py", OVERWRITES))
    assert (revision.label, revision.title, revision.source) == ("my-series", "permissions, simplified", "mail")
    assert [p.commit for p in revision.patches] == [*PATCHES, "my-series-1"]
    assert judge(parse(BARE), revision).broken == ("permission-only-grows",)
    assert resolve("my-series").label == "my-series"


def test_its_patches_can_be_left_out_and_mainlines_too() -> None:
    without = resolve(write("my.py", OVERWRITES), revert=["my-series-1"])
    assert without.label == "my-series-my-series-1"
    assert judge(parse(BARE), without).violations == ()
    assert resolve("my.py-c5866d42f711").reverted == ("c5866d42f711",)
    with pytest.raises(RevisionError, match="my-series-1, later in the queue, replaces write_state_perm"):
        resolve("my.py", revert=["d8414603b29f"])


def test_its_address_finds_it_in_another_process() -> None:
    revision = resolve(write("my.py", OVERWRITES), revert=["c5866d42f711"])
    assert revision.address == f"{Path('my.py').resolve()}-c5866d42f711"
    assert resolve(revision.address).label == revision.label
    with Confirmer(revision) as confirmer:
        confirmer.ask("permission-only-grows@guest", parse(BARE))
        confirmer.ask("another", parse(BARE))
        assert [*confirmer.last_answers(lambda: False)] == [
            ("permission-only-grows@guest", ""),
            ("another", "another does not show in a fresh process"),
        ]


def test_what_is_said_of_its_base_holds_for_it_but_expectations_do_not() -> None:
    resolve(write("my.py", SERIES.format(base="amx-v1", body="perm.state_perm = requested")))
    assert concerns("amx-v1", "my-series")
    assert not concerns("v5.17..", "my-series")
    assert not selects("amx-v1", "my-series")
    assert INVARIANTS["no-realloc-on-enter"].applies_to("my-series")
    assert not INVARIANTS["no-realloc-on-enter"].applies_to("v7.3")


def test_a_series_can_stand_on_a_patched_revision() -> None:
    revision = resolve(write("my.py", SERIES.format(base="v6.12+b45f72177594", body="perm.state_perm = requested")))
    assert [p.commit for p in revision.patches][-2:] == ["b45f72177594", "my-series-1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", "my.py:1: '(' was never closed"),
        ("\nimport nowhere\n", "my.py:2: ModuleNotFoundError: No module named 'nowhere'"),
        ("raise SystemExit(0)\n", "my.py:1: SystemExit: 0"),
        ("x = 1\n", "my.py:1: expected one Series in the file, found none"),
        (OVERWRITES.replace("v7.3", "v9"), "my.py:4: unknown revision v9: expected one of"),
        (OVERWRITES.replace('"my-series"', '"My Series"'), "my.py:4: revision My Series: expected lower-case words"),
        (OVERWRITES.replace('"my-series"', '"v7.3"'), "my.py: revision v7.3 exists already"),
        (OVERWRITES.replace("my-series-1", "one"), "my.py:7: patch one: expected a name of its own"),
        (OVERWRITES.replace("my-series-1", "b45f72177594"), "my.py:7: patch b45f72177594: expected a name of its own"),
        (
            OVERWRITES.replace("v7.3", "v5.16").replace(
                "kernel.fpu.xstate import X", "revisions.amx_v6 import AmxV6 as X"
            ),
            "my.py:7: my-series-1 does not apply to v5.16, which does not have write_state_perm()",
        ),
        (SERIES.format(base="v7.3", body="1 / 0"), "my.py:13: ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(run: Run, text: str, message: str) -> None:
    code, out, err = run("replay", write("p.xfd", BARE), "--revision", write("my.py", text))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


#: A second patch of the series, with a method or two.
SECOND = '''

@series.patch("my-series-2", "x86/fpu: second")
class Second({base}):
    """Second."""

{body}
'''


REPLACES = "def write_state_perm(self, *a):\n"


def second(body: str, base: str = "Xstate") -> str:
    return OVERWRITES + SECOND.format(base=base, body=textwrap.indent(textwrap.dedent(body).strip(), "    "))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            OVERWRITES.replace("write_state_perm", "write_state_prem"),
            "my.py:11: write_state_prem replaces nothing: did you mean write_state_perm?",
        ),
        (
            second("def fpstate_reallocc(self):\n    super().fpstate_reallocc()"),
            "my.py:20: fpstate_reallocc replaces nothing: did you mean fpstate_realloc?",
        ),
        # two that call each other, and nobody calls
        (
            second("def dance(self):\n    self.sing()\n\ndef sing(self):\n    self.dance()"),
            "my.py:20: dance replaces nothing: exp",
        ),
        # Python's own name for __xfd_enable_feature of this class
        (second("def __xfd_enable_feature(self):\n    pass"), "did you mean _xfd_enable_feature?"),
        (
            second("KVM_SUPPORTED_XCR = 1"),
            "my.py:16: KVM_SUPPORTED_XCR replaces nothing: did you mean KVM_SUPPORTED_XCR0?",
        ),
        (
            second("@property\ndef suported_xcr0(self):\n    return 7"),
            "my.py:20: suported_xcr0 replaces nothing: did you mean sup",
        ),
        (second("write_state_perm = 1"), "my.py:16: write_state_perm is a function in what it replaces"),
        (
            OVERWRITES.replace("(Xstate)", ""),
            "my.py:7: Simplified is expected to subclass the class whose methods it r",
        ),
        (OVERWRITES[: OVERWRITES.index("@series")], "my.py: the series replaces nothing"),
        (
            SECOND.join((OVERWRITES[: OVERWRITES.index("@series")], "")).format(base="Xstate", body=""),
            "my.py: the series replaces",
        ),
        (
            OVERWRITES.replace("perm, permitted, requested", "perm, permitted"),
            "my.py:11: write_state_perm(self, perm, permitted) cannot be called as what it replaces, "
            "write_state_perm(self, perm, permitted, requested)",
        ),
        (OVERWRITES.replace("perm, permitted, requested", "perm, a, b, c"), "cannot be called as what it replaces"),
        (
            second("def xstate_calculate_size(self, mask, packed):\n    return 0", "Xstate"),
            "xstate_calculate_size(self, mask, packed) cannot be called as what it replaces, "
            "xstate_calculate_size(self, mask, *, compacted)",
        ),
    ],
)
def test_what_replaces_nothing_is_refused_by_name(run: Run, text: str, message: str) -> None:
    """Or a typing error would be a clean series."""
    code, out, err = run("replay", write("p.xfd", BARE), "--revision", write("my.py", text))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        OVERWRITES.replace("requested)", "requested, more=0)"),
        OVERWRITES.replace("self, perm, permitted, requested", "self, *arguments").replace("= requested", "= 0"),
        # helpers: called by what replaces, through another one, by a later patch, by a function, by a name in a text
        second(REPLACES + "    self.one()\n\ndef one(self):\n    self.two()\n\ndef two(self):\n    pass"),
        second("def helper(self):\n    pass")
        + SECOND.replace("my-series-2", "my-series-3").format(
            base="Xstate", body="    def write_state_perm(self, *a):\n        self.helper()"
        ),
        second(REPLACES + "    ask(self)\n\ndef helper(self):\n    pass")
        + "\n\ndef ask(kernel):\n    kernel.helper()\n",
        second(REPLACES + "    getattr(self, 'helper')()\n\nLIMIT = 1\n\ndef helper(self):\n    self.LIMIT"),
        second("@functools.cache\n" + REPLACES + "    self.helper\n\n@property\ndef helper(self):\n    pass").replace(
            "from xfdfuzz.kernel.fpu", "import functools\nfrom xfdfuzz.kernel.fpu", 1
        ),
        # what an earlier patch brought is replaced by a later one
        second(REPLACES + "    self.helper()\n\ndef helper(self):\n    pass")
        + SECOND.replace("my-series-2", "my-series-3").format(
            base="Xstate", body="    def helper(self):\n        pass"
        ),
        # new on purpose
        second("@seam\ndef asked_by_an_invariant(self):\n    pass").replace(
            "from xfdfuzz.kernel.fpu", "from xfdfuzz.kernel.base import seam\nfrom xfdfuzz.kernel.fpu", 1
        ),
        # constants, for the class alone
        second("LIMIT = 1\nDOUBLE = 2 * LIMIT\n" + REPLACES.replace("*a", "*a, by=DOUBLE") + "    pass"),
        # a patch that is there for its number
        second(""),
    ],
)
def test_helpers_of_its_own_are_no_typing_errors(text: str) -> None:
    assert resolve(write("my.py", text)).label == "my-series"


def test_no_patch_of_the_tree_would_be_refused() -> None:
    for revision in filter(lambda one: one.patches, map(resolve, names())):
        check_fit("", named(revision.name).base, revision.patches)


def test_a_missing_file_and_a_name_that_is_taken(run: Run) -> None:
    write("p.xfd", BARE)
    assert run("replay", "p.xfd", "--revision", "my.py") == (2, "", "xfdfuzz: my.py: No such file or directory\n")
    write("a.py", OVERWRITES)
    write("b.py", OVERWRITES)
    code, _, err = run("replay", "p.xfd", "--revision", "a.py", "--revision", "b.py")
    assert (code, err) == (2, "xfdfuzz: b.py: revision my-series exists already\n")


def test_every_command_takes_a_file(run: Run) -> None:
    code, out, _ = run("replay", write("p.xfd", PROGRAM), "--revision", write("my.py", OVERWRITES))
    assert (code, out.splitlines()[-1]) == (0, "ok    p.xfd  my-series  violates permission-only-grows, as expected")
    rows = run("list", "patches", "--revision", "my.py", "--format", "json")[1].splitlines()
    assert json.loads(rows[-1])["commit"] == "my-series-1"


def test_a_finding_on_a_file_repeats_and_replays_with_the_commands_that_are_printed(run: Run) -> None:
    path = Path(write("my.py", OVERWRITES)).resolve()
    code, out, err = run("fuzz", "--revision", "my.py", "--examples", "5", "--seed", "1")
    assert code == 1
    assert f"repeat: xfdfuzz fuzz --revision {path} --seed 1" in err
    commands = re.findall(r"  xfdfuzz (replay .*)$", out, re.MULTILINE)
    assert commands
    for command in commands:
        assert command.endswith(f"--revision {path}")
        assert run(*command.split())[0] == 0


def test_a_finding_without_one_of_its_patches_replays(run: Run) -> None:
    """The header of the saved program names the series' own patch."""
    second = textwrap.dedent('''

        @series.patch("my-series-2", "x86/fpu: nothing")
        class Nothing(Xstate):
            """Nothing."""
    ''')
    write("my.py", OVERWRITES + second)
    code, _, _ = run("fuzz", "--revision", "my.py", "--revert", "my-series-2", "--examples", "5", "--seed", "1")
    assert code == 1
    assert "# revert: my-series-2" in next(Path("findings").glob("*permission-only-grows*")).read_text()
    assert run("replay", "findings", "--revision", "my.py")[0] == 0


def test_an_installed_package_offers_a_series(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("theirs.py").write_text(OVERWRITES)
    monkeypatch.syspath_prepend(".")
    entry = EntryPoint("theirs", "theirs:series", "xfdfuzz.revisions")
    offered(monkeypatch, entry)
    assert run("replay", write("p.xfd", PROGRAM))[0] == 0
    assert "my-series" in [line.split()[0] for line in run("list", "revisions")[1].splitlines()]


def test_an_installed_package_that_leaves_is_no_green_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is imported, and when it runs."""
    monkeypatch.syspath_prepend(".")
    for group in ("xfdfuzz.revisions", "xfdfuzz.invariants"):
        file = Path(write(f"leaves_{group.rpartition('.')[2]}.py", "import sys\n\nsys.exit(0)\n")).resolve()
        entry = EntryPoint("theirs", f"{file.stem}:it", group)
        with monkeypatch.context() as installed:
            offered(installed, entry)
            name = "my-series" if group == "xfdfuzz.revisions" else "v7.3"
            code, out, err = run("replay", write("p.xfd", BARE), "--revision", name)
            assert (code, out) == (2, "")
            assert err == f"xfdfuzz: {file}:3: entry point theirs = {entry.value}: SystemExit: 0\n"
    file = Path(write("leaves_later.py", SERIES.format(base="v7.3", body="raise SystemExit(0)"))).resolve()
    offered(monkeypatch, EntryPoint("theirs", "leaves_later:series", "xfdfuzz.revisions"))
    code, _, err = run("replay", "p.xfd", "--revision", "my-series")
    assert (code, err) == (2, f"xfdfuzz: {file}:13: SystemExit: 0\n")


def offered(monkeypatch: pytest.MonkeyPatch, entry: EntryPoint) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry] if group == entry.group else [])


@pytest.mark.parametrize(
    ("value", "message"),
    [("nowhere", "ModuleNotFoundError: No module named 'nowhere'"), ("json:loads", "expected a Series, not a value")],
)
def test_a_broken_package_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    entry = EntryPoint("theirs", value, "xfdfuzz.revisions")
    offered(monkeypatch, entry)
    code, out, err = run("list", "revisions")
    assert (code, out) == (2, "")
    assert err.startswith(f"xfdfuzz: entry point theirs = {value}: {message}")
    assert len(err.splitlines()) == 1


def test_an_invariant_may_speak_of_the_series(run: Run) -> None:
    write("my.py", OVERWRITES)
    text = (
        "from xfdfuzz.invariants.vocabulary import Broken, invariant\n\n\n"
        '@invariant("mine", "abi", revisions=("my-series",))\n'
        'def mine(view):\n    """Mine."""\n    yield Broken("seen")\n'
    )
    command = ("replay", write("p.xfd", BARE), "--revision", "my.py", "--revision", "v7.3")
    code, out, _ = run(*command, "--invariants", write("mine.py", text))
    assert code == 1
    assert "! mine (abi): seen" in out
    assert "FAIL  p.xfd  my-series  " in out
    assert "v7.3  clean" in out
