"""Whether an answer goes to the client, is held back, or another server is asked."""

from __future__ import annotations

import pytest

from mvllm_router.proxy.attempts import Trouble
from mvllm_router.proxy.sse import LONGEST_HELD
from mvllm_router.proxy.verdict import Judgement, Verdict, how_it_ended, judge

PASS = (Verdict.PASS, None, "")
HOLD = (Verdict.HOLD, None, "")

DRAINING = (
    b'{"error":{"message":"cannot schedule new futures after shutdown",'
    b'"type":"InternalServerError","param":null,"code":500}}'
)
DIED = (
    b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root '
    b'cause.","type":"InternalServerError","param":null,"code":500}}'
)
CANNOT_NOW = [
    (429, Trouble.BUSY),
    (502, Trouble.BROKEN),
    (503, Trouble.BUSY),
    (504, Trouble.LATE),
]


def event(code: int, message: str = "no") -> bytes:
    return b'data: {"error": {"message": "%b", "code": %d}}\n\n' % (message.encode(), code)


def moved(trouble: Trouble, reason: str) -> Judgement:
    return Verdict.MOVE, trouble, reason


def passed(trouble: Trouble, reason: str) -> Judgement:
    return Verdict.PASS, trouble, reason


class Decider:
    """Says whether there is another attempt, and keeps what it was asked for."""

    def __init__(self, may: bool) -> None:
        self.may = may
        self.asked: list[Trouble] = []

    def __call__(self, trouble: Trouble) -> bool:
        self.asked.append(trouble)
        return self.may


def verdict(
    status: int,
    data: bytes = b"",
    *,
    stream: bool = False,
    ended: bool = False,
    another: bool = True,
) -> Judgement:
    """Return the judgement; where there is trouble another attempt is asked for, and only once."""
    decider = Decider(another)
    found = judge(status, stream, data, ended, decider)
    assert decider.asked == ([] if found[1] is None else [found[1]])
    return found


@pytest.mark.parametrize(("status", "trouble"), CANNOT_NOW)
@pytest.mark.parametrize("stream", [True, False])
def test_a_server_that_cannot_now_is_left_for_another_one(
    status: int, trouble: Trouble, stream: bool
) -> None:
    assert verdict(status, stream=stream) == moved(trouble, str(status))


@pytest.mark.parametrize(("status", "trouble"), CANNOT_NOW)
def test_what_must_be_passed_on_keeps_its_trouble_for_the_servers_record(
    status: int, trouble: Trouble
) -> None:
    assert verdict(status, another=False) == passed(trouble, str(status))


@pytest.mark.parametrize(
    "status", [200, 201, 204, 301, 304, 400, 401, 403, 404, 405, 408, 413, 422, 501]
)
@pytest.mark.parametrize("data", [b"", b'{"error":{"code":503}}', DRAINING, DIED])
def test_any_other_answer_is_the_clients(status: int, data: bytes) -> None:
    for ended in (True, False):
        expected = PASS if data or ended else HOLD  # its body may be in the next read
        assert verdict(status, data, ended=ended) == expected


def test_a_500_is_held_until_it_is_whole_and_then_the_clients() -> None:
    assert verdict(500, b'{"error":') == HOLD
    assert verdict(500) == HOLD
    assert verdict(500, b'{"error":"my fault"}', ended=True) == PASS
    assert verdict(500, b"x" * (LONGEST_HELD + 1)) == PASS


@pytest.mark.parametrize(
    ("body", "trouble", "reason"),
    [(DRAINING, Trouble.LEAVING, "draining"), (DIED, Trouble.DIED, "engine died")],
    ids=["draining", "died"],
)
def test_a_500_of_a_server_that_leaves_or_whose_engine_died_is_left_for_another_one(
    body: bytes, trouble: Trouble, reason: str
) -> None:
    assert verdict(500, body[:-1]) == HOLD
    assert verdict(500, body, ended=True) == moved(trouble, reason)
    assert verdict(500, body, ended=True, another=False) == passed(trouble, reason)


def test_a_stream_is_held_until_its_first_event_is_there() -> None:
    assert verdict(200, stream=True) == HOLD
    assert verdict(200, b'data: {"choices":[]}\n', stream=True) == HOLD
    assert verdict(200, b'data: {"choices":[]}\n\n', stream=True) == PASS
    assert verdict(200, b":\n\n", stream=True) == PASS
    assert verdict(200, b'data: {"choices":[]}', stream=True, ended=True) == PASS
    assert verdict(200, stream=True, ended=True) == PASS
    assert verdict(200, b"x" * (LONGEST_HELD + 1), stream=True) == PASS


@pytest.mark.parametrize(("code", "trouble"), CANNOT_NOW)
def test_a_stream_that_only_says_it_cannot_now_is_left_for_another_server(
    code: int, trouble: Trouble
) -> None:
    data, reason = event(code) + b"data: [DONE]\n\n", f"{code} in the first event"
    assert verdict(200, data, stream=True) == moved(trouble, reason)
    assert verdict(200, data, stream=True, another=False) == passed(trouble, reason)


DONE = b"data: [DONE]\n\n"
OPENING = (
    b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""},'
    b'"logprobs":null,"finish_reason":null}],"prompt_text":null}\n\n'
)
ABORTED = b'{"choices":[{"index":0,"text":"","finish_reason":"abort","stop_reason":null}]}'


