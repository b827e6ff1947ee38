"""Whatever a server sends, and however it is read, a connection makes the same of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from fuzz_checks import check_reads
from fuzz_corpus import ANSWERS, body_of
from fuzz_fakes import Told, answered, connect, feed
from fuzz_inputs import any_answers, cuts, examples, pieces_of, real_answers
from hypothesis import given
from hypothesis import strategies as st

from mvllm_router.proxy.connection import Phase
from mvllm_router.proxy.failure import Failure


@pytest.mark.parametrize("name", ANSWERS)
def test_a_real_answer_is_whole_wherever_it_is_split(name: str) -> None:
    answer = ANSWERS[name]
    expected = answered([answer]).summary()
    told = answered([answer])
    assert told.ended
    assert told.body == body_of(answer)
    assert answered(pieces_of(answer, [-1])).summary() == expected
    for at in range(0, len(answer), 7):
        assert answered([answer[:at], answer[at:]]).summary() == expected


@examples(600)
@given(any_answers, cuts, st.booleans(), st.sampled_from(("eof", "reset")))
def test_what_is_made_of_an_answer_does_not_depend_on_its_reads(
    data: bytes, places: list[int], is_head: bool, end: str
) -> None:
    check_reads(data, pieces_of(data, places), is_head=is_head, end=end)


@examples(300)
@given(real_answers, any_answers, cuts)
def test_what_follows_a_whole_answer_is_nobodys(
    first: bytes, surplus: bytes, places: list[int]
) -> None:
    connection, transport, pool = connect()
    told = Told(connection)
    connection.send(b"", b"", told, is_head=False)
    read = 0
    for piece in pieces_of(first + surplus, places):
        if transport.is_closing():
            break
        connection.data_received(piece)
        read += len(piece)
        if connection.usable:
            # Line ends before an answer are no part of it, and parsers pass over them.
            assert (first + surplus)[len(first) : read].strip(b"\r\n") == b""
            break
    if not told.ended:  # it ends with its connection
        assert told.head is None or told.head.until_close
    else:
        assert told.body == body_of(first)
    if not connection.usable:
        return
    assert told.ended
    second = Told(connection)
    pool.idle.remove(connection)
    connection.send(b"", b"", second, is_head=False)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"
    feed(connection, transport, pieces_of(answer, places), "open")
    assert second.body == b"second"
    assert second.ended


@examples(100)
@given(real_answers, st.binary(min_size=1, max_size=20))
def test_what_comes_unasked_ends_a_connection(first: bytes, unasked: bytes) -> None:
    connection, transport, pool = connect()
    connection.send(b"", b"", Told(connection), is_head=False)
    connection.data_received(first)
    if connection.usable:
        connection.data_received(unasked)
        assert transport.aborted
        assert pool.idle == []
        assert pool.forgotten == 1
        assert not connection.usable


@examples(100)
@given(any_answers, cuts)
def test_who_aborts_in_mid_answer_hears_nothing_more(data: bytes, places: list[int]) -> None:
    connection, transport, pool = connect()

    class Leaves(Told):
        def received(self, head: object, data: bytes, ended: bool) -> None:
            assert not transport.aborted
            self.connection.abort()

        def lost(self, failure: Failure, detail: str) -> None:
            assert not transport.aborted

    connection.send(b"", b"", Leaves(connection), is_head=False)
    feed(connection, transport, pieces_of(data, places), "eof")
    assert connection._phase is Phase.CLOSED
    assert pool.idle == []


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "a header": (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65536),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 8000),
    "a reason": (b"HTTP/1.1 200 ", b"y" * 65536),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 1000),
    "line ends": (b"", b"\r\n" * 30000),
    "a chunk's extension": (HEAD + b"5;x=", b"y" * 65536),
    "a trailer": (HEAD + b"0\r\nx: ", b"y" * 65536),
    "trailers": (HEAD + b"0\r\n", b"x: y\r\n" * 8000),
    "a body": (HEAD, b"10000\r\n%b\r\n" % (b"y" * 65536)),
}
MOST = 4 * 1024 * 1024  # bytes; what is read has more than 6 MB


def reads(begin: bytes, more: bytes) -> Iterator[bytes]:
    yield begin + more
    for _ in range(100):
        yield more


@pytest.mark.parametrize("name", ENDLESS)
def test_nothing_that_has_no_end_is_collected(name: str) -> None:
    connection, transport, _ = connect()

    class Passes(Told):
        def received(self, head: object, data: bytes, ended: bool) -> None:
            pass

    connection.send(b"", b"", Passes(connection), is_head=False)
    tracemalloc.start()
    try:
        for piece in reads(*ENDLESS[name]):
            if transport.is_closing():
                break
            connection.data_received(piece)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
