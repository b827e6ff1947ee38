"""One watch for each backend of the pool, as backends come and go."""

from __future__ import annotations

import asyncio

from mvllm_router.config import Settings
from mvllm_router.control.prober import Prober
from mvllm_router.control.watch import Watch
from mvllm_router.pool import Pool


class Watches:
    """All background work on backends."""

    def __init__(self, pool: Pool, prober: Prober, settings: Settings) -> None:
        self._pool = pool
        self._prober = prober
        self._settings = settings
        self._watches: dict[str, Watch] = {}
        pool.listeners.append(self._notice_trouble)

    async def follow(self, settings: Settings) -> None:
        """Start watching new backends, stop for removed ones, and use `settings` for all."""
        self._settings = settings
        backends = self._pool.backends
        gone = [n for n, watch in self._watches.items() if backends.get(n) is not watch.backend]
        stopped = [self._watches.pop(name) for name in gone]
        for watch in self._watches.values():
            watch.settings = settings
            watch.wake()
        for name, backend in backends.items():
            if name not in self._watches:
                watch = self._watches[name] = Watch(backend, self._pool, self._prober, settings)
                watch.start()
        for watch in stopped:
            await watch.stop()

    async def checked(self) -> None:
        """Wait until each backend has been checked once."""
        await asyncio.gather(*(watch.checked() for watch in self._watches.values()))

    async def stop(self) -> None:
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            await watch.stop()

    def _notice_trouble(self) -> None:
        for watch in self._watches.values():
            watch.notice()
