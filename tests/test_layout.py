"""The rooms: who may import whom, what the wheel holds, no generic names."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: docs/architecture.md: a room may import the ones before it, and what stands beside it here.
ORDER = [
    {"memory", "extensions"},
    {"arch"},
    {"kernel"},
    {"revisions"},
    {"program"},
    {"strategies", "invariants", "native"},
    {"engines"},
    {"baseline"},
    {"report"},
    {"cli", "testing"},
    {"__main__", "pytest_plugin"},
]
#: The rooms of the engines: those that stand on nothing of the others, those that stand on them alone, and those that
#: put engines together.
GROUND, UPPER, TOP = (
    {"stream", "judge", "rules", "processes"},
    {"search", "explore", "compare", "conform"},
    {"review", "live"},
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def sources() -> list[Path]:
    # the links into the package are walked at their real place
    return [
        *(path for path in (ROOT / "xfdfuzz").rglob("*.py") if not path.is_symlink()),
        *(ROOT / "strategies").glob("*.py"),
        *(ROOT / "invariants").glob("*.py"),
    ]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    inside = parts[1:] if parts[0] == "xfdfuzz" else parts
    return inside[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.append(node.module or "")
            found += [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_upward(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports(path):
        target = name.removeprefix("xfdfuzz.").split(".")[0]
        if name.startswith("xfdfuzz.") and target != room:
            assert LEVEL[target] < LEVEL[room], f"{room} imports {name}"
        assert name.split(".")[0] not in ("strategies", "invariants"), f"{name}: import it as xfdfuzz.{name}"


@pytest.mark.parametrize("room", sorted(GROUND | UPPER | TOP))
def test_the_rooms_of_the_engines_have_three_floors(room: str) -> None:
    below = set() if room in GROUND else GROUND if room in UPPER else GROUND | {"search", "explore"}
    for path in (ROOT / "xfdfuzz" / "engines" / room).rglob("*.py"):
        for name in imports(path):
            if name.startswith("xfdfuzz.engines."):
                assert name.split(".")[2] in below | {room}, f"{path.relative_to(ROOT)} imports {name}"


def test_every_engine_has_a_room() -> None:
    engines = ROOT / "xfdfuzz" / "engines"
    assert {path.parent.name for path in engines.rglob("*.py")} == GROUND | UPPER | TOP | {"engines"}
    assert [path.name for path in engines.glob("*.py")] == ["__init__.py"]


def test_one_module_needs_textual() -> None:
    """The extra tui; the command line asks for it where it is used."""
    asked = {path.name for path in sources() if any(name.split(".")[0] == "textual" for name in imports(path))}
    assert asked == {"app.py", "stepping.py"}


def test_nothing_reads_the_shared_folder() -> None:
    for path in sources():
        assert "/shared" not in path.read_text(), path


@pytest.mark.parametrize("name", ["strategies", "invariants"])
def test_the_linked_folders_refuse_their_bare_names(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"xfdfuzz.{name}" in done.stderr


def test_the_wheel_holds_everything_and_no_generic_name(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT)) for path in (ROOT / "xfdfuzz").rglob("*.py") if "__pycache__" not in path.parts
    }
    expected |= {
        f"xfdfuzz/{folder}/{path.name}"
        for folder in ("strategies", "invariants")
        for path in (ROOT / folder).glob("*.py")
    }
    expected |= {f"xfdfuzz/{path.relative_to(ROOT)}" for path in (ROOT / "corpus").rglob("*.xfd")}
    expected |= {"xfdfuzz/program/grammar.lark", "xfdfuzz/cli/profiles.toml", "xfdfuzz/py.typed"}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "xfdfuzz" / "cli" / "skeletons").iterdir()}
    expected |= {f"xfdfuzz/report/export/{name}.c" for name in ("harness", "main")}
    page = ROOT / "xfdfuzz" / "report" / "page"
    expected |= {str(path.relative_to(ROOT)) for kind in ("html", "css", "js") for path in page.glob(f"*.{kind}")}
    assert expected <= held
    tops = {name.split("/")[0] for name in held}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"xfdfuzz"}
