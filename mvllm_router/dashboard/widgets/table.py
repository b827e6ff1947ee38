"""The table of servers: a fixed head, a cursor that stays on its server, columns that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mvllm_router.dashboard.columns import Row, layout
from mvllm_router.dashboard.lines import EMPTY, Line
from mvllm_router.dashboard.widgets.paint import COMPONENTS, strip


class ServerTable(ScrollView, can_focus=True):
    """Rows of servers. The head is the first line and does not scroll."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*COMPONENTS, "table--head", "table--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "to_end(0)", "First", show=False),
        Binding("end,G", "to_end(1)", "Last", show=False),
    ]

    class Opened(Message):
        """A person wants to know more of a server."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    class HeadClicked(Message):
        """A person clicked the head of a column."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: Sequence[Row] = ()
        self._layout = layout((), 80)
        self._head: Line = EMPTY
        self._empty: Sequence[Line] = ()
        self._cursor = 0
        self._painted: list[Line] = []
        self.columns = "overview"
        self.grey = False

    @property
    def chosen(self) -> Row | None:
        """Return the row under the cursor."""
        return self._rows[self._cursor] if self._rows else None

    def shows(self, key: str) -> bool:
        """Return whether a column has room."""
        return self._layout.shows(key)

    def show(
        self,
        rows: Sequence[Row],
        *,
        columns: str,
        sort: str,
        descending: bool,
        empty: Sequence[Line],
        grey: bool,
    ) -> None:
        """Show these rows; the cursor stays on its server, and in sight where that moves.

        Args:
            columns: the set of columns.
            sort: the column by which the rows are sorted, which its head shows.
            empty: what is shown when there are no rows.
            grey: paint it dim.
        """
        before, place = self.chosen, self._cursor
        self._rows, self._empty, self.columns = rows, empty, columns
        self._layout = layout(rows, self.size.width or 80, columns)
        self._head = self._layout.heading(sort, descending=descending)
        names = [row.name for row in rows]
        if before is not None and before.name in names:
            self._cursor = names.index(before.name)
        self._cursor = max(0, min(self._cursor, len(rows) - 1))
        self.virtual_size = Size(self.size.width, len(rows) + 1)
        if self._cursor != place:  # else it stays where a person has scrolled to
            self._keep_in_sight()
        painted = [self._line(y) for y in range(self.size.height)]
        if painted != self._painted or grey != self.grey:
            self._painted, self.grey = painted, grey
            self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self._keep_in_sight()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return strip(self, self._head, width, under="table--head", grey=self.grey)
        index = self.scroll_offset.y + y - 1
        under = "table--cursor" if self._rows and index == self._cursor and not self.grey else ""
        return strip(self, self._line(y), width, under=under, grey=self.grey)

    def _line(self, y: int) -> Line:
        if y == 0:
            return self._head
        index = self.scroll_offset.y + y - 1
        if not self._rows:
            return self._empty[index] if index < len(self._empty) else EMPTY
        return self._layout.row(self._rows[index]) if index < len(self._rows) else EMPTY

    # --- moving

    def action_move(self, step: int) -> None:
        self._move_to(self._cursor + step)

    def action_page(self, step: int) -> None:
        self._move_to(self._cursor + step * max(1, self.size.height - 2))

    def action_to_end(self, end: int) -> None:
        self._move_to(len(self._rows) - 1 if end else 0)

    def choose(self, name: str) -> None:
        """Put the cursor on a server."""
        names = [row.name for row in self._rows]
        if name in names:
            self._move_to(names.index(name))

    def _move_to(self, index: int) -> None:
        self._cursor = max(0, min(index, len(self._rows) - 1))
        self._keep_in_sight()
        self.refresh()

    def _keep_in_sight(self) -> None:
        shown = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, force=True)
        elif self._cursor >= top + shown:
            self.scroll_to(y=self._cursor - shown + 1, animate=False, force=True)

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            column = self._layout.column_at(event.x)
            if column is not None:
                self.post_message(self.HeadClicked(column.key))
            return
        index = self.scroll_offset.y + event.y - 1
        if index >= len(self._rows):
            return
        if index == self._cursor:
            self.post_message(self.Opened(self._rows[index].name))
        else:
            self._move_to(index)
