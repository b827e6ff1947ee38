"""Brings the board up to date: one look at the router, and only what is new of its lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mvllm_router.client import NotAuthorised, Refused, Unreachable
from mvllm_router.config.problems import printable
from mvllm_router.dashboard.board import KEPT, Board
from mvllm_router.dashboard.document import Document, entries, number, text, texts
from mvllm_router.dashboard.link import Link
from mvllm_router.dashboard.source import Source, hint_for

# Requests that are asked for at a look after the first: nobody reads more in a second.
_AT_ONCE = 100
_NOT_FOUND = (400, 404, 405)  # what an older router says to routes that it does not have
_LACKING = "This router is too old for this (GET /router/{route})."
_NOT_ALLOWED = "This needs the router's admin key (--admin-key): {said}"


class Feed:
    """Asks the source for what the board lacks. Its errors end in the link, and nowhere else."""

    def __init__(
        self, source: Source, board: Board, link: Link, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._board = board
        self._link = link
        self._clock = clock
        self._closed: dict[str, str] = {}  # routes that are not asked again, and why

    def why_not(self, route: str) -> str:
        """Say why the router does not tell what is below this route; "" where it does."""
        return self._closed.get(route, "")

    async def look(self, tab: str, details: str = "") -> Document | None:
        """Take one look: the snapshot, the events, and what the open tab shows.

        Args:
            tab: the tab that is open; of requests and settings there is much.
            details: the server whose page is open, "" for none.

        Returns:
            What the router explains of that server's model, None where it does not.
        """
        try:
            asked = self._clock()
            snapshot = await self._source.get("/router/snapshot")
            if not isinstance(snapshot.get("servers"), list):
                raise Unreachable(f"{self._source.url} answers, but not as a router does")
            before = self._link.last
            now = self._clock()
            self._board.take(snapshot, now, took=now - asked)
            if before is None or self._link.failures:
                self._closed.clear()  # it may be another version of the router, or have other keys
            self._link.succeeded(now)
            await self._events(snapshot)
            if tab == "requests":
                await self._requests(self._board)
                if self._board.held is not None:
                    await self._requests(self._board.held)
            elif tab == "config":
                await self._config()
            elif tab == "log":
                await self._server_log()
            return await self._explained(details) if details else None
        except (Unreachable, NotAuthorised, Refused) as error:
            self._link.failed(str(error), hint_for(error))
            return None

    async def _events(self, snapshot: Document) -> None:
        newest = number(snapshot, "events_number")
        ring = self._board.events
        if newest is None:
            ring.extend(entries(snapshot, "events"))
        elif newest > ring.newest:
            path = f"/router/events?stream=0&after={ring.newest}"
            answer = await self._try("events", lambda: self._source.get(path))
            ring.extend(entries(answer or snapshot, "events"))

    async def _requests(self, board: Board) -> None:
        newest = number(board.snapshot, "requests_number")
        ring = board.requests
        if newest is not None and newest <= ring.newest:
            return
        limit = _AT_ONCE if ring.newest else KEPT
        path = f"/router/requests?limit={limit}&after={ring.newest}"
        answer = await self._try("requests", lambda: self._source.get(path))
        ring.extend(entries(answer or {}, "requests"))

    async def _config(self) -> None:
        board = self._board.held or self._board
        if board is self._board or board.config is None:
            board.config = await self._try("config", lambda: self._source.get("/router/config"))

    async def _server_log(self) -> None:
        log = self._board.server_log
        if log is None or (self._board.held is not None and log.is_here):
            return
        try:
            log.take(await self._source.get(log.path))
        except NotAuthorised as error:
            log.refuse(_not_allowed(error))
        except Refused as error:  # it was not started there, or the router is too old
            log.refuse(str(error))

    async def _explained(self, name: str) -> Document | None:
        server = self._board.server(name)
        models = texts(server, "models") if server else []
        body = {"model": models[0]} if models else {}
        answer = await self._try(
            "explain", lambda: self._source.send("POST", "/router/explain", body)
        )
        return answer if answer and text(answer, "policy") else None

    async def _try(self, route: str, ask: Callable[[], Awaitable[Document]]) -> Document | None:
        """Ask for what not every router has, nor tells everybody; if so it is not asked again."""
        if route in self._closed:
            return None
        try:
            return await ask()
        except NotAuthorised as error:  # the snapshot was told
            self._closed[route] = _not_allowed(error)
        except Refused as error:
            if error.status in _NOT_FOUND:
                self._closed[route] = _LACKING.format(route=route)
        return None


def _not_allowed(error: NotAuthorised) -> str:
    """Say which key is needed, and what the router has said of the one that it was shown."""
    said = str(error).rpartition(" answers: ")[2]
    return _NOT_ALLOWED.format(said=printable(said))
