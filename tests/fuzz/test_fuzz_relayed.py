"""Over real connections, whatever servers answer, each client gets its own and no other's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from fuzz_behind import LIMIT, Faults
from fuzz_http import HOP_BY_HOP, Malformed, Message, read_answer, read_request
from fuzz_inputs import cuts, examples, mutated, pieces_of, spliced
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support import config_of

from mvllm_router.config import ServerSpec
from mvllm_router.front import connection as front
from mvllm_router.server import Router

# A server puts the id of the request in its place, which is as long.
ID = b"@" * 32
BODY = b'{"model":"tiny"}'
OK = b"HTTP/1.1 200 OK\r\n"
SSE = OK + b"content-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
MODELS = b'{"data": [{"id": "tiny"}]}'
EVENT = b"data: " + ID + b"\n\n"
CHUNKED_EVENT = b"28\r\n" + EVENT + b"\r\n"

ANSWERS = (
    OK + b"content-length: 32\r\n\r\n" + ID,
    OK + b"content-length: 32\r\nconnection: close\r\n\r\n" + ID,
    OK + CHUNKED + b"20\r\n" + ID + b"\r\n0\r\n\r\n",
    SSE + CHUNKED + CHUNKED_EVENT * 3 + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    SSE + b"content-length: 40\r\n\r\n" + EVENT,
    SSE + b"\r\n" + EVENT + b"data: [DONE]\n\n",
    b"HTTP/1.0 200 OK\r\n\r\n" + ID,
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK + b"content-length: 32\r\n\r\n" + ID,
    b"HTTP/1.1 204 No Content\r\nx-id: " + ID + b"\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 32\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 32\r\n\r\n" + ID,
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 32\r\n\r\n" + ID,
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 32\r\n\r\n" + ID,
)


class Plan(NamedTuple):
    """What a server does with one request."""

    pieces: list[bytes]
    then: str  # "keep", "close" or "reset" the connection


class Asked(NamedTuple):
    """One request of a client, and the plan for it."""

    method: bytes
    plan: Plan


@dataclass
class Planned:
    """A server that follows the plan that a request names."""

    plans: list[Plan] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got, then = b"", "keep"
        try:
            while then == "keep" and (data := await reader.read(65536)):
                got += data
                message = read_request(got)
                if not message.whole:
                    continue
                got = message.rest
                then = await self.follow(message, writer)
        except Malformed as error:
            self.faults.append(str(error))
        except ConnectionError:
            pass
        finally:
            if then == "reset":
                writer.transport.abort()
            writer.close()

    async def follow(self, message: Message, writer: asyncio.StreamWriter) -> str:
        number = message.values(b"x-plan")
        if not number:  # a health check
            writer.write(OK + b"content-length: %d\r\n\r\n" % len(MODELS) + MODELS)
            return "keep"
        plan = self.plans[int(number[0])]
        for piece in plan.pieces:
            writer.write(piece.replace(ID, message.values(b"x-request-id")[0]))
            await writer.drain()
            await asyncio.sleep(0)
        return plan.then


async def ask(url: str, own_ids: list[bytes], asked: list[tuple[int, bytes]]) -> list[Message]:
    """Send requests one after the other, on one connection for as long as it is kept."""
    answers: list[Message] = []
    reader = writer = None
    try:
        for request_id, (number, method) in zip(own_ids, asked, strict=True):
            if reader is None or writer is None:
                port = urlsplit(url).port
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            lines = b"host: x\r\nx-plan: %d\r\nx-request-id: %b\r\n" % (number, request_id)
            head = b"%b /v1/completions HTTP/1.1\r\n" % method + lines
            writer.write(head + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY))
            message, open_still = await read_one(reader, is_head=method == b"HEAD")
            answers.append(message)
            if not open_still:
                writer.transport.abort()
                reader = writer = None
    finally:
        if writer is not None:
            writer.transport.abort()
    return answers


async def read_one(reader: asyncio.StreamReader, *, is_head: bool) -> tuple[Message, bool]:
    """Read one answer; return it, and whether another request may follow on its connection."""
    got = b""
    while True:
        try:
            data = await asyncio.wait_for(reader.read(65536), LIMIT)
        except ConnectionError:
            return read_answer(got, is_head=is_head), False
        got += data
        if b"\r\n\r\n" not in got:
            assert data, f"closed without an answer: {got!r}"
            continue
        message = read_answer(got, is_head=is_head, closed=not data)
        if message.whole or not data:
            return message, message.keeps_alive and message.whole


class Bench:
    """A router in front of one server that follows plans, in a loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, faults: Faults) -> None:
        self.loop = loop
        self.faults = faults
        self.planned = Planned()
        self.ids = 0
        loop.set_exception_handler(lambda _, context: faults.found.append(repr(context)))

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.planned.serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        spec = ServerSpec(url=f"http://127.0.0.1:{port}", name="s0", engine="mlx", models=("tiny",))
        config = config_of(
            [spec],
            health_check_interval=3600,
            enable_active_health_check=False,
            request_timeout=0.3,
            max_retries=0,
            failure_threshold=10**6,
        )
        self.router = Router(config)
        await self.router.start()
        await self.router.watches.checked()
        assert self.router.pool.backends["s0"].is_up

    async def stop(self) -> None:
        await self.router.stop(drain_timeout=2)
        self.server.close()

    def send(self, clients: list[list[Asked]]) -> None:
        """Let clients ask at the same time; check what each of them gets."""
        self.planned.plans = [asked.plan for client in clients for asked in client]
        self.faults.found.clear()
        numbers = iter(range(len(self.planned.plans)))
        ids = [[self._new_id() for _ in client] for client in clients]
        asked = [[(next(numbers), one.method) for one in client] for client in clients]
        got = self.loop.run_until_complete(self._ask(ids, asked))
        assert self.planned.faults == []
        assert self.faults.found == []
        self._check_counts()
        known = {one for own in ids for one in own}
        for own, answers in zip(ids, got, strict=True):
            for request_id, message in zip(own, answers, strict=True):
                check(message, request_id, known)

    async def _ask(
        self, ids: list[list[bytes]], asked: list[list[tuple[int, bytes]]]
    ) -> list[list[Message]]:
        talks = [ask(self.router.url, *each) for each in zip(ids, asked, strict=True)]
        got = await asyncio.gather(*talks, return_exceptions=True)
        for number, result in enumerate(got):
            if isinstance(result, BaseException):
                plans = [(method, self.planned.plans[plan]) for plan, method in asked[number]]
                raise AssertionError(f"{result!r} of {plans}")
        return [result for result in got if isinstance(result, list)]

    def _new_id(self) -> bytes:
        self.ids += 1
        return b"%032x" % self.ids

    def _check_counts(self) -> None:
        assert self.router.pool.stats.in_flight == 0
        assert self.router.pool.backends["s0"].in_flight == 0
        assert not self.router.relay.active


