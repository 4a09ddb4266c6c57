"""How far a search came into what a change is about."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.lockstep import Pair
from xfdfuzz.engines.search.differences import DifferenceCampaign, diff
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.reach import Line, Reach
from xfdfuzz.engines.search.violations import ViolationCampaign, fuzz
from xfdfuzz.engines.search.watched import Watched, place_of, statements
from xfdfuzz.extensions import execute
from xfdfuzz.program.text import parse
from xfdfuzz.report import reach as report
from xfdfuzz.report.console import console
from xfdfuzz.revisions import resolve
from xfdfuzz.revisions.differing import differing

#: The way back to user mode without a check that is not compiled in, and with a line that no program comes to.
RETURN = """\
from xfdfuzz import Series
from xfdfuzz.kernel.process import Process

series = Series("unchecked", base="v7.3", title="no check on the way back")


@series.patch("unchecked-1", "x86/fpu: leave out a line")
class Unchecked(Process):
    def exit_to_user_mode(self):
        self.local_irq_disable()
        if self.current.tif_need_fpu_load:
            self.switch_fpu_return()
        self.local_irq_enable()
        self.current.user_mode = 1
        if self.cpu > 1000:
            self.fpregs_lock()
"""
LEFT_OUT = "self.fpregs_assert_state_consistent()"
RETURNED = "# xfdfuzz program 1\nmachine cpus=1\n\nt0 user\n"
#: A base class, and one on top of it, with everything that a function may contain.
CLASSES = '''\
class Base:
    def calls(self, value):
        """Not a statement."""
        for n in range(value):
            if n == 1:
                self.log.append(n)
            elif n == 70:
                self.log.append("never")
        else:
            self.__end()
        return value

    def __end(self):
        self.log.append("end")


class Derived(Base):
    log = []

    def calls(self, value):
        try:
            with open(__file__):
                value = super().calls(value)
                match value:
                    case 3:
                        raise ValueError
                    case _:
                        value = -1
        except ValueError:
            inner = lambda: 7
            value += inner()
        finally:
            self.log.append(value)
        while value > 100:
            value = 0
        return value
'''
NEVER = ["self.log.append('never')", "value = -1", "value = 0"]


@pytest.fixture
def classes() -> object:
    Path("classes.py").write_text(CLASSES)
    return execute(Path("classes.py"), "test")


def texts(lines: tuple[Line, ...]) -> list[str]:
    return [line.statement.text for line in lines]


# -- functions that are watched ----------------------------------------------------------------------------------------


def test_calls_and_statements_are_counted_and_nothing_else_changes(classes: object) -> None:
    base, derived = classes.Base, classes.Derived  # type: ignore[attr-defined]
    functions = [base.calls, derived.calls, base._Base__end]
    before = [function.__code__ for function in functions]
    with Watched(functions) as watched:
        assert [derived().calls(3) for _ in range(2)] == [10, 10]
    assert derived.log == [1, "end", 10] * 2
    assert watched.calls == {place_of(function): 2 for function in functions}
    every = [one for function in functions for one in statements(function)]
    assert [one.text for one in every if one.place not in watched.lines] == NEVER
    assert [function.__code__ for function in functions] == before
    derived().calls(3)
    assert {*watched.calls.values()} == {2}


def test_what_was_executed_is_known_after_its_marks_are_gone(classes: object) -> None:
    function = classes.Base.calls  # type: ignore[attr-defined]
    with Watched([function]) as watched:
        for value in (2, 0, 0):
            classes.Derived().calls(value)  # type: ignore[attr-defined]
            small = len(function.__code__.co_code)
            for _ in range(40):
                watched.example_done()
            assert len(function.__code__.co_code) <= small
        assert hash(function.__code__)
    assert [one.text for one in statements(function) if one.place not in watched.lines] == NEVER[:1]
    assert watched.calls == {place_of(function): 3}


def test_a_function_that_is_watched_already_is_left_to_who_does(classes: object) -> None:
    function = classes.Base.calls  # type: ignore[attr-defined]
    with Watched([function]) as outer:
        with Watched([function]) as inner:
            classes.Derived().calls(2)  # type: ignore[attr-defined]
        classes.Derived().calls(2)  # type: ignore[attr-defined]
    assert inner.calls == {}
    assert [*outer.calls.values()] == [2]


def test_a_function_whose_file_says_something_else_by_now_is_left_as_it_is(classes: object) -> None:
    Path("classes.py").write_text(CLASSES.replace("if n == 1", "if n == 2"))
    changed, same = classes.Base.calls, classes.Derived.calls  # type: ignore[attr-defined]
    with Watched([changed, same]) as watched:
        classes.Derived().calls(3)  # type: ignore[attr-defined]
    assert classes.Derived.log[0] == 1  # type: ignore[attr-defined]
    assert watched.calls == {place_of(same): 1}
    assert statements(changed) == []


def test_a_line_that_raises_says_where_it_stands(classes: object) -> None:
    function = classes.Derived.calls  # type: ignore[attr-defined]
    with Watched([function]), pytest.raises(TypeError) as plain:
        classes.Derived().calls("x")  # type: ignore[attr-defined]
    (entry,) = [entry for entry in plain.traceback if entry.name == "calls" and entry.lineno > 15]
    assert str(entry.statement).strip() == "value = super().calls(value)"


# -- what differs ------------------------------------------------------------------------------------------------------


def test_a_function_differs_where_a_patch_has_a_part_of_it() -> None:
    (one,) = differing(resolve("v7.3").kernel, resolve("v7.3-388eff894d6b").kernel)
    assert one.name == "fpu_clear_user_states_xfd"
    assert [function.__qualname__ for function in one.removed] == ["XfdOnSignal.fpu_clear_user_states_xfd"]
    # what it builds on is executed by both
    assert one.added == ()
    assert differing(resolve("v7.3").kernel, resolve("v7.3").kernel) == ()


# -- campaigns ---------------------------------------------------------------------------------------------------------


def test_a_line_that_is_left_out_is_named_whether_it_ran_or_not() -> None:
    Path("return.py").write_text(RETURN)
    campaign = DifferenceCampaign(pair=Pair(resolve("v7.3"), resolve("return.py")))

    def reach() -> Reach:
        found = campaign.reach([])
        assert found
        return found

    never = reach()
    assert never.calls == {}
    with campaign.watched():
        campaign.replay(parse("# xfdfuzz program 1\nmachine cpus=1\n\nhost fail_alloc(0)\n"))
    never = reach()
    assert never.never == ["exit_to_user_mode"]
    assert LEFT_OUT in texts(never.unexecuted)
    assert never.idle == ()
    with campaign.watched():
        campaign.replay(parse(RETURNED))
    ran = reach()
    assert ran.calls == {"exit_to_user_mode": 1}
    assert texts(ran.unexecuted) == ["self.fpregs_lock()"]
    assert texts(ran.idle) == [LEFT_OUT, "if self.cpu > 1000:"]
    assert Path(ran.idle[0].statement.place.file).name == "process.py"
    assert RETURN.splitlines()[ran.idle[1].statement.place.line - 1].strip() == "if self.cpu > 1000:"


def test_what_a_difference_executes_made_one() -> None:
    """On v5.17 a permission takes others away; that is the patched function, and the only one."""
    pair = Pair(resolve("v5.17"), resolve("v5.17+063452fd94d1"))
    found = diff(pair, Plan(seed=1, engine="scout", examples=60))
    assert found.found
    assert found.reach
    assert found.reach.never == []
    assert found.reach.idle == ()


def test_a_campaign_of_a_series_says_which_of_its_lines_never_ran() -> None:
    Path("return.py").write_text(RETURN)
    campaign = ViolationCampaign(revision=resolve("return.py"))
    with campaign.watched():
        campaign.replay(parse(RETURNED))
    reach = campaign.reach([])
    assert reach
    assert (reach.base, reach.calls, reach.idle) == ("v7.3", {"exit_to_user_mode": 1}, ())
    assert texts(reach.unexecuted) == ["self.switch_fpu_return()", "self.fpregs_lock()"]
    assert texts(reach.left_out) == [LEFT_OUT]


def test_a_campaign_of_a_series_names_the_lines_that_it_only_leaves_out() -> None:
    """It cannot have executed them; the difference of two kernels tells whether they matter."""
    Path("return.py").write_text("".join(RETURN.splitlines(keepends=True)[:-2]))
    reach = ViolationCampaign(revision=resolve("return.py")).reach([])
    assert reach
    assert texts(reach.left_out) == [LEFT_OUT]
    compared = DifferenceCampaign(pair=Pair(resolve("v7.3"), resolve("return.py"))).reach([])
    assert compared
    assert compared.left_out == ()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_count_as_one_process_does(workers: int) -> None:
    Path("return.py").write_text(RETURN)
    reach = fuzz("return.py", Plan(seed=1, engine="scout", examples=200, workers=workers)).reach
    assert reach
    assert reach.calls["exit_to_user_mode"] > 0
    assert "self.current.user_mode = 1" not in texts(reach.unexecuted)
    assert texts(reach.unexecuted)[-1:] == ["self.fpregs_lock()"]


def test_a_kernel_that_is_no_change_of_another_one_has_no_reach() -> None:
    campaign = ViolationCampaign(revision=resolve("v5.16"))
    assert campaign.reach([]) is None
    assert report.as_object(None) is None


# -- what is printed ---------------------------------------------------------------------------------------------------


def printed(reach: Reach) -> list[str]:
    stream = io.StringIO()
    report.terminal(console(stream), reach)
    return stream.getvalue().splitlines()


def test_the_lines_that_fuzz_and_diff_print() -> None:
    Path("return.py").write_text(RETURN)
    (function,) = differing(resolve("v7.3").kernel, resolve("return.py").kernel)
    lines = [Line("exit_to_user_mode", one) for own in (function.second, function.first) for one in statements(own[0])]
    reach = Reach("v7.3", {"exit_to_user_mode": 7, "fpu_free": 0}, (*lines[2:3], Line("fpu_free", lines[0].statement)))
    assert printed(reach) == [
        "the 2 functions that differ from v7.3 ran 7 times; 1 never did: fpu_free",
        "never executed: return.py:12 in exit_to_user_mode(): self.switch_fpu_return()",
    ]
    first, *others, last = printed(Reach("v7.3", {"exit_to_user_mode": 1}, (), tuple(lines)))
    assert first == "the 1 function that differs from v7.3 ran 1 time"
    assert others[0] == "made no difference: return.py:10 in exit_to_user_mode(): self.local_irq_disable()"
    assert len(others) == 6
    assert last == "made no difference: 7 more lines, all of them with --format json"
    assert printed(Reach("v7.3", {}, ())) == []
    assert printed(Reach("v7.3", {"exit_to_user_mode": 1}, (), partings=2))[1:] == [
        "the two kernels came into different states 2 times"
    ]
    assert printed(Reach("v7.3", {"exit_to_user_mode": 1}, (), (), tuple(lines[2:3])))[1:] == [
        "left out of v7.3, which only diff can judge: return.py:12 in exit_to_user_mode(): self.switch_fpu_return()"
    ]


def test_a_series_that_changes_nothing_is_seen_from_the_command_line() -> None:
    Path("return.py").write_text(RETURN)
    command = [sys.executable, "-m", "xfdfuzz", "diff", "v7.3", "return.py", "--seed", "1", "--examples", "20"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "the 1 function that differs from v7.3 ran " in result.stdout
    assert LEFT_OUT in result.stdout
