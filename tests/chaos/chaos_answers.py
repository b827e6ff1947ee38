"""Reads an answer as a strict client would, and says what it is. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

_EVENT_END = b"\n\n"


class Seen(str, Enum):
    """What a client saw of one request."""

    COMPLETE = "complete"  # all of it and nothing else
    REFUSED = "error before the first byte"
    BROKEN = "error in the stream"
    CUT = "cut, and the framing shows it"  # all that HTTP has for an answer that is no stream
    LEFT = "left"  # the client did, and nothing was wrong until then
    WRONG = "wrong"  # what no client may ever see


@dataclass(frozen=True)
class Reading:
    """What was seen.

    Attributes:
        detail: in words; of an error its message.
        code: of an error.
        first: the error is the first event of its stream.
        done_after_error: [DONE] follows the error.
    """

    seen: Seen
    detail: str = ""
    code: str = ""
    first: bool = False
    done_after_error: bool = False


# As if the engine had said that another one may do.
_ABORTED_AT_ONCE = Reading(Seen.BROKEN, "aborted", code="503", first=True)


def wrong(detail: str) -> Reading:
    return Reading(Seen.WRONG, detail)


def read_error(status: int, body: bytes) -> Reading:
    """Read an answer that is not 200: it must have OpenAI's shape."""
    try:
        error = json.loads(body)["error"]
        return Reading(Seen.REFUSED, str(error["message"]), str(error["code"]))
    except (ValueError, KeyError, TypeError):
        return wrong(f"status {status} with a body that is no error: {body[:200]!r}")


def read_whole(body: bytes, expected: str, *, cut: bool) -> Reading:
    """Read the body of a 200. `cut`: the connection ended before the framing said so."""
    if cut:
        return Reading(Seen.CUT, f"after {len(body)} bytes")
    try:
        (choice,) = json.loads(body)["choices"]
    except (ValueError, KeyError, TypeError):
        return wrong(f"200 with a body that is no answer: {body[:200]!r}")
    if choice.get("finish_reason") == "abort":
        return _ABORTED_AT_ONCE
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return Reading(Seen.COMPLETE) if text == expected else wrong(_differs(text, expected))


def read_stream(body: bytes, expected: str, *, cut: bool, left: bool = False) -> Reading:
    """Read the body of a stream.

    Args:
        expected: the text of the whole answer.
        cut: the connection ended before the framing said so.
        left: the client left before the end, so that anything whole that came may be all.
    """
    *events, rest = body.split(_EVENT_END)
    parts = [line for line in (_data(event) for event in events) if line is not None]
    text, end, ids = "", "", set[str]()
    for number, part in enumerate(parts):
        if part == "[DONE]" or part.startswith('{"error"'):
            end, after = part, parts[number + 1 :]
            break
        try:
            text += _piece(part, ids)
        except (ValueError, KeyError, TypeError, IndexError):
            return wrong(f"event {number} is none: {part[:200]!r}")
    if len(ids) > 1:
        return wrong(f"events of several answers: {sorted(ids)}")
    if not expected.startswith(text):
        return wrong(_differs(text, expected))
    if left:
        return Reading(Seen.LEFT)
    if rest or cut or not end:
        how = "cut" if cut else "ended"
        return wrong(f"{how} without [DONE] or an error after {len(events)} events, {rest[:80]!r}")
    if end != "[DONE]":
        return _broken(end, after, first=not number)
    if not text and expected and not after and len(parts) == 2:
        return _ABORTED_AT_ONCE
    if not after and len(parts) > 1 and '"finish_reason":"abort"' in parts[-2]:
        return Reading(Seen.BROKEN, "aborted", done_after_error=True)
    if after or text != expected:
        return wrong(f"[DONE] comes too early: {after[:1]!r} {_differs(text, expected)}")
    return Reading(Seen.COMPLETE)


def _data(event: bytes) -> str | None:
    """Return the data of an event; None for a comment."""
    line = event.decode()
    return None if line.startswith(":") else line.removeprefix("data: ")


def _piece(part: str, ids: set[str]) -> str:
    """Return the text of one event and note which answer it belongs to."""
    event: dict[str, Any] = json.loads(part)
    ids.add(event["id"])
    if not event["choices"]:
        return ""
    (choice,) = event["choices"]
    return (choice["delta"].get("content") if "delta" in choice else choice["text"]) or ""


def _broken(event: str, after: list[str], *, first: bool) -> Reading:
    if after not in ([], ["[DONE]"]):
        return wrong(f"more came after the error: {after[0][:200]!r}")
    error = json.loads(event)["error"]
    return Reading(Seen.BROKEN, str(error["message"]), str(error["code"]), first, bool(after))


def _differs(text: str, expected: str) -> str:
    place = next((i for i, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), -1)
    place = min(len(text), len(expected)) if place < 0 else place
    here = slice(max(0, place - 20), place + 20)
    return f"character {place}: {text[here]!r} in place of {expected[here]!r} (of {len(expected)})"
