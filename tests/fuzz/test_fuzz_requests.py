"""Whatever clients send, a server gets only requests that are well-formed and were accepted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fuzz_behind import Behind, Faults, answers, number_of, talk
from fuzz_http import HOP_BY_HOP, Message
from fuzz_inputs import TOKENS, cuts, examples, mutated, pieces_of, spliced
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support import config_of

from mvllm_router.config import ServerSpec
from mvllm_router.front import connection as front
from mvllm_router.server import Router

JSON_BODY = b'{"model":"tiny","x":[1,2]}'
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


def post(body: bytes, *lines: bytes, start: bytes = b"POST /v1/completions HTTP/1.1") -> bytes:
    head = [start, b"host: x", b"content-type: application/json", *lines]
    return b"\r\n".join([*head, b"", body])


def sized(body: bytes, *lines: bytes, start: bytes = b"POST /v1/completions HTTP/1.1") -> bytes:
    return post(body, b"content-length: %d" % len(body), *lines, start=start)


def chunked(body: bytes, *lines: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    framed = b"%x\r\n%b\r\n%b" % (len(body), body, end)
    return post(framed, b"transfer-encoding: chunked", *lines)


def get(target: bytes, method: bytes = b"GET", *lines: bytes) -> bytes:
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), b"host: x", *lines, b"", b""])


VALID = (
    sized(JSON_BODY),
    sized(JSON_BODY, b"expect: 100-continue"),
    sized(JSON_BODY, b"connection: close"),
    sized(JSON_BODY, b"connection: x-a, host", b"x-a: 1"),
    sized(JSON_BODY, start=b"POST /v1/chat/completions?a=b&c=%20 HTTP/1.1"),
    sized(JSON_BODY, start=b"POST /v1/completions HTTP/1.0"),
    sized(b"--B\r\n\r\n", start=b"PUT /v1/files/1 HTTP/1.1"),
    chunked(JSON_BODY),
    chunked(JSON_BODY, end=b"0\r\nx-sum: 1\r\n\r\n"),
    chunked(JSON_BODY, b"trailer: x-sum", b"te: trailers"),
    get(b"/v1/files"),
    get(b"/v1/files?x=\xc3\xbc"),
    get(b"/v1/files", b"HEAD"),
    get(b"/v1/files/1", b"DELETE"),
    get(b"/v1/files", b"OPTIONS", b"origin: http://a"),
    get(b"http://other/v1/files"),
    get(b"/v1/files", b"GET", b"upgrade: websocket", b"connection: upgrade"),
    get(b"other:443", b"CONNECT"),
    get(b"*", b"OPTIONS"),
    get(b"/health"),
    get(b"/health", b"HEAD"),
    get(b"/nowhere"),
    get(b"/v1/../metrics"),
)

# Each could be one request for somebody and two for somebody else.
SMUGGLING = (
    post(SMUGGLED, b"content-length: %d" % len(SMUGGLED), b"transfer-encoding: chunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"content-length: 5", b"transfer-encoding: chunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked", b"content-length: 99"),
    post(b"0\r\n\r\n" + SMUGGLED, b"transfer-encoding : chunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"transfer-encoding: xchunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked, identity"),
    post(b"0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked\r\ntransfer-encoding: identity"),
    post(b"0\r\n\r\n" + SMUGGLED, b"transfer-encoding:\x0bchunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"transfer-encoding: \x00chunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"x: y\r\n transfer-encoding: chunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"x: y\ntransfer-encoding: chunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"x: y\rtransfer-encoding: chunked"),
    post(b"0\r\n\r\n" + SMUGGLED, b"connection: transfer-encoding", b"transfer-encoding: chunked"),
    post(SMUGGLED, b"content-length: 0", b"content-length: %d" % len(SMUGGLED)),
    post(SMUGGLED, b"content-length: 0, %d" % len(SMUGGLED)),
    post(SMUGGLED, b"content-length: +0"),
    post(SMUGGLED, b"content-length: -1"),
    post(SMUGGLED, b"content-length: 0x0"),
    post(SMUGGLED, b"content-length: "),
    post(SMUGGLED, b"content-length: 00"),
    post(SMUGGLED, b"connection: content-length", b"content-length: 0"),
    post(SMUGGLED, b"content_length: %d" % len(SMUGGLED)),
    post(b"5;x=\n\r\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(b"2;\r\n{}\r\n0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(b"2\n{}\n0\n\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(b"+2\r\n{}\r\n0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(b"0x2\r\n{}\r\n0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(b"2 \r\n{}\r\n0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(b"2\r\n{}x0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(b"10000000000000002\r\n{}\r\n0\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(b"2\r\n{}\r\n0\r\ncontent-length: 9\r\n\r\n" + SMUGGLED, b"transfer-encoding: chunked"),
    post(
        b"0\r\n\r\n" + SMUGGLED,
        b"transfer-encoding: chunked",
        start=b"POST /v1/completions HTTP/1.0",
    ),
    get(b"/v1/files", b"GET", b"content-length: %d" % len(SMUGGLED)) + SMUGGLED,
    get(b"/v1/files", b"GET", b"transfer-encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
    get(b"/v1/files", b"HEAD", b"content-length: %d" % len(SMUGGLED)) + SMUGGLED,
    get(b"/v1/a HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/b"),
    get(b"/v1/a\tHTTP/1.1"),
    get(b"/v1/a\rx"),
    get(b"/v1/a\x00x"),
    get(b"/v1/a#b"),
    get(b"/v1/a?x=y z"),
    get(b"/v1/a?\x7f\x01"),
    get(b"/v1/a", b"GET /v1/x HTTP/1.1\r\n\r\nPOST"),
    get(b"/v1/a", b"GET", b"host: y"),
    get(b"/v1/a", b"GET", b" folded: x"),
    get(b"/v1/a", b"GET", b": no name"),
    get(b"/v1/a", b"GET", b"x y: z"),
    get(b"/v1/a", b"GET", b"x\x00y: z"),
    get(b"/v1/a", b"GET", b"x: \x00\x01"),
    get(b"/v1/a", b"GET", b"x-request-id: a\tb"),
    get(b"/v1/a", b"GET", b"upgrade: h2c", b"connection: upgrade, http2-settings") + SMUGGLED,
    get(b"x:1", b"CONNECT") + SMUGGLED,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    b"GET /v1/a\r\n\r\n" + SMUGGLED,
    b"GET /v1/a HTTP/0.9\r\n\r\n" + SMUGGLED,
    b"GET /v1/a HTTP/1.1\nhost: x\n\n" + SMUGGLED,
    b"\r\n\r\n" + SMUGGLED,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)

REQUEST_TOKENS = (
    *TOKENS,
    SMUGGLED,
    *VALID[:3],
    b"GET ",
    b"HEAD ",
    b"CONNECT ",
    b" HTTP/1.0\r\n",
    b" HTTP/1.1\r\n",
    b"\r\nhost: y",
    b"\r\nexpect: 100-continue",
    b"\r\ncontent-encoding: deflate",
    b"\r\nx-request-id: \xff",
    b"/v1/",
    b"%2e%2e/",
    b"?model=tiny",
    b"#x",
)


class Bench:
    """A router between clients that send any bytes and one strict server, in a loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, faults: Faults) -> None:
        self.loop = loop
        self.faults = faults
        self.behind = Behind()
        loop.set_exception_handler(lambda _, context: faults.found.append(repr(context)))

    async def start(self) -> None:
        self.server = await self.behind.start()
        spec = ServerSpec(url=self.behind.url, name="s0", engine="openai", models=("tiny",))
        config = config_of(
            [spec],
            health_check_interval=3600,
            scrape_interval=3600,
            header_timeout=0.3,
            request_timeout=0.3,
            first_byte_timeout=30,
        )
        self.router = Router(config)
        await self.router.start()
        await self.router.watches.checked()
        assert self.router.pool.backends["s0"].is_up

    async def stop(self) -> None:
        await self.router.stop(drain_timeout=2)
        self.server.close()

    def send(self, inputs: list[list[bytes]]) -> list[list[Message]]:
        """Let as many clients send at the same time; check and return what each got."""
        self.behind.seen.clear()
        self.behind.faults.clear()
        self.faults.found.clear()
        got = self.loop.run_until_complete(self._send(inputs))
        assert self.behind.faults == [], "a server got what is no request"
        assert self.behind.unfinished() == [], "a server got half a request"
        assert self.faults.found == []
        read = [answers(data, self.behind) for data in got]
        self.check_one_to_one([message for messages in read for message in messages])
        self.check_counts()
        for message in self.behind.seen:
            check_request(message)
        return read

    async def _send(self, inputs: list[list[bytes]]) -> list[bytes]:
        talks = [talk(self.router.url, pieces) for pieces in inputs]
        return list(await asyncio.gather(*talks))

    def check_one_to_one(self, got: list[Message]) -> None:
        """Each request that a server saw is one whose answer a client got, and the other way."""
        for message in got:
            assert message.status != 500, "the router failed inside"
            passed = number_of(message) is not None
            assert passed == bool(message.values(b"x-router-backend"))
        numbers = sorted(number for message in got if (number := number_of(message)) is not None)
        assert numbers == list(range(len(self.behind.seen)))

    def check_counts(self) -> None:
        backend = self.router.pool.backends["s0"]
        assert self.router.pool.stats.in_flight == 0
        assert backend.in_flight == 0
        assert not self.router.relay.active
        assert self.router.dispatch.waiting == 0
        assert not backend.stats.failures


