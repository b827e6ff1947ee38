"""Serves one request: reads it, finds a backend, tries others as long as nothing has gone out."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from mvllm_router.engines import get as get_engine
from mvllm_router.errors import AttemptsFailed, Silence, TooLarge
from mvllm_router.pool import Backend, Pool
from mvllm_router.proxy import headers, sse
from mvllm_router.proxy.connection import Connection
from mvllm_router.proxy.connections import CannotConnect, Connections
from mvllm_router.proxy.dispatch import Dispatch
from mvllm_router.proxy.exchange import Client, Exchange, Outcome, Result, failed
from mvllm_router.proxy.failure import Failure
from mvllm_router.proxy.front import SENT, SENT_AND_CLOSE, FrontConnection
from mvllm_router.proxy.inspect import model_of, with_model
from mvllm_router.proxy.routes import Route

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Limits:
    """What a request may take; reloads change it. Seconds, bytes, and attempts after the first."""

    connect_timeout: float = 5.0
    request_timeout: float = 300.0
    max_retries: int = 3
    max_body_size: int = 64 * 1024 * 1024


@dataclass(slots=True)  # not frozen: that would cost 2 us per request
class Ask:
    """A client's request, read and ready to be sent to any backend."""

    route: Route
    method: str
    query: str
    lines: bytes
    body: bytes
    model: str | None
    request_id: str
    arrived: float  # monotonic seconds
    client: Client
    front: FrontConnection


