"""Whatever a server sends, its client gets well-formed HTTP that is whole or visibly broken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from fuzz_exchange import BLANK_LINES, ERROR_EVENT, Case, check_passing, pass_on
from fuzz_inputs import any_answers, cuts, event_streams, examples, pieces_of, whole_answers
from hypothesis import given
from hypothesis import strategies as st

from mvllm_router.proxy.exchange import Result


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Give a loop; nothing here waits, exchanges only make a future of it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


cases = st.builds(
    Case,
    is_head=st.sampled_from((False, False, False, True)),
    http_1_1=st.sampled_from((True, True, False)),
    keep_alive=st.booleans(),
    moves=st.booleans(),
    end_is_marked=st.booleans(),
    hide_errors=st.sampled_from((False, False, True)),
    end=st.sampled_from(("eof", "reset", "silent", "stop")),
)


@examples(700)
@given(any_answers, cuts, cases)
def test_what_a_client_gets_is_whole_or_visibly_broken(
    loop: asyncio.AbstractEventLoop, data: bytes, places: list[int], case: Case
) -> None:
    check_passing(loop, data, pieces_of(data, places), case)


@examples(300)
@given(whole_answers, st.integers(0, 0xFFFF), cuts, cases)
def test_an_answer_that_is_cut_anywhere_is_never_whole(
    loop: asyncio.AbstractEventLoop, answer: bytes, at: int, places: list[int], case: Case
) -> None:
    data = answer[: at % len(answer)]
    check_passing(loop, data, pieces_of(data, places), case)


@examples(300)
@given(any_answers, cuts, cases)
def test_what_a_client_gets_does_not_depend_on_the_reads(
    loop: asyncio.AbstractEventLoop, data: bytes, places: list[int], case: Case
) -> None:
    """Some troubles can be told only of an answer that comes in one read, and moves on then."""
    seen, results = [], []
    for pieces in ([data] if data else [], pieces_of(data, places)):
        passed = loop.run_until_complete(pass_on(pieces, case))
        results.append(passed.outcome and passed.outcome.result)
        if passed.transport.written:
            message, kept = passed.message(case), passed.client.keep_alive
            # A line end behind an event's end may be the other half of it, or begin the next.
            body = BLANK_LINES.sub(ERROR_EVENT, message.body)
            seen.append((message.fields, body, message.whole, kept))
    if Result.MOVED in results:
        assert case.moves
    else:
        assert results[0] == results[1]
        assert seen[:1] == seen[1:]


@examples(200)
@given(event_streams, cuts, st.sampled_from(("length", "chunked", "close")))
def test_no_error_of_a_server_is_seen_in_a_stream_where_errors_are_hidden(
    loop: asyncio.AbstractEventLoop, body: bytes, places: list[int], framing: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    data = {
        "length": head + b"content-length: %d\r\n\r\n%b" % (len(body), body),
        "chunked": head
        + b"transfer-encoding: chunked\r\n\r\n"
        + (b"%x\r\n%b\r\n" % (len(body), body) if body else b"")
        + b"0\r\n\r\n",
        "close": head + b"\r\n" + body,
    }[framing]
    case = Case(hide_errors=True, end_is_marked=False)
    passed = loop.run_until_complete(pass_on(pieces_of(data, places), case))
    assert passed.outcome is not None
    message = passed.message(case)
    assert message.whole
    assert message.body.count(b"[DONE]") == body.count(b"[DONE]")
    for line in message.body.replace(b"\r", b"\n").split(b"\n"):
        assert not (line.startswith(b"data: {") and b"leak" in line)
