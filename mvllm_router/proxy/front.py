"""The clients' side: aiohttp parses requests and keeps connections, the relay writes to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import HttpVersion, web
from aiohttp.abc import AbstractStreamWriter

from mvllm_router.config import Settings
from mvllm_router.cors import Cors, Permit
from mvllm_router.errors import BadRequest, RouterError
from mvllm_router.pool.stats import RouterStats
from mvllm_router.proxy.bodies import Bodies, HeldBody
from mvllm_router.proxy.exchange import Exchange
from mvllm_router.proxy.forwarded import TrustedProxies
from mvllm_router.proxy.headers import forwarded_for
from mvllm_router.proxy.incoming import LONGEST_FIELD, LONGEST_LINE, MOST_HEADERS, Incoming
from mvllm_router.proxy.refusals import Refusals, raw_answer

log = logging.getLogger(__name__)

# Seconds that a client's connection may idle between two requests.
KEEP_ALIVE = 75.0

# Seconds after which a client has arrived or never will: a TLS handshake is ended before.
_ARRIVAL = 15.0

# Characters of what aiohttp says against a request.
_LONGEST_REASON = 300

# What is under it can change the router: no page of another origin may, whatever is configured.
_NOT_FOR_PAGES = "/router/"

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


class FrontConnection(Incoming):
    """A client's connection; passes its back-pressure on to the backend that feeds it."""

    __slots__ = (
        "_exchange",
        "_stats",
        "body",
        "draining",
        "peer",
        "permit",
        "proxies",
        "stuck_since",
    )

    def __init__(self, front: Front, **settings: Any) -> None:
        super().__init__(front, **settings)
        self._exchange: Exchange | None = None
        self._stats = front.stats
        self.body = HeldBody(front.bodies)  # of the request that is being answered
        self.draining = False  # the connection ends with the answer that is being made
        self.stuck_since: float | None = None  # monotonic seconds; unsent bytes wait since then
        self.peer = ""  # the address at the other end
        # Of the request that is being answered:
        self.permit: Permit | None = None  # of the web page that asks
        self.proxies: TrustedProxies | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._stats.connections += 1
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]).removeprefix("::ffff:") if name else ""

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._stats.connections -= 1

    @property
    def trusted_proxy(self) -> str | None:
        """The address at the other end, if that is a proxy which is believed."""
        return self.peer if self.proxies is not None and self.proxies.trusts(self.peer) else None

    def client_address(self, request: web.BaseRequest) -> str:
        """Return where the request comes from, as far as proxies in front are believed."""
        if self.proxies is None:
            return self.peer
        return self.proxies.client(self.peer, forwarded_for(request.raw_headers).decode("latin-1"))

    def refuse_version(self, version: HttpVersion) -> web.StreamResponse:
        """Refuse a request in a version that aiohttp reads, and would answer in: 0.9 or 2.0."""
        error = BadRequest(f"HTTP/{version.major}.{version.minor} is not spoken here.")
        if self.transport is not None:
            self.transport.write(raw_answer(error))
        return SENT_AND_CLOSE

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
            # aiohttp quotes what it could not read, which may be very long.
            why = str(message or exc)[:_LONGEST_REASON]
            error: RouterError = BadRequest(f"Bad HTTP request: {why}")
        else:
            log.error("a request failed inside the router", exc_info=exc)
            error = RouterError("Internal error of the router; its log has the details.")
        response = error_response(error)
        response.headers["server"] = "mvllm-router"
        if status != 400 and self.permit is not None:
            response.headers.update(self.permit.headers)
        response.force_close()
        return response


