"""A page to read, above the others: details of a server, help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from mvllm_router.dashboard.document import Document
from mvllm_router.dashboard.keys import GROUPS, KEYS, MOVES
from mvllm_router.dashboard.lines import EMPTY, Line, plain
from mvllm_router.dashboard.widgets.paint import Scrolled


class Reader(ModalScreen[None]):
    """Lines in a frame; escape closes it."""

    AUTO_FOCUS = "Scrolled"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "Close", show=False),
    ]

    def __init__(self, title: str, lines: Sequence[Line] = ()) -> None:
        super().__init__()
        self._title = title
        self._lines = lines

    def compose(self) -> ComposeResult:
        page = Scrolled(id="page")
        page.border_title = Text(self._title)  # no markup: names have brackets
        page.border_subtitle = "esc closes"
        yield page

    def on_mount(self) -> None:
        self.call_after_refresh(self._show_first)

    def _show_first(self) -> None:
        self.show(self._lines)

    def show(self, lines: Sequence[Line], *, grey: bool = False) -> None:
        """Put these lines on the page; none is there before the screen's begin and at its end."""
        self._lines = lines
        for page in self.query("#page").results(Scrolled):
            page.styles.height = len(lines) + 2
            page.show(lines, grey=grey)


class Details(Reader):
    """The page about one server; the dashboard brings it up to date with each snapshot."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.keys, f"app.{key.action}", key.word, show=False) for key in KEYS if key.page
    ]

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.server = name
        self.explained: Document | None = None  # where a request for its model would go


def help_lines(*, read_only: bool) -> list[Line]:
    """Return all keys with what they do; those that change the router are dim if it may not be."""
    lines: list[Line] = []
    for group in GROUPS:
        lines.append(plain(group, "strong"))
        for key in (one for one in KEYS if one.group == group):
            off = read_only and key.writes
            tone = "dim" if off else "accent"
            note = " (--read-only)" if off else ""
            lines.append(
                ((f"  {key.shown:<10}", tone), (f"{key.help}{note}", "dim" if off else "plain"))
            )
        lines.append(EMPTY)
    lines.append(plain("Move", "strong"))
    lines += [((f"  {keys:<10}", "accent"), (f" {what}", "plain")) for keys, what in MOVES]
    return lines
