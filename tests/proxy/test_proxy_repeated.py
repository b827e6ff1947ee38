"""An answer whose head came before is read without the parser, and as the parser would read it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, cast

import pytest

from mvllm_router.front.outlet import Outbox
from mvllm_router.proxy.connection import Connection, Head
from mvllm_router.proxy.failure import Failure

BEFORE = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\n"


def answer(body: bytes, more: bytes = b"", begin: bytes = BEFORE) -> bytes:
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (begin, len(body), more, body)


class Wire:
    """A transport and a pool that do nothing."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.closed = False

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def put_back(self, connection: Connection) -> None: ...
    def forget(self, connection: Connection) -> None: ...
    def get_extra_info(self, name: str) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class CountingConnection(Connection):
    """Counts how often it did without the parser."""

    known_again = 0

    def _is_repeated(self, last: Any, data: bytes) -> bool:
        known = super()._is_repeated(last, data)
        self.known_again += known
        return known


class Asking:
    """Asks a server that answers as it is told; `parses` lets it know no head again."""

    def __init__(self, *, parses: bool) -> None:
        self.parses = parses
        self.wire = Wire()
        self.connection = CountingConnection(cast(Any, self.wire))
        self.connection.connection_made(cast(asyncio.Transport, cast(Any, self.wire)))
        self.seen: list[tuple[object, ...]] = []
        self.ended = self.keeps_alive = False

    def received(self, head: Head | None, data: bytes, ended: bool) -> None:
        if head is not None:
            self.keeps_alive = head.keeps_alive
            what = (head.status, head.reason, head.keeps_alive, head.until_close)
            self.seen.append((*what, head.is_event_stream, head.fields.raw, head.fields.length))
        self.seen.append((data, ended))
        self.ended = ended

    def lost(self, failure: Failure, detail: str) -> None:
        self.seen.append((failure, detail))

    def ask(self, pieces: Sequence[bytes], *, is_head: bool = False) -> None:
        """Ask once, and be answered in these pieces."""
        if not self.connection.usable:
            return
        self.connection.send(b"", b"", self, is_head=is_head)
        for piece in pieces:
            if self.parses:
                self.connection._last = None
            if not self.wire.closed:
                self.connection.data_received(piece)
        if self.ended and self.keeps_alive:
            self.connection.release()
        elif self.ended:
            self.connection.abort()
        self.ended = False


def assert_same(answers: Sequence[Sequence[bytes]], *, is_head: bool = False) -> Asking:
    """Read the answers in both ways; return the one that may know heads again."""
    knows, parses = Asking(parses=False), Asking(parses=True)
    for pieces in answers:
        knows.ask(pieces, is_head=is_head)
        parses.ask(pieces, is_head=is_head)
        assert knows.connection.usable == parses.connection.usable
    assert knows.seen == parses.seen
    return knows


async def test_the_same_head_is_known_again_with_other_bodies() -> None:
    knows = assert_same([[answer(b"{}")], [answer(b"")], [answer(b"x" * 9999)]])
    assert knows.connection.known_again == 2


@pytest.mark.parametrize(
    ("more", "begin"),
    [
        (b"transfer-encoding: chunked\r\n", BEFORE),
        (b"connection: close\r\n", BEFORE),
        (b"content-length: 2\r\n", BEFORE),
        (b"", b"HTTP/1.1 500 Oh Dear\r\n"),
        (b"", b"HTTP/1.1 204 No Content\r\n"),
        (b"", b"HTTP/1.1 304 Not Modified\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" + BEFORE),
    ],
)
async def test_heads_that_may_mean_something_else_are_always_parsed(
    more: bytes, begin: bytes
) -> None:
    knows = assert_same([[answer(b"{}", more, begin)]] * 3)
    assert knows.connection.known_again == 0


async def test_an_answer_to_head_is_parsed_since_its_length_is_that_of_no_body() -> None:
    knows = assert_same([[answer(b"")]] * 3, is_head=True)
    assert knows.connection.known_again == 0


async def test_a_known_answer_behind_an_interim_one_is_the_answer() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    assert_same([[answer(b"{}")], [interim, answer(b"[]")], [answer(b"{}")]])


async def test_a_known_answer_inside_another_body_is_a_part_of_that() -> None:
    inner = answer(b"{}")
    whole = answer(inner)
    assert_same([[inner], [whole[: -len(inner)], inner], [inner]])


async def test_a_known_answer_twice_is_not_lent_again() -> None:
    knows = assert_same([[answer(b"{}")], [answer(b"{}"), answer(b"{}")], [answer(b"{}")]])
    assert not knows.connection.usable


PARTS = (
    answer(b"{}"),
    answer(b'{"usage": {}}'),
    answer(b"{}", b"date: today\r\n"),
    answer(b"{}", b"transfer-encoding: chunked\r\n"),
    answer(b"{}", begin=b"HTTP/1.1 503 Busy\r\n"),
    BEFORE + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"{}"),
    answer(b"{}") + b"\r\n",
    answer(b"{}") + b"HTTP/1.1 200",
)


@pytest.mark.parametrize("seed", range(40))
async def test_any_answers_in_any_pieces_are_read_as_the_parser_reads_them(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        answers = []
        for _ in range(10):
            part = chance.choice(PARTS[:2] if chance.random() < 0.7 else PARTS)
            cut = chance.randrange(len(part) + 1) if chance.random() < 0.2 else 0
            answers.append([piece for piece in (part[:cut], part[cut:]) if piece])
        assert_same(answers)
