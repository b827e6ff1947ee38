"""What happened to the pool and why: a bounded list that the API and the dashboard show."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("mvllm_router.pool")

KEPT = 500


@dataclass(frozen=True, slots=True)
class Event:
    """One change: wall-clock seconds, what kind, which backend ("" for the router), why."""

    number: int
    at: float
    kind: str
    backend: str
    message: str

    def document(self) -> dict[str, object]:
        return {
            "number": self.number,
            "at": self.at,
            "kind": self.kind,
            "backend": self.backend,
            "message": self.message,
        }


class Events:
    """The last events, oldest first; each is logged as it is added."""

    def __init__(self, kept: int = KEPT) -> None:
        self._ring: deque[Event] = deque(maxlen=kept)
        self._count = 0
        self.listeners: list[Callable[[], None]] = []  # called after each event

    def add(self, kind: str, backend: str, message: str, level: int = logging.INFO) -> None:
        """Record that `kind` happened to `backend`, because of `message`."""
        self._count += 1
        self._ring.append(Event(self._count, time.time(), kind, backend, message))
        log.log(level, "%s%s", f"{backend}: " if backend else "", message)
        for listener in self.listeners:
            listener()

    @property
    def newest(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._count

    def after(self, number: int) -> list[Event]:
        """Return the events behind `number` that are kept, oldest first."""
        return self.last(self._count - number)

    def last(self, count: int) -> list[Event]:
        """Return the newest `count` events, or as many as are kept; oldest first."""
        return list(self._ring)[max(0, len(self._ring) - max(0, count)) :]
