"""Serves one request: finds a backend, and others as long as nothing of an answer has gone out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from mvllm_router.auth import Caller
from mvllm_router.errors import AttemptsFailed, NoBackend, Silence
from mvllm_router.pool import Backend, Pool
from mvllm_router.proxy import sse
from mvllm_router.proxy.ask import Ask, for_backend, read_ask
from mvllm_router.proxy.budget import RetryBudget
from mvllm_router.proxy.connection import Connection
from mvllm_router.proxy.connections import CannotConnect, Connections
from mvllm_router.proxy.dispatch import RETRY_AFTER, Dispatch
from mvllm_router.proxy.exchange import Exchange, Outcome, Result, failed
from mvllm_router.proxy.failure import Failure
from mvllm_router.proxy.front import SENT, SENT_AND_CLOSE
from mvllm_router.proxy.routes import Route

log = logging.getLogger(__name__)

# Reasons to move on that say "busy", and not that anything is wrong with the server.
_BUSY = ("429", "503", "429 in the first event", "503 in the first event")


@dataclass(slots=True)
class Limits:
    """What a request may take; reloads change it. Seconds, bytes, and attempts after the first."""

    connect_timeout: float = 5.0
    request_timeout: float = 300.0
    max_retries: int = 3
    max_body_size: int = 64 * 1024 * 1024


class Relay:
    """The data plane's one entrance; holds the connections to all backends."""

    def __init__(self, pool: Pool, dispatch: Dispatch, limits: Limits) -> None:
        self.pool = pool
        self.dispatch = dispatch
        self.limits = limits
        self.budget = RetryBudget(pool.monotonic)
        self.active: set[Exchange] = set()
        self._connections: dict[Backend, Connections] = {}

    async def serve(
        self, request: web.BaseRequest, route: Route, request_id: str, caller: Caller
    ) -> web.StreamResponse:
        """Answer a request for a relayed route, as far as `caller` may have it.

        Raises:
            RouterError: nothing has gone out, and the router has to answer itself.
        """
        arrived = time.monotonic()
        stats = self.pool.stats
        stats.in_flight += 1
        try:
            ask = await read_ask(
                request,
                route,
                request_id,
                arrived,
                max_body_size=self.limits.max_body_size,
                patience=self.limits.request_timeout,
                caller=caller,
            )
            caller.admit(ask.model)
            try:
                return await self._answer(ask)
            finally:
                caller.release()
        except asyncio.CancelledError:
            stats.client_left[route.label] += 1
            raise
        finally:
            stats.in_flight -= 1

    async def _answer(self, ask: Ask) -> web.StreamResponse:
        self.budget.request()
        try:
            return await self._attempts(ask)
        except Exception:
            if not ask.client.begun:
                raise  # it is answered with an error
            log.exception("a request failed inside the router after its answer had begun")
            ask.client.transport.abort()
            return SENT_AND_CLOSE

    # --- attempts

    async def _attempts(self, ask: Ask) -> web.StreamResponse:
        tried: list[Backend] = []
        failures: list[str] = []
        while True:
            lease = await self.dispatch.lease(ask.model, tried)
            backend = lease.backend
            try:
                ask.leave_if_gone()
                tried.append(backend)
                exchange, outcome = await self._attempt(ask, backend, tried)
            finally:
                lease.release()
            self._judge_backend(backend, exchange, outcome)
            if exchange is not None and outcome.result in (Result.ANSWERED, Result.BROKEN):
                return self._finished(ask, exchange, outcome, len(tried))
            failures.append(f"{backend.name}: {outcome.describe()}")
            if outcome.failure is Failure.SILENT:
                # It may still be at work: a slow answer is never run twice.
                raise Silence(f"{backend.name} was silent for {self.limits.request_timeout:g} s.")
            if outcome.result is Result.FAILED and not self._take_retry(ask.model, tried):
                raise AttemptsFailed(f"Every attempt failed: {'; '.join(failures)}")
            backend.stats.retries[outcome.reason] += 1
            log.info("%s: %s, trying another server", backend.name, outcome.describe())

    def _take_retry(self, model: str | None, tried: list[Backend]) -> bool:
        """Tell whether another backend is to be asked, and pay for that if so."""
        if len(tried) > self.limits.max_retries or not self.dispatch.another(model, tried):
            return False
        return self.budget.take()

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
            lambda: self._take_retry(ask.model, tried),
            arrived=ask.arrived,
            end_is_marked=ask.route.end_is_marked,
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
            ask.leave_if_gone()
            head, body = for_backend(ask, backend, connections)
            connection.send(head, body, exchange, is_head=ask.client.is_head)
            return await exchange.done
        finally:
            ask.front.detach()
            self.active.discard(exchange)
            exchange.abandon()  # does nothing after a whole answer

    # --- afterwards

    def _judge_backend(self, backend: Backend, exchange: Exchange | None, outcome: Outcome) -> None:
        """Hold against the backend what it failed; see `Health` for what comes of it."""
        if outcome.failure is not None:
            backend.stats.failures[outcome.reason] += 1
            refused = outcome.failure is Failure.REFUSED
            self.pool.health(
                backend, lambda health: health.request_failed(outcome.reason, refused=refused)
            )
        elif exchange is not None and exchange.head is not None:
            status = exchange.head.status
            moved = outcome.result is Result.MOVED
            if outcome.reason in _BUSY or status == 503:
                return
            if moved or status >= 500:
                self.pool.health(backend, lambda health: health.request_errored())
            elif backend.health.failed_requests or backend.health.errors:
                backend.health.request_succeeded()

    def _finished(
        self, ask: Ask, exchange: Exchange, outcome: Outcome, attempts: int
    ) -> web.StreamResponse:
        assert exchange.head is not None
        backend, head = exchange.backend, exchange.head
        seconds = time.monotonic() - ask.arrived
        stats = backend.stats
        stats.requests[head.status] += 1
        stats.duration.observe(seconds)
        if head.status == 200 and (counted := sse.usage(ask.client.tail())):
            stats.prompt_tokens += counted[0]
            stats.completion_tokens += counted[1]
            ask.caller.used(*counted)
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
        return SENT if ask.client.keep_alive else SENT_AND_CLOSE

    # --- connections

    def connections(self, backend: Backend) -> Connections:
        """Return the connections to a backend, made at its first request."""
        found = self._connections.get(backend)
        if found is None:
            found = Connections(backend.spec, self.pool.monotonic)
            if backend.removed:
                found.close()  # those that are opened still are closed after use
            else:
                self._connections[backend] = found
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
        """End each exchange whose backend has been silent for too long; close old connections."""
        timeout = self.limits.request_timeout
        oldest = time.monotonic() - timeout
        for exchange in [e for e in self.active if e.last_byte < oldest]:
            if not exchange.waits_for_client:
                exchange.time_out(timeout)
        for connections in self._connections.values():
            connections.close_old()

    def stop(self) -> None:
        """End what runs and what waits, telling the clients, because the router stops."""
        error = NoBackend("The router is stopping.", retry_after=RETRY_AFTER)
        self.dispatch.stop(error)
        for exchange in list(self.active):
            exchange.stop(error)

    def close(self) -> None:
        """Close all connections to backends."""
        for connections in self._connections.values():
            connections.close()
