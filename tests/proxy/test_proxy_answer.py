"""The head and the framing of an answer on its way to a client."""

from __future__ import annotations

import httptools
import pytest

from mvllm_router.fields import fields_of
from mvllm_router.proxy.answer import (
    Framing,
    frame,
    framing_of,
    head_bytes,
)
from mvllm_router.proxy.connection import Head

NONE, LENGTH, CHUNKED, CLOSE = Framing.NONE, Framing.LENGTH, Framing.CHUNKED, Framing.CLOSE

JSON_TYPE = (b"Content-Type", b"application/json")
SSE_TYPE = (b"Content-Type", b"text/event-stream; charset=utf-8")


def head(*headers: tuple[bytes, bytes], status: int = 200, reason: bytes = b"OK") -> Head:
    return Head(status, reason, fields_of(headers), keeps_alive=True, until_close=False)


def length(count: int) -> tuple[bytes, bytes]:
    return (b"Content-Length", b"%d" % count)


@pytest.mark.parametrize(
    ("answer", "is_head", "http_1_1", "expected"),
    [
        (head(length(5)), False, True, LENGTH),
        (head(length(5)), False, False, LENGTH),
        (head(length(0)), False, True, LENGTH),
        (head((b"Transfer-Encoding", b"chunked")), False, True, CHUNKED),
        (head((b"Transfer-Encoding", b"chunked")), False, False, CLOSE),
        (head(), False, True, CHUNKED),  # it ended with its connection: MLX
        (head(), False, False, CLOSE),
        (head(length(5)), True, True, NONE),
        (head(), True, True, NONE),
        (head(), True, False, NONE),
        (head(status=204), False, True, NONE),
        (head(length(0), status=204), False, True, NONE),
        (head(length(5), status=304), False, True, NONE),
        (head(length(5), status=404), False, True, LENGTH),
    ],
)
def test_how_a_client_learns_where_the_body_ends(
    answer: Head, is_head: bool, http_1_1: bool, expected: Framing
) -> None:
    assert framing_of(answer, is_head=is_head, http_1_1=http_1_1) is expected


OWN = b"x-request-id: r1\r\nx-router-backend: s0\r\n"


def head_of(
    answer: Head, framing: Framing, *, keep_alive: bool = True, http_1_1: bool = True
) -> bytes:
    return head_bytes(answer, framing, OWN, keep_alive=keep_alive, http_1_1=http_1_1)


def test_a_head_is_the_servers_with_the_routers_own_lines() -> None:
    answer = head(JSON_TYPE, length(5), (b"X-Request-Id", b"theirs"), (b"Connection", b"close"))
    assert head_of(answer, LENGTH) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        + OWN
        + b"content-length: 5\r\n\r\n"
    )


def test_a_chunked_head_gives_no_length() -> None:
    answer = head(JSON_TYPE, (b"Transfer-Encoding", b"chunked"))
    assert head_of(answer, CHUNKED) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        + OWN
        + b"transfer-encoding: chunked\r\n\r\n"
    )


def test_a_status_is_passed_on_with_its_reason() -> None:
    answer = head(length(0), status=418, reason=b"I'm a teapot")
    assert head_of(answer, LENGTH).startswith(b"HTTP/1.1 418 I'm a teapot\r\n")


@pytest.mark.parametrize(
    ("keep_alive", "http_1_1", "line"),
    [
        (True, True, b""),
        (False, True, b"connection: close\r\n"),
        (True, False, b"connection: keep-alive\r\n"),
        (False, False, b"connection: close\r\n"),
    ],
)
def test_a_client_is_told_what_becomes_of_its_connection(
    keep_alive: bool, http_1_1: bool, line: bytes
) -> None:
    lines = head_of(head(length(1)), LENGTH, keep_alive=keep_alive, http_1_1=http_1_1)
    assert lines.endswith(b"content-length: 1\r\n" + line + b"\r\n")
    assert lines.count(b"connection") == bool(line)


def test_the_answer_to_head_tells_the_length_that_get_would_have() -> None:
    assert b"content-length: 5\r\n" in head_of(head(length(5)), NONE)


def test_an_answer_without_content_tells_no_length() -> None:
    assert b"content-length" not in head_of(head(length(0), status=204), NONE).lower()


def test_an_answer_that_ends_with_its_connection_says_nothing_of_its_length() -> None:
    lines = head_of(head(JSON_TYPE), CLOSE, keep_alive=False, http_1_1=False).lower()
    assert b"content-length" not in lines
    assert b"transfer-encoding" not in lines


def test_a_stream_is_marked_as_one() -> None:
    lines = head_of(head(SSE_TYPE, (b"Cache-Control", b"public")), CHUNKED)
    assert b"x-accel-buffering: no\r\ncache-control: no-cache\r\n" in lines
    assert b"public" not in lines


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (head(SSE_TYPE), True),
        (head((b"content-type", b"TEXT/EVENT-STREAM")), True),
        (head(JSON_TYPE), False),
        (head(), False),
        (head(SSE_TYPE, (b"Content-Encoding", b"gzip")), False),
    ],
)
def test_a_stream_of_events_that_can_be_read_is_known(answer: Head, expected: bool) -> None:
    assert answer.is_event_stream is expected


def test_the_first_value_of_a_header_is_found_in_any_case() -> None:
    answer = head((b"X-A", b"1"), (b"x-a", b"2"))
    assert answer.fields.first.get(b"x-a") == b"1"
    assert answer.fields.first.get(b"x-b") is None


def test_where_there_is_no_body_nothing_of_one_goes_out() -> None:
    assert frame(b"abc", NONE, ended=False) == b""
    assert frame(b"abc", NONE, ended=True) == b""


@pytest.mark.parametrize("framing", [LENGTH, CLOSE])
def test_without_chunks_data_goes_as_it_is(framing: Framing) -> None:
    assert frame(b"abc", framing, ended=False) == b"abc"
    assert frame(b"abc", framing, ended=True) == b"abc"
    assert frame(b"", framing, ended=True) == b""


def test_chunks_have_their_size_and_an_end() -> None:
    assert frame(b"x" * 26, CHUNKED, ended=False) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert frame(b"abc", CHUNKED, ended=True) == b"3\r\nabc\r\n0\r\n\r\n"
    assert frame(b"", CHUNKED, ended=True) == b"0\r\n\r\n"


def test_an_empty_piece_is_no_chunk_since_that_would_be_the_end() -> None:
    assert frame(b"", CHUNKED, ended=False) == b""


class Reader:
    """What a client's parser makes of it."""

    def __init__(self) -> None:
        self.body = b""
        self.whole = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole = True


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
def test_a_parser_gets_back_what_was_sent(framing: Framing) -> None:
    pieces = [b"one", b"", b"\r\n0\r\n\r\n", b"x" * 70_000]
    answer = head(JSON_TYPE, *([length(sum(map(len, pieces)))] if framing is LENGTH else []))
    wire = head_of(answer, framing)
    for piece in pieces:
        wire += frame(piece, framing, ended=piece is pieces[-1])
    reader = Reader()
    httptools.HttpResponseParser(reader).feed_data(wire)
    assert reader.whole
    assert reader.body == b"".join(pieces)
