"""Whether an answer goes to the client, is held back, or another server is asked."""

from __future__ import annotations

import pytest

from mvllm_router.proxy.sse import LONGEST_HELD
from mvllm_router.proxy.verdict import Verdict, judge

PASS, HOLD, MOVE = Verdict.PASS, Verdict.HOLD, Verdict.MOVE

DRAINING = (
    b'{"error":{"message":"cannot schedule new futures after shutdown",'
    b'"type":"InternalServerError","param":null,"code":500}}'
)


def event(code: int, message: str = "no") -> bytes:
    return b'data: {"error": {"message": "%b", "code": %d}}\n\n' % (message.encode(), code)


def verdict(
    status: int,
    data: bytes = b"",
    *,
    stream: bool = False,
    ended: bool = False,
    another: bool = True,
) -> tuple[Verdict, str]:
    return judge(status, stream, data, ended, lambda: another)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("stream", [True, False])
def test_a_server_that_cannot_now_is_left_for_another_one(status: int, stream: bool) -> None:
    assert verdict(status, stream=stream) == (MOVE, str(status))
    assert verdict(status, stream=stream, another=False) == (PASS, "")


@pytest.mark.parametrize(
    "status", [200, 201, 204, 301, 304, 400, 401, 403, 404, 405, 408, 413, 422, 501]
)
@pytest.mark.parametrize("data", [b"", b'{"error":{"code":503}}', DRAINING])
def test_any_other_answer_is_the_clients(status: int, data: bytes) -> None:
    for ended in (True, False):
        assert verdict(status, data, ended=ended) == (PASS, "")


def test_a_500_is_held_until_it_is_whole_and_then_the_clients() -> None:
    assert verdict(500, b'{"error":') == (HOLD, "")
    assert verdict(500) == (HOLD, "")
    assert verdict(500, b'{"error":"my fault"}', ended=True) == (PASS, "")
    assert verdict(500, b"x" * (LONGEST_HELD + 1)) == (PASS, "")


def test_a_500_of_a_server_that_drains_is_left_for_another_one() -> None:
    assert verdict(500, DRAINING[:-1]) == (HOLD, "")
    assert verdict(500, DRAINING, ended=True) == (MOVE, "draining")
    assert verdict(500, DRAINING, ended=True, another=False) == (PASS, "")


def test_a_stream_is_held_until_its_first_event_is_there() -> None:
    assert verdict(200, stream=True) == (HOLD, "")
    assert verdict(200, b'data: {"choices":[]}\n', stream=True) == (HOLD, "")
    assert verdict(200, b'data: {"choices":[]}\n\n', stream=True) == (PASS, "")
    assert verdict(200, b":\n\n", stream=True) == (PASS, "")
    assert verdict(200, b'data: {"choices":[]}', stream=True, ended=True) == (PASS, "")
    assert verdict(200, stream=True, ended=True) == (PASS, "")
    assert verdict(200, b"x" * (LONGEST_HELD + 1), stream=True) == (PASS, "")


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_a_stream_that_only_says_it_cannot_now_is_left_for_another_server(code: int) -> None:
    data = event(code) + b"data: [DONE]\n\n"
    assert verdict(200, data, stream=True) == (MOVE, f"{code} in the first event")
    assert verdict(200, data, stream=True, another=False) == (PASS, "")


def test_half_of_such_an_event_is_held() -> None:
    assert verdict(200, event(503)[:-1], stream=True) == (HOLD, "")


@pytest.mark.parametrize("code", [400, 404, 500, 501])
def test_a_stream_that_begins_with_another_error_is_the_clients(code: int) -> None:
    assert verdict(200, event(code), stream=True) == (PASS, "")


@pytest.mark.parametrize("code", [500, 0, 99999])
def test_a_stream_of_a_server_that_drains_is_left_under_one_name(code: int) -> None:
    data = event(code, "cannot schedule new futures after shutdown")
    assert verdict(200, data, stream=True) == (MOVE, "draining")
    assert verdict(200, data, stream=True, another=False) == (PASS, "")


def test_an_event_that_is_no_stream_is_not_read() -> None:
    assert verdict(200, event(503)) == (PASS, "")


def test_an_error_after_the_first_event_comes_too_late() -> None:
    data = b'data: {"choices":[]}\n\n' + event(503)
    assert verdict(200, data, stream=True) == (PASS, "")


@pytest.mark.parametrize(
    ("status", "stream", "data"),
    [(200, False, b"{}"), (200, True, b"data: 1\n\n"), (404, False, b""), (500, False, b"no")],
)
def test_other_servers_are_looked_for_only_when_one_is_needed(
    status: int, stream: bool, data: bytes
) -> None:
    def another() -> bool:
        raise AssertionError("nobody asked")

    assert judge(status, stream, data, True, another) == (PASS, "")
