"""A head is known again only where a parser would read the same in it."""

from __future__ import annotations

import pytest

from mvllm_router.repeated import Repeated, repeated

BEFORE = b"POST /v1/completions HTTP/1.1\r\nHost: r\r\nContent-Length: "
AFTER = b"\r\nAccept: */*\r\n\r\n"


def message(length: bytes, body: bytes) -> bytes:
    return BEFORE + length + AFTER + body


@pytest.fixture
def last() -> Repeated[str]:
    found = repeated(message(b"5", b"hello"), b"5", "meant")
    assert found is not None
    return found


def test_the_same_head_is_known_with_a_body_of_another_length(last: Repeated[str]) -> None:
    assert last.meaning == "meant"
    assert last.body_of(message(b"2", b"{}")) == (b"2", b"{}")
    assert last.body_of(message(b"0", b"")) == (b"0", b"")
    assert last.body_of(message(b"100000", b"x" * 100000)) == (b"100000", b"x" * 100000)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(message(b"3", b"{}"), id="a body that is not whole"),
        pytest.param(message(b"2", b"{}POST"), id="another message behind it"),
        pytest.param(message(b"", b""), id="no length"),
        pytest.param(message(b"-2", b"{}"), id="a negative length"),
        pytest.param(message(b"+2", b"{}"), id="a sign"),
        pytest.param(message(b"2 ", b"{}"), id="white space behind the length"),
        pytest.param(message(b"0x2", b"{}"), id="hexadecimal"),
        pytest.param(message("٢".encode(), b"{}"), id="digits of another script"),
        pytest.param(message(b"2\r\nTransfer-Encoding: chunked", b"{}"), id="one header more"),
        pytest.param(message(b"2", b"{}").replace(b"Host: r", b"Host: s"), id="another head"),
        pytest.param(message(b"2", b"{}").replace(b"*/*", b"*"), id="another end of the head"),
        pytest.param(message(b"2" * 10, b"{}"), id="a length that is too long to be one"),
        pytest.param(BEFORE, id="the head cut before the length"),
        pytest.param(BEFORE + b"2", id="the head cut in the length"),
        pytest.param(BEFORE + b"2\r\n", id="the head cut behind the length"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_anything_else_is_left_to_the_parser(last: Repeated[str], data: bytes) -> None:
    assert last.body_of(data) is None


@pytest.mark.parametrize(
    ("data", "length"),
    [
        pytest.param(message(b"5", b"hell"), b"5", id="not whole"),
        pytest.param(message(b"5", b"hello!"), b"5", id="more than one message"),
        pytest.param(message(b"5", b"hello"), None, id="framed in another way"),
        pytest.param(message(b"5", b"hello"), b"05", id="another length than the parser found"),
        pytest.param(
            b"POST / HTTP/1.1\r\ncontent-length:5\r\n\r\nhello", b"5", id="spelt in another way"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nx-content-length: 5\r\n\r\nhello", b"5", id="another header"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\na: b\r\n\r\n\r\nContent-Length: 5\r\n\r\nhello",
            b"5",
            id="a length in the body",
        ),
    ],
)
def test_what_is_not_one_message_with_a_plain_length_is_not_kept(
    data: bytes, length: bytes | None
) -> None:
    assert repeated(data, length, "meant") is None
