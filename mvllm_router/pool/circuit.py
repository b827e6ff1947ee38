"""Whether requests may go to a backend, judged by those that went there before.

    closed ──failed too often──▶ open ──its wait is over──▶ half-open ──trial succeeded──▶ closed
                                  ▲                             │
                                  └─── trial failed: twice as long a wait

Health checks say whether a server answers; the circuit says whether what it answers is of any
use. Requests that began before it opened, or before the server came back, tell nothing of what
came after: they are never counted, not even when it has closed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# Seconds until the first trial.
_FIRST_WAIT = 1.0
# Below this share of failures, 0 to 1, the server does more good than harm.
_SHARE_TO_OPEN = 0.5


class CircuitState(str, Enum):
    """`CLOSED` lets all requests through, `OPEN` none, `HALF_OPEN` one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class CircuitRules:
    """When a circuit opens, and how long it waits. Times in seconds.

    `threshold` failures within `window` open it if they came one after the other, or are half of
    the outcomes or more.
    `longest_wait` is the longest time between two trials.
    """

    threshold: int = 5
    window: float = 30.0
    longest_wait: float = 60.0


class Circuit:
    """The circuit of one backend. All times are monotonic seconds, passed in.

    Invariant: there is a trial only while it is not closed, and never two at once.
    """

    __slots__ = (
        "_bad",
        "_bad_before",
        "_good",
        "_good_before",
        "_half_began",
        "_row",
        "_row_began",
        "_wait",
        "closed_at",
        "is_closed",
        "openings",
        "reason",
        "retry_at",
        "rules",
        "since",
        "trial",
    )

    def __init__(self, rules: CircuitRules, now: float) -> None:
        self.rules = rules
        self.openings = 0
        self._half_began = now
        self._good = self._bad = self._good_before = self._bad_before = 0
        # Failures since the last request that went well and began after the first of them. A
        # server that did well for long and now fails everything must not need as many failures.
        self._row = 0
        self._row_began = now
        self.reset(now)

    def reset(self, now: float) -> None:
        """Close it and forget everything: the server was away and is another one now."""
        self.is_closed = True
        self.trial = False  # a request is on its way that decides
        self.reason = ""
        self.since = now  # the last opening, or reset: what began before tells nothing
        self.retry_at = 0.0  # when a trial may begin
        self._wait = 0.0  # seconds, of the last opening
        self.closed_at = now
        self._forget_counts(now)

    def state(self, now: float) -> CircuitState:
        if self.is_closed:
            return CircuitState.CLOSED
        if self.trial or now >= self.retry_at:
            return CircuitState.HALF_OPEN
        return CircuitState.OPEN

    def lets_through(self, now: float) -> bool:
        """Tell whether one more request may go to the backend."""
        return self.is_closed or (now >= self.retry_at and not self.trial)

    def failures(self, now: float) -> int:
        """Return how many failures of the window count at `now`."""
        self._turn(now)
        return self._bad + self._bad_before

    # --- what requests showed

    def succeeded(self, began: float, now: float) -> bool:
        """Count a request that was answered well; return whether that closed the circuit."""
        if self.is_closed:
            if began >= self.since:
                self._turn(now)
                self._good += 1
                if self._row and began > self._row_began:
                    self._row = 0
            return False
        if began <= self.since:
            return False
        self.is_closed = True
        self.trial = False
        self.reason = ""
        self.closed_at = now
        self._forget_counts(now)
        return True

    def failed(self, reason: str, began: float, now: float) -> bool:
        """Count a request that the backend failed; return whether that opened the circuit.

        While it is open, only the trial counts, and what began after it. Last resorts that came
        before would have it wait for long after a trouble that was short.
        """
        if not self.is_closed:
            if began >= self.retry_at:
                self._open(reason, now)
            return False
        if began < self.since:
            return False
        self._turn(now)
        self._bad += 1
        if not self._row:
            self._row_began = now
        self._row += 1
        bad = self._bad + self._bad_before
        good = self._good + self._good_before
        if bad < self.rules.threshold:
            return False
        if self._row < self.rules.threshold and bad < _SHARE_TO_OPEN * (bad + good):
            return False
        self._open(f"{bad} of {bad + good} requests failed, the last one: {reason}", now)
        return True

    def open(self, reason: str, now: float) -> bool:
        """Open it for a reason that is certain; return whether it was closed.

        Where a trial is on its way, or due, that has failed with it.
        """
        was_closed = self.is_closed
        if self.state(now) is not CircuitState.OPEN:
            self._open(reason, now)
        return was_closed

    # --- trials

    def begin_trial(self) -> None:
        """Let one request through although it is not closed."""
        self.trial = True

    def end_trial(self, began: float) -> None:
        """Let the next one try: the trial that began then has ended, maybe showing nothing."""
        if began > self.since:
            self.trial = False

    # --- inside

    def _open(self, reason: str, now: float) -> None:
        calm = self.is_closed and now - self.closed_at > self.rules.window
        wait = _FIRST_WAIT if calm or not self._wait else 2 * self._wait
        self._wait = min(wait, self.rules.longest_wait)
        self.openings += self.is_closed
        self.is_closed = False
        self.trial = False
        self.reason = reason
        self.since = now
        self.retry_at = now + self._wait

    def _turn(self, now: float) -> None:
        """Move on to the next half of the window when this one is over.

        Two halves are enough: nothing that is older than the window is counted, and all that is
        younger than half of it.
        """
        half = self.rules.window / 2
        passed = now - self._half_began
        if passed < half:
            return
        kept = passed < 2 * half
        self._good_before, self._bad_before = (self._good, self._bad) if kept else (0, 0)
        self._good = self._bad = 0
        self._half_began = self._half_began + half if kept else now

    def _forget_counts(self, now: float) -> None:
        self._good = self._bad = self._good_before = self._bad_before = 0
        self._half_began = now
        self._row = 0