def check(message: Message, request_id: bytes, known: set[bytes]) -> None:
    assert message.values(b"x-request-id") == [request_id]
    assert message.rest == b"", "more than one answer came"
    assert message.status != 500 or message.values(b"x-router-backend"), "it failed inside"
    everything = message.start + message.body + b"".join(b"%b%b" % pair for pair in message.fields)
    assert not [other for other in known - {request_id} if other in everything]
    names = {name.lower() for name, _ in message.fields}
    assert not names & (HOP_BY_HOP - {b"connection", b"transfer-encoding", b"keep-alive"})


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    patch = pytest.MonkeyPatch()
    patch.setattr(front, "KEEP_ALIVE", 60.0)
    loop, faults = asyncio.new_event_loop(), Faults()
    logging.getLogger().addHandler(faults)
    bench = Bench(loop, faults)
    loop.run_until_complete(bench.start())
    yield bench
    loop.run_until_complete(bench.stop())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    logging.getLogger().removeHandler(faults)
    patch.undo()


whole = st.sampled_from(ANSWERS)
answers = st.one_of(
    whole, mutated(whole, 2), spliced(whole), st.builds(bytes.__add__, whole, whole)
)
plans = st.builds(
    Plan, st.builds(pieces_of, answers, cuts), st.sampled_from(("keep", "keep", "close", "reset"))
)
clients = st.lists(
    st.builds(Asked, st.sampled_from((b"POST", b"POST", b"POST", b"HEAD")), plans),
    min_size=1,
    max_size=4,
)


def test_whole_answers_come_to_who_asked(bench: Bench) -> None:
    plans = [Plan([answer], "close") for answer in ANSWERS]
    bench.send([[Asked(b"POST", plan)] for plan in plans])
    bench.send([[Asked(b"HEAD", Plan([ANSWERS[0][:38]], "keep")), Asked(b"POST", plans[0])]] * 3)


# Each try takes as long as the slowest client, so that shrinking would take for ever.
@settings(examples(6), phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(clients, min_size=8, max_size=20))
def test_no_client_gets_anything_of_anothers_answer(
    bench: Bench, clients: list[list[Asked]]
) -> None:
    try:
        bench.send(clients)
    except AssertionError:
        for client in clients:
            bench.send([client])  # it may be one alone that fails
        raise