class Front(web.Server):
    """Makes a `FrontConnection` for each client; cancels a handler whose client leaves."""

    def __init__(self, handler: Handler, stats: RouterStats, max_connections: int) -> None:
        """Let `handler` answer the requests of at most so many clients at a time."""
        super().__init__(
            cast(Any, self._handle),
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_FIELD,
            max_headers=MOST_HEADERS,
        )
        self.stats = stats
        self.max_connections = max_connections
        self.bodies = Bodies()
        # Those that are accepted and not connected yet, with the time: over TLS that takes a while.
        self._arriving: dict[web.RequestHandler, float] = {}
        self._refusals = Refusals()
        self._told = 0  # refused connections that the log knows of
        self._handler = handler
        self._draining = False
        self._cors: Cors | None = None
        self._proxies: TrustedProxies | None = None

    def adopt(self, settings: Settings) -> None:
        """Use these settings from the next request on."""
        self._cors = Cors(settings.cors_origins) if settings.cors_origins else None
        self._proxies = (
            TrustedProxies(settings.trusted_proxies) if settings.trusted_proxies else None
        )

    def protocol(self) -> asyncio.Protocol:
        """Return what talks to a client that has just come."""
        if len(self._connections) + len(self._arriving) >= self.max_connections:
            self.stats.refused += 1
            return self._refusals.protocol()
        connection = FrontConnection(self, loop=asyncio.get_running_loop(), **self._kwargs)
        self._arriving[connection] = time.monotonic()
        return connection

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._arriving.pop(handler, None)
        super().connection_made(handler, transport)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(FrontConnection, request.protocol)
        connection.busy = True
        connection.draining = self._draining
        connection.proxies = self._proxies
        connection.permit = self._permit(request) if self._cors is not None else None
        try:
            response = await self._answer(request, connection.permit)
        finally:
            connection.busy = False
            connection.body.release()
        if request.content.exception() is not None:  # what follows its body cannot be read
            response.force_close()
        if self._draining:  # also for an answer that had promised to keep the connection
            connection.close()
        return response

    def _permit(self, request: web.BaseRequest) -> Permit | None:
        assert self._cors is not None
        if request.path.startswith(_NOT_FOR_PAGES):
            return None
        return self._cors.permit(request.headers.get("origin"))

    async def _answer(self, request: web.BaseRequest, permit: Permit | None) -> web.StreamResponse:
        connection = cast(FrontConnection, request.protocol)
        if request.version.major != 1:
            return connection.refuse_version(request.version)
        fault = connection.fault_of(request)
        if fault is not None:
            response = error_response(fault)
            response.force_close()
            return response
        if permit is None:
            return await self._handler(request)
        assert self._cors is not None
        if (headers := self._cors.preflight(request.method, request.headers)) is not None:
            return web.Response(status=204, headers={**headers, "server": "mvllm-router"})
        answer = await self._handler(request)
        if not isinstance(answer, Sent):
            answer.headers.update(permit.headers)
        return answer

    def let_go(self) -> None:
        """Close idle connections now, and each of the others after its answer."""
        self._draining = True
        for each in self.connections:
            connection = cast(FrontConnection, each)
            connection.draining = True
            if not connection.busy:
                connection.force_close()

    def close_stuck(self, patience: float, header_timeout: float) -> None:
        """Close connections whose clients do not read, or do not say what they want.

        Args:
            patience: seconds in which nothing of an answer was read.
            header_timeout: seconds that the head of a request may take.
        """
        now = time.monotonic()
        for each in self.connections:
            connection = cast(FrontConnection, each)
            since = connection.stuck_since
            if since is not None and now - since > patience and connection.transport is not None:
                connection.transport.abort()
            elif connection.is_late(now, header_timeout):
                connection.refuse_late_head(header_timeout)
        for late in [c for c, since in self._arriving.items() if now - since > _ARRIVAL]:
            del self._arriving[late]  # its handshake failed
        self._refusals.close_old(now)
        if (new := self.stats.refused - self._told) > 0:
            log.warning("%d connections refused: %d is the most", new, self.max_connections)
            self._told += new

    async def shutdown(self, timeout: float | None = None) -> None:
        self._refusals.close()
        await super().shutdown(timeout)


def client_address(request: web.BaseRequest) -> str:
    """Return where a request comes from, as far as proxies in front are believed; "" if unknown."""
    connection = cast(FrontConnection, request.protocol)
    return connection.client_address(request)


def error_response(error: RouterError) -> web.Response:
    """Return the error as aiohttp sends it."""
    response = web.Response(
        status=error.status, body=error.body(), content_type="application/json", charset="utf-8"
    )
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
