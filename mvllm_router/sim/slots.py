"""A first-in-first-out queue in front of a fixed number of slots."""

from __future__ import annotations

import asyncio
from collections import deque

Turn = asyncio.Future[None]


class Slots:
    """Counts who runs and who waits: `line_up`, then `wait`, then `leave`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._queue: deque[Turn] = deque()

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether the next request would have to wait."""
        return self.running >= self.limit

    def line_up(self) -> Turn:
        """Take a slot or a place in the queue, which `waiting` counts from now on."""
        turn: Turn = asyncio.get_running_loop().create_future()
        if self.full:
            self._queue.append(turn)
        else:
            self.running += 1
            turn.set_result(None)
        return turn

    async def wait(self, turn: Turn) -> None:
        """Return with the slot. Whoever is cancelled here has no slot and no place."""
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._queue:
                self._queue.remove(turn)
            elif not turn.cancelled():
                self.leave()  # the slot had been handed over in the same loop step
            raise

    def leave(self) -> None:
        """Give the slot back; the first in the queue has it at once."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