def check_request(message: Message) -> None:
    """What a server got names one host, one id, and nothing of the client's connection."""
    names = [name.lower() for name, _ in message.fields]
    assert names.count(b"host") == 1
    assert names.count(b"x-request-id") == 1
    assert not HOP_BY_HOP.intersection(names)
    assert b"expect" not in names
    target = message.start.split(b" ")[1]
    assert target.startswith((b"/v1/", b"/rerank", b"/score", b"/pooling", b"/tokenize", b"/det"))
    assert message.values(b"host") == [b"127.0.0.1:%d" % _port(message)]


def _port(message: Message) -> int:
    return urlsplit(f"//{message.values(b'host')[0].decode()}").port or 0


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    patch = pytest.MonkeyPatch()
    patch.setattr(front, "KEEP_ALIVE", 0.2)
    patch.setattr(front, "LINGER", 0.2)
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


def test_requests_as_they_should_be_arrive(bench: Bench) -> None:
    read = bench.send([[request] for request in VALID])
    assert all(messages for messages in read)
    relayed = [request for request in VALID if b" /v1/" in request and b".." not in request]
    assert len(bench.behind.seen) >= len(relayed)


def test_none_of_the_known_tricks_smuggles_a_request(bench: Bench) -> None:
    bench.send([[request] for request in SMUGGLING])
    bench.send([pieces_of(request, [-1]) for request in SMUGGLING])
    bench.send([[VALID[0] + request + VALID[1]] for request in SMUGGLING])


requests = st.one_of(
    mutated(st.sampled_from(VALID), tokens=REQUEST_TOKENS),
    mutated(st.sampled_from(SMUGGLING), 2, tokens=REQUEST_TOKENS),
    spliced(st.sampled_from((*VALID, *SMUGGLING))),
    st.lists(st.sampled_from(VALID), max_size=4).map(b"".join),
    st.binary(max_size=60),
)
batches = st.lists(st.builds(pieces_of, requests, cuts), min_size=15, max_size=40)


# Each try takes as long as the slowest client, so that shrinking would take for ever.
@settings(examples(12), phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(batches)
def test_what_a_server_gets_is_what_was_accepted(bench: Bench, inputs: list[list[bytes]]) -> None:
    try:
        bench.send(inputs)
    except AssertionError:
        for pieces in inputs:
            bench.send([pieces])  # it may be one alone that fails
        raise
