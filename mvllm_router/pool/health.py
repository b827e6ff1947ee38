"""Whether a backend is there and well, as health checks say it.

    checking ──ok──▶ up ──failed often enough──▶ down ──two good checks──▶ up
        └──failed──▶ down        loading: it answers, but is not ready yet

What requests show is judged by the `Circuit`, but for one thing: a refused connection is as
certain as a check.

Plain decisions: each method takes what was seen and returns nothing; who wants to know
compares `state` and `reason` before and after.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

# A server that was down for an hour is back as soon as one that was down for a second.
GOOD_CHECKS_TO_RECOVER = 2


class State(str, Enum):
    """The states of a backend; `CHECKING` is before the first health check."""

    CHECKING = "checking"
    LOADING = "loading"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a backend is out. Times in seconds, the rate is a share from 0 to 1."""

    consecutive_failures: int = 3
    min_success_rate: float = 0.8
    window: int = 10
    max_response_time: float = 10.0


class Health:
    """The health of one backend."""

    __slots__ = (
        "_monotonic",
        "_was_up",
        "bad_checks",
        "checks",
        "good_checks",
        "hopeless",
        "last_check",
        "last_seconds",
        "reason",
        "recent",
        "rules",
        "seconds_total",
        "since",
        "state",
    )

    def __init__(self, rules: HealthRules, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.rules = rules
        self._monotonic = monotonic
        self._was_up = False
        self.since = monotonic()  # when the state began, in monotonic seconds
        self.state = State.CHECKING
        self.reason = "not checked yet"
        self.recent: deque[bool] = deque(maxlen=rules.window)
        self.good_checks = 0  # in a row
        self.bad_checks = 0  # in a row
        self.hopeless = True  # to ask it now would be in vain: it is no last resort either
        self.checks = 0
        self.last_check: float | None = None  # wall clock, seconds since the epoch
        self.last_seconds: float | None = None
        self.seconds_total = 0.0

    @property
    def success_rate(self) -> float:
        """Share of the recent checks that were good; 1 before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else 1.0

    @property
    def progress(self) -> str:
        """How near it is to the other state: "up 2/3" takes two more failed checks to be down.

        "down 1/2" has one of the two good checks that bring it back; "" when nothing is on
        the way.
        """
        if self.state is State.UP:
            limit = self.rules.consecutive_failures
            return f"up {max(limit - self.bad_checks, 1)}/{limit}" if self.bad_checks else ""
        if self.state is State.DOWN and self.good_checks:
            return f"down {self.good_checks}/{GOOD_CHECKS_TO_RECOVER}"
        return ""

    def adopt(self, rules: HealthRules) -> None:
        """Go on under other rules, keeping what is known."""
        if rules.window != self.rules.window:
            self.recent = deque(self.recent, maxlen=rules.window)
        self.rules = rules

    def check_passed(self, at: float, seconds: float) -> None:
        """Count a check that was answered well after `seconds`; slow counts as failed."""
        if seconds > self.rules.max_response_time:
            return self.check_failed(at, f"health check took {seconds:.1f} s", seconds=seconds)
        self._count_check(True, at, seconds)
        self.good_checks += 1
        self.bad_checks = 0
        if self.state in (State.CHECKING, State.LOADING):
            self._recover("health check passed")
        elif self.state is State.DOWN:
            self.hopeless = False  # somebody answers there
            if self.good_checks >= GOOD_CHECKS_TO_RECOVER:
                self._recover(f"{self.good_checks} health checks passed")
        return None

    def check_failed(
        self, at: float, reason: str, *, hopeless: bool = False, seconds: float = 0.0
    ) -> None:
        """Count a failed check.

        `hopeless`: requests would fail as well, for certain (nobody listens, or it wants
        another key); that acts at once.
        """
        self._count_check(False, at, seconds)
        self.good_checks = 0
        self.bad_checks += 1
        often = self.bad_checks >= self.rules.consecutive_failures
        if hopeless or often or self.state is not State.UP:
            self._put(State.DOWN, reason, hopeless=hopeless or not self._was_up)
        elif len(self.recent) == self.rules.window and (
            self.success_rate < self.rules.min_success_rate
        ):
            self._put(State.DOWN, f"only {self.success_rate:.0%} of recent checks passed")

    def is_loading(self, at: float, reason: str) -> None:
        """Note that the server answers but says itself that it is not ready."""
        self._count_check(False, at, 0.0)
        self.good_checks = 0
        self._put(State.LOADING, reason, hopeless=True)

    def request_refused(self) -> None:
        """Note that nobody listens at its address."""
        self._put(State.DOWN, "connection refused", hopeless=True)

    def trust_again(self, reason: str) -> None:
        """Take the backend in without a check, for pools that do not check."""
        self._recover(reason)

    def _recover(self, reason: str) -> None:
        self._put(State.UP, reason)
        # What it failed while it was away must not count against it now.
        self.recent.clear()
        self.bad_checks = 0

    def _put(self, state: State, reason: str, *, hopeless: bool = False) -> None:
        if state is State.DOWN:
            self.good_checks = 0
        self._was_up = self._was_up or state is State.UP
        if state is not self.state:
            self.since = self._monotonic()
        self.state, self.reason = state, reason
        self.hopeless = hopeless

    def _count_check(self, good: bool, at: float, seconds: float) -> None:
        self.recent.append(good)
        self.checks += 1
        self.last_check = at
        self.last_seconds = seconds
        self.seconds_total += seconds
