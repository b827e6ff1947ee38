"""The life of one server: when it is started, given up, taken for hung, started again.

    waiting ──its turn──▶ starting ──answers──▶ ready ──asked to restart──▶ draining
                             │                    │                            │
                             └────── ended ───────┴────────────────────────────┤
                                       │                                       ▼
                                       ├──▶ failed          (too often)     waiting
                                       └──▶ pausing ──time──▶ waiting

Plain decisions: times are monotonic seconds that the caller gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mvllm_router.launch.reasons import Reason


class Phase(str, Enum):
    """Where a server is in its life."""

    WAITING = "waiting"  # for its turn to start
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # it gets no new requests, and is to be ended
    PAUSING = "pausing"  # it ended, and is started again in a while
    FAILED = "failed"  # it ended too often


@dataclass(frozen=True, slots=True)
class Rules:
    """When a server is started again. Times in seconds."""

    start_timeout: float = 600.0  # longest silence while it starts
    hung_after: float = 60.0  # how long it may fail its checks and send nothing
    first_pause: float = 1.0  # doubles from failure to failure
    longest_pause: float = 60.0
    most_failures: int = 5  # one after the other
    settled_after: float = 60.0  # ready for so long, it is taken to work: failures before are over


@dataclass(frozen=True, slots=True)
class Facts:
    """What is seen of a running server.

    Seconds since it printed something, and for which it has failed its health checks without a
    byte of an answer (0: it is well, or nobody listens yet); what the last check found.
    """

    silent_for: float = 0.0
    unwell_for: float = 0.0
    complaint: str = ""


class Life:
    """Where one server is, and what comes next."""

    def __init__(self, rules: Rules, now: float) -> None:
        self.rules = rules
        self.phase = Phase.WAITING
        self.since = now  # when the phase began
        self.starts = 0
        self.failures = 0  # one after the other
        self.reason = ""  # why it ended last; "" once it is ready again
        self.retry_at = 0.0  # when a pause is over
        self._was_ready = False  # since it was started last

    def started(self, now: float) -> None:
        self.starts += 1
        self._was_ready = False
        self._enter(Phase.STARTING, now)

    def is_ready(self, now: float) -> None:
        self._was_ready = True
        self.reason = ""
        self._enter(Phase.READY, now)

    def drains(self, now: float) -> None:
        """Somebody wants it ended; what it has in flight may finish."""
        self._forgive(now)
        self._enter(Phase.DRAINING, now)

    def again(self, now: float) -> None:
        """Start it anew, with a clean record: somebody asked for it."""
        self.failures = 0
        self.reason = ""
        self._enter(Phase.WAITING, now)

    def ended(self, reason: Reason, now: float) -> None:
        """It is over and was not asked to be: pause and start it again, or give it up."""
        self._forgive(now)
        self.failures += 1
        self.reason = reason.text
        given_up = reason.hopeless and not self._was_ready
        if given_up or self.failures >= self.rules.most_failures:
            self._enter(Phase.FAILED, now)
            return
        pause = self.rules.first_pause * 2 ** (self.failures - 1)
        self.retry_at = now + min(pause, self.rules.longest_pause)
        self._enter(Phase.PAUSING, now)

    def is_over(self, now: float) -> bool:
        """Tell whether a pause is; it waits for its turn from then on."""
        if self.phase is Phase.PAUSING and now >= self.retry_at:
            self._enter(Phase.WAITING, now)
        return self.phase is Phase.WAITING

    def fault(self, facts: Facts) -> str:
        """Return why a process that runs has to be ended all the same; "" when it need not."""
        rules = self.rules
        if self.phase is Phase.STARTING and facts.silent_for >= rules.start_timeout:
            return f"it printed nothing for {rules.start_timeout:g} s while it started"
        judged = self.phase in (Phase.STARTING, Phase.READY)
        if judged and facts.unwell_for >= rules.hung_after:
            return f"it runs, and is not well for {rules.hung_after:g} s: {facts.complaint}"
        return ""

    def _forgive(self, now: float) -> None:
        if self.phase is Phase.READY and now - self.since >= self.rules.settled_after:
            self.failures = 0

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self.since = now
