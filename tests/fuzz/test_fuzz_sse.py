"""Streams of events pass whole and unchanged, whatever is in them and however they are read."""

from __future__ import annotations

import pytest
from fuzz_checks import LINE_END, MARKS, check_cutting, check_hiding, check_judging
from fuzz_corpus import STREAMS
from fuzz_inputs import cuts, event_streams, examples, json_values, mutated, pieces_of
from hypothesis import given
from hypothesis import strategies as st

from mvllm_router.proxy import sse

real_streams = st.sampled_from(sorted(STREAMS.values()))
line_ends = st.sampled_from((b"\n", b"\r\n", b"\r"))
mixtures = st.lists(st.sampled_from((b"a", b"data: x", b"\n", b"\r", b"\r\n", b"\n\n"))).map(
    b"".join
)


def _with_ends(stream: bytes, end: bytes) -> bytes:
    return LINE_END.sub(end, stream)


streams = st.one_of(
    real_streams,
    st.builds(_with_ends, real_streams, line_ends),
    event_streams,
    mixtures,
    mutated(real_streams),
    st.binary(max_size=60),
)


@examples(500)
@given(streams, cuts)
def test_no_byte_is_lost_and_only_whole_events_pass_each_with_its_last_byte(
    stream: bytes, places: list[int]
) -> None:
    check_cutting(stream, pieces_of(stream, places))


@examples(300)
@given(streams, cuts)
def test_what_has_passed_does_not_depend_on_the_reads(stream: bytes, places: list[int]) -> None:
    one, other = sse.EventCutter(), sse.EventCutter()
    whole = one.cut(stream)
    pieces = b"".join([other.cut(piece) for piece in pieces_of(stream, places)])
    assert whole.rstrip(b"\r\n") == pieces.rstrip(b"\r\n")
    assert one.held.lstrip(b"\r\n") == other.held.lstrip(b"\r\n")


@examples(200)
@given(streams, st.integers(0, 0xFFFF))
def test_the_first_event_is_found_as_soon_as_it_is_whole(stream: bytes, at: int) -> None:
    at %= len(stream) + 1
    assert sse.has_event(stream) == any(mark in stream for mark in MARKS)
    if not sse.has_event(stream[:at]):
        assert sse.has_event(stream, at) == sse.has_event(stream)
    assert sse.ends_event(stream) == (stream == b"" or stream.endswith(MARKS))


class Counting(bytearray):
    """Bytes that count how many of them are looked at."""

    looked_at = 0

    def rfind(self, mark: object, begin: int = 0, *_: object) -> int:  # type: ignore[override]
        self.looked_at += len(self) - begin
        return super().rfind(mark, begin)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1000, 60_000])
def test_each_byte_of_an_event_that_comes_byte_by_byte_is_looked_at_a_few_times(size: int) -> None:
    cutter = sse.EventCutter()
    cutter.held = held = Counting()
    for _ in range(size):
        assert cutter.cut(b"x") == b""
    assert len(held) == size
    assert held.looked_at <= 12 * size


@examples(100)
@given(st.integers(0, 200), st.sampled_from(MARKS), cuts)
def test_what_is_held_is_bounded(more: int, mark: bytes, places: list[int]) -> None:
    cutter = sse.EventCutter()
    stream = b"x" * (sse.LONGEST_HELD - 100 + more) + mark
    passed = b""
    for piece in pieces_of(stream, [-2] if places == [-1] else places):
        passed += cutter.cut(piece)
        assert len(cutter.held) <= sse.LONGEST_HELD
    assert (passed + cutter.rest()) == stream


error_events = st.builds(
    b"data: %b%b".__mod__,
    st.tuples(
        st.one_of(
            st.just(b'{"error": {"code": 503, "message": "busy"}}'),
            st.builds(
                lambda code: f'{{"error": {{"code": {code}}}}}'.encode(),
                st.one_of(st.integers(), st.floats(), st.text(max_size=4), st.booleans()),
            ),
            json_values.map(lambda value: f'{{"error": {value!r}}}'.encode("utf-8", "replace")),
            st.integers(1, 5000).map(lambda depth: b'{"error": ' + b"[" * depth),
            st.integers(1, 6000).map(lambda digits: b'{"error": {"code": ' + b"9" * digits + b"}}"),
        ),
        st.sampled_from((b"\n\n", b"\r\n\r\n", b"\r\r", b"")),
    ),
)


@examples(300)
@given(st.one_of(streams, error_events, mutated(error_events)), st.booleans(), st.booleans())
def test_a_first_event_is_judged_whatever_it_holds(data: bytes, ended: bool, moves: bool) -> None:
    check_judging(data, ended=ended, moves=moves)


@pytest.mark.parametrize("name", STREAMS)
def test_only_the_stream_that_begins_with_an_error_is_taken_for_one(name: str) -> None:
    found = sse.error_in_first_event(STREAMS[name])
    assert (found and found[0]) == (503 if name == "vllm-burst-503-in-first-event" else None)


# Prompt and completion tokens, as the servers said them last.
FIGURES = {
    "llama-server-chat-stream-usage": (15, 4),
    "llama-server-pings": (1802, 2),
    "llama-server-responses-stream": (12, 3),
    "mlx-chat-stream": (12, 3),
    "vllm-chat-n2-stream": (20, 4),
    "vllm-chat-stream": None,
    "vllm-chat-stream-continuous-usage": (20, 4),
    "vllm-completion-stream": (2, 4),
    "vllm-messages-stream": (8, 3),
    "vllm-responses-stream": (8, 3),
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_figures_of_real_streams_are_read(name: str) -> None:
    assert sse.usage(STREAMS[name]) == FIGURES[name]


@examples(300)
@given(streams)
def test_hiding_errors_changes_nothing_but_error_events(stream: bytes) -> None:
    check_hiding(stream)
