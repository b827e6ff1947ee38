"""The command palette: every key by its name, and what can be done to each server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual.command import DiscoveryHit, Hit, Hits, Provider

from mvllm_router.dashboard.columns import COLUMNS
from mvllm_router.dashboard.keys import KEYS

if TYPE_CHECKING:
    from mvllm_router.dashboard.app import Dashboard

_HIDDEN = ("command_palette", "step_back")  # of no use from within the palette


class Commands(Provider):
    """Gives the palette the dashboard's commands."""

    @property
    def _dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    def _all(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, explanation and action of each command."""
        for key in KEYS:
            if key.action not in _HIDDEN and not (key.writes and self._dashboard.read_only):
                yield f"{key.word}  ({key.shown})", key.help, key.action
        for column in COLUMNS.values():
            yield f"Sort by {column.heading}", column.help, f"sort_by('{column.key}')"

    def _servers(self) -> Iterator[tuple[str, str, str]]:
        """Yield what can be done to each server: only for what is typed, for there may be many."""
        for name in self._dashboard.server_names():
            quoted = repr(name)
            yield f"Details of {name}", "all about it", f"details_of({quoted})"
            yield f"Log of {name}  (l)", "where the router has started it", f"log_of({quoted})"
            if not self._dashboard.read_only:
                yield f"Drain {name}  (d)", "no new requests", f"drain_of({quoted})"
                yield f"Enable {name}  (e)", "requests again", f"enable_of({quoted})"
                yield f"Remove {name}  (D)", "take it out", f"remove_of({quoted})"

    async def discover(self) -> Hits:
        for name, help, action in self._all():
            yield DiscoveryHit(Text(name), partial(self.app.run_action, action), help=help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, help, action in (*self._all(), *self._servers()):
            score, typed = matcher.fuzzy_search.match(query, name)
            if score > 0:
                run = partial(self.app.run_action, action)
                yield Hit(score, _marked(name, typed), run, help=help)


def _marked(name: str, typed: Sequence[int]) -> Text:
    """Return a name with what was typed set off. Textual's own way would eat brackets in it."""
    text = Text(name)
    for offset in typed:
        if not name[offset].isspace():
            text.stylize("bold underline", offset, offset + 1)
    return text
