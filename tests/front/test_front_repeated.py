"""A request whose head came before is read without the parser, and as the parser would read it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mvllm_router.front.bodies import Bodies
from mvllm_router.front.reader import Reader
from mvllm_router.front.request import Request

LONGEST = 1000  # bytes of a body
BEFORE, AFTER = b"POST /v1/completions?a=b HTTP/1.1\r\nHost: r\r\n", b"Accept: */*\r\n\r\n"


def post(body: bytes, more: bytes = b"") -> bytes:
    return b"%bContent-Length: %d\r\n%b%b%b" % (BEFORE, len(body), more, AFTER, body)


class CountingReader(Reader):
    """Counts how often it did without the parser."""

    known_again = 0

    def _is_repeated(self, last: Any, data: bytes) -> bool:
        known = super()._is_repeated(last, data)
        self.known_again += known
        return known


class Reading:
    """A connection that notes each request as it is whole; `parses` lets it know none again."""

    def __init__(self, *, parses: bool) -> None:
        self.parses = parses
        self.opened_count = 0
        self.read: list[tuple[object, ...]] = []
        connection: Any = self
        self.bodies = Bodies(LONGEST)
        self.reader = CountingReader(connection, self.bodies)
        self.errors: list[str] = []

    def opened(self, request: Request) -> None:
        self.opened_count += 1

    def complete(self, request: Request) -> None:
        error = request.error and request.error.message
        what = (request.method, request.path, request.query, list(request.fields.items()))
        how = (request.announced, request.size, request.keep_alive, request.whole, error)
        self.read.append((*what, request.fields.raw, request.http_1_1, *how, request.body))
        request.release()

    def feed(self, data: bytes) -> None:
        if self.reader.deaf:
            return
        if self.parses:
            self.reader._last = None
        error = self.reader.feed(data)
        if error is not None:
            self.errors.append(error.message)


def assert_same(pieces: list[bytes]) -> Reading:
    """Read the pieces in both ways; return the one that may know heads again."""
    knows, parses = Reading(parses=False), Reading(parses=True)
    for piece in pieces:
        knows.feed(piece)
        parses.feed(piece)
    assert knows.read == parses.read
    assert knows.errors == parses.errors
    assert knows.opened_count == parses.opened_count
    assert knows.bodies.bytes == parses.bodies.bytes
    return knows


def test_the_same_head_is_known_again_with_other_bodies() -> None:
    knows = assert_same([post(b"{}"), post(b'{"n": 1}'), post(b""), post(b"x" * LONGEST)])
    assert knows.reader.known_again == 3
    assert len(knows.read) == 4


def test_a_body_that_is_too_large_is_refused_behind_a_known_head() -> None:
    knows = assert_same([post(b"{}"), post(b"x" * (LONGEST + 1)), post(b"{}")])
    assert [bool(read[-2]) for read in knows.read] == [False, True, False][: len(knows.read)]


@pytest.mark.parametrize(
    "more",
    [
        b"Transfer-Encoding: chunked\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 2\r\n",
    ],
)
def test_heads_that_say_more_of_the_connection_are_always_parsed(more: bytes) -> None:
    knows = assert_same([post(b"{}", more), post(b"{}", more), post(b"{}", more)])
    assert knows.reader.known_again == 0


def test_a_tunnel_is_never_known_again() -> None:
    connect = b"CONNECT / HTTP/1.1\r\nHost: r\r\nContent-Length: "
    inner = b"GET /inner HTTP/1.1\r\nHost: r\r\n\r\n"
    later = connect + b"%d\r\n\r\n" % len(inner) + inner
    assert_same([connect + b"0\r\n\r\n", later])


def test_empty_lines_between_known_requests_are_no_head_that_grows() -> None:
    knows = Reading(parses=False)
    for _ in range(40_000):
        knows.feed(post(b"{}"))
        knows.feed(b"\r\n")
        knows.read.clear()
    assert knows.errors == []
    assert not knows.reader.deaf


def test_a_known_request_inside_another_head_is_a_part_of_that() -> None:
    """A client that is behind the same proxy must not be taken for another one."""
    begin = post(b"{}") + b"POST /v1/embeddings HTTP/1.1\r\nX-Swallowed: "
    knows = assert_same([post(b"{}"), begin, post(b"{}"), b"\r\n\r\n"])
    assert knows.reader.known_again == 0


def test_a_known_request_inside_another_body_is_a_part_of_that() -> None:
    inner = post(b"{}")
    whole = post(inner)
    assert_same([post(b"{}"), whole[: -len(inner)], inner, post(b"{}")])


PARTS = (
    post(b"{}"),
    post(b'{"model": "m"}'),
    post(b""),
    post(b"{}", b"X-More: 1\r\n"),
    b"GET /health HTTP/1.1\r\nHost: r\r\n\r\n",
    b"\r\n",
    BEFORE + b"Transfer-Encoding: chunked\r\n" + AFTER + b"2\r\n{}\r\n0\r\n\r\n",
    BEFORE + b"X-Open: ",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
)


@pytest.mark.parametrize("seed", range(40))
def test_any_requests_in_any_pieces_are_read_as_the_parser_reads_them(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        parts = [chance.choice(PARTS[:4] if chance.random() < 0.7 else PARTS) for _ in range(12)]
        pieces = []
        for part in parts:
            cut = chance.randrange(len(part) + 1) if chance.random() < 0.15 else 0
            pieces += [part[:cut], part[cut:]] if cut else [part]
            if len(pieces) > 1 and chance.random() < 0.15:
                pieces[-2:] = [pieces[-2] + pieces[-1]]
        assert_same([piece for piece in pieces if piece])
