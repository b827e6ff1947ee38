"""Which headers pass, in either direction."""

from __future__ import annotations

import pytest

from mvllm_router.fields import RawHeaders, fields_of
from mvllm_router.proxy.headers import (
    HOP_BY_HOP,
    to_backend,
    to_client,
    usable_request_id,
    without,
)


def answer_lines(*headers: tuple[bytes, bytes]) -> bytes:
    return to_client(fields_of(headers), is_event_stream=False)


def stream_lines(*headers: tuple[bytes, bytes]) -> bytes:
    return to_client(fields_of(headers), is_event_stream=True)


def request_lines(*headers: tuple[bytes, bytes]) -> bytes:
    return to_backend(fields_of(headers))


KEPT: RawHeaders = [
    (b"Content-Type", b"application/json"),
    (b"Accept-Encoding", b"gzip, br"),
    (b"X-Team", b"research"),
    (b"cookie", b"a=b; c=d"),
    (b"X-Forwarded", b"10.0.0.1"),
    (b"X-Odd", b"caf\xe9, gr\xc3\xbc\xc3\x9fe"),
    (b"X-Empty", b""),
]


def test_all_else_passes_as_it_was_written_and_in_its_order() -> None:
    expected = b"".join(b"%b: %b\r\n" % header for header in KEPT)
    assert to_backend(fields_of(KEPT)) == expected
    assert to_client(fields_of(KEPT), is_event_stream=False) == expected


@pytest.mark.parametrize("lines", [request_lines, answer_lines, stream_lines])
@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_hop_by_hop_headers_end_here_in_both_directions(name: bytes, lines) -> None:  # type: ignore[no-untyped-def]
    for written in (name, name.title(), name.upper()):
        assert written not in lines((b"a", b"1"), (written, b"x"), (b"b", b"2"))


def test_those_are_the_hop_by_hop_headers() -> None:
    assert {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade"} < HOP_BY_HOP
    assert {b"transfer-encoding", b"proxy-authorization", b"proxy-connection"} < HOP_BY_HOP


@pytest.mark.parametrize("lines", [request_lines, answer_lines, stream_lines])
def test_headers_that_connection_names_end_here_in_both_directions(lines) -> None:  # type: ignore[no-untyped-def]
    passed = lines(
        (b"Connection", b"close, X-Hop ,,x-Second"),
        (b"X-HOP", b"1"),
        (b"x-second", b"2"),
        (b"connection", b"X-Third"),
        (b"X-Third", b"3"),
        (b"X-Kept", b"4"),
    )
    assert passed.startswith(b"X-Kept: 4\r\n")
    for name in (b"hop", b"second", b"third"):
        assert name not in passed.lower()


def test_connection_may_name_nothing() -> None:
    assert fields_of([(b"a", b"b")]).named_by_connection() == frozenset()
    assert fields_of([(b"Connection", b"Keep-Alive")]).named_by_connection() == {b"keep-alive"}


@pytest.mark.parametrize("lines", [request_lines, answer_lines])
def test_duplicates_are_kept_each_with_its_value(lines) -> None:  # type: ignore[no-untyped-def]
    assert lines((b"Set-Cookie", b"a=1"), (b"X", b"y"), (b"set-cookie", b"b=2")) == (
        b"Set-Cookie: a=1\r\nX: y\r\nset-cookie: b=2\r\n"
    )


@pytest.mark.parametrize(
    "name",
    [b"Host", b"Content-Length", b"Expect", b"Authorization", b"X-Api-Key", b"X-Request-Id"],
)
def test_what_the_router_writes_itself_and_credentials_do_not_reach_a_server(name: bytes) -> None:
    assert to_backend(fields_of([(name, b"x"), (name.lower(), b"y")])) == b""


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"X-Request-Id", b"X-Router-Backend", b"X-Router-Attempts"]
)
def test_what_the_router_writes_itself_is_not_taken_from_a_server(name: bytes) -> None:
    assert answer_lines((name, b"x"), (name.lower(), b"y")) == b""


def test_a_stream_is_marked_so_that_nobody_holds_it_back() -> None:
    passed = stream_lines(
        (b"Content-Type", b"text/event-stream"),
        (b"Cache-Control", b"max-age=60"),
        (b"x-accel-buffering", b"yes"),
    )
    assert passed == (
        b"Content-Type: text/event-stream\r\nx-accel-buffering: no\r\ncache-control: no-cache\r\n"
    )


def test_any_other_answer_keeps_what_it_says_of_caches() -> None:
    assert answer_lines((b"Cache-Control", b"max-age=60")) == b"Cache-Control: max-age=60\r\n"


def test_lines_that_others_replace_are_taken_out_whatever_their_case() -> None:
    lines = b"X-Team: a\r\nAccept: x-team: b\r\nx-team:c\r\nX-Team-2: d\r\n"
    assert without(lines, frozenset((b"x-team",))) == b"Accept: x-team: b\r\nX-Team-2: d\r\n"
    assert without(lines, frozenset()) == lines


@pytest.mark.parametrize("text", ["my-req-43", "a", "x" * 128, "{1}/~!", "198c1920-e5d6"])
def test_a_clients_request_id_is_used(text: str) -> None:
    assert usable_request_id(text.encode()) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 129,
        "two words",
        "line\nbreak",
        "line\r\nx: y",
        "tab\t",
        "größe",
        "a\x00",
        "a\n",
    ],
)
def test_a_request_id_that_could_do_harm_is_not(text: str) -> None:
    assert usable_request_id(text.encode("utf-8", "surrogateescape")) is None
