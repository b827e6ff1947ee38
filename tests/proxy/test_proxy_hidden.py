"""Where clients are not to see what a server says when it fails, they see a plain text instead."""

from __future__ import annotations

import json

import pytest

from mvllm_router.fields import fields_of
from mvllm_router.proxy import hidden
from mvllm_router.proxy.answer import retry_after
from mvllm_router.proxy.connection import Head

SECRET = b"Traceback: /opt/models/secret.gguf on 10.0.0.7"
PLAIN = "The server failed this request."


def head(status: int = 500, *headers: tuple[bytes, bytes], until_close: bool = False) -> Head:
    return Head(status, b"Oh Dear", fields_of(headers), True, until_close)


def errors_in(data: bytes) -> list[str]:
    """Return the messages of the error events in a stream."""
    lines = [line[5:].strip() for line in data.splitlines() if line.startswith(b"data:")]
    documents = [json.loads(line) for line in lines if line.startswith(b"{")]
    return [document["error"]["message"] for document in documents if "error" in document]


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 599])
def test_an_answer_keeps_its_status_and_loses_its_text(status: int) -> None:
    shown, body = hidden.answer(head(status))
    assert (shown.status, shown.reason) == (status, b"Oh Dear")
    assert json.loads(body)["error"]["message"] == PLAIN


def test_an_answer_is_framed_by_its_new_length() -> None:
    shown, body = hidden.answer(head(500, (b"Content-Length", b"99999"), until_close=True))
    assert shown.fields.length == b"%d" % len(body)
    assert shown.fields.first.get(b"content-type") == b"application/json; charset=utf-8"
    assert not shown.until_close


def test_of_a_servers_headers_only_the_time_to_wait_is_left() -> None:
    shown, _ = hidden.answer(
        head(
            503,
            (b"Server", b"engine/1.2.3"),
            (b"Content-Encoding", b"gzip"),
            (b"Transfer-Encoding", b"chunked"),
            (b"X-Trace", SECRET),
            (b"Retry-After", b"7"),
        )
    )
    assert {name for name, _ in shown.fields.raw} == {b"content-type", b"retry-after"}
    assert retry_after(shown) == 7


def test_an_answer_that_asks_for_no_time_has_none() -> None:
    shown, _ = hidden.answer(head(503))
    assert retry_after(shown) is None


@pytest.mark.parametrize("keeps_alive", [True, False])
def test_the_connection_to_the_server_is_treated_as_before(keeps_alive: bool) -> None:
    shown, _ = hidden.answer(Head(500, b"", fields_of([]), keeps_alive, False))
    assert shown.keeps_alive is keeps_alive


ERROR_EVENTS = {
    "vllm": b'data: {"error": {"message": "%b", "code": 500}}\n\n',
    "llama.cpp": b'data: {"error":{"code":500,"message":"%b","type":"server_error"}}\n\n',
    "no space": b'data:{"error":{"message":"%b"}}\n\n',
    "spaces": b'data:   {  "error" : {"message":"%b"}}\n\n',
    "older vllm": b'data: {"object": "error", "message": "%b", "error": null}\n\n',
    "messages": b'event: error\ndata: {"type":"error","error":{"message":"%b"}}\n\n',
    "messages, spaced": b'event: error\ndata: {"type": "error", "error": {"message": "%b"}}\n\n',
    "text": b'data: {"error": "%b"}\n\n',
    "carriage returns": b'data: {"error": {"message": "%b"}}\r\n\r\n',
}


@pytest.mark.parametrize("event", ERROR_EVENTS.values(), ids=ERROR_EVENTS)
def test_an_error_event_gets_another_text(event: bytes) -> None:
    shown = hidden.events(event % SECRET)
    assert SECRET not in shown
    assert errors_in(shown) == [PLAIN]
    assert shown.replace(b"\r", b"").endswith(b"}\n\n"), "it is no whole event"


@pytest.mark.parametrize("event", ERROR_EVENTS.values(), ids=ERROR_EVENTS)
def test_the_events_around_it_stay_as_they_are(event: bytes) -> None:
    before = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n: ping\n\n'
    shown = hidden.events(before + event % SECRET + b"data: [DONE]\n\n")
    assert shown.startswith(before)
    assert shown.endswith((b"\n\ndata: [DONE]\n\n", b"\r\ndata: [DONE]\n\n"))
    assert SECRET not in shown
    assert errors_in(shown) == [PLAIN]


def test_each_of_several_errors_gets_another_text() -> None:
    event = ERROR_EVENTS["vllm"] % SECRET
    assert errors_in(hidden.events(2 * event)) == [PLAIN, PLAIN]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"data: [DONE]\n\n",
        b'data: {"choices":[{"delta":{"content":"an \\"error\\" in a text"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ndata: {\\"error\\": 1}"}}]}\n\n',
        b'data: {"id":"1","choices":[],"error":null}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"error"}}]}}]}\n\n',
        b'data: {"text":"{"}\n\ndata: {"choices":[{"type":"error"}]}\n\n',
        b'data: {"choices":[{"error":"error"}]}\r\n\r\n',
        b'data: {"type":"error_report","delta":"\\"error\\""}\n\n',
    ],
)
def test_what_only_speaks_of_errors_stays_as_it_is(data: bytes) -> None:
    assert hidden.events(data) == data
