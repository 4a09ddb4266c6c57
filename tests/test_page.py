"""Pages: what is in them is what happened, they load nothing, and a browser shows them as people are told."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from xfdfuzz.engines.judge.leaves import leaves
from xfdfuzz.invariants.loading import load, load_file
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.fields import fields
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.report import because
from xfdfuzz.report.page import data, html, index
from xfdfuzz.report.page.runs import Finding, finding, run_on
from xfdfuzz.revisions import names, selects

CORPUS = Path(__file__).parents[1] / "corpus"
MIGRATION = CORPUS / "open" / "wrmsr-xfd-lost-in-migration.xfd"
WARN = CORPUS / "bugs" / "v1-warn-enter-guest.xfd"
WINDOW = CORPUS / "bugs" / "cve-2026-23005-irq-window.xfd"
HAPPY = CORPUS / "witness" / "t19-happy-path.xfd"
#: docs/cli.md: a page of a program of ten steps is smaller, in bytes.
LIMIT = 64_000
Run = Callable[..., tuple[int, str, str]]


def found(file: Path, revisions: list[str] | None = None, **changed: Any) -> Finding:
    load()
    return _found(file, tuple(revisions or names()), tuple(changed.items()))


@functools.cache
def _found(file: Path, revisions: tuple[str, ...], changed: tuple[tuple[str, Any], ...]) -> Finding:
    """Many tests look at one page."""
    program = replace(parse(file.read_text()), **dict(changed))
    return finding(file, program, [*run_on(program, revisions)])


# -- what is in it -----------------------------------------------------------------------------------------------------


def test_the_states_of_a_page_are_those_of_the_runs() -> None:
    """Each state is unfolded from its differences, and compared number by number with what the model had."""
    shown = found(MIGRATION, ["amx-v1", "v5.16", "v7.3"])
    value = json.loads(json.dumps(data.as_object(shown)))
    paths = [f"{value['groups'][group][0]}.{name}" for group, name, *_ in value["fields"]]
    every = leaves((field.start, field.size) for field in fields())
    for run, revision in zip(shown.runs, value["revisions"], strict=True):
        state = {path: value["values"][field[3]] for path, field in zip(paths, value["fields"], strict=True)}
        behind = [run.steps[0].state, *(bytes(step.after) for step in run.steps)]
        for number, real in zip(value["runs"][revision[3]], behind, strict=False):
            difference = value["steps"][number][2]
            for field, new in zip(difference[::2], difference[1::2], strict=True):
                state[paths[field]] = value["values"][new]
            for leaf in every:
                expected = because.value(leaf, leaf.of(real))
                if because.path(leaf) in state and not re.match(r"k\d", because.path(leaf)):
                    assert state[because.path(leaf)] == expected
        assert {"cpu0.MSR_IA32_XFD", "v0.mode", "ghost.v0.xfd", "t0.user_mode"} <= state.keys()


def test_steps_results_and_violations_are_those_of_the_runs() -> None:
    shown = found(WARN)
    value = data.as_object(shown)
    for run, revision in zip(shown.runs, value["revisions"], strict=True):
        _boot, *steps = (value["steps"][number] for number in value["runs"][revision[3]])
        assert [(op, result.partition(" (of ")[0]) for op, result, *_ in steps[: value["ops"]]] == [
            (line.rpartition(" = ")[0] or line, result)
            for line, result in zip(
                format_program(shown.program, run.verdict.results).splitlines()[-value["ops"] :],
                run.verdict.results,
                strict=True,
            )
        ]
        broken = [value["invariants"][one[0]][0] for step in steps for one in step[3]]
        assert broken == [violation.invariant for violation in run.verdict.violations]
    assert "amx-v1" in shown.chosen.label


def test_a_page_says_that_nothing_was_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "p.xfd"
    file.write_text("# xfdfuzz program 1\nmachine cpus=1\ncpu0 preempt(t1, 9)\n")
    assert "did not hit: 0 points passed" in json.dumps(data.as_object(found(file, ["v7.3"])))


def test_a_chip_is_of_the_finding_and_not_of_what_else_is_broken() -> None:
    shown = found(WARN, ["amx-v1", "amx-review-a", "v7.3"])
    assert [shown.state(run) for run in shown.runs] == ["violates", "others", "clean"]
    assert shown.where == "This finding: on amx-v1 only; only other violations on amx-review-a."
    chips = re.findall(r'class="chip (\w+) ?(\w*)" [^>]*>(.)', html.page(shown))
    assert chips == [("violates", "warn", "\u2717"), ("others", "", "!"), ("clean", "", "\u2713")]
    part = found(CORPUS / "witness" / "t15-xfd-err-life-cycle.xfd", ["amx-v1", "v5.16"])
    assert part.state(part.runs[1]) == "partly"
    assert "not known of v5.16 (an op could not happen)" in part.where


def test_a_revision_under_two_names_is_there_once() -> None:
    assert [run.name for run in found(HAPPY, ["v7.3", "mainline"]).runs] == ["v7.3"]


def test_it_opens_where_something_is_broken_and_on_the_newest_mainline_that_breaks_it() -> None:
    assert found(MIGRATION).chosen.name == "v7.3"
    assert found(WINDOW).chosen.name == "v6.18"
    assert found(WARN).chosen.name == "amx-v1"
    clean = found(HAPPY, ["amx-v1", "v6.18", "v7.3", "v7.3-cured"])
    assert (clean.chosen.name, clean.main) == ("v7.3", None)


def test_kernels_that_cannot_have_the_programs_patches_are_left_out() -> None:
    shown = found(HAPPY, apply=("b45f72177594",))
    assert {"v7.3", "v6.18"} <= {run.name for run in shown.runs} < set(names())


@pytest.mark.parametrize("file", [WARN, MIGRATION, WINDOW, CORPUS / "open" / "set-xsave-then-set-msrs-xfd.xfd"])
def test_a_page_is_small(file: Path) -> None:
    assert len(html.page(found(file)).encode()) < LIMIT


# -- nothing gets in or out --------------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.inside.append((self._open, data))


def check_closed(page: str) -> None:
    """Its policy allows what is in it and nothing else, and no element asks for more."""
    parsed = Parsed(page)
    (policy,) = [a["content"] or "" for tag, a in parsed.elements if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    code = [text for _, text in parsed.inside if not text.startswith("{")]
    assert {"sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code} == set(
        re.findall(r"sha256-[^']+", policy)
    )
    for tag, attributes in parsed.elements:
        assert not {"src", "style", "action", "background", "onclick", "onload", "onerror"} & attributes.keys(), tag
        target = attributes.get("href") or "#"
        assert target.startswith(("#", "data:")) or re.fullmatch(r"[\w.%-]+\.html(#\S*)?", target)


NASTY = "</script><img src=x onerror=alert(1)><!-- <script> ${title} $data \" ' & \\u003c"


def test_what_users_write_is_text() -> None:
    Path("mine.py").write_text(
        "from xfdfuzz.invariants.vocabulary import Broken, invariant\n\n"
        '@invariant("mine", "warn", state=True)\ndef mine(view):\n'
        f'    """{NASTY.replace(chr(92), chr(92) * 2)}"""\n    yield Broken({NASTY!r})\n'
    )
    load_file(Path("mine.py"))  # what is judged with it has a title of its own, so nobody else gets it
    shown = replace(found(HAPPY, ["v7.3"], title=NASTY, comments=(NASTY,)), file=Path(f"{NASTY.replace('/', '')}.xfd"))
    page = html.page(shown)
    check_closed(page)
    assert "<img" not in page
    parsed = Parsed(page)
    assert [tag for tag, _ in parsed.elements].count("script") == 2
    block = next(text for _, text in parsed.inside if text.startswith("{"))
    value = json.loads(block)
    assert any(NASTY in str(step) for step in map(str, (one[1] for step in value["steps"] for one in step[3])))
    check_closed(index.index([index.entry(shown, "a b.html")], NASTY))


def test_every_page_is_closed() -> None:
    for file in (WARN, MIGRATION, HAPPY):
        check_closed(html.page(found(file, ["amx-v1", "v7.3"])))


# -- the command -------------------------------------------------------------------------------------------------------


def test_one_program_is_one_page(run: Run) -> None:
    code, out, err = run("report", str(WARN), "-o", "out.html", "--revision", "amx-v1", "--revision", "v7.3")
    assert (code, out, err) == (0, "wrote out.html\n", "")
    assert [path.name for path in Path().iterdir()] == ["out.html"]
    page = Path("out.html").read_text()
    assert f"xfdfuzz replay {WARN} --revision amx-v1" in page
    # without a script it has the trace that the terminal has
    assert "! no-realloc-on-enter (warn): v0 enters KVM_RUN with a request for xtiledata" in page


def test_several_programs_are_a_directory_with_an_index(run: Run) -> None:
    Path("in/a").mkdir(parents=True)
    for name, file in {"in/x.xfd": WARN, "in/a/x.xfd": HAPPY, "in/y.xfd": WINDOW, "in/index.xfd": HAPPY}.items():
        shutil.copy(file, name)
    code, out, _ = run("report", "in", "-o", "out", "--revision", "amx-v1", "--revision", "v6.18", "--revision", "v7.3")
    assert code == 0
    pages = {path.name for path in Path("out").iterdir()}
    assert pages == {"index.html", "x.html", "a-x.html", "y.html", "in-index.html"}
    assert len(out.splitlines()) == len(pages)
    page = Path("out/index.html").read_text()
    check_closed(page)
    rows = re.findall(r'<tr><td class="what">([\w-]+).*?</tr>', page, re.DOTALL)
    assert rows == ["host-xrstor-never-faults", "no-warning"]  # the panic before the warning
    assert re.search(r'class="cell violates panic[^"]*"><a href="y.html#v6.18/17">', page)
    assert re.search(r'class="cell clean[^"]*"><a href="y.html#v7.3/\d+">', page)
    assert "Nothing is broken by 2 programs" in page
    targets = {link.partition("#")[0] for link in re.findall(r'href="([^"]+\.html[^"]*)"', page)}
    assert targets == pages - {"index.html"}


def test_the_index_has_consequences_below_their_roots() -> None:
    """What one program shows without the other is no consequence of it."""

    def entry(name: str, severity: str, length: int, *runs: str) -> index.Entry:
        main = Violation(name, severity, "", "", 1)
        broken = tuple(tuple(frozenset(step.split("+")) for step in one.split()) for one in runs)
        return index.Entry(f"{name}.html", f"{name}.xfd", length, main, False, {}, {}, broken)

    entries = [
        entry("cause", "warn", 6, "cause"),
        entry("panics", "panic", 7, "cause panics", ""),
        entry("other", "panic", 8, "cause other", "other"),
        entry("beside", "abi", 2, "cause+beside", "cause"),
    ]
    page = index.index(entries, "here")
    rows = re.findall(r'<tr><td class="what( follows)?".*?>(\w+) <span', page)
    assert rows == [("", "cause"), (" follows", "panics"), (" follows", "beside"), ("", "other")]


def test_as_json(run: Run) -> None:
    code, out, _ = run("report", str(WARN), "-o", "out", "--revision", "amx-v1", "--format", "json")
    assert code == 0
    page, whole = map(json.loads, out.splitlines())
    assert page["page"] == "out/v1-warn-enter-guest.html"
    assert (page["file"], page["severity"], page["private"]) == (str(WARN), "warn", False)
    assert page["bucket"].startswith("no-warning@")
    assert whole == {"page": "out/index.html", "file": None, "bucket": None, "severity": None, "private": None}


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ((str(WARN), str(HAPPY), "-o", "out.html"), 2, "out.html: expected a directory for the pages of 2 programs"),
        ((str(WARN), "-o", "out.html", "--revision", "v9"), 2, "unknown revision v9"),
        ((str(WARN), "-o", ""), 2, "expected the name of a page or of a directory"),
        (("nothing.xfd", "-o", "out.html"), 2, "nothing.xfd: No such file or directory"),
        (("empty", "-o", "out"), 3, "no *.xfd file below empty"),
        (("idle.xfd", "-o", "out.html"), 3, "idle.xfd: nothing was executed"),
        ((str(WARN), "-o", "idle.xfd/out.html"), 2, "cannot write idle.xfd"),
    ],
)
def test_what_cannot_be_reported_is_told(run: Run, argv: tuple[str, ...], code: int, message: str) -> None:
    Path("empty").mkdir()
    Path("idle.xfd").write_text("# xfdfuzz program 1\nmachine cpus=1\n\nv0 vmenter\n")
    got, _, err = run("report", *argv)
    assert (got, err.count("\n")) == (code, 1)
    assert message in err
    assert not list(Path().glob("*.html"))


def test_patches_and_invariants_stand_in_the_command_of_the_page(run: Run) -> None:
    Path("mine.py").write_text(
        "from xfdfuzz.invariants.vocabulary import Broken, invariant\n\n"
        '@invariant("mine", "warn", state=True)\ndef mine(view):\n    """Why."""\n    yield Broken("always")\n'
    )
    options = ("--revert", "b45f72177594", "--invariants", "mine.py")
    assert run("report", str(HAPPY), "-o", "out.html", "--revision", "v7.3", *options)[0] == 0
    page = Path("out.html").read_text()
    assert "--invariants mine.py --revert b45f72177594 --revision v7.3" in page
    assert "on v7.3-b45f72177594" in page


def test_a_page_says_when_it_may_be_a_vulnerability() -> None:
    assert "security@kernel.org" in html.page(found(MIGRATION, ["v7.3"]))
    # also where the current kernel is not among its revisions
    assert "security@kernel.org" in html.page(found(MIGRATION, ["v5.17"]))
    assert "security@kernel.org" not in html.page(found(WINDOW, ["v6.18"]))
    assert "security@kernel.org" not in html.page(found(WARN, ["amx-v1"]))


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


class Page:
    """A page in the browser, as people use it."""

    def __init__(self, chrome: webdriver.Chrome) -> None:
        self.chrome = chrome

    def open(self, page: str, where: str = "") -> None:
        file = Path("page.html").resolve()
        file.write_text(page)
        self.chrome.get("about:blank")  # or it is the same document at another place
        self.chrome.get(f"{file.as_uri()}{where}")

    def look(self, theme: str = "light", width: int = 1280, script: bool = True) -> None:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})

    def press(self, *keys: str) -> None:
        for key in keys:
            self.chrome.switch_to.active_element.send_keys(key)

    def text(self, selector: str) -> str:
        return " ".join(self.chrome.find_element(By.CSS_SELECTOR, selector).text.split())

    def seen(self, selector: str) -> bool:
        return any(element.is_displayed() for element in self.chrome.find_elements(By.CSS_SELECTOR, selector))

    def click(self, selector: str) -> None:
        self.chrome.find_element(By.CSS_SELECTOR, selector).click()

    def ask(self, script: str) -> Any:
        return self.chrome.execute_script(f"return {script}")

    @property
    def where(self) -> str:
        return self.chrome.current_url.partition("#")[2]

    def check_quiet(self) -> None:
        """The console has nothing, and nothing was asked for but the page itself."""
        chrome: Any = self.chrome  # selenium has no types for its logs
        assert chrome.get_log("browser") == []
        messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        assert [url for url in asked if not url.startswith(("file:", "data:", "about:"))] == []
        assert asked


@pytest.fixture
def page(browser: webdriver.Chrome) -> Iterator[Page]:
    shown = Page(browser)
    shown.look()
    yield shown
    shown.check_quiet()


def test_going_through_a_page(page: Page) -> None:
    page.open(html.page(found(MIGRATION)))
    assert page.where == "v7.3/13"
    assert page.text("#position") == "step 13 of 14"
    assert page.text("h1") == "guest-sees-its-xfd corruption on v7.3"
    assert page.text(".violation").startswith("guest-sees-its-xfd v0 runs with IA32_XFD = 0x0, it was set to 0x40000")
    assert "cpu0.MSR_IA32_XFD 0x0 step 5 v0 should have IA32_XFD 0x40000 step 10" in page.text(".because")
    causes = page.chrome.find_elements(By.CSS_SELECTOR, ".row.cause .nr")
    assert [row.text for row in causes] == ["\u21924", "\u21925", "\u219210"]
    assert page.text(".head .lanes") == "t0 v0 cpu0 cpu1"

    page.press(Keys.ARROW_RIGHT)
    assert page.where == "v7.3/14"
    page.press(Keys.HOME, Keys.ARROW_RIGHT)
    assert page.where == "v7.3/2"
    assert [row.text for row in page.chrome.find_elements(By.CSS_SELECTOR, ".row.cause .nr")] == [
        "\u21924",
        "\u21925",
        "\u219210",
    ]
    page.press(Keys.END, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.where == "v7.3/12"
    page.press("n", "n")
    assert page.where == "v7.3/14"
    page.press("N")
    assert page.where == "v7.3/13"
    page.click(".because button")  # what is named leads there
    assert page.where == "v7.3/5"
    assert "cpu0.MSR_IA32_XFD 0x40000 0x0" in page.text(".changed")
    page.click("#forth")
    assert page.where == "v7.3/6"

    slider = page.chrome.find_element(By.ID, "slider")
    slider.send_keys(Keys.END)
    assert page.text("#position") == "step 14 of 14"
    assert len(page.chrome.find_elements(By.CSS_SELECTOR, "#ticks i")) == 2


def test_buffers_are_followed_from_who_points_to_them(page: Page) -> None:
    page.open(html.page(found(CORPUS / "open" / "set-xsave-then-set-msrs-xfd.xfd", ["v7.3"])))
    reasons = "v0.guest_fpu.fpstate.regs.xstate_bv xtiledata step 5 v0.guest_fpu.fpstate.xfd 0x40000 step 6"
    assert page.text(".because") == reasons
    page.press(Keys.ARROW_LEFT)
    assert page.text(".changed").startswith("v0.guest_fpu.fpstate.xfd 0x0 0x40000")
    assert page.text("#state summary").startswith("and ")
    page.click("#state summary")
    assert page.seen("details .changed .name")


def test_the_state_of_a_page(page: Page) -> None:
    page.open(html.page(found(MIGRATION)), "#v7.3/10")
    assert page.text("#state > h3").startswith("v0 on an ideal machine")
    page.press("/")
    page.press(*"ia32_xfd")
    assert page.where == "v7.3/10"  # the keys went to the filter
    assert page.text("#state > h3 + .fields") == "IA32_XFD 0x40000 10"
    assert "fpstate" not in page.text("#state")
    page.press(Keys.ENTER)
    few = len(page.chrome.find_elements(By.CSS_SELECTOR, "#state .name"))
    page.press("a")
    assert page.text("#all") == "all state"
    assert len(page.chrome.find_elements(By.CSS_SELECTOR, "#state .name")) > few
    page.press("a", "/", Keys.ESCAPE, Keys.END)
    assert "fpstate" in page.text("#state")
    page.click("#state > h3 + .fields .since button")  # a field leads to the step that wrote it
    assert page.where == "v7.3/3"


def test_the_revisions_of_a_page(page: Page) -> None:
    page.open(html.page(found(MIGRATION)))
    chips = {chip.text[2:]: chip for chip in page.chrome.find_elements(By.CSS_SELECTOR, ".chip")}
    assert [*chips] == names()
    assert chips["v7.3"].text.startswith("\u2717")
    assert chips["v7.3-cured"].text.startswith("\u2713")
    chips["v7.3-cured"].click()
    assert page.where == "v7.3-cured/13"
    assert page.text(".signs").startswith("\u2717 this finding \u2713 nothing broken")
    assert page.text("#what") == "Nothing is broken there."
    assert not page.seen(".violation")
    assert page.text("#command").endswith("--revision v7.3-cured")
    page.ask("location.hash = '#amx-v2/14'")
    assert page.text("#on") == "on amx-v2+063452fd94d1"
    assert page.seen(".violation")
    page.click("#copy-program")
    page.ask("location.hash = '#nowhere/1'")
    assert page.where == "v7.3/13"


def test_a_series_from_outside_has_its_label(page: Page, same: Callable[[str, str], Path]) -> None:
    page.open(html.page(found(MIGRATION, ["v7.3", str(same("mine.py", "my-series"))])))
    page.click(".chip:last-child")
    assert page.text("#on") == "on my-series"
    assert page.text("#command").endswith("--revision mine.py")
    assert page.where == "mine.py/13"


def test_the_end_of_a_program_is_a_step_of_its_page(page: Page) -> None:
    page.open(html.page(found(WARN, ["amx-v1", "v7.3"])))
    page.press(Keys.END)
    assert (page.text("#position"), page.where) == ("the end", "amx-v1/8")
    assert "restore-order-is-free" in page.text(".violation")
    assert "KVM_SET_MSRS, {IA32_XFD: 0}) = 0 (of 1)" in page.text("#steps")
    assert page.text("#machine") == "machine cpus=1"
    assert not page.seen("dd")
    page.click(".notation summary")
    assert "xtilecfg|xtiledata" in page.text("dl")
    assert [row.text for row in page.chrome.find_elements(By.CSS_SELECTOR, ".row.cause .nr")] == ["\u21924"]
    page.ask("location.hash = '#amx-v1/6'")
    assert [row.text for row in page.chrome.find_elements(By.CSS_SELECTOR, ".row.side .nr")] == ["\u21925", "\u21926"]
    page.press(Keys.END)
    page.click(".chip:last-child")  # where nothing is broken at the end there is none
    assert page.where == "v7.3/7"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_themes_and_widths(page: Page, theme: str, width: int) -> None:
    page.look(theme, width)
    page.open(html.page(found(MIGRATION, ["v5.16", "v7.3"])))
    assert page.ask("document.documentElement.scrollWidth") == width
    for selector in ("h1", "#steps .row", ".violation", "#slider", ".chip"):
        assert page.seen(selector), selector
    ground = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
    assert (max(page.ask(ground)) < 64) == (theme == "dark")
    assert unreadable(page) == []
    page.press("t")
    assert (max(page.ask(ground)) < 64) == (theme == "light")
    assert unreadable(page) == []
    if width == 360:  # the state stands below its step, not at the end of the page
        assert page.ask("document.querySelector('.row[aria-selected=true]').nextElementSibling.id") == "panel"


def unreadable(page: Page) -> list[str]:
    """The texts that have not a contrast of 4.5 with their ground, as WCAG asks."""
    found: list[str] = page.ask(_CONTRAST)
    return found


_CONTRAST = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((one) => {
      const part = one / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return light(color);
    }
    return 1;
  };
  const texts = "h1;.why;#what;.chip;.row .text;.row .nr;.broken;.violation p;.because .name;.keys;.fields .name;" +
    ".changed .name;.changed s;.pill;#position;button";
  return texts.split(";").filter((selector) => {
      const element = document.querySelector(selector);
      if (!element || element.closest(".later")) return false;
      const [a, b] = [light(getComputedStyle(element).color), ground(element)].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05) < 4.5;
    });
})()"""


