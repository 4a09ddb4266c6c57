"""The screen: steps on the left, the state on the right, or below where it is narrow; keys as on a page."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, OptionList, Static

from xfdfuzz.report.stepping import panel
from xfdfuzz.report.stepping.walk import BOOT, Walk

#: In columns: where there are fewer, the state stands below the steps.
WIDE = 110


class Stepping(App[None]):
    """Walks through a program until somebody quits."""

    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-below"), (WIDE, "-beside")]  # noqa: RUF012 - textual has it so
    CSS = """
    #head { height: auto; padding: 0 1; }
    #body { height: 1fr; }
    OptionList, OptionList > .option-list--option-highlighted { background: ansi_default; color: ansi_default; }
    #steps { border: none; padding: 0; }
    #state { padding: 0 1; }
    #filter { display: none; border: none; height: 1; padding: 0 1; }
    #filter.asked { display: block; }
    .-beside #body { layout: horizontal; }
    .-beside #steps { width: 2fr; height: 100%; max-height: 100%; }
    .-beside #state { width: 3fr; height: 100%; border-left: solid $foreground; }
    .-below #body { layout: vertical; }
    .-below #steps { width: 100%; height: 2fr; max-height: 100%; }
    .-below #state { width: 100%; height: 3fr; border-top: solid $foreground; }
    """
    # the list of steps has keys of its own, which do the same
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "step(-1)", "back", show=False, priority=True),
        Binding("right,down", "step(1)", "step", key_display="\u2190\u2192", priority=True),
        Binding("home", "first", "first", show=False, priority=True),
        Binding("end", "last", "last", show=False, priority=True),
        Binding("n", "violation(True)", "violation"),
        Binding("N", "violation(False)", "one before", show=False),
        Binding("a", "everything", "all state"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("r", "revision", "revision"),
        Binding("pageup", "scroll(-1)", "state up", show=False, priority=True),
        Binding("pagedown", "scroll(1)", "state", key_display="PgDn", priority=True),
        Binding("escape", "leave_filter", "leave the filter", show=False),
        Binding("q,ctrl+c", "quit", "quit", key_display="q"),
    ]

    def __init__(self, walk: Walk) -> None:
        # the terminal's own 16 colours and its background; with NO_COLOR none at all
        super().__init__(ansi_color=True)
        self.walk = walk
        self._drawn: tuple[int, set[int]] = (-1, set())

    def compose(self) -> ComposeResult:
        """The parts of the screen."""
        yield Static(id="head", markup=False)
        with Container(id="body"):
            yield OptionList(id="steps", markup=False)
            with VerticalScroll(id="state", can_focus=False):
                yield Static(id="known", markup=False)
        yield Input(id="filter", placeholder="words in the names of fields; Enter keeps, Escape clears them")
        yield Footer()

    def on_mount(self) -> None:
        """Show where one begins."""
        self.theme = "ansi-dark"
        self.query_one("#steps").focus()
        self._draw()

    def _draw(self) -> None:
        self.query_one("#head", Static).update(panel.head(self.walk))
        self.query_one("#known", Static).update(panel.state(self.walk))
        steps = self.query_one("#steps", OptionList)
        marked = self.walk.causes | {self.walk.step}
        revision, before = self._drawn
        self._drawn = (self.walk.revision, marked)
        if revision != self.walk.revision:
            steps.clear_options()
            steps.add_options(panel.step(self.walk, at) for at in range(1, self.walk.trail.last + 1))
        else:
            for at in (marked | before) - {BOOT}:
                steps.replace_option_prompt_at_index(at - 1, panel.step(self.walk, at))
        steps.highlighted = self.walk.step - 1
        self.call_after_refresh(steps.scroll_to_highlight)  # which has no size yet when it is drawn first

    def _go(self, step: int) -> None:
        self.walk.go(step)
        self._draw()
        self.query_one("#state").scroll_home(animate=False)

    @on(OptionList.OptionHighlighted, "#steps")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """With the mouse; what was highlighted by a key is where one is already."""
        if event.option_index + 1 != self.walk.step and event.option_list.highlighted == event.option_index:
            self._go(event.option_index + 1)

    def on_resize(self) -> None:
        """Keep the step in sight."""
        self.call_after_refresh(self.query_one("#steps", OptionList).scroll_to_highlight)

    # -- keys ----------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whoever types a filter, or looks for a revision, has the keys for that."""
        typing = isinstance(self.focused, Input) and action != "leave_filter"
        return not (typing or isinstance(self.screen, ModalScreen)) or action == "quit"

    def action_step(self, by: int) -> None:
        """So many steps on."""
        self._go(self.walk.step + by)

    def action_first(self) -> None:
        """To the first step."""
        self._go(1)

    def action_last(self) -> None:
        """To the last one."""
        self._go(self.walk.trail.last)

    def action_violation(self, forth: bool) -> None:
        """To the next violation, or the one before."""
        self.walk.violation(forth)
        self._go(self.walk.step)

    def action_everything(self) -> None:
        """All of the state, or what was touched."""
        self.walk.everything = not self.walk.everything
        self._draw()

    def action_scroll(self, by: int) -> None:
        """The state, by a page."""
        state = self.query_one("#state")
        (state.scroll_page_down if by > 0 else state.scroll_page_up)(animate=False)

    def action_revision(self) -> None:
        """Ask for another revision."""
        self.push_screen(_Revisions(self.walk), self._turn)

    def _turn(self, revision: int | None) -> None:
        if revision is not None:
            self.walk.turn(revision)
            self._draw()

    # -- the filter ----------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Ask for words."""
        field = self.query_one("#filter", Input)
        field.add_class("asked")
        field.focus()

    def action_leave_filter(self) -> None:
        """Show all fields again."""
        self.query_one("#filter", Input).value = ""
        self._asked()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what is found so far."""
        self.walk.words = event.value.strip()
        self._draw()

    def on_input_submitted(self) -> None:
        """Keep the filter."""
        self._asked()

    def _asked(self) -> None:
        self.query_one("#filter").remove_class("asked")
        self.query_one("#steps").focus()


class _Revisions(ModalScreen[int | None]):
    """The runs; gives the number of the one that is chosen, or None."""

    CSS = """
    _Revisions { align: center middle; }
    _Revisions OptionList { width: 90%; height: auto; max-height: 90%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,r", "dismiss", "leave")]

    def __init__(self, walk: Walk) -> None:
        super().__init__()
        self._walk = walk
        self._marked = walk.revision

    def compose(self) -> ComposeResult:
        """A line for each."""
        yield OptionList(*(panel.revision(self._walk.found, run) for run in self._walk.runs), markup=False)

    def on_mount(self) -> None:
        """Begin at the present one."""
        self.query_one(OptionList).highlighted = self._walk.revision

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show which one it is, without colours, too."""
        for number in {self._marked, event.option_index}:
            row = panel.revision(self._walk.found, self._walk.runs[number], here=number == event.option_index)
            event.option_list.replace_option_prompt_at_index(number, row)
        self._marked = event.option_index

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Choose it."""
        self.dismiss(event.option_index)
