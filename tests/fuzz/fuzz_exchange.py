"""One answer on its way from a server to a client, without a network; what may come of it."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field

from fuzz_fakes import Collecting, FakeTransport, Told, answered, connect, feed
from fuzz_http import HOP_BY_HOP, Message, read_answer, read_by_httptools
from pool_kit import add_up, new_pool

from mvllm_router.errors import NoBackend
from mvllm_router.front.outlet import Outlet
from mvllm_router.proxy import hidden
from mvllm_router.proxy.attempts import Trouble
from mvllm_router.proxy.client import Client
from mvllm_router.proxy.exchange import Exchange, Outcome, Result
from mvllm_router.proxy.sse import ends_event

OWN_LINES = b"x-request-id: r1\r\nx-router-backend: s0\r\nx-router-attempts: 1\r\n"
OWN_NAMES = {b"x-request-id", b"x-router-backend", b"x-router-attempts"}
CORS = {
    b"access-control-" + name
    for name in (b"allow-credentials", b"allow-headers", b"allow-methods", b"allow-origin")
} | {b"access-control-allow-private-network", b"access-control-expose-headers"}
CORS |= {b"access-control-max-age"}
STREAM_NAMES = {b"x-accel-buffering", b"cache-control"}
# The router says these itself, or says that they do not hold for it.
REPLACED = OWN_NAMES | CORS | {b"content-length", b"connection"}
ERROR_EVENT = b'data: {"error": {'
BLANK_LINES = re.compile(rb"[\r\n]+" + re.escape(ERROR_EVENT))


@dataclass
class Decides:
    """Stands for the request: says whether there is another attempt, and hears of the last."""

    moves: bool
    commits: int = 0
    asked: list[Trouble] = field(default_factory=list)

    def may_move(self, trouble: Trouble, asked: float | None) -> bool:
        self.asked.append(trouble)
        return self.moves

    def commit(self, *, good: bool, is_stream: bool) -> None:
        self.commits += 1


@dataclass(frozen=True)
class Case:
    """How a client asks, and what else bears on its answer."""

    is_head: bool = False
    http_1_1: bool = True
    keep_alive: bool = True
    moves: bool = False
    end_is_marked: bool = True
    hide_errors: bool = False
    end: str = "eof"


@dataclass
class Passed:
    """What a client got of a server's bytes."""

    client: Client
    transport: FakeTransport
    outcome: Outcome | None
    request: Decides

    def message(self, case: Case) -> Message:
        """Read it; whoever relayed it closes the connection where it is not kept."""
        closed = not self.client.keep_alive and not self.transport.aborted
        return read_answer(bytes(self.transport.written), is_head=case.is_head, closed=closed)


POOL = new_pool()
BACKEND = add_up(POOL, "s0", "tiny")


async def pass_on(pieces: list[bytes], case: Case) -> Passed:
    """Let a server send `pieces` to a client."""
    transport, outbox = FakeTransport(), Collecting()
    client = Client(
        Outlet(transport.as_transport(), outbox),
        http_1_1=case.http_1_1,
        keep_alive=case.keep_alive,
        is_head=case.is_head,
    )
    request = Decides(case.moves)
    exchange = Exchange(
        client,
        BACKEND,
        OWN_LINES,
        request,
        arrived=time.monotonic(),
        end_is_marked=case.end_is_marked,
        hide_errors=case.hide_errors,
    )
    connection, server, _ = connect()
    exchange.connection = connection
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", exchange, is_head=case.is_head)
    feed(connection, server, pieces, "open" if case.end in ("silent", "stop") else case.end)
    outcome = _outcome(exchange, case)
    outbox.flush()
    assert connection.receiver is None, "the connection is still listened to"
    return Passed(client, transport, outcome, request)


def _outcome(exchange: Exchange, case: Case) -> Outcome | None:
    """End an exchange that has not ended; return its outcome, None if the router stopped."""
    if not exchange.happened and case.end == "silent":
        exchange.time_out(1.0)
    elif not exchange.happened and case.end == "stop":
        exchange.stop(NoBackend("The router is stopping."))
    assert exchange.happened, "nothing came of it"
    try:
        return exchange.result()
    except NoBackend:
        return None


