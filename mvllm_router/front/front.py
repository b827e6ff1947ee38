"""All clients' connections: who may connect, who has taken too long, and how they end."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from mvllm_router.config import Settings
from mvllm_router.cors import Cors
from mvllm_router.front.bodies import Bodies
from mvllm_router.front.connection import ClientConnection, failed_inside
from mvllm_router.front.forwarded import TrustedProxies
from mvllm_router.front.outlet import Outbox
from mvllm_router.front.refusals import Refusals
from mvllm_router.front.request import Request
from mvllm_router.front.response import Response
from mvllm_router.pool.stats import RouterStats

log = logging.getLogger(__name__)

# Seconds after which a client has arrived or never will: a TLS handshake is ended before.
_ARRIVAL = 15.0

# What is under it can change the router: no page of another origin may, whatever is configured.
_NOT_FOR_PAGES = "/router/"


class Handler(Protocol):
    """Who answers requests."""

    def opened(self, request: Request) -> None:
        """Learn of a request whose head is here. It may be given an error; its body comes next.

        Each request that is opened is ended, once.
        """

    async def answer(self, request: Request) -> Response | None:
        """Answer a request: the whole of it is here, or it has an error.

        Returns:
            What is to be written; None when the answer has been written already.
        """

    def ended(self, request: Request, *, client_left: bool) -> None:
        """Learn that a request was answered, or that its client has left before."""


class Front:
    """Makes a `ClientConnection` for each client, and looks after all of them.

    A task that answers is cancelled when its client leaves.
    """

    def __init__(self, handler: Handler, stats: RouterStats, max_connections: int) -> None:
        """Let `handler` answer the requests of at most so many clients at a time."""
        self.handler = handler
        self.stats = stats
        self.max_connections = max_connections
        self.bodies = Bodies(0)
        self.outbox = Outbox()
        self.connections: set[ClientConnection] = set()
        self.draining = False
        self.proxies: TrustedProxies | None = None
        # Those that are accepted and not connected yet, with the time: over TLS that takes a while.
        self._arriving: dict[ClientConnection, float] = {}
        self._refusals = Refusals()
        self._told = 0  # refused connections that the log knows of
        self._cors: Cors | None = None
        self._empty = asyncio.Event()

    def adopt(self, settings: Settings) -> None:
        """Use these settings from the next request on."""
        self._cors = Cors(settings.cors_origins) if settings.cors_origins else None
        self.proxies = (
            TrustedProxies(settings.trusted_proxies) if settings.trusted_proxies else None
        )
        self.bodies.longest = settings.max_body_size

    # --- connections

    def protocol(self) -> asyncio.Protocol:
        """Return what talks to a client that has just come."""
        if len(self.connections) + len(self._arriving) >= self.max_connections:
            self.stats.refused += 1
            return self._refusals.protocol()
        connection = ClientConnection(self)
        self._arriving[connection] = time.monotonic()
        return connection

    def joined(self, connection: ClientConnection) -> None:
        self._arriving.pop(connection, None)
        self.connections.add(connection)
        self.stats.connections += 1

    def left(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        self.stats.connections -= 1
        if not self.connections:
            self._empty.set()

    def let_go(self) -> None:
        """Close idle connections now, and each of the others after its answer."""
        self.draining = True
        for connection in list(self.connections):
            if not connection.busy:
                connection.close()

    def look(self, patience: float, header_timeout: float) -> None:
        """End what takes too long; see `ClientConnection.look` for the seconds."""
        now = time.monotonic()
        for connection in list(self.connections):
            connection.look(now, patience, header_timeout)
        for late in [c for c, since in self._arriving.items() if now - since > _ARRIVAL]:
            del self._arriving[late]  # its handshake failed
        self._refusals.close_old(now)
        if (new := self.stats.refused - self._told) > 0:
            log.warning("%d connections refused: %d is the most", new, self.max_connections)
            self._told += new

    async def shutdown(self, timeout: float) -> None:
        """Close all; what is not closed after `timeout` seconds is cut."""
        self._refusals.close()
        for connection in list(self.connections):
            connection.close()
        if self.connections:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), timeout)
            except asyncio.TimeoutError:
                for connection in list(self.connections):
                    connection.abort()

    # --- requests

    def opened(self, request: Request) -> None:
        if self._cors is not None and not request.path.startswith(_NOT_FOR_PAGES):
            request.permit = self._cors.permit(request.fields.get("origin"))
            # What browsers ask before they ask needs no key.
            headers = self._cors.preflight(request.method, request.fields)
            if headers is not None and request.error is None:
                request.prepared = Response(status=204, headers=dict(headers))
        if request.prepared is None:
            try:
                self.handler.opened(request)
            except Exception:
                request.error = failed_inside()
