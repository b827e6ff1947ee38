"""A line of things to click: the tabs, and the keys at the foot of the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events

from mvllm_router.dashboard.lines import Part
from mvllm_router.dashboard.widgets.paint import Painted


@dataclass(frozen=True, slots=True)
class Item:
    """A key, what it does, and the action that a click runs; `tone` is that of the word."""

    key: str
    word: str
    action: str
    tone: str = "plain"


class Bar(Painted):
    """Items from left to right; those that do not fit are left out, the last ones first."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._places: list[tuple[int, str]] = []

    def offer(self, items: Sequence[Item], *, end: str = "") -> None:
        """Show these items, and a text in the right corner where there is room."""
        parts: list[Part] = []
        self._places = []
        needed = sum(cell_len(item.key) + cell_len(item.word) + 3 for item in items)
        if needed + cell_len(end) >= self.size.width:
            end = ""
        used, room = 0, self.size.width - cell_len(end)
        for item in items:
            pieces: list[Part] = [(f" {item.key}", "accent"), (f" {item.word} ", item.tone)]
            size = sum(cell_len(text) for text, _ in pieces)
            if used + size > room:
                break
            parts += pieces
            used += size
            self._places.append((used, item.action))
        gap = max(0, self.size.width - used - cell_len(end) - 1)
        self.show([(*parts, (" " * gap, "plain"), (end, "dim"))])

    async def on_click(self, event: events.Click) -> None:
        for end, action in self._places:
            if event.x < end:
                await self.app.run_action(action)
                return
