"""Whether the router answers, since when not, and when it is asked again. Plain, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from mvllm_router.dashboard import figures
from mvllm_router.dashboard.lines import Line, plain

# Seconds between two attempts to reach a router that is gone: doubled each time, up to this.
_LONGEST_PAUSE = 10.0
_FIRST_PAUSE = 0.5
# Intervals without an answer after which a picture is called stale.
_PATIENCE = 2.5


@dataclass
class Link:
    """The way to the router; times are monotonic seconds, `interval` those between two looks."""

    interval: float
    last: float | None = None
    problem: str = ""
    hint: str = ""
    failures: int = field(default=0)

    def succeeded(self, now: float) -> None:
        self.last = now
        self.failures = 0
        self.problem = self.hint = ""

    def failed(self, problem: str, hint: str = "") -> None:
        self.failures += 1
        self.problem, self.hint = problem, hint

    @property
    def pause(self) -> float:
        """Return the seconds until the router is asked again."""
        if not self.failures:
            return self.interval
        doubled = _FIRST_PAUSE * 2 ** min(10, self.failures - 1)
        return (
            max(self.interval, min(_LONGEST_PAUSE, doubled)) if self.failures > 1 else _FIRST_PAUSE
        )

    def is_stale(self, now: float) -> bool:
        """Return whether what is shown may no longer be so; a router that is slow counts too."""
        if self.last is None or self.failures:
            return True
        return now - self.last > _PATIENCE * self.interval + 1.0

    def words(self, now: float, *, paused: bool) -> Line:
        """Return LIVE, PAUSED, or for how long the router has said nothing."""
        if self.last is None:
            return plain("NO ANSWER" if self.failures else "CONNECTING", "warn")
        if self.is_stale(now):
            return plain(f"STALE {figures.age(now - self.last)}", "bad")
        return plain("PAUSED", "warn") if paused else plain("LIVE", "good")
