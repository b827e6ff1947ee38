"""Dialogs: one question, or a few fields to fill in."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Input

from mvllm_router.dashboard.changes import Mistyped
from mvllm_router.dashboard.lines import EMPTY, Line, plain
from mvllm_router.dashboard.widgets.paint import Painted

_MISTAKE_LINES = 2  # as many as leave the buttons on a screen of 80x24
_WRITE = "also write it to servers.toml: {}"


@dataclass(frozen=True, slots=True)
class Field:
    """One line to fill in: its key in the answer, what is asked, and what stands there already.

    What is typed into a `secret` one is not shown.
    """

    key: str
    label: str
    value: str = ""
    hint: str = ""
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person typed, by the keys of the fields; `write`: into servers.toml as well."""

    values: dict[str, str]
    write: bool


class Dialog(ModalScreen["Answer | None"]):
    """Asks once; the answer is None where the person does not go on.

    `yes` names the button that goes on. The other one has the focus where something could be lost.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False),
        Binding("y", "go_on", "Yes", show=False),
        Binding("n", "cancel", "No", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(
        self,
        title: str,
        text: Sequence[str] = (),
        fields: Sequence[Field] = (),
        *,
        yes: str,
        may_write: bool = False,
        check: Callable[[Answer], object] = lambda _: None,
    ) -> None:
        """`check` raises Mistyped where an answer is none; that is said, and asked again."""
        super().__init__()
        self._title, self._text, self._fields = title, text, fields
        self._yes, self._may_write, self._check = yes, may_write, check

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Text(self._title)  # no markup: names have brackets
            if self._text:
                yield self._painted([*(plain(line) for line in self._text), EMPTY])
            for field in self._fields:
                yield self._painted([((field.label, "strong"), (f"  {field.hint}", "dim"))])
                yield Input(field.value, id=f"field-{field.key}", password=field.secret)
            if self._may_write:
                yield Checkbox(_WRITE.format("no"), id="write")
            yield self._painted([], id="mistake")
            with Horizontal(id="buttons"):
                yield Button("Cancel", id="no")
                yield Button(self._yes, id="yes", variant="primary" if self._fields else "error")

    def _painted(self, lines: list[Line], id: str | None = None) -> Painted:
        widget = Painted(id=id)
        widget.lines = lines
        widget.styles.height = len(lines)
        return widget

    def on_mount(self) -> None:
        first = f"#field-{self._fields[0].key}" if self._fields else "#no"
        self.query_one(first).focus()

    @on(Button.Pressed, "#yes")
    @on(Input.Submitted)
    def action_go_on(self) -> None:
        values = {
            field.key: self.query_one(f"#field-{field.key}", Input).value.strip()
            for field in self._fields
        }
        write = self._may_write and self.query_one("#write", Checkbox).value
        answer = Answer(values, write)
        try:
            self._check(answer)
        except Mistyped as error:
            self._show_mistake(str(error))
        else:
            self.dismiss(answer)

    def _show_mistake(self, words: str) -> None:
        painted = self.query_one("#mistake", Painted)
        room = self.query_one("#buttons").size.width
        lines = textwrap.wrap(words, room, max_lines=_MISTAKE_LINES, placeholder=" …")
        painted.styles.height = len(lines)
        painted.show([plain(line, "bad") for line in lines])
        self.call_after_refresh(painted.scroll_visible, animate=False)

    @on(Checkbox.Changed, "#write")
    def _ticked(self, message: Checkbox.Changed) -> None:
        # In words as well: a box differs from a ticked one in its colour only.
        message.checkbox.label = _WRITE.format("yes" if message.value else "no")

    @on(Button.Pressed, "#no")
    def action_cancel(self) -> None:
        self.dismiss(None)
