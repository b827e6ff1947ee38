"""What has been tried for one request, and whether to try more: plain decisions."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from mvllm_router.pool import Backend
from mvllm_router.proxy.budget import RetryBudget

# Seconds before the only server of a model is asked once more; each further time doubles it.
_FIRST_PAUSE = 0.1
# A server that wants to be left alone for longer than this gets its way: the client is told.
_LONGEST_PAUSE = 5.0


class Trouble(Enum):
    """Why a backend gave no answer that the client should have; what may be done follows."""

    BUSY = "busy"  # it has no room; only a backend that is well is any better
    BROKEN = "broken"  # the connection, or something before the server; it may work next time
    LATE = "late"  # it took too long; to ask it again would take as long
    LEAVING = "leaving"  # it is shutting down
    DIED = "died"  # its engine died of this request, or of something else


_MAY_ASK_AGAIN = (Trouble.BUSY, Trouble.BROKEN)


class Others(Protocol):
    """Knows which backends there are; `Dispatch` does."""

    def another(self, model: str | None, tried: list[Backend], *, well: bool) -> bool:
        """Tell whether one that was not tried could be asked, `well`: and is well."""


class Attempts:
    """The attempts of one request. Decides; whoever asks carries it out.

    After `may_go_on` said yes, `pause` is how many seconds to wait first, and `again` the
    backend that may be asked once more because the model has no other.
    """

    __slots__ = (
        "_budget",
        "_deaths",
        "_most",
        "_others",
        "_random",
        "again",
        "count",
        "failures",
        "model",
        "pause",
        "tried",
    )

    def __init__(
        self,
        model: str | None,
        others: Others,
        budget: RetryBudget,
        max_retries: int,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        """`max_retries` is how many attempts may follow the first."""
        self.model = model
        self.tried: list[Backend] = []
        self.failures: list[str] = []  # one for each attempt that gave no answer
        self.count = 0
        self.pause = 0.0
        self.again: Backend | None = None
        self._others = others
        self._budget = budget
        self._deaths = 0
        self._most = 1 + max_retries
        self._random = random_share

    def begin(self, backend: Backend) -> None:
        """Note that an attempt goes to `backend`."""
        self.count += 1
        self.pause = 0.0
        self.again = None
        if backend not in self.tried:
            self.tried.append(backend)

    def may_go_on(self, trouble: Trouble, asked: float | None = None) -> bool:
        """Tell whether another attempt is to be made, and pay for it if so.

        Args:
            trouble: what became of the last one.
            asked: seconds for which the backend wants to be left alone, if it said so.
        """
        self._deaths += trouble is Trouble.DIED
        if self.count >= self._most or self._deaths > 1:
            return False  # a request that two engines died of gets no third one
        if self._others.another(self.model, self.tried, well=trouble is Trouble.BUSY):
            return self._budget.take()
        return trouble in _MAY_ASK_AGAIN and self._may_ask_again(asked or 0.0)

    def _may_ask_again(self, asked: float) -> bool:
        """Tell whether the only backend is to be asked once more, after a pause."""
        if len(self.tried) > 1 or self._others.another(self.model, self.tried, well=False):
            return False
        pause = max(self._back_off(), asked)
        if pause > _LONGEST_PAUSE or not self._budget.take():
            return False
        self.pause, self.again = pause, self.tried[0]
        return True

    def _back_off(self) -> float:
        """Return a pause that grows, in seconds; jitter keeps clients from coming back as one."""
        return float(_FIRST_PAUSE * 2 ** (self.count - 1) * (0.5 + self._random()))
