"""The front door: what `from xfdfuzz import ...` gives, in a project that has the wheel installed."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import xfdfuzz
from xfdfuzz import judge, parse, resolve

ROOT = Path(__file__).parent.parent
#: What examples of an invariant begin with where they do not say it.
IMPORTS = "from collections.abc import Iterator\n\nfrom xfdfuzz import Broken, View, invariant\n\n\n"
#: What a run of pytest loads of xfdfuzz where there is no program.
PLUGIN = ["xfdfuzz", "xfdfuzz.pytest_plugin"]
Run = Callable[..., tuple[int, str, str]]


def library() -> dict[str, str]:
    """The files of the example in docs/library.md."""
    text = (ROOT / "docs" / "library.md").read_text()
    return dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment: the wheel, and what else is installed here but the checkout."""
    home = tmp_path_factory.mktemp("project") / "venv"
    venv.EnvBuilder(symlinks=True).create(home)
    (packages,) = home.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    # a .pth file in there is not looked at, so the editable checkout stays out
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "python"


def output(*command: object) -> str:
    """What it prints, its exit code at the end."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}exit code {done.returncode}"


def test_the_wheel_is_what_is_imported(python: Path) -> None:
    where = output(python, "-c", "import xfdfuzz; print(xfdfuzz.__file__); xfdfuzz.judge")
    assert where.endswith("exit code 0")
    assert str(ROOT) not in where


def test_programs_are_tests_of_pytest_which_costs_others_nothing(python: Path) -> None:
    Path("p.xfd").write_text(
        "# xfdfuzz program 1\n# expect: amx-v1 clean\nmachine cpus=1\n\n"
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n"
    )
    loaded = "sorted(name for name in sys.modules if name.startswith('xfdfuzz'))"
    Path("test_others.py").write_text(f"import sys\n\ndef test_it():\n    assert {loaded} == {PLUGIN}\n")
    assert output(python, "-m", "pytest", "-q", "test_others.py").endswith("\nexit code 0")
    printed = output(python, "-m", "pytest", "-q")
    assert re.search(r"^FAILED p\.xfd::amx-v1 - expected clean, breaks permission", printed, re.MULTILINE)
    assert printed.endswith("exit code 1")


# -- names -------------------------------------------------------------------------------------------------------------


def test_the_three_lists_of_names_are_one() -> None:
    tree = ast.parse((ROOT / "xfdfuzz" / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "pkgutil"
        for alias in node.names
    } - {"TYPE_CHECKING"}
    assert sorted(imported) == xfdfuzz.__all__ == sorted(xfdfuzz._HOMES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", xfdfuzz.__all__)
def test_a_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(xfdfuzz, name))
    assert re.search(rf"`{name}\b", (ROOT / "docs" / "library.md").read_text())
    assert name in dir(xfdfuzz)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'xfdfuzz' has no attribute 'nothing'"):
        _ = xfdfuzz.nothing  # type: ignore[attr-defined]


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    script = """
import sys
import xfdfuzz
assert not [name for name in sys.modules if name.startswith("xfdfuzz.")]
for name in xfdfuzz.__all__:
    if name not in ("fuzz", "state_machine"):
        getattr(xfdfuzz, name)
assert not {"hypothesis", "rich", "igraph"} & sys.modules.keys()
"""
    assert output(sys.executable, "-c", script) == "exit code 0"


def test_a_name_or_a_file_or_the_thing_itself_will_do(same: Callable[[str, str], Path]) -> None:
    text = "# xfdfuzz program 1\n# expect: one-series clean\nmachine cpus=1\n\nt0 ioctl(kvm, KVM_CREATE_VM) = vm0\n"
    file = same("series.py", "one-series")
    for revision in (file, str(file), resolve(str(file)), "one-series"):
        for program in (text, parse(text)):
            verdict = judge(program, revision)
            assert (verdict.revision.name, verdict.judged, verdict.ok) == ("one-series", True, True)
    plan = xfdfuzz.Plan(seed=1, engine="scout", examples=1)
    assert xfdfuzz.fuzz(file, plan).label == xfdfuzz.fuzz("one-series", plan).label == "one-series"


# -- types -------------------------------------------------------------------------------------------------------------


def examples() -> Iterator[tuple[str, str]]:
    """What the documents tell people to write."""
    for document in ("CONTRIBUTING.md", "docs/invariants.md"):
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
        for nr, block in enumerate(blocks):
            complete = "from xfdfuzz" in block
            yield f"{Path(document).stem.lower()}_{nr}.py", block if complete else IMPORTS + block
    yield from library().items()


def test_the_examples_and_the_skeletons_are_typed(run: Run, python: Path) -> None:
    """As mypy sees them in a project of somebody else's; one run, which reads the whole package."""
    for kind, name in (("revision", "new-series"), ("invariant", "new-promise")):
        assert run("new", kind, name)[0] == 0
    for name, text in examples():
        Path(name).write_text(text)
    files = sorted(Path().glob("*.py"))
    assert len(files) >= 9
    said = output(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, *files)
    assert said == f"Success: no issues found in {len(files)} source files\nexit code 0"


