"""Decides, as an answer begins, whether it goes to the client or another server is asked."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from mvllm_router.proxy.sse import LONGEST_HELD, error_in_first_event, has_event

# The server says that it is not able to take the request now, or something before it does.
MOVES_ON = frozenset((429, 502, 503, 504))

# vLLM says this with a 500 while it drains, and its /health stays good.
_DRAINING = b"after shutdown"


class Verdict(Enum):
    """PASS it to the client, HOLD it until more is known, or MOVE to another server."""

    PASS = "pass"
    HOLD = "hold"
    MOVE = "move"


def judge(
    status: int,
    is_event_stream: bool,
    data: bytes,
    ended: bool,
    another: Callable[[], bool],
) -> tuple[Verdict, str]:
    """Return the verdict and, for MOVE, the reason.

    Args:
        status: the HTTP status of the answer.
        is_event_stream: its content type is text/event-stream.
        data: all of its body so far.
        ended: that is the whole body.
        another: asks for another server; it is called only when one is needed, at most once.
    """
    whole = ended or len(data) > LONGEST_HELD
    if status in MOVES_ON:
        return (Verdict.MOVE, str(status)) if another() else (Verdict.PASS, "")
    if status == 500:
        if not whole:
            return Verdict.HOLD, ""
        if _DRAINING in data and another():
            return Verdict.MOVE, "draining"
    elif status == 200 and is_event_stream:
        if not whole and not has_event(data):
            return Verdict.HOLD, ""
        error = error_in_first_event(data)
        if error and _may_move(*error) and another():
            return Verdict.MOVE, _why(*error)
    return Verdict.PASS, ""


def _may_move(code: int, text: bytes) -> bool:
    # Any other 500 may have been caused by the request itself: moving it on would let one
    # bad request fell one server after the other.
    return code in MOVES_ON or _DRAINING in text


def _why(code: int, text: bytes) -> str:
    # Reasons are labels of a metric: only as many as there are codes that move on, and one.
    return "draining" if _DRAINING in text else f"{code} in the first event"
