"""The clients' side: aiohttp parses requests and keeps connections, the relay writes to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from mvllm_router.errors import BadRequest, RouterError
from mvllm_router.proxy.exchange import Exchange

log = logging.getLogger(__name__)

# Seconds that a client's connection may idle, or take to send its first request.
KEEP_ALIVE = 75.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer has gone out already, past it."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._sent_keep_alive = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._sent_keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None


SENT = Sent(keep_alive=True)
SENT_AND_CLOSE = Sent(keep_alive=False)


class FrontConnection(web.RequestHandler):
    """A client's connection; passes its back-pressure on to the backend that feeds it."""

    __slots__ = ("_exchange", "busy", "draining", "stuck_since")

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._exchange: Exchange | None = None
        self.busy = False  # a request of this client is being answered
        self.draining = False  # the connection ends with the answer that is being made
        self.stuck_since: float | None = None  # monotonic seconds; unsent bytes wait since then

    def attach(self, exchange: Exchange) -> None:
        """Let `exchange` write to this client until `detach`."""
        self._exchange = exchange
        if self.writing_paused:
            exchange.pause()

    def detach(self) -> None:
        self._exchange = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stuck_since = time.monotonic()
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stuck_since = None
        if self._exchange is not None:
            self._exchange.resume()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp could not read, or what we failed at, in OpenAI's shape."""
        if status == 400:
            error: RouterError = BadRequest(f"Bad HTTP request: {message or exc}")
        else:
            log.error("a request failed inside the router", exc_info=exc)
            error = RouterError("Internal error of the router; its log has the details.")
        response = error_response(error)
        response.headers["server"] = "mvllm-router"
        response.force_close()
        return response


class Front(web.Server):
    """Makes a `FrontConnection` for each client; cancels a handler whose client leaves."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(
            cast(Any, self._handle),
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE,
            max_line_size=16384,
            max_field_size=32768,
        )
        self._handler = handler
        self._draining = False

    def __call__(self) -> FrontConnection:
        return FrontConnection(self, loop=asyncio.get_running_loop(), **self._kwargs)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(FrontConnection, request.protocol)
        connection.busy = True
        connection.draining = self._draining
        try:
            response = await self._handler(request)
        finally:
            connection.busy = False
        if self._draining:  # also for an answer that had promised to keep the connection
            connection.close()
        return response

    def let_go(self) -> None:
        """Close idle connections now, and each of the others after its answer."""
        self._draining = True
        for each in self.connections:
            connection = cast(FrontConnection, each)
            connection.draining = True
            if not connection.busy:
                connection.force_close()

    def close_stuck(self, patience: float) -> None:
        """Close connections whose client has not read for `patience` seconds."""
        oldest = time.monotonic() - patience
        for each in self.connections:
            connection = cast(FrontConnection, each)
            since = connection.stuck_since
            if since is not None and since < oldest and connection.transport is not None:
                connection.transport.abort()


def error_response(error: RouterError) -> web.Response:
    """Return the error as aiohttp sends it."""
    response = web.Response(
        status=error.status, body=error.body(), content_type="application/json", charset="utf-8"
    )
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
