"""Serves one request: finds a backend, and others as long as nothing of an answer has gone out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mvllm_router.errors import AttemptsFailed, ModelNotFound, NoBackend, Silence
from mvllm_router.front.outlet import Outbox
from mvllm_router.front.request import Request
from mvllm_router.front.steps import in_task
from mvllm_router.pool import Backend, Lease, Pool
from mvllm_router.pool.requests import LONGEST
from mvllm_router.proxy import sse
from mvllm_router.proxy.ask import Ask, for_backend
from mvllm_router.proxy.attempts import Attempts, Trouble
from mvllm_router.proxy.budget import RetryBudget
from mvllm_router.proxy.connection import Connection
from mvllm_router.proxy.connections import CannotConnect, Connections
from mvllm_router.proxy.dispatch import RETRY_AFTER, Dispatch
from mvllm_router.proxy.exchange import NOT_IMPLEMENTED, Exchange, Outcome, Result, failed
from mvllm_router.proxy.failure import Failure
from mvllm_router.proxy.routes import Route
from mvllm_router.proxy.tokens import Tokens
from mvllm_router.tasks import happens

log = logging.getLogger(__name__)


# How an attempt ends that has answered the client.
_ENDS = (Result.ANSWERED, Result.BROKEN)


@dataclass(slots=True)
class Limits:
    """What a request may take; reloads change it. Seconds, and attempts after the first."""

    connect_timeout: float = 5.0
    first_byte_timeout: float = 300.0
    request_timeout: float = 300.0
    max_retries: int = 3
    hide_errors: bool = False


class Serving(Attempts):
    """The attempts of one request while it is served; `lease` is that of the one that runs."""

    __slots__ = ("ask", "lease", "pool")

    def __init__(self, ask: Ask, dispatch: Dispatch, budget: RetryBudget, max_retries: int) -> None:
        super().__init__(ask.model, dispatch, budget, max_retries)
        self.ask = ask
        self.pool = dispatch.pool
        self.lease: Lease | None = None

    def may_move(self, trouble: Trouble, asked: float | None) -> bool:
        return self.may_go_on(trouble, asked)

    def commit(self, *, good: bool, is_stream: bool) -> None:
        """Let a trial succeed as its answer begins: a stream may go on for minutes.

        Other answers are counted as they end, since they may break off before.
        """
        self.ask.request.release()
        lease = self.lease
        if is_stream and lease is not None:
            lease.begins()
        if good and lease is not None and not lease.backend.circuit.is_closed:
            self.pool.request_succeeded(lease.backend, lease.began)


class Relay:
    """The data plane's one entrance; holds the connections to all backends."""

    def __init__(self, pool: Pool, dispatch: Dispatch, limits: Limits) -> None:
        self.pool = pool
        self.dispatch = dispatch
        self.limits = limits
        self.budget = RetryBudget(pool.monotonic)
        self.tokens: Tokens | None = None  # while a policy may need those of prompts
        self.active: set[Exchange] = set()
        self._connections: dict[Backend, Connections] = {}
        self._stopping = asyncio.Event()
        self._outbox = Outbox()

    async def serve(self, request: Request, route: Route) -> None:
        """Answer a request for a relayed route; afterwards its `keep_alive` is what came of it.

        Raises:
            RouterError: nothing has gone out, and the router has to answer itself.
        """
        outlet = request.connection.outlet
        if outlet is None:  # it left before we began
            raise asyncio.CancelledError
        ask = Ask(request, route, outlet)
        request.model = ask.model[:LONGEST] if ask.model else None
        ask.caller.admit(ask.model)
        self.budget.request()
        try:
            await self._attempts(ask)
        except Exception:
            if not ask.client.begun:
                raise  # it is answered with an error
            log.exception("a request failed inside the router after its answer had begun")
            outlet.abort()
        finally:
            ask.caller.release()

    # --- attempts

    async def _attempts(self, ask: Ask) -> None:
        attempts = Serving(ask, self.dispatch, self.budget, self.limits.max_retries)
        ask.request.trail = (attempts.tried, attempts.failures)
        if self.tokens is not None:
            await self.tokens.find(ask)
        while True:
            attempts.lease = lease = self._lease_now(attempts) or await self._wait(attempts)
            try:
                attempts.begin(lease.backend)
                exchange, outcome = await self._attempt(attempts, lease.backend)
                self._judge(lease, exchange, outcome)
            finally:
                lease.release()
            if exchange is not None and outcome.result in _ENDS:
                return self._finished(ask, exchange, outcome, attempts)
            self._note_failure(attempts, ask, lease.backend, outcome)
            if outcome.result is Result.FAILED:
                self._go_on_or_raise(attempts, outcome)
            lease.backend.stats.retries[outcome.reason] += 1
            if attempts.pause:
                await self._pause(attempts.pause)

    async def _pause(self, seconds: float) -> None:
        """Wait before the only server is asked again; not for longer than the router runs."""
        if await happens(self._stopping, seconds):
            raise _stopped()

    def _lease_now(self, attempts: Serving) -> Lease | None:
        try:
            return self.dispatch.lease_now(attempts.ask, attempts.tried, again=attempts.again)
        except (NoBackend, ModelNotFound):
            if attempts.failures:  # the others went while this one failed
                raise _all_failed(attempts) from None
            raise

    async def _wait(self, attempts: Serving) -> Lease:
        try:
            return await self.dispatch.wait(attempts.ask, attempts.tried, attempts.ask.claim)
        except (NoBackend, ModelNotFound):
            if attempts.failures:
                raise _all_failed(attempts) from None
            raise

    def _go_on_or_raise(self, attempts: Attempts, outcome: Outcome) -> None:
        """Return if there is to be another attempt after one without any answer."""
        if outcome.failure is Failure.SILENT:
            # It may still be at work: a slow answer is never run twice.
            raise Silence(f"The server was silent for {outcome.detail}.")
        late = outcome.failure is Failure.CONNECT_TIMEOUT
        if not attempts.may_go_on(Trouble.LATE if late else Trouble.BROKEN):
            raise _all_failed(attempts)

    def _note_failure(
        self, attempts: Attempts, ask: Ask, backend: Backend, outcome: Outcome
    ) -> None:
        attempts.failures.append(outcome.reason)
        log.info(
            "%s: attempt %d at %s failed: %s",
            ask.request.id,
            attempts.count,
            backend.name,
            outcome.describe(),
        )

    async def _attempt(
        self, attempts: Serving, backend: Backend
    ) -> tuple[Exchange | None, Outcome]:
        """Ask one backend; a pooled connection that died while idle is replaced unseen."""
        connections = self.connections(backend)
        connection = connections.idle()
        while True:
            is_new = connection is None
            if connection is None:
                await in_task()
                try:
                    connection = await connections.open(self.limits.connect_timeout)
                except CannotConnect as error:
                    return None, failed(error.failure, error.detail)
            exchange = self._exchange(attempts, backend, connections)
            try:
                self._ask(attempts.ask, connections, connection, exchange)
                outcome = await exchange
            finally:
                self._leave(attempts.ask, exchange)
            if is_new or outcome.failure is not Failure.RESET or exchange.head is not None:
                return exchange, outcome
            connection = None

    def _exchange(self, attempts: Serving, backend: Backend, connections: Connections) -> Exchange:
        ask, lease = attempts.ask, attempts.lease
        why = lease.why if lease is not None else ""
        request, permit = ask.request, ask.request.permit
        own_lines = b"x-request-id: %b\r\n%bx-router-attempts: %d\r\nx-router-reason: %b\r\n" % (
            request.id.encode("latin-1"),
            connections.name_line,
            attempts.count,
            why.encode("latin-1", "replace"),
        )
        return Exchange(
            ask.client,
            backend,
            own_lines + permit.lines if permit else own_lines,
            attempts,
            arrived=request.arrived,
            end_is_marked=ask.route.end_is_marked,
            hide_errors=self.limits.hide_errors,
        )

    def _ask(
        self, ask: Ask, connections: Connections, connection: Connection, exchange: Exchange
    ) -> None:
        """Send the request; `_leave` follows, whatever becomes of it."""
        exchange.connection = connection
        if self._stopping.is_set():  # it stopped while the connection was made
            raise _stopped()
        self.active.add(exchange)
        ask.request.connection.attach(exchange)
        ask.leave_if_gone()
        head, body = for_backend(ask, exchange.backend, connections)
        connection.send(head, body, exchange, is_head=ask.client.is_head)

    def _leave(self, ask: Ask, exchange: Exchange) -> None:
        ask.request.connection.detach()
        self.active.discard(exchange)
        exchange.abandon()  # does nothing after a whole answer

    # --- afterwards

    def _judge(self, lease: Lease, exchange: Exchange | None, outcome: Outcome) -> None:
        """Tell the pool what the attempt showed of its backend."""
        backend, pool = lease.backend, self.pool
        if outcome.failure is Failure.REFUSED:
            backend.stats.failures[outcome.reason] += 1
            pool.request_refused(backend)
        elif outcome.failure is not None:
            backend.stats.failures[outcome.reason] += 1
            pool.request_failed(backend, outcome.reason, lease.began)
        elif exchange is None or exchange.head is None:
            return
        elif outcome.trouble is Trouble.BUSY:
            pool.is_busy(backend, exchange.asked_to_wait)
        elif outcome.trouble is Trouble.LEAVING:
            pool.is_leaving(backend, "it is shutting down")
        elif outcome.trouble is not None:
            pool.request_failed(backend, outcome.reason, lease.began)
        elif exchange.head.status >= 500 and exchange.head.status != NOT_IMPLEMENTED:
            pool.request_failed(backend, f"status {exchange.head.status}", lease.began)
        elif outcome.result is Result.ANSWERED:
            pool.request_succeeded(backend, lease.began)

    def _finished(self, ask: Ask, exchange: Exchange, outcome: Outcome, attempts: Serving) -> None:
        assert exchange.head is not None
        backend, head, request = exchange.backend, exchange.head, ask.request
        now = time.monotonic()
        seconds = now - request.arrived
        stats = backend.stats
        counted = None
        stats.requests[head.status] += 1
        stats.duration.observe(seconds)
        if head.status == 200 and (counted := sse.usage(ask.client.tail())):
            stats.prompt_tokens += counted[0]
            stats.completion_tokens += counted[1]
            stats.told_tokens += counted[1] - exchange.events
            if exchange.events:
                stats.whole_events += exchange.events
                stats.whole_tokens += counted[1]
            ask.caller.used(*counted)
        self.pool.stats.finished(ask.route.label, head.status, seconds)
        self.pool.requests.add(
            request,
            now,
            head.status,
            ask.caller.name,
            outcome.reason,
            attempts.lease.why if attempts.lease is not None else "",
            exchange.ttft,
            counted,
        )
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s %s %s %s -> %s %d %s in %.3f s, attempt %d",
                ask.request.id,
                ask.request.address,
                ask.request.method,
                ask.route.path,
                backend.name,
                head.status,
                outcome.reason or outcome.result.value,
                seconds,
                attempts.count,
            )
        ask.request.keep_alive = ask.client.keep_alive

    # --- connections

    def connections(self, backend: Backend) -> Connections:
        """Return the connections to a backend, made at its first request."""
        found = self._connections.get(backend)
        if found is None:
            found = Connections(backend.spec, self.pool.monotonic, self._outbox)
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
        now = time.monotonic()
        for exchange in list(self.active):
            limit = self.limits.request_timeout
            if not exchange.passing:
                exchange.look_at_upload()
                limit = self.limits.first_byte_timeout or limit
            if now - exchange.last_byte > limit and not exchange.waits_for_client:
                exchange.time_out(limit)
        for connections in self._connections.values():
            connections.close_old()

    def stop(self) -> None:
        """End what runs and what waits, telling the clients, because the router stops."""
        self._stopping.set()
        self.dispatch.stop(_stopped())
        for exchange in list(self.active):
            exchange.stop(_stopped())

    def close(self) -> None:
        """Close all connections to backends."""
        for connections in self._connections.values():
            connections.close()


def _stopped() -> NoBackend:
    return NoBackend("The router is stopping.", retry_after=RETRY_AFTER)


def _all_failed(attempts: Attempts) -> AttemptsFailed:
    reasons = ", ".join(attempts.failures)
    return AttemptsFailed(f"Every attempt failed ({attempts.count}): {reasons}")
