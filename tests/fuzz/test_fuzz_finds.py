"""What fuzzing has found, each as the smallest case."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from fuzz_checks import check_config, check_judging, check_path, read_config
from fuzz_exchange import Case, Passed, pass_on
from fuzz_fakes import answered

from mvllm_router.config import ConfigError
from mvllm_router.proxy import hidden, sse
from mvllm_router.proxy.failure import Failure
from mvllm_router.proxy.inspect import with_model
from mvllm_router.proxy.routes import relayed

ERROR = b'data: {"error": {"message": "leak"}}'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def passed(loop: asyncio.AbstractEventLoop, data: bytes, case: Case) -> Passed:
    return loop.run_until_complete(pass_on([data], case))


def test_a_trailer_without_end_is_no_answer() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: "
    told = answered([head, *[b"y" * 65536] * 3], end="open")
    assert told.body == b"hi"
    assert told.failure is Failure.GARBAGE


def test_an_answer_that_switches_protocols_is_said_to_do_that() -> None:
    told = answered([b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"])
    assert told.detail == "it switches to another protocol"


def test_control_characters_in_a_reason_do_not_reach_a_client(
    loop: asyncio.AbstractEventLoop,
) -> None:
    data = b"HTTP/1.1 200 \x00O\x1b\x7fK\tthen\r\ncontent-length: 0\r\n\r\n"
    assert passed(loop, data, Case()).message(Case()).start == b"HTTP/1.1 200 OK\tthen"


@pytest.mark.parametrize("status", [500, 503])
def test_a_hidden_error_has_no_body_for_who_asked_by_head(
    status: int, loop: asyncio.AbstractEventLoop
) -> None:
    data = b"HTTP/1.1 %d X\r\ncontent-length: 4\r\n\r\n" % status
    got = passed(loop, data, Case(is_head=True, hide_errors=True))
    assert got.transport.written.endswith(b"\r\n\r\n")
    assert b"server failed" not in got.transport.written


def test_a_hidden_error_event_does_not_break_a_length_that_was_told(
    loop: asyncio.AbstractEventLoop,
) -> None:
    body = ERROR + b"\n\n" + b"data: [DONE]\n\n"
    data = STREAM + b"content-length: %d\r\n\r\n" % len(body) + body
    case = Case(hide_errors=True)
    message = passed(loop, data, case).message(case)
    assert message.whole
    assert message.body == hidden.events(body) != body


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_error_event_is_hidden_whatever_its_lines_end_with(end: bytes) -> None:
    before, after = b"data: 1" + end * 2, end * 2 + b"data: 2" + end * 2
    shown = hidden.events(before + ERROR + after)
    assert b"leak" not in shown
    assert shown.startswith(before + b"data: {")
    assert shown.endswith(b"}}" + after)


def test_a_first_event_that_is_nested_without_end_is_no_error() -> None:
    check_judging(b'data: {"error": ' + b"[" * 5000 + b"\n\n", ended=True, moves=True)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (ERROR + b"\n\n", True),
        (b"data: 1\n\n" + ERROR + b"\r\n\r\ndata: [DONE]\r\n\r\n", True),
        (ERROR + b"\n\ndata: 1\n\n", False),
        (ERROR + b"\n\ndata: 1\n\ndata: [DONE]\n\n", False),
    ],
)
def test_an_error_event_counts_for_a_stream_only_at_its_end(stream: bytes, expected: bool) -> None:
    assert sse.ends_in_error(stream) is expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1/%252e%252e/metrics",
        "/v1/%25%32%65%25%32%65/metrics",
        "/v1/x%252f..%252f..%252fmetrics",
        "/v1/..#x",
        "/v1/x#/../../metrics",
    ],
)
def test_a_path_that_leads_out_of_v1_on_second_sight_is_not_relayed(path: str) -> None:
    assert relayed(path) is None
    check_path(path)


def test_a_path_that_is_encoded_without_end_is_not_decoded_without_end() -> None:
    assert relayed("/v1/%" + "25" * 8000) is None


def test_a_form_that_says_its_model_twice_gets_another_name_twice() -> None:
    part = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nalias\r\n'
    assert with_model(part * 2, "own") == part.replace(b"alias", b"own") * 2


def test_a_scheme_that_would_steer_a_terminal_is_escaped() -> None:
    check_config('[[servers]]\nurl = "\\u009b31mx://a"\n')
    check_config('[[servers]]\nurl = "\u009b31mx://a"\n')


@pytest.mark.parametrize(
    "text",
    [
        '[config]\ntls_cert = "\\u0000"\ntls_key = "x"',
        '[[servers]]\nurl = "https://a"\ntls_ca = "\\u0000"',
    ],
)
def test_a_path_that_no_file_can_have_is_a_problem(text: str) -> None:
    assert isinstance(read_config(text), ConfigError)
