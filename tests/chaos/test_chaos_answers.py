"""The client of the chaos runs takes nothing for complete that is not."""

from __future__ import annotations

import json

import pytest
from chaos_answers import Reading, Seen, read_error, read_stream, read_whole


def event(text: str, answer: str = "a") -> str:
    return "data: " + json.dumps({"id": answer, "choices": [{"delta": {"content": text}}]}) + "\n\n"


DONE = "data: [DONE]\n\n"
OPENING = "data: " + json.dumps({"id": "a", "choices": [{"delta": {"content": None}}]}) + "\n\n"
USAGE = "data: " + json.dumps({"id": "a", "choices": [], "usage": {}}) + "\n\n"
PLAIN = "data: " + json.dumps({"id": "a", "choices": [{"text": "one two"}]}) + "\n\n"
ERROR = 'data: {"error": {"message": "lost", "code": "all_attempts_failed"}}\n\n'


def stream(*parts: str, cut: bool = False, left: bool = False) -> Reading:
    return read_stream("".join(parts).encode(), "one two", cut=cut, left=left)


@pytest.mark.parametrize(
    "parts",
    [
        (event("one"), event(" two"), DONE),
        (": a comment\n\n", OPENING, event("one two"), USAGE, DONE),
        (PLAIN, DONE),
    ],
)
def test_a_whole_stream_is_complete(parts: tuple[str, ...]) -> None:
    assert stream(*parts) == Reading(Seen.COMPLETE)


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (DONE,),
        (event("one"), DONE),  # the rest is missing
        (event("one"), event(" two")),  # the end is missing
        (event("one"), event(" two"), DONE, event("three")),
        (event("one"), event(" two"), DONE, DONE),
        (event("one"), event(" three"), DONE),
        (event("one"), event("one"), event(" two"), DONE),
        (event("one"), event(" two", answer="b"), DONE),  # two answers in one
        (event("one"), event(" two")[:-9], DONE),
        (event("one"), event(" two"), DONE[:-1]),
        (event("one"), ERROR, event(" two"), DONE),
        ("data: nonsense\n\n", DONE),
    ],
)
def test_anything_else_is_wrong(parts: tuple[str, ...]) -> None:
    assert stream(*parts).seen is Seen.WRONG


def test_a_cut_is_wrong_also_where_it_hides_behind_done() -> None:
    assert stream(event("one two"), DONE, cut=True).seen is Seen.WRONG


def test_an_error_event_is_a_clear_end() -> None:
    assert stream(event("one"), ERROR) == Reading(Seen.BROKEN, "lost", "all_attempts_failed")
    assert stream(event("one"), ERROR, DONE).done_after_error
    assert stream(ERROR).first


def test_a_client_that_left_checks_what_came_until_then() -> None:
    assert stream(event("one"), event(" t")[:20], left=True) == Reading(Seen.LEFT)
    assert stream(event("two"), left=True).seen is Seen.WRONG


def test_an_answer_in_one_piece_is_read_to_the_word() -> None:
    def whole(text: str) -> bytes:
        return json.dumps({"choices": [{"message": {"content": text}}]}).encode()

    assert read_whole(whole("one"), "one", cut=False) == Reading(Seen.COMPLETE)
    assert read_whole(b'{"choices": [{"text": "one"}]}', "one", cut=False).seen is Seen.COMPLETE
    assert read_whole(whole("two"), "one", cut=False).seen is Seen.WRONG
    assert read_whole(whole("one")[:-1], "one", cut=False).seen is Seen.WRONG
    assert read_whole(whole("one")[:-1], "one", cut=True).seen is Seen.CUT


def test_an_error_has_the_shape_of_an_error() -> None:
    body = b'{"error": {"message": "no", "type": "t", "code": 503}}'
    assert read_error(503, body) == Reading(Seen.REFUSED, "no", "503")
    for other in (b"", b"[]", b'{"error": "no"}', b"<html>"):
        assert read_error(503, other).seen is Seen.WRONG
