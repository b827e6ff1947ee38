"""All servers that a router has started: from the first to the last process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mvllm_router.config import LaunchSpec, ServerSpec
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.guard import Guard
from mvllm_router.launch.journal import Journal
from mvllm_router.launch.keeper import Keeper, Shared
from mvllm_router.launch.life import Phase
from mvllm_router.launch.placement import Place, place_more
from mvllm_router.launch.plan import Plan
from mvllm_router.launch.ports import Ports
from mvllm_router.pool import Pool
from mvllm_router.tasks import cancel, spawn

log = logging.getLogger(__name__)

# Servers that start at the same time; there are never so many.
_NO_LIMIT = 100_000

Employ = Callable[[tuple[ServerSpec, ...]], Awaitable[None]]


def journals_folder() -> Path:
    """Return where the logs of servers are written."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "mvllm-router"


class Supervisor:
    """Starts the servers of a plan, keeps them, and stops them."""

    def __init__(self, plan: Plan, pool: Pool, employ: Employ, folder: Path) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            employ: lets the router send requests to these servers, and to no others of ours.
            folder: where the logs of servers go.
        """
        self.keepers: dict[str, Keeper] = {}
        self._plan = plan
        self._pool = pool
        self._employ = employ
        self._folder = folder
        self._ports = Ports()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._scaling = asyncio.Lock()
        self._stopping = False

    @property
    def launches(self) -> dict[str, LaunchSpec]:
        """What was asked for, by name."""
        return {place.launch.name: place.launch for place in self._plan.places}

    async def start(self) -> None:
        """Take all servers into the router, and begin to start them.

        Raises:
            CannotLaunch: there is no port, or a log cannot be written.
        """
        self._guard = Guard()
        turns = asyncio.Semaphore(self._plan.parallel or _NO_LIMIT)
        self._shared = Shared(self._pool, self._guard, self._ports, turns, self._employ_all)
        self._pool.listeners.append(self._wake)
        try:
            await self._add(self._plan.places)
        except CannotLaunch:
            await self.stop()
            raise

    async def stop(self, at_once: asyncio.Event | None = None) -> None:
        """End all servers. Requests have been seen to before.

        Args:
            at_once: when it is set, servers that are still there are killed.
        """
        self._stopping = True
        keepers = list(self.keepers.values())
        if keepers:
            log.info("stopping the servers that were started: %s", ", ".join(self.keepers))
        for name in list(self._tasks):
            await cancel(self._tasks.pop(name))
        hastening = spawn(_hasten(keepers, at_once), "hurry") if at_once else None
        await asyncio.gather(*(keeper.stop() for keeper in keepers))
        if hastening is not None:
            await cancel(hastening)
        self.keepers.clear()
        self._ports.close()
        await asyncio.to_thread(self._guard.close)

    async def scale(self, launch: LaunchSpec, servers: int) -> None:
        """Let a launch have so many servers. Those that go are drained first, which is not waited
        for.

        Raises:
            CannotLaunch: so many do not fit.
        """
        async with self._scaling:
            if self._stopping:
                raise CannotLaunch("the router is stopping")
            own = [keeper for keeper in self.of(launch.name) if not keeper.leaving]
            if servers > len(own):
                await self._add(self._more(launch, servers - len(own)))
            for keeper in own[servers:]:
                keeper.leaving = True
                # A keeper in the midst of something must not start its server again.
                await cancel(self._tasks.pop(keeper.name))
                self._tasks[keeper.name] = spawn(self._remove(keeper), f"end of {keeper.name}")

    def of(self, launch: str) -> list[Keeper]:
        """Return the keepers of a launch, by their numbers."""
        own = [keeper for keeper in self.keepers.values() if keeper.place.launch.name == launch]
        return sorted(own, key=lambda keeper: keeper.place.number)

    def _more(self, launch: LaunchSpec, count: int) -> Sequence[Place]:
        used = {keeper.place.number for keeper in self.of(launch.name)}
        numbers = [n for n in range(len(used) + count) if n not in used][:count]
        taken = [gpu for keeper in self.keepers.values() for gpu in keeper.place.gpus]
        return place_more(launch, numbers, self._plan.gpus, taken)

    async def _add(self, places: Sequence[Place]) -> None:
        added: dict[str, Keeper] = {}
        try:
            for place in places:
                added[place.name] = self._keeper(place)
        except CannotLaunch:
            for keeper in added.values():
                await keeper.stop()
            raise
        self.keepers.update(added)
        await self._employ_all()
        for place in places:
            self._tasks[place.name] = spawn(self.keepers[place.name].run(), f"keeper {place.name}")

    def _keeper(self, place: Place) -> Keeper:
        path = self._folder / f"{place.name}.log"
        try:
            journal = Journal(path, place.launch.api_key or "")
        except OSError as error:
            raise CannotLaunch(
                f"the log {path} cannot be written: {error.strerror}",
                "XDG_STATE_HOME in the environment names another folder for it",
            ) from None
        program = self._plan.programs[place.launch.name]
        return Keeper(place, program, journal, self._shared)

    async def _remove(self, keeper: Keeper) -> None:
        await keeper.drain()
        await keeper.stop()
        del self.keepers[keeper.name], self._tasks[keeper.name]
        await self._employ_all()

    async def _employ_all(self) -> None:
        await self._employ(tuple(keeper.spec for keeper in self.keepers.values()))

    def _wake(self) -> None:
        """One that starts may have been found to answer."""
        for keeper in self.keepers.values():
            if keeper.life.phase is Phase.STARTING:
                keeper.wake()


async def _hasten(keepers: Sequence[Keeper], at_once: asyncio.Event) -> None:
    await at_once.wait()
    await asyncio.gather(*(keeper.hasten() for keeper in keepers))
