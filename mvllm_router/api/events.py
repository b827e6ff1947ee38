"""GET /router/events: what happens to the pool, as it happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

from mvllm_router.api.own import Asked
from mvllm_router.api.query import Query
from mvllm_router.errors import BadRequest, Overloaded
from mvllm_router.front.outlet import Outlet
from mvllm_router.front.response import Response, json_response, stream_head
from mvllm_router.pool.events import Event, Events
from mvllm_router.tasks import happens

# Who says no number begins with the last of so many.
_SHOWN = 50
# Readers at a time, and seconds after which one that is too many may come back.
MOST_READERS = 32
_RETRY_AFTER = 10
# Seconds of silence after which a comment keeps the connection in use.
PAUSE = 15.0
# Bytes that may wait for a reader that does not keep up.
_MOST_UNSENT = 256 * 1024


class EventStreams:
    """Answers that go on until their reader leaves or the router stops."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._wakes: set[asyncio.Event] = set()  # one for each reader
        self._ending = False
        events.listeners.append(self._wake)

    @property
    def readers(self) -> int:
        return len(self._wakes)

    def end(self) -> None:
        """Let every stream end after what has happened so far."""
        self._ending = True
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    async def show(self, asked: Asked) -> Response | None:
        """Answer with a stream, or with what there is where `stream=0` asks for that.

        Raises:
            BadRequest: a number that is none.
            Overloaded: too many read already.
        """
        query = Query(asked.request.query)
        first = max(0, self._events.newest - _SHOWN)
        if not query.number("stream", 1):
            found = self._events.after(query.number("after", first))
            return json_response(
                {"events": [event.document() for event in found], "newest": self._events.newest}
            )
        after = query.number("after", _last_event_id(asked, first))
        if after > self._events.newest:  # of a router that ran before this one
            after = first
        if asked.request.method == "HEAD":
            return Response(headers={"content-type": "text/event-stream"})
        if self.readers >= MOST_READERS:
            text = f"{MOST_READERS} read the events already."
            raise Overloaded(text, retry_after=_RETRY_AFTER)
        await self._stream(asked, after)
        return None

    async def _stream(self, asked: Asked, after: int) -> None:
        request = asked.request
        outlet = request.connection.outlet
        if outlet is None:  # it left before we began
            return
        request.keep_alive = False  # the end of the connection is that of the stream
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            outlet.send(stream_head({"x-request-id": request.id}))
            await self._feed(outlet, wake, after)
        finally:
            self._wakes.discard(wake)

    async def _feed(self, outlet: Outlet, wake: asyncio.Event, after: int) -> None:
        while not outlet.is_closing():
            wake.clear()
            news = self._events.after(after)
            if news:
                after = news[-1].number
                outlet.send(_written(news))
            if outlet.unsent > _MOST_UNSENT:
                return outlet.abort()
            if self._ending:
                return None
            if not await happens(wake, PAUSE):
                outlet.send(b":\n\n")
        return None


def _last_event_id(asked: Asked, default: int) -> int:
    text = asked.request.fields.get("last-event-id")
    if not text:
        return default
    with suppress(BadRequest):  # an id that is not one of ours
        return Query(f"id={text}").number("id", default)
    return default


def _written(events: Sequence[Event]) -> bytes:
    return b"".join(
        b"id: %d\nevent: %b\ndata: %b\n\n"
        % (event.number, event.kind.encode(), json.dumps(event.document()).encode())
        for event in events
    )
