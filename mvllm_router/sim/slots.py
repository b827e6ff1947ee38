"""A first-in-first-out queue in front of a fixed number of slots."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Counts who runs and who waits. `enter` and `leave` come in pairs."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether the next request would have to wait."""
        return self.running >= self.limit

    async def enter(self) -> None:
        """Take a slot, in the order of arrival. Whoever is cancelled here holds none."""
        if not self.full:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._withdraw(turn)
            raise

    def _withdraw(self, turn: asyncio.Future[None]) -> None:
        if turn in self._queue:
            self._queue.remove(turn)
        elif not turn.cancelled():
            self.leave()  # the slot had been handed over in the same loop step

    def leave(self) -> None:
        """Give the slot back; the first in the queue has it at once."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
