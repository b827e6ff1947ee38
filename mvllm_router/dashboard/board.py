"""All that is on the screen, as plain data: what the router said, and what the person chose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass

from mvllm_router.dashboard.columns import SETS, Row, ordered
from mvllm_router.dashboard.document import Document, entries, number, text, texts
from mvllm_router.dashboard.filter import matches, parse
from mvllm_router.dashboard.history import History
from mvllm_router.dashboard.latest import Latest
from mvllm_router.dashboard.log import ServerLog

KEPT = 500  # requests, and events
# Seconds for which rows keep their order, though what they are sorted by changes all the time.
_ORDER_KEPT = 5.0
SPANS = (60.0, 300.0, 1800.0)  # seconds that the charts show


@dataclass
class View:
    """What the person chose."""

    typed: str = ""
    faults_only: bool = False
    sort: str = ""
    descending: bool = False
    columns: str = "overview"
    span: float = 300.0
    charts: bool = True

    def next_columns(self) -> None:
        names = list(SETS)
        self.columns = names[(names.index(self.columns) + 1) % len(names)]

    def next_span(self, step: int) -> None:
        index = SPANS.index(self.span) + step
        self.span = SPANS[min(len(SPANS) - 1, max(0, index))]

    def sort_by(self, key: str) -> None:
        """Sort by a column; the same one again turns the order around."""
        self.descending = not self.descending if key == self.sort else key != "name"
        self.sort = key


class Board:
    """The newest snapshot, what came before it, and the rows that are shown."""

    def __init__(self) -> None:
        self.view = View()
        self.snapshot: Document = {}
        self.history = History()
        self.events = Ring()
        self.requests = Ring()
        self.config: Document | None = None
        self.router_log: list[str] = []
        self.server_log: ServerLog | None = None  # that the Log tab shows, None for the router's
        self.held: Board | None = None  # what is shown in place of this one
        self._held_at = 0.0
        self._order: list[str] = []
        self._order_at = float("-inf")
        self._ordered_by: tuple[object, ...] = ()

    def take(self, snapshot: Document, now: float, *, took: float = 0.0) -> None:
        """Take a snapshot in that was `took` seconds under way.

        After a restart of the router the numbers begin anew.
        """
        if self.history.add(snapshot, now, took=took):
            self.events.restart()
            self.requests.restart()
            self.config = None
        self.snapshot = snapshot

    def hold(self, now: float) -> None:
        """Let the screen show what is here now, whatever is taken in from now on."""
        self.held, self._held_at = copy(self), now
        self.held.history = self.history.still()
        self.held.events, self.held.requests = self.events.still(), self.requests.still()

    def let_go(self) -> None:
        """Let the screen show again what is newest."""
        self.held = None

    def shown(self, now: float) -> tuple[Board, float]:
        """Return what the screen shows, and the time that it shows."""
        return (self, now) if self.held is None else (self.held, self._held_at)

    @property
    def servers(self) -> list[Document]:
        return entries(self.snapshot, "servers")

    def server(self, name: str) -> Document | None:
        return next((one for one in self.servers if text(one, "name") == name), None)

    def rows(self, now: float) -> list[Row]:
        """Return the rows that the filter lets through, in an order that stays for a while."""
        words, view = parse(self.view.typed), self.view
        shown = [s for s in self.servers if matches(s, words, faults_only=view.faults_only)]
        rows = [self._row(server) for server in shown]
        self._reorder(rows, now)
        place = {name: number_ for number_, name in enumerate(self._order)}
        return sorted(rows, key=lambda row: place.get(row.name, len(place)))

    def _row(self, server: Document) -> Row:
        name = text(server, "name")
        return Row(
            server, self.history.tokens_per_second(name), self.history.requests_per_second(name)
        )

    def _reorder(self, rows: Sequence[Row], now: float) -> None:
        chosen = (self.view.sort, self.view.descending)
        is_settled = chosen == self._ordered_by and now - self._order_at < _ORDER_KEPT
        if is_settled and {row.name for row in rows} == set(self._order):
            return
        self._order = [row.name for row in ordered(rows, chosen[0], descending=chosen[1])]
        self._order_at, self._ordered_by = now, chosen


class Ring(Latest[Document]):
    """The last entries of a list of the router's that counts them.

    One of the ring's own, with `left_out`, stands for those that were not asked for.
    """

    def __init__(self) -> None:
        super().__init__(KEPT)
        self.newest = 0

    def extend(self, found: Iterable[Document]) -> None:
        """Take in those that are newer than the newest one."""
        for entry in found:
            count = int(number(entry, "number") or 0)
            if count <= self.newest:
                continue
            if self.newest and count > self.newest + 1:
                self.keep({"left_out": count - self.newest - 1})
            self.keep(entry)
            self.newest = count

    def still(self) -> Ring:
        """Return one that stays as this one is now."""
        ring = copy(self)
        ring.entries = self.entries.copy()
        return ring

    def restart(self) -> None:
        """The router counts from the start again; what it said before stays to be read."""
        self.newest = 0


def only_server_of(servers: Sequence[Document], name: str) -> list[str]:
    """Return the models that no other server would have, if `name` got no more requests."""
    usable = ("up", "resting")
    others = {
        model
        for server in servers
        if text(server, "name") != name and text(server, "state") in usable
        for model in texts(server, "models")
    }
    own = next((server for server in servers if text(server, "name") == name), {})
    if text(own, "state") not in usable:
        return []
    return [model for model in texts(own, "models") if model not in others]
