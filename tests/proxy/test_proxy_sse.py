"""Server-sent events: passed on whole, read for an early error and for usage."""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise
from typing import Any

import pytest

from mvllm_router.proxy.sse import (
    LONGEST_HELD,
    EventCutter,
    ends_in_error,
    error_in_first_event,
    has_event,
    usage,
)

STREAM = (
    b": keepalive 1/3\n\n"
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    b":\n\n"
    b'event: content_block_delta\ndata: {"delta":{"text":"gr\xc3\xbc\xc3\x9fe \\n\\n"}}\n\n'
    b'id: 7\r\ndata: {"choices":[]}\r\n\r\n'
    b"data: two\ndata: lines\n\n"
    b"data: old\r\r"
    b"data: [DONE]\n\n"
)
ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *cuts, len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


def check_cut(pieces: list[bytes]) -> None:
    cutter = EventCutter()
    passed = [cutter.cut(piece) for piece in pieces]
    assert all(piece == b"" or piece.endswith(ENDS) for piece in passed), "half an event went out"
    assert b"".join(passed) + cutter.rest() == b"".join(pieces)


@pytest.mark.parametrize("first", range(len(STREAM) + 1))
def test_wherever_a_stream_is_split_only_whole_events_go_out(first: int) -> None:
    for second in range(first, len(STREAM) + 1, 3):
        check_cut(pieces_of(STREAM, [first, second]))


def test_also_in_any_number_of_pieces() -> None:
    draw = random.Random(2)
    for _ in range(500):
        check_cut(
            pieces_of(STREAM, sorted(draw.choices(range(len(STREAM)), k=draw.randint(1, 60))))
        )
    check_cut([bytes([byte]) for byte in STREAM])


@pytest.mark.parametrize("end", ENDS)
def test_an_event_goes_out_with_its_last_byte_and_not_before(end: bytes) -> None:
    cutter, event = EventCutter(), b'data: {"a":1}' + end
    for byte in event[:-1]:
        assert cutter.cut(bytes([byte])) == b""
    assert cutter.cut(event[-1:]) == event
    assert cutter.held == b""


def test_whole_events_go_out_at_once_and_the_begun_one_stays() -> None:
    cutter = EventCutter()
    assert cutter.cut(b"data: 1\n\ndata: 2\n\ndata: 3") == b"data: 1\n\ndata: 2\n\n"
    assert cutter.held == b"data: 3"
    assert cutter.cut(b"\n\n") == b"data: 3\n\n"
    assert cutter.rest() == b""


def test_a_comment_goes_out_at_once() -> None:
    assert EventCutter().cut(b":\n\n") == b":\n\n"


def test_what_a_stream_ends_with_is_not_lost() -> None:
    cutter = EventCutter()
    cutter.cut(b"data: 1\n\ndata: 2")
    assert cutter.rest() == b"data: 2"
    assert cutter.rest() == b""


def test_something_that_is_no_stream_of_events_is_not_held_for_ever() -> None:
    cutter, sent, passed = EventCutter(), 0, 0
    for _ in range(100):
        passed += len(cutter.cut(b"x" * 5000))
        sent += 5000
        assert sent - passed <= LONGEST_HELD
    assert passed + len(cutter.rest()) == sent


def test_an_event_that_is_as_long_as_may_be_stays_whole() -> None:
    cutter, event = EventCutter(), b"data: " + b"x" * (LONGEST_HELD - 8) + b"\n\n"
    assert cutter.cut(event[:-1]) == b""
    assert cutter.cut(event[-1:]) == event


class Watched(bytearray):
    """Counts the bytes in which an end was looked for."""

    searched = 0

    def rfind(self, *args: Any) -> int:  # type: ignore[override]
        self.searched += len(self) - args[1]
        return super().rfind(*args)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_what_is_held_is_not_searched_again_with_each_piece(size: int) -> None:
    cutter, event = EventCutter(), b"data: " + b"x" * 60_000 + b"\r\n\r\n"
    cutter.held = watched = Watched()
    pieces = [event[at : at + size] for at in range(0, len(event), size)]
    assert b"".join(cutter.cut(piece) for piece in pieces) == event
    assert watched.searched <= len(ENDS) * (len(event) + 3 * len(pieces))


def as_it_was_cut_at_first(pieces: list[bytes]) -> list[bytes]:
    """Do what a cutter does, in the plainest way."""
    passed, held = [], b""
    for piece in pieces:
        held += piece
        end = max(held.rfind(mark) + len(mark) if mark in held else 0 for mark in ENDS)
        end = len(held) if not end and len(held) > LONGEST_HELD else end
        passed.append(held[:end])
        held = held[end:]
    return passed


def test_each_piece_is_cut_as_if_all_were_searched() -> None:
    draw = random.Random(3)
    for _ in range(2000):
        stream = bytes(draw.choices(b"\r\nx", k=draw.randint(0, 40)))
        cuts = sorted(draw.choices(range(len(stream) + 1), k=draw.randint(0, 20)))
        cutter, pieces = EventCutter(), pieces_of(stream, cuts)
        assert [cutter.cut(piece) for piece in pieces] == as_it_was_cut_at_first(pieces)
    cutter, pieces = EventCutter(), [b"x" * 50_000, b"x" * 50_000, b"\n\n", b"\n\n" + b"y" * 99_999]
    assert [cutter.cut(piece) for piece in pieces] == as_it_was_cut_at_first(pieces)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", False), (b"data: 1\n", False), (b"a\r\n\r", False), (b"a\n\nb", True)]
    + [(b"data: 1" + end, True) for end in ENDS],
)
def test_the_end_of_an_event_is_known(data: bytes, expected: bool) -> None:
    assert has_event(data) is expected


