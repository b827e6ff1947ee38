"""Paints lines in tones. Lines in view alone are made, so that 500 rows cost what 20 do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from mvllm_router.dashboard.lines import EMPTY, TONES, Line, fit, width_of

_STEP = 8  # columns that a key goes sideways
COMPONENTS = frozenset(f"tone--{tone}" for tone in TONES)


def strip(widget: Widget, line: Line, width: int, *, under: str = "", grey: bool = False) -> Strip:
    """Return a line as a strip of exactly `width` columns.

    Args:
        under: a component whose style goes below all tones: the row of the cursor.
        grey: paint everything dim, since it may no longer be so.
    """
    base = widget.rich_style
    if under:
        base += widget.get_component_rich_style(under)
    parts: list[Segment] = []
    for text, tone in fit(line, width):
        parts.append(Segment(text, _style(widget, "dim" if grey else tone, base, under)))
    return Strip(parts, width)


def _style(widget: Widget, tone: str, base: Style, under: str) -> Style:
    if tone == "plain" or (under and tone != "dim"):
        return base
    style = widget.get_component_rich_style(f"tone--{tone}", partial=True)
    return base + (style.without_color if under else style)


class Painted(Widget):
    """Lines that do not scroll."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(COMPONENTS)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.lines: Sequence[Line] = ()
        self.grey = False

    def show(self, lines: Sequence[Line], *, grey: bool = False) -> None:
        """Paint these lines, unless they are there already."""
        if list(lines) != list(self.lines) or grey != self.grey:
            self.lines, self.grey = lines, grey
            self.refresh()

    def render_line(self, y: int) -> Strip:
        line = self.lines[y] if y < len(self.lines) else EMPTY
        return strip(self, line, self.size.width, grey=self.grey)


class Scrolled(ScrollView, can_focus=True):
    """Lines that scroll; it stays at its end as long as a person leaves it there."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(COMPONENTS)
    BINDINGS: ClassVar[list[BindingType]] = [  # beside those that Textual has
        Binding("k", "scroll_up", "Up", show=False),
        Binding("j", "scroll_down", "Down", show=False),
        Binding("g", "scroll_home", "First", show=False),
        Binding("G", "scroll_end", "Last", show=False),
    ]

    def __init__(self, *, id: str | None = None, follow: bool = False) -> None:
        """`follow`: the newest line is the last one, and stays in sight."""
        super().__init__(id=id)
        self._lines: Sequence[Line] = ()
        self._gone = 0
        self._follow = follow
        self._height = 0  # before a change of the size
        self.grey = False

    def show(self, lines: Sequence[Line], *, grey: bool = False, gone: int = 0) -> None:
        """Show these lines; where a person has scrolled up, what they read stays in its place.

        Args:
            gone: how many lines were before them and are kept no more.
        """
        fallen, self._gone = gone - self._gone, gone
        if list(lines) == list(self._lines) and grey == self.grey:
            return
        at_end = self._follow and self.is_at_end
        self._lines, self.grey = lines, grey
        self.virtual_size = Size(max(map(width_of, lines), default=0), len(lines))
        if at_end:
            self.to_end()
        elif fallen > 0:  # else it is another list
            self.scroll_to(y=self.scroll_offset.y - fallen, animate=False, force=True)
        self.refresh()

    def to_end(self) -> None:
        """Follow the newest line again, whatever a person has scrolled to."""
        self.scroll_end(animate=False, force=True, x_axis=False)

    @property
    def is_at_end(self) -> bool:
        return self.scroll_offset.y >= self.max_scroll_y

    def on_resize(self, event: events.Resize) -> None:
        was_at_end = self.scroll_offset.y >= len(self._lines) - self._height
        self._height = self.scrollable_content_region.height
        if self._follow and was_at_end:
            self.to_end()

    def action_scroll_left(self) -> None:
        self.scroll_relative(x=-_STEP, animate=False)

    def action_scroll_right(self) -> None:
        self.scroll_relative(x=_STEP, animate=False)

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        line = self._lines[top + y] if top + y < len(self._lines) else EMPTY
        right = left + self.scrollable_content_region.width
        return strip(self, line, right, grey=self.grey).crop(left, right)