class Relay:
    """The data plane's one entrance; holds the connections to all backends."""

    def __init__(self, pool: Pool, dispatch: Dispatch, limits: Limits) -> None:
        self.pool = pool
        self.dispatch = dispatch
        self.limits = limits
        self.active: set[Exchange] = set()
        self._connections: dict[Backend, Connections] = {}

    async def serve(
        self, request: web.BaseRequest, route: Route, request_id: str
    ) -> web.StreamResponse:
        """Answer a request for a relayed route.

        Raises:
            RouterError: nothing has gone out, and the router has to answer itself.
        """
        arrived = time.monotonic()
        stats = self.pool.stats
        stats.in_flight += 1
        try:
            ask = await self._read(request, route, request_id, arrived)
            return await self._attempts(ask)
        except asyncio.CancelledError:
            stats.client_left[route.label] += 1
            raise
        finally:
            stats.in_flight -= 1

    # --- reading the request

    async def _read(
        self, request: web.BaseRequest, route: Route, request_id: str, arrived: float
    ) -> Ask:
        front = request.protocol
        assert isinstance(front, FrontConnection)
        transport = front.transport
        if transport is None:  # gone before we began
            raise asyncio.CancelledError
        body = await self._read_body(request, transport)
        query = request.raw_path.partition("?")[2]
        http_1_1 = request.version >= (1, 1)
        return Ask(
            route=route,
            method=request.method,
            query=query,
            lines=headers.to_backend(request.raw_headers),
            body=body,
            model=model_of(
                body,
                request.headers.get("content-type", ""),
                query,
                must_be_json=route.json and request.method == "POST",
            ),
            request_id=request_id,
            arrived=arrived,
            client=Client(transport, http_1_1, request.keep_alive, request.method == "HEAD"),
            front=front,
        )

    async def _read_body(self, request: web.BaseRequest, transport: asyncio.Transport) -> bytes:
        limit = self.limits.max_body_size
        if (request.content_length or 0) > limit:
            raise TooLarge(f"The request body is larger than {limit} bytes.")
        content = request.content
        if content.is_eof():
            body = content.read_nowait()
        else:
            if request.headers.get("expect", "").lower() == "100-continue":
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            pieces, size = [], 0
            while not content.at_eof():
                piece = await content.readany()
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise TooLarge(f"The request body is larger than {limit} bytes.")
            body = b"".join(pieces)
        if len(body) > limit:
            raise TooLarge(f"The request body is larger than {limit} bytes.")
        return body

    # --- attempts

    async def _attempts(self, ask: Ask) -> web.StreamResponse:
        tried: list[Backend] = []
        failures: list[str] = []
        while True:
            lease = await self.dispatch.lease(ask.model, tried)
            backend = lease.backend
            tried.append(backend)
            try:
                exchange, outcome = await self._attempt(ask, backend, tried)
            finally:
                lease.release()
            self._judge_backend(backend, outcome)
            if outcome.result in (Result.ANSWERED, Result.BROKEN):
                return self._finished(ask, exchange, outcome, len(tried))
            failures.append(f"{backend.name}: {outcome.describe()}")
            if outcome.failure is Failure.SILENT:
                # It may still be at work: a slow answer is never run twice.
                raise Silence(f"{backend.name} was silent for {self.limits.request_timeout:g} s.")
            self._give_up_unless_another(ask, tried, failures)
            backend.stats.retries[outcome.reason] += 1
            log.info("%s: %s, trying another server", backend.name, outcome.describe())

    def _give_up_unless_another(self, ask: Ask, tried: list[Backend], failures: list[str]) -> None:
        if not self._another(ask.model, tried):
            raise AttemptsFailed(f"Every attempt failed: {'; '.join(failures)}")

    def _another(self, model: str | None, tried: list[Backend]) -> bool:
        return len(tried) <= self.limits.max_retries and self.dispatch.another(model, tried)

    async def _attempt(
        self, ask: Ask, backend: Backend, tried: list[Backend]
    ) -> tuple[Exchange | None, Outcome]:
        """Ask one backend; a pooled connection that died while idle is replaced unseen."""
        connections = self.connections(backend)
        connection = connections.idle()
        if connection is not None:
            exchange = self._exchange(ask, backend, tried)
            outcome = await self._run(ask, backend, connections, connection, exchange)
            if outcome.failure is not Failure.RESET or exchange.head is not None:
                return exchange, outcome
        try:
            connection = await connections.open(self.limits.connect_timeout)
        except CannotConnect as error:
            return None, failed(error.failure, error.detail)
        exchange = self._exchange(ask, backend, tried)
        return exchange, await self._run(ask, backend, connections, connection, exchange)

    def _exchange(self, ask: Ask, backend: Backend, tried: list[Backend]) -> Exchange:
        own_lines = (
            f"x-request-id: {ask.request_id}\r\nx-router-backend: {backend.name}\r\n"
            f"x-router-attempts: {len(tried)}\r\n"
        )
        return Exchange(
            ask.client,
            backend,
            own_lines.encode("latin-1"),
            lambda: self._another(ask.model, tried),
            ask.arrived,
        )

    async def _run(
        self,
        ask: Ask,
        backend: Backend,
        connections: Connections,
        connection: Connection,
        exchange: Exchange,
    ) -> Outcome:
        exchange.connection = connection
        self.active.add(exchange)
        ask.front.attach(exchange)
        try:
            head, body = _for_backend(ask, backend, connections)
            connection.send(head, body, exchange, is_head=ask.client.is_head)
            return await exchange.done
        finally:
            ask.front.detach()
            self.active.discard(exchange)
            exchange.abandon()  # does nothing after a whole answer

    # --- afterwards

    def _judge_backend(self, backend: Backend, outcome: Outcome) -> None:
        if outcome.failure is None and outcome.result is Result.ANSWERED:
            if backend.health.failed_requests:
                backend.health.request_succeeded()
            return
        if outcome.result is Result.MOVED:
            return
        backend.stats.failures[outcome.reason] += 1
        refused = outcome.failure is Failure.REFUSED
        self.pool.health(
            backend, lambda health: health.request_failed(outcome.reason, refused=refused)
        )

    def _finished(
        self, ask: Ask, exchange: Exchange | None, outcome: Outcome, attempts: int
    ) -> web.StreamResponse:
        assert exchange is not None
        assert exchange.head is not None
        backend, head = exchange.backend, exchange.head
        seconds = time.monotonic() - ask.arrived
        stats = backend.stats
        stats.requests[head.status] += 1
        stats.duration.observe(seconds)
        if head.status == 200 and (counted := sse.usage(exchange.tail())):
            stats.prompt_tokens += counted[0]
            stats.completion_tokens += counted[1]
        self.pool.stats.finished(ask.route.label, head.status, seconds)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s %s %s -> %s %d %s in %.3f s, attempt %d",
                ask.request_id,
                ask.method,
                ask.route.path,
                backend.name,
                head.status,
                outcome.reason or outcome.result.value,
                seconds,
                attempts,
            )
        return SENT if exchange.keep_alive else SENT_AND_CLOSE

    # --- connections

    def connections(self, backend: Backend) -> Connections:
        """Return the connections to a backend, made at its first request."""
        found = self._connections.get(backend)
        if found is None:
            found = self._connections[backend] = Connections(backend.spec, self.pool.monotonic)
        return found

    def adopt(self, backends: Mapping[str, Backend]) -> None:
        """Follow a reload: other settings for those that stay, close those that are gone."""
        for backend, connections in list(self._connections.items()):
            if backend.removed:
                connections.close()
                del self._connections[backend]
            else:
                connections.adopt(backends[backend.name].spec)

    def check_silence(self) -> None:
        """End each exchange in which a backend, or the client, has been still for too long."""
        timeout = self.limits.request_timeout
        oldest = time.monotonic() - timeout
        for exchange in [e for e in self.active if e.last_byte < oldest]:
            if exchange.waits_for_client:
                exchange.give_up_client()
            else:
                exchange.time_out(timeout)
        for connections in self._connections.values():
            connections.close_old()

    def close(self) -> None:
        """Close all connections to backends."""
        for connections in self._connections.values():
            connections.close()


def _for_backend(ask: Ask, backend: Backend, connections: Connections) -> tuple[bytes, bytes]:
    """Return the head and the body as this backend gets them."""
    body = ask.body
    if ask.model is not None and ask.model in backend.spec.aliases:
        body = with_model(body, backend.own_name(ask.model))
    target = ask.route.path + (f"?{ask.query}" if ask.query else "")
    lines = [
        f"{ask.method} ".encode("latin-1"),
        connections.path_prefix,
        target.encode("utf-8", "surrogateescape"),
        b" HTTP/1.1\r\n",
        connections.fixed_lines,
        headers.without(ask.lines, names) if (names := connections.fixed_names) else ask.lines,
    ]
    if body or ask.method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d\r\n" % len(body))
    if get_engine(backend.engine).accepts_request_id(ask.request_id):
        lines.append(f"x-request-id: {ask.request_id}\r\n".encode("latin-1"))
    lines.append(b"\r\n")
    return b"".join(lines), body


def new_request_id() -> str:
    """Return a random id that is a valid UUID: some servers refuse anything else."""
    return f"{random.getrandbits(128):032x}"