def check(told: Told, passed: Passed, case: Case) -> None:
    """Compare what a client got with what the server said."""
    outcome = passed.outcome
    if outcome is None or outcome.result in (Result.MOVED, Result.FAILED):
        assert passed.transport.written == b""
        assert not passed.client.begun
        assert passed.request.commits == 0
        return
    assert passed.request.commits == 1
    message = passed.message(case)
    assert message.rest == b"", "more than one answer was written"
    if passed.client.keep_alive:
        assert message.keeps_alive
    if not case.keep_alive:
        assert not message.keeps_alive
    check_head(told, message, case)
    if outcome.result is Result.ANSWERED:
        check_whole(told, message, case)
        check_end(told, message, case)
    else:
        check_broken(told, message, passed, case)
    if not case.is_head:
        agree_with_httptools(message, passed)


def check_head(told: Told, message: Message, case: Case) -> None:
    assert told.head is not None
    assert message.status == told.head.status
    names = [name.lower() for name, _ in message.fields]
    for name in OWN_NAMES:
        assert names.count(name) == 1
    kept = {name for name in names if name not in (b"connection", b"transfer-encoding")}
    assert not kept & HOP_BY_HOP
    if case.hide_errors:
        return
    gone = HOP_BY_HOP | REPLACED | told.head.fields.named_by_connection()
    if told.head.is_event_stream:
        gone |= STREAM_NAMES
    stripped = [(key, value.strip(b" \t")) for key, value in told.head.fields.raw]
    expected = [(key, value) for key, value in stripped if key.lower() not in gone]
    added = HOP_BY_HOP | REPLACED | (STREAM_NAMES if told.head.is_event_stream else set())
    assert [pair for pair in message.fields if pair[0].lower() not in added] == expected


def is_hidden(told: Told, case: Case) -> bool:
    """Whether the client got another text in place of a whole answer."""
    return case.hide_errors and told.head is not None and told.head.status >= 500


def expected_body(told: Told, case: Case) -> bytes:
    """Return what the client should have got by the server's last byte."""
    assert told.head is not None
    if case.is_head or told.head.status in (204, 304):
        return b""
    if is_hidden(told, case):
        return hidden.answer(told.head)[1]
    body = bytes(told.body)
    is_seen = case.hide_errors and told.head.is_event_stream
    return hidden.events(body) if is_seen else body


def check_whole(told: Told, message: Message, case: Case) -> None:
    assert told.ended or is_hidden(told, case), "an answer that was cut ended cleanly"
    assert message.whole
    assert message.body == expected_body(told, case)


def check_end(told: Told, message: Message, case: Case) -> None:
    """A stream that only its connection's end has ended has the event that comes last."""
    assert told.head is not None
    if case.end_is_marked and told.head.until_close and told.head.is_event_stream:
        marks = (b"[DONE]", b"message_stop", b"response.completed")
        assert is_hidden(told, case) or any(mark in message.body for mark in marks)


def check_broken(told: Told, message: Message, passed: Passed, case: Case) -> None:
    """A broken answer is short of its length, lacks its last chunk, or ends with an error event."""
    assert told.head is not None
    body = message.body
    if message.whole:
        assert told.head.is_event_stream, "a cut answer ended cleanly"
        at = body.rfind(ERROR_EVENT)
        assert at >= 0, "a cut stream ended cleanly"
        assert body.endswith(b"}}\n\n")
        assert b"[DONE]" not in body[at:]
        body = body[:at]
        assert ends_event(body), "the error event is in the middle of another one"
    else:
        assert not passed.client.keep_alive, "the next answer would be taken for this one's rest"
    expected = expected_body(told, case)
    # Behind half an event, which is passed on only at a stream's end, its end is put in.
    assert expected.startswith(body) or (message.whole and expected.startswith(body[:-2]))


def agree_with_httptools(message: Message, passed: Passed) -> None:
    """A client that reads as llhttp does sees the same fields and the same body."""
    fields, body, whole = read_by_httptools(bytes(passed.transport.written))
    assert fields == message.fields
    assert body == message.body
    by_close = not message.values(b"content-length") + message.values(b"transfer-encoding")
    assert whole == message.whole or by_close


def check_passing(
    loop: asyncio.AbstractEventLoop, data: bytes, pieces: list[bytes], case: Case
) -> None:
    """Let a server send `data`, cut into `pieces`, and check what its client gets."""
    end = "reset" if case.end in ("silent", "stop") else case.end
    told = answered([data] if data else [], is_head=case.is_head, end=end)
    check(told, loop.run_until_complete(pass_on(pieces, case)), case)
