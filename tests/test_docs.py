"""The documentation against the tree: links and anchors, files, command lines, the files of the kernel."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from xfdfuzz.cli import build_parser, main
from xfdfuzz.revisions import PROPOSED

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for glob in ("*.md", "docs/*.md", "corpus/*.md", "bench/**/*.md") for path in ROOT.glob(glob))
ARCHITECTURE = ROOT / "docs" / "architecture.md"
KERNEL = ROOT / "xfdfuzz" / "kernel"
#: What a page may leave out of a path in front.
BASES = (ROOT, ROOT / "xfdfuzz", ROOT / "xfdfuzz" / "engines", KERNEL, ROOT / "corpus")
_BLOCK = re.compile(r"^```.*?^```|^ {4,}\S[^\n]*", re.MULTILINE | re.DOTALL)


def of_each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=[str(page.relative_to(ROOT)) for page in pages])


def prose(page: Path) -> str:
    """Without blocks of code."""
    return _BLOCK.sub("", page.read_text())


# -- links -------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """A page's headings, as GitHub names them: the second of two equal ones ends in -1."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        found.append(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return {f"{slug}-{nr}" if (nr := found[:at].count(slug)) else slug for at, slug in enumerate(found)}


@of_each(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page)):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_pages_that_sources_name_exist() -> None:
    for room in ("xfdfuzz", "invariants", "strategies", "bench", "tests"):
        for source in (ROOT / room).rglob("*.py"):
            for page in re.findall(r"\b(?:docs|corpus|bench)/[\w/-]+\.md\b", source.read_text()):
                assert (ROOT / page).exists(), f"{source}: {page}"


# -- files -------------------------------------------------------------------------------------------------------------


@of_each(PAGES)
def test_files_that_a_page_names_exist(page: Path) -> None:
    for path in re.findall(r"`([\w-]+(?:/[\w-]+)+\.(?:py|xfd))`", prose(page)):
        assert any((base / path).exists() for base in BASES), path


def table(header: str, page: Path = ARCHITECTURE) -> list[list[str]]:
    """The cells of the rows of the table that begins with that line."""
    _, found, rest = page.read_text().partition(f"\n| {header} |\n")
    assert found, header
    lines = rest.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_files_of_the_rooms_exist() -> None:
    for room, text, _ in table("room | what is in it | may import"):
        for file in re.findall(r"`([\w/]+(?:\.py|\.lark|/))`", text):
            assert (ROOT / room.strip("`") / file).exists(), f"{room}: {file}"
    for room, text, _ in table("room of `xfdfuzz/engines` | what is in it | may import"):
        for module in re.findall(r"`(\w+)`", text):
            assert (ROOT / "xfdfuzz" / "engines" / room.strip("`") / f"{module}.py").exists(), f"{room}: {module}"


@pytest.mark.parametrize("room", ["search", "explore", "review"])
def test_the_modules_of_an_engine_exist(room: str) -> None:
    for modules, _ in table(f"module of `{room}` | what it does"):
        for module in re.findall(r"`(\w+\.py)`", modules):
            assert (ROOT / "xfdfuzz" / "engines" / room / module).exists(), module


def test_every_open_finding_has_its_line() -> None:
    rows = table("| finding | severity | since | in `corpus/open` | proposed cure", ROOT / "docs" / "fidelity.md")
    explained = re.findall(r"^(\d+)\. \*\*", (ROOT / "docs" / "fidelity.md").read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == explained
    assert all(list((ROOT / "corpus" / "open").glob(row[4].strip("`"))) for row in rows)
    assert {row[5].strip("`") for row in rows} == set(PROPOSED)


# -- the files of the kernel -------------------------------------------------------------------------------------------


def cited(text: str) -> set[str]:
    """The C files that a text names, `fpu/{init,xstate}.c` as two."""
    found = set()
    for path in re.findall(r"[\w./*-]*\{[\w./,]+\}(?:\.[ch]\b)?|[\w./*-]+\.[ch]\b", text):
        start, _, inner = path.partition("{")
        middle, _, end = inner.partition("}")
        found |= {start + part + end for part in middle.split(",")}
    return {path for path in found if path.endswith((".c", ".h"))}


def test_every_module_of_the_kernel_has_its_line() -> None:
    listed = [row[0].strip("`") for row in table("module | what it has | follows")]
    modules = {str(path.relative_to(KERNEL)) for path in KERNEL.rglob("*.py") if path.name != "__init__.py"}
    assert sorted(listed) == sorted(modules)


@pytest.mark.parametrize("row", table("module | what it has | follows"), ids=lambda row: row[0].strip("`"))
def test_a_module_of_the_kernel_cites_what_its_line_says(row: list[str]) -> None:
    """Docstrings leave out what everybody knows: `fpu/core.c` is `arch/x86/kernel/fpu/core.c`."""
    module, _, follows = row
    listed = cited(follows)
    sources = cited((KERNEL / module.strip("`")).read_text())
    assert {path for path in listed if not any(f"/{path}".endswith(f"/{short}") for short in sources)} == set()
    assert {short for short in sources if not any(f"/{path}".endswith(f"/{short}") for path in listed)} == set()


# -- command lines -----------------------------------------------------------------------------------------------------


_COMMAND = r"(?:xfdfuzz |python -m bench\b)"


def command_lines(page: Path) -> Iterator[str]:
    """All of `xfdfuzz` and `python -m bench` that a page shows; not headings, which show alternatives."""
    for block in _BLOCK.findall(page.read_text()):
        yield from re.findall(rf"^ *(?:\$ |\w+: +|replay +)?({_COMMAND}.*)$", block, re.MULTILINE)
    yield from re.findall(rf"`({_COMMAND}[^`]*)`", re.sub(r"^#.*$", "", prose(page), flags=re.MULTILINE))


@of_each([page for page in PAGES if page.name != "CHANGELOG.md"])
def test_command_lines_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command's bare name is a name; CHANGELOG.md speaks of old ones, too."""
    for line in command_lines(page):
        words = shlex.split(line, comments=True)
        if words[0] == "python":
            assert importlib.util.find_spec(words[2]), line
            continue
        argv = [words[1], "--help"] if len(words) == 2 else words[1:]
        try:
            build_parser().parse_args(argv)
        except SystemExit as stop:
            if stop.code:
                pytest.fail(f"{line}: {capsys.readouterr().err}")


def test_the_trace_in_the_readme_is_what_its_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its lines, in that order; what it says that it leaves out is between them."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    command = re.search(r"`xfdfuzz (replay corpus/[^`]+)`", text)
    assert command is not None
    assert main(shlex.split(command[1])) == 0
    printed = iter(capsys.readouterr().out.splitlines())
    block = re.findall(r"^    (.*)$", text[command.end() : text.index("Below every op")], re.MULTILINE)
    assert len(block) > 20
    for row in block:
        assert row in printed, row  # an iterator: goes on behind the last one found
