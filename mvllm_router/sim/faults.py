"""Ways in which a simulated engine misbehaves, and which request gets which. No I/O here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum


class Fault(str, Enum):
    """One way to misbehave, each seen on a real server or network."""

    REFUSE = "refuse"  # the listener is closed, idle connections too
    HANG = "hang"  # the request is taken and never answered
    SLOW = "slow"  # a long time passes before the first byte, then all is well
    ERROR_500 = "error_500"
    DRAINING_500 = "draining_500"  # vLLM in a graceful stop: /health still says 200
    BUSY_503 = "busy_503"
    RATE_429 = "rate_429"  # with retry-after
    RESET = "reset"  # TCP reset before the first byte
    DROP = "drop"  # cut in mid-stream or mid-body
    GARBAGE = "garbage"  # bytes that are not HTTP
    BUSY_IN_STREAM = "busy_in_stream"  # 200 event stream whose first event is the 503
    STALL = "stall"  # the stream goes silent and stays open
    ENGINE_DEATH = "engine_death"  # error event in mid-stream, then [DONE]
    ABORT = "abort"  # vLLM told to stop: what runs ends well for HTTP, and says "abort"


@dataclass(frozen=True)
class Injection:
    """A fault with its details.

    Attributes:
        fault: what happens.
        after_events: events that a stream sends before DROP, STALL, ENGINE_DEATH or ABORT.
        everywhere: not only inference requests, also health, metrics and the like.
        seconds: how long SLOW takes.
    """

    fault: Fault
    after_events: int = 3
    everywhere: bool = False
    seconds: float = 5.0


class FaultPlan:
    """The injected faults, used up in the order in which they were injected."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Injection, int | None]] = deque()

    def add(self, injection: Injection, times: int | None) -> None:
        """Let the next `times` requests have it; None: all of them until `clear`.

        Raises ValueError for `times` below 1, or given for REFUSE, which no request reaches.
        """
        if times is not None and (times < 1 or injection.fault is Fault.REFUSE):
            raise ValueError(f"{injection.fault.value}: times={times} cannot be counted")
        self._queue.append((injection, times))

    def take(self, *, inference: bool) -> Injection | None:
        """The fault that this request gets, which uses it up once."""
        if not self._queue:
            return None
        injection, times = self._queue[0]
        if not (inference or injection.everywhere):
            return None
        if times is not None:
            self._use_up(injection, times)
        return injection

    def _use_up(self, injection: Injection, times: int) -> None:
        if times == 1:
            self._queue.popleft()
        else:
            self._queue[0] = (injection, times - 1)

    def clear(self) -> None:
        """Forget all faults."""
        self._queue.clear()