@pytest.mark.parametrize(
    "data",
    [DONE, b"data:[DONE]\r\n\r\n", b"\n" + DONE, OPENING + DONE],
    ids=["alone", "crlf", "after a newline", "after the role"],
)
def test_a_stream_that_ends_before_it_has_said_anything_is_left_for_another_server(
    data: bytes,
) -> None:
    """vLLM was seen to end the streams that wait in it so, with a 200, when it is told to stop."""
    assert verdict(200, data, stream=True) == moved(Trouble.BROKEN, "empty stream")
    passed_on = passed(Trouble.BROKEN, "empty stream")
    assert verdict(200, data, stream=True, ended=True, another=False) == passed_on


@pytest.mark.parametrize(
    "data",
    [
        OPENING,
        b'data: {"choices":[]}\n\n' + DONE,
        OPENING + b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n' + DONE,
        OPENING.replace(b'"content":""', b'"content":"data: [DONE]"') + DONE,
    ],
    ids=["role", "other event", "no words", "words"],
)
def test_a_stream_that_has_said_something_is_the_clients(data: bytes) -> None:
    assert verdict(200, data, stream=True, ended=True) == PASS


def test_an_answer_that_its_server_aborted_is_left_for_another_one() -> None:
    assert verdict(200, ABORTED, ended=True) == moved(Trouble.BROKEN, "aborted")
    assert verdict(200, ABORTED, ended=True, another=False) == passed(Trouble.BROKEN, "aborted")
    said = ABORTED.replace(b'"text":""', b'"text":"a \\"finish_reason\\":\\"abort\\""')
    assert verdict(200, said.replace(b'"abort",', b'"stop",'), ended=True) == PASS


def test_half_of_such_an_event_is_held() -> None:
    assert verdict(200, event(503)[:-1], stream=True) == HOLD


@pytest.mark.parametrize("code", [400, 404, 500, 501])
def test_a_stream_that_begins_with_another_error_is_the_clients(code: int) -> None:
    assert verdict(200, event(code), stream=True) == PASS


@pytest.mark.parametrize("code", [500, 0, 99999])
@pytest.mark.parametrize(
    ("message", "trouble", "reason"),
    [
        ("cannot schedule new futures after shutdown", Trouble.LEAVING, "draining"),
        ("EngineCore encountered an issue.", Trouble.DIED, "engine died"),
    ],
    ids=["draining", "died"],
)
def test_a_stream_of_a_server_that_leaves_or_died_is_left_under_one_name(
    code: int, message: str, trouble: Trouble, reason: str
) -> None:
    data = event(code, message)
    assert verdict(200, data, stream=True) == moved(trouble, reason)
    assert verdict(200, data, stream=True, another=False) == passed(trouble, reason)


def test_an_event_that_is_no_stream_is_not_read() -> None:
    assert verdict(200, event(503)) == PASS


def test_an_error_after_the_first_event_comes_too_late() -> None:
    data = b'data: {"choices":[]}\n\n' + event(503)
    assert verdict(200, data, stream=True) == PASS


def test_the_reasons_are_few_since_they_are_labels_of_a_metric() -> None:
    reasons = set()
    for code in range(400, 600):
        for status, data in ((code, b""), (200, event(code, "after shutdown " + "x" * code))):
            found = judge(status, status == 200, data, True, lambda _: True)
            reasons.add(found[2])
    assert len(reasons) <= 12


@pytest.mark.parametrize("done", [b"", b"data: [DONE]\n\n"])
def test_a_stream_that_its_server_aborted_on_the_way_is_no_success(done: bytes) -> None:
    last = b'data: {"choices":[{"delta":{"content":""},"finish_reason":"abort"}]}\n\n'
    assert how_it_ended(last + done) == (Trouble.BROKEN, "aborted")
    said = last.replace(b'"content":""', b'"content":"\\"finish_reason\\":\\"abort\\""')
    assert how_it_ended(said.replace(b'"abort"}', b'"stop"}') + done) == (None, "")


def test_what_was_searched_for_an_event_is_not_searched_again() -> None:
    begun = b"data: 1\n\n" + b"x" * 100
    assert judge(200, True, begun, False, Decider(True), searched=len(begun)) == HOLD
    assert judge(200, True, begun + b"\n\n", False, Decider(True), searched=len(begun)) == PASS


@pytest.mark.parametrize("content", [b'""', b"null"])
def test_a_role_alone_is_held_until_a_token_or_the_end_follows(content: bytes) -> None:
    """What vLLM aborts ends behind it, and that may come in another read."""
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":%b}}]}\n\n' % content
    token = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    assert verdict(200, role, stream=True) == HOLD
    assert verdict(200, role + token[:-9], stream=True) == PASS
    assert verdict(200, role + token, stream=True) == PASS
    assert verdict(200, role, stream=True, ended=True) == PASS
    done = role + b"data: [DONE]\n\n"
    assert verdict(200, done, stream=True) == moved(Trouble.BROKEN, "empty stream")
    assert verdict(200, b"\n" * (LONGEST_HELD + 1), stream=True) == PASS
