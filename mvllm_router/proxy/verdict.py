"""Decides, as an answer begins, whether it goes to the client or another server is asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

from mvllm_router.proxy.attempts import Trouble
from mvllm_router.proxy.sse import LONGEST_HELD, ends_in_error, error_in_first_event, has_event

# The server says that it is not able to take the request now, or something before it does.
MOVES_ON = {
    429: Trouble.BUSY,
    502: Trouble.BROKEN,
    503: Trouble.BUSY,
    504: Trouble.LATE,
}
# vLLM says the first with a 500 while it drains, and its /health stays good; the second when
# its engine has died. Any other 500 may have been caused by the request itself: moving it on
# would let one bad request fell one server after the other.
_SAID_WITH_500 = {
    b"after shutdown": (Trouble.LEAVING, "draining"),
    b"EngineCore encountered an issue": (Trouble.DIED, "engine died"),
}
# What vLLM makes, with a 200, of requests that wait in it when it is told to stop: a stream that
# ends before it has said more than its role, and an answer in one piece that it has aborted.
_ROLE = rb'\s*(data: ?[^\n]*"delta": ?{"role": ?"assistant", ?"content": ?(""|null)}[^\n]*\n\n)?'
_SAYS_NOTHING = re.compile(_ROLE + rb"data: ?\[DONE\]")
_SAYS_NOTHING_YET = re.compile(_ROLE)
_ABORTED = b'"finish_reason":"abort"'


class Verdict(Enum):
    """PASS it to the client, HOLD it until more is known, or MOVE to another server."""

    PASS = "pass"
    HOLD = "hold"
    MOVE = "move"


# The verdict; for what is wrong with the answer also which trouble and the reason, of which
# there are few: they are labels of a metric. An answer with trouble is passed on if it must.
Judgement = tuple[Verdict, "Trouble | None", str]

_HOLD: Judgement = (Verdict.HOLD, None, "")
_PASS: Judgement = (Verdict.PASS, None, "")


def judge(
    status: int,
    is_event_stream: bool,
    data: bytes | bytearray,
    ended: bool,
    may_move: Callable[[Trouble], bool],
    *,
    searched: int = 0,
) -> Judgement:
    """Return the verdict.

    Args:
        status: the HTTP status of the answer.
        is_event_stream: its content type is text/event-stream.
        data: all of its body so far.
        ended: that is the whole body.
        may_move: asks for another attempt; it is called only when one is needed, at most once.
        searched: so many bytes were there at the last call, which said HOLD.
    """
    if status in MOVES_ON:
        return _moved(MOVES_ON[status], str(status), may_move)
    if not data and not ended:  # head and body may come in two reads, and be one answer still
        return _HOLD
    whole = ended or len(data) > LONGEST_HELD
    if status == 500:
        return _judge_500(data, may_move) if whole else _HOLD
    if status == 200 and is_event_stream:
        return (
            _judge_first_event(data, ended, may_move)
            if whole or has_event(data, searched)
            else _HOLD
        )
    if status == 200 and ended and _ABORTED in data:
        return _moved(Trouble.BROKEN, "aborted", may_move)
    return _PASS


def how_it_ended(tail: bytes) -> tuple[Trouble | None, str]:
    """Return what was wrong with a stream that began well and came to its end, if anything was.

    Args:
        tail: its last events, whole ones.
    """
    if ends_in_error(tail):
        return Trouble.DIED, "error in the stream"
    # vLLM was told to stop. Its clients see that by the same mark.
    return (Trouble.BROKEN, "aborted") if _ABORTED in tail else (None, "")


def _judge_first_event(
    data: bytes | bytearray, ended: bool, may_move: Callable[[Trouble], bool]
) -> Judgement:
    if not ended and len(data) <= LONGEST_HELD and _SAYS_NOTHING_YET.fullmatch(data):
        return _HOLD  # no token is here that could be late
    if b"[DONE]" in data and _SAYS_NOTHING.match(data):
        return _moved(Trouble.BROKEN, "empty stream", may_move)
    error = error_in_first_event(data)
    if error is None:
        return _PASS
    code, text = error
    if code in MOVES_ON:
        return _moved(MOVES_ON[code], f"{code} in the first event", may_move)
    return _judge_500(text, may_move)


def _judge_500(text: bytes | bytearray, may_move: Callable[[Trouble], bool]) -> Judgement:
    for mark, (trouble, reason) in _SAID_WITH_500.items():
        if mark in text:
            return _moved(trouble, reason, may_move)
    return _PASS


def _moved(trouble: Trouble, reason: str, may_move: Callable[[Trouble], bool]) -> Judgement:
    return (Verdict.MOVE if may_move(trouble) else Verdict.PASS), trouble, reason