# -- pytest ------------------------------------------------------------------------------------------------------------


def under_pytest(python: Path | str, *arguments: str) -> str:
    return output(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=1", *arguments)


def test_the_example_of_the_library_runs(python: Path) -> None:
    for name, text in library().items():
        Path(name).write_text(text)
    assert "3 passed" in under_pytest(python)


def test_a_failing_test_shows_the_program(python: Path, run: Run) -> None:
    """As the command line does: what broke, the results, how to see it again; and nothing of Hypothesis' script."""
    said, report, text = failed(
        python, 'from xfdfuzz import state_machine\n\nTestIt = state_machine("amx-v1").TestCase\n'
    )
    found = re.fullmatch(r"xfdfuzz.ViolationFound: (([a-z-]+)(?:@\S+)?): (.*)", report[0])
    assert found
    bucket, invariant, message = found.groups()
    assert f"{message}." in report
    verdict = judge(text, "amx-v1")
    assert [one for one in verdict.violations if one.bucket == bucket and f"bucket {one.kind}" in report]
    assert [line for line in report if line.startswith(f"! {invariant} (")]
    ops = [line for line in text.splitlines() if " = " in line]
    traced = [step[1] for line in report if (step := re.fullmatch(r"(?:->|>)? *\d+  (.*)", line))]
    assert traced == ops != []
    assert replayed(report, text, run).startswith("ok  ")
    for script in ("Failing test case", "KernelMachine()", "power_on", "teardown", "xsave=True", "campaign.py"):
        assert script not in said


OWN_INVARIANT = '''
from collections.abc import Iterator

from xfdfuzz import Broken, View, invariant, state_machine
from xfdfuzz.program.ops.kvm import KvmCreateVm


@invariant("no-vm", "abi", ops=(KvmCreateVm,))
def no_vm(view: View) -> Iterator[Broken]:
    """Every program begins so."""
    yield Broken("there is a VM")


TestIt = state_machine("v7.3").TestCase
'''


def test_what_breaks_an_invariant_of_the_test_itself_can_be_replayed(python: Path, run: Run) -> None:
    _, report, text = failed(python, OWN_INVARIANT)
    assert report[0] == "xfdfuzz.ViolationFound: no-vm@task: there is a VM"
    assert text.splitlines()[-1] == "t0 ioctl(kvm, KVM_CREATE_VM) = vm0"
    assert replayed(report, text, run).startswith("ok  ")


def failed(python: Path, test: str) -> tuple[str, list[str], str]:
    """What pytest prints of a failing test; of the error what is reported, and the program's text behind it."""
    Path("test_it.py").write_text(test)
    said = under_pytest(python, "test_it.py")
    assert "1 failed" in said
    error = [line.removeprefix("E").strip() for line in said.splitlines() if line.startswith("E  ")]
    start = error.index("# xfdfuzz program 1")
    return said, error[:start], "\n".join(error[start:])


def replayed(report: list[str], text: str, run: Run) -> str:
    """The last line of what the command prints that the report names."""
    (command,) = (line.split("run: ")[1] for line in report if line.startswith("to replay it"))
    Path("FILE").write_text(text)
    return run(*shlex.split(command)[1:])[1].splitlines()[-1]
