"""The terminal program: one screen per step, and keys to move, edit values and take a quiz."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Input, Static

from gatedcells.step import screen
from gatedcells.step.errors import StepError
from gatedcells.step.session import Quiz, Session

_ASKS = {"edit": "change, e.g. x 0 = 0.5 or weight_hh 2 1 = -0.3", "quiz": "its value"}


class StepApp(App[None]):
    """Walk through a `Session`.

    Args:
        session: what is walked through.
        plain: ASCII only, for a terminal without Unicode.
        seed: of the quiz.
    """

    CSS = """
    #screen { height: auto; padding: 0 1; }
    #foot { height: auto; padding: 0 1; border-top: ascii $foreground-muted; }
    #said { height: auto; min-height: 1; padding: 0 1; text-style: bold; }
    #entry { display: none; height: 1; border: none; padding: 0 1; }
    """
    TITLE = "gatedcells step"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None  # keys speak to the program, not to the line to type in
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),  # first: a narrow terminal shows no others
        Binding("left", "walk('t', -1)", "time", show=False, priority=True),
        Binding("right", "walk('t', 1)", "t", key_display="<>", priority=True),
        Binding("home", "walk('t', -1000000000)", "first", show=False),
        Binding("end", "walk('t', 1000000000)", "last", show=False),
        Binding("up,k", "walk('unit', -1)", "unit", key_display="^", priority=True),
        Binding("down,j", "walk('unit', 1)", "unit", show=False, priority=True),
        Binding("pageup", "scroll(-1)", "up", show=False),
        Binding("pagedown", "scroll(1)", "down", show=False),
        Binding("g", "line", "line"),
        Binding("l", "turn('layer')", "layer", show=False),
        Binding("d", "turn('direction')", "direction", show=False),
        Binding("n", "turn('row')", "row", show=False),
        Binding("c", "convention", "convention"),
        Binding("b", "backward", "gradient"),
        Binding("e", "ask('edit')", "edit"),
        Binding("0", "undo", "undo"),
        Binding("v", "verify", "verify"),
        Binding("a", "ask('quiz')", "quiz"),
        Binding("escape", "leave", "leave", show=False, priority=True),
    ]

    def __init__(self, session: Session, *, plain: bool = False, seed: int | None = None) -> None:
        super().__init__(ansi_color=True)
        self.session = session
        self.plain = plain
        self._backward = False
        self._asked: str | None = None
        self._quiz: Quiz | None = None
        self._draw = random.Random(seed)

    def compose(self) -> ComposeResult:
        """The screen, a line for what is said, a line to type in, the keys."""
        with VerticalScroll(can_focus=False):
            yield Static(id="screen")
        yield Static(id="foot")
        yield Static(id="said")
        yield Input(id="entry")
        footer = Footer(show_command_palette=False)
        footer.compact = True  # no argument yet in textual 3.7
        yield footer

    def on_mount(self) -> None:
        """Show the first step."""
        self.show()

    def show(self, said: str = "") -> None:
        """Draw the screen again."""
        self.query_one("#screen", Static).update(self._drawn())
        self.query_one("#foot", Static).update(screen.foot(self.session))
        self.query_one("#said", Static).update(said)

    def on_resize(self) -> None:
        """As many bars as there is room for, once the size is known."""
        self.call_later(self._fit)

    def _fit(self) -> None:
        for shown in self.query("#screen").results(Static):  # none before there is a screen
            shown.update(self._drawn())

    def _drawn(self) -> Text:
        return screen.draw(
            self.session,
            plain=self.plain,
            hidden=None if self._quiz is None else screen.Hidden(self._quiz.name),
            backward=self._backward,
            width=self.size.width - 4,  # less the margins and the bar that scrolls
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While something is typed, keys are letters of it."""
        return self._asked is None or action in ("leave", "quit_app", "submit", "help_quit")

    def action_walk(self, name: str, by: int) -> None:
        """Another time or unit."""
        if name == "t":
            self.session.go(t=self.session.t + by)
        else:
            self.session.go(unit=self.session.unit + by)
        self.show()

    def action_scroll(self, pages: int) -> None:
        """Where the terminal is lower than a step."""
        view = self.query_one(VerticalScroll)
        view.scroll_relative(y=pages * view.size.height, animate=False)

    def action_turn(self, name: str) -> None:
        """The next layer, direction or row, after the last the first."""
        sizes = {
            "layer": self.session.trace.layers, "direction": self.session.trace.directions,
            "row": self.session.x.shape[1],
        }  # fmt: skip
        if sizes[name] == 1:
            self.show(f"there is only one {name}")
            return
        self.session.go(**{name: (getattr(self.session, name) + 1) % sizes[name]})
        self.show()

    def action_line(self) -> None:
        """Point at the step's next line."""
        count = sum(bool(name) for name, _ in screen.lines_of(self.session))
        self.session.line = -1 if self.session.line + 1 >= count else self.session.line + 1
        self.show()

    def action_convention(self) -> None:
        """The GRU's other convention."""
        try:
            self.session.toggle()
        except StepError as error:
            self.show(str(error))
            return
        self.show(f"the outputs differ from the other convention's by up to {self.session.difference:.3e}")

    def action_backward(self) -> None:
        """Show the gradients, or no longer."""
        self._backward = not self._backward
        self.show()

    def action_verify(self) -> None:
        """Derive every line again."""
        try:
            worst = max(self.session.trace.check().values())
        except AssertionError as error:
            self.show(str(error))
            return
        self.show(f"all values of all steps recomputed in float64: largest deviation {worst:.1e}")

    def action_undo(self) -> None:
        """Take all changes back."""
        self.session.undo()
        self.show("all changes are undone")

    def action_ask(self, what: str) -> None:
        """Let the reader type a change, or answer a question."""
        said = "enter: apply, escape: cancel"
        if what == "quiz":
            if screen.ended(self.session):
                self.show("this row has ended: there is no value to ask for")
                return
            names = [
                name for name, _ in screen.lines_of(self.session)
                if name and self.session.unit < self.session.now[name].shape[-1]
            ]  # fmt: skip
            self._quiz = Quiz(self.session, self._draw.choice(names))
            said = f"what is {self._quiz.name} of unit {self.session.unit}? (to within 0.01; escape: cancel)"
        self._asked = what
        entry = self.query_one("#entry", Input)
        entry.placeholder = _ASKS[what]
        entry.value = ""
        entry.styles.display = "block"
        entry.focus()
        self.show(said)

    def on_input_submitted(self, event: Any) -> None:
        """Do what was typed."""
        try:
            if self._quiz is not None:
                said = self._quiz.answer(event.value)
            else:
                self.session.edit(event.value)
                said = f"changed: {self.session.edits[-1]}"
        except StepError as error:
            self.show(str(error))
            return
        self._close()
        self.show(said)

    def action_leave(self) -> None:
        """Type nothing."""
        self._close()
        self.show()

    def _close(self) -> None:
        self._asked, self._quiz = None, None
        entry = self.query_one("#entry", Input)
        entry.styles.display = "none"
        self.set_focus(None)