@pytest.mark.parametrize("end", ENDS)
def test_an_end_is_also_found_where_a_former_search_ended_within_it(end: bytes) -> None:
    for searched in range(10 + len(end)):
        assert has_event(b"data: 1234" + end, searched)
    assert not has_event(b"data: 1234" + end + b"x" * 10, 10 + len(end) + 3)


# vLLM 0.32, a stream of a burst that is over its queue limit: HTTP 200, and then this.
BUSY = (
    b'data: {"error": {"message": "The engine is currently busy and cannot accept new requests. '
    b'Please try again later or on a different instance.", "type": "Service Unavailable", '
    b'"param": null, "code": 503}}\n\ndata: [DONE]\n\n'
)


def test_vllms_error_in_the_first_event_is_read() -> None:
    found = error_in_first_event(BUSY)
    assert found is not None
    code, text = found
    assert code == 503
    assert text == BUSY.split(b"\n", 1)[0]


@pytest.mark.parametrize(
    "data",
    [
        BUSY[: BUSY.index(b"\n\n") + 2],
        BUSY.replace(b"\n\n", b"\r\n\r\n"),
        BUSY.replace(b"\n\n", b"\r\r"),
        b"\n" + BUSY,
        BUSY.replace(b"data: ", b"data:"),
        BUSY.replace(b'": ', b'":'),
    ],
    ids=["alone", "crlf", "cr", "blank line first", "no space", "compact"],
)
def test_it_is_read_in_each_way_of_writing(data: bytes) -> None:
    found = error_in_first_event(data)
    assert found is not None
    assert found[0] == 503


@pytest.mark.parametrize(
    ("kind", "code"),
    [("overloaded_error", 503), ("rate_limit_error", 429), ("internal_error", 500)],
)
@pytest.mark.parametrize("name", [b"", b"event: error\n", b"event: error\r\n"])
def test_an_error_of_messages_has_a_type_for_its_code(kind: str, code: int, name: bytes) -> None:
    line = b'data: {"type":"error","error":{"type":"%b","message":"m"}}' % kind.encode()
    assert error_in_first_event(name + line + b"\n\n") == (code, line)
    assert ends_in_error(name + line + b"\n\n")


def content(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"data: [DONE]\n\n",
        b"data: \n\n",
        b":\n\n",
        content("error"),
        content('{"error": {"code": 503}}'),
        b'data: {"id":"x","error":null,"choices":[{"delta":{"content":"a"}}]}\n\n',
        b'data: {"error": "Unauthorized"}\n\n',
        b'data: {"error": {"message": "m", "code": "503"}}\n\n',
        b'data: {"error": {"message": "m"}}\n\n',
        b'data: {"error": \n\n',
        b'data: ["error", 503]\n\n',
        b'data: "error"\n\n',
        content("hello") + BUSY,
        b": keepalive\n\n" + BUSY,
        b'event: message_start\ndata: {"type":"message_start","message":{"error":null}}\n\n' + BUSY,
    ],
)
def test_what_only_looks_like_it_is_no_error_in_the_first_event(data: bytes) -> None:
    assert error_in_first_event(data) is None


CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":%b}\n\n'


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b'{"usage":{"prompt_tokens":10,"total_tokens":11,"completion_tokens":1}}', (10, 1)),
        (b'{ "usage" : { "prompt_tokens" : 10, "completion_tokens" : 0 } }', (10, 0)),
        (b'{"usage":{"prompt_tokens":12,"total_tokens":12}}', (12, 0)),
        (b'{"usage":{"completion_tokens":3}}', (0, 3)),
        (CHUNK % b'{"prompt_tokens":20,"completion_tokens":4}' + b"data: [DONE]\n\n", (20, 4)),
        (
            b'data: {"type":"message_delta","usage":{"input_tokens":8,"output_tokens":3}}\n\n',
            (8, 3),
        ),
        (
            b'"usage":{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":'
            b'{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}},"metrics":null}',
            (5, 7),
        ),
    ],
)
def test_usage_is_read_as_engines_write_it(tail: bytes, expected: tuple[int, int]) -> None:
    assert usage(tail) == expected


def test_the_last_usage_counts_where_it_is_repeated() -> None:
    events = [CHUNK % b'{"prompt_tokens":20,"completion_tokens":%d}' % count for count in range(5)]
    assert usage(b"".join(events)) == (20, 4)


def test_a_usage_of_null_after_it_changes_nothing() -> None:
    with_it = CHUNK % b'{"prompt_tokens":20,"completion_tokens":4}'
    assert usage(with_it + CHUNK % b"null") == (20, 4)


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"data: [DONE]\n\n",
        CHUNK % b"null",
        content('"usage": {"prompt_tokens": 1, "completion_tokens": 2}'),
        b'{"content":"{\\"usage\\":{\\"prompt_tokens\\":1}}"}',
        b'{"usage":{}}',
        b'{"usage":{"total_tokens":3}}',
        b'{"usage":{"prompt_tokens":null,"completion_tokens":null}}',
        b'{"my_usage":{"prompt_tokens":3}}',
    ],
)
def test_what_is_no_usage_is_not_taken_for_it(tail: bytes) -> None:
    assert usage(tail) is None


def test_a_number_of_absurd_length_does_no_harm() -> None:
    tail = b'"usage":{"prompt_tokens":%b,"completion_tokens":2}' % (b"9" * 5000)
    found = usage(tail)
    assert found is not None
    assert re.fullmatch("9+", str(found[0]))
    assert found[1] == 2
