"""Server-sent events as bytes: whole events only, the first one's error, the usage figures."""

from __future__ import annotations

import json
import re

# A stream without any event end in this many bytes is passed on as it comes.
LONGEST_HELD = 65536

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,15})')
_COMPLETION_TOKENS = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,15})')


def has_event(data: bytes) -> bool:
    """Tell whether `data` has the end of an event in it."""
    return any(mark in data for mark in _ENDS)


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
        self.held = b""

    def cut(self, data: bytes) -> bytes:
        """Return all that can be passed on now; it ends with the end of an event."""
        if not self.held and data.endswith(b"\n\n"):
            return data
        data = self.held + data
        end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _ENDS)
        if not end and len(data) > LONGEST_HELD:
            end = len(data)
        self.held = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """Return what was held, at the stream's own end."""
        held, self.held = self.held, b""
        return held


def error_in_first_event(data: bytes) -> tuple[int, bytes] | None:
    """Return (code, text) if the first event of `data` is an error and nothing else.

    vLLM tells some clients that it is busy by a 200 whose only event says 503.
    """
    event = data.lstrip()
    if not event.startswith(b"data:") or b'"error"' not in event[:64]:
        return None
    line = re.split(rb"\r\n|\r|\n", event, maxsplit=1)[0]
    try:
        document = json.loads(line[len(b"data:") :])
    except ValueError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return (code, line) if isinstance(code, int) else None


def usage(tail: bytes) -> tuple[int, int] | None:
    """Return (prompt tokens, completion tokens) from the last usage object of an answer.

    Args:
        tail: the last bytes of a JSON answer or of a stream.
    """
    begins = [found.end() for found in _USAGE.finditer(tail)]
    if not begins:
        return None
    last = begins[-1]  # some engines repeat it in each event
    prompt = _PROMPT_TOKENS.search(tail, last)
    completion = _COMPLETION_TOKENS.search(tail, last)
    if prompt is None and completion is None:
        return None
    return (int(prompt[1]) if prompt else 0, int(completion[1]) if completion else 0)