def test_without_scripts_there_is_the_trace(page: Page) -> None:
    page.look(script=False)
    page.open(html.page(found(MIGRATION, ["v5.16", "v7.3"])))
    assert page.seen(".plain pre")
    assert not page.seen("#slider")
    assert "because cpu0.MSR_IA32_XFD" in page.text(".plain pre")
    page.look()


def test_on_paper_there_is_the_trace(page: Page) -> None:
    page.open(html.page(found(MIGRATION, ["v5.16", "v7.3"])))
    page.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.seen(".plain pre")
    assert not page.seen("#slider")
    page.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def pages() -> Iterator[tuple[Path, Program, Finding]]:
    """Each eighth program of the corpus, as all pages have one template, on one revision, where it breaks something if
    it says of any that it does."""
    load()
    for file in sorted(CORPUS.rglob("*.xfd"))[::8]:
        program = parse(file.read_text())
        lines = [e for e in program.expect if e.kind == "violates"] or program.expect
        named = [name for name in names() if any(selects(e.revisions, name) for e in lines)]
        yield file, program, finding(file, program, [*run_on(program, named[:1] or ["v7.3"])])


def test_pages_of_the_corpus(page: Page) -> None:
    broken_ones = set()
    for number, (file, program, shown) in enumerate(pages()):
        name = Path(f"{number}.html").resolve()
        name.write_text(html.page(shown))
        page.chrome.get(name.as_uri())
        rows, broken = page.ask("['.row', '.violation'].map((one) => document.querySelectorAll(one).length)")
        assert rows >= len(program.ops), file
        assert bool(broken) == bool(shown.main), file
        broken_ones.add(bool(broken))
    assert broken_ones == {True, False}


def test_the_index_in_a_browser(page: Page) -> None:
    entries = [index.entry(found(file, ["amx-v1", "v7.3"]), f"{file.stem}.html") for file in (WARN, MIGRATION, HAPPY)]
    page.look("dark", 360)
    page.open(index.index(entries, "corpus"))
    assert page.ask("document.documentElement.scrollWidth") == 360
    assert page.text("tbody tr td").startswith("guest-sees-its-xfd corruption")
    assert page.seen(".notice")
