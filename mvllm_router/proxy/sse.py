"""Server-sent events as bytes: whole events only, the first one's error, the usage figures."""

from __future__ import annotations

import json
import re

# A stream without any event end in this many bytes is passed on as it comes.
LONGEST_HELD = 65536

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_OVERLAP = max(map(len, _ENDS)) - 1  # bytes of an end that may have come before the rest of it
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR_AT_END = re.compile(
    rb'(?:^|[\r\n])data: ?\{ ?(?:"type": ?)?"error"[^\r\n]*[\r\n]*'
    rb"(?:data: ?\[DONE\][\r\n]*)?\Z"
)
_FIRST_DATA = re.compile(rb"\s*(?:event:[^\r\n]{0,100}(?:\r\n|\r|\n))?(data:[^\r\n]*)")
# The kinds of errors that messages (the API of Anthropic) have in the place of a status.
_STATUS_OF_TYPE = {"overloaded_error": 503, "rate_limit_error": 429, "timeout_error": 504}
_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,15})')
_COMPLETION_TOKENS = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,15})')


def has_event(data: bytes | bytearray, since: int = 0) -> bool:
    """Tell whether `data` has the end of an event in it; its first `since` bytes have none."""
    begin = max(0, since - _OVERLAP)
    return any(data.find(mark, begin) >= 0 for mark in _ENDS)


def ends_event(data: bytes) -> bool:
    """Tell whether `data` ends where an event ends; nothing at all does."""
    return not data or data.endswith(_ENDS)


class EventCutter:
    """Passes whole events on and keeps a half one back until the rest of it is here.

    So a client never gets half an event when a server dies, and an error event can be put
    in between. Nothing is delayed by it: half an event is of no use to anybody.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = bytearray()  # no event ends in it

    def cut(self, data: bytes) -> bytes:
        """Return all that can be passed on now; it ends with the end of an event.

        What is held is not looked at again, nor copied: its event may come byte by byte.
        """
        held = self.held
        if not held and data.endswith(b"\n\n"):
            return data
        searched = max(0, len(held) - _OVERLAP)
        held += data
        end = _last_end(held, searched)
        if not end:
            return self.rest() if len(held) > LONGEST_HELD else b""
        passed = bytes(held[:end])
        del held[:end]
        return passed

    def rest(self) -> bytes:
        """Return what was held, at the stream's own end."""
        held, self.held = self.held, bytearray()
        return bytes(held)


def _last_end(data: bytes | bytearray, begin: int) -> int:
    """Return where the last event ends whose end begins at `begin` or later; 0 if none does."""
    end = 0
    for mark in _ENDS:
        at = data.rfind(mark, begin)
        if at >= 0 and at + len(mark) > end:
            end = at + len(mark)
    return end


def error_in_first_event(data: bytes | bytearray) -> tuple[int, bytes] | None:
    """Return (code, text) if the first event of `data` is an error and nothing else.

    vLLM tells some clients that it is busy by a 200 whose only event says 503. The errors of
    messages have a type and no code.
    """
    found = _FIRST_DATA.match(data)
    if found is None or b'"error"' not in found[1][:64]:
        return None
    line = bytes(found[1])
    try:
        document = json.loads(line[len(b"data:") :])
    except (ValueError, RecursionError):
        return None
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return None
    code, kind = error.get("code"), error.get("type")
    if code is None and document.get("type") == "error" and isinstance(kind, str):
        code = _STATUS_OF_TYPE.get(kind, 500)
    return (code, line) if isinstance(code, int) else None


def ends_in_error(tail: bytes) -> bool:
    """Tell whether a stream ended with an error event of the server's own.

    Args:
        tail: its last events, whole ones; some servers send [DONE] after the error.
    """
    return b'"error"' in tail and _ERROR_AT_END.search(tail) is not None


def usage(tail: bytes) -> tuple[int, int] | None:
    """Return (prompt tokens, completion tokens) from the last usage object of an answer.

    Args:
        tail: the last bytes of a JSON answer or of a stream.
    """
    last = len(tail)
    while True:  # some engines repeat it in each event, and end with one that is null
        last = tail.rfind(b'"usage"', 0, last)
        if last < 0:
            return None
        if _USAGE.match(tail, last):
            break
    prompt = _PROMPT_TOKENS.search(tail, last)
    completion = _COMPLETION_TOKENS.search(tail, last)
    if prompt is None and completion is None:
        return None
    return (int(prompt[1]) if prompt else 0, int(completion[1]) if completion else 0)
