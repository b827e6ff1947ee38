"""All servers that a router has started: from the first to the last process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mvllm_router.config import LaunchSpec, ServerSpec
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.gpu_memory import GpuMemory
from mvllm_router.launch.gpus import Gpu
from mvllm_router.launch.guard import Guard
from mvllm_router.launch.journal import Journal
from mvllm_router.launch.keeper import Keeper, Shared
from mvllm_router.launch.leftovers import Ledger
from mvllm_router.launch.life import Phase
from mvllm_router.launch.memory import memory_of
from mvllm_router.launch.placement import Place, place, place_more
from mvllm_router.launch.plan import Plan
from mvllm_router.launch.ports import Ports
from mvllm_router.launch.revision import Revision, revise
from mvllm_router.pool import Pool
from mvllm_router.tasks import cancel, repeat, spawn

log = logging.getLogger(__name__)

# Servers that start at the same time; there are never so many.
_NO_LIMIT = 100_000

# Seconds between looks at whether the guard is there, and at how much memory servers take.
_LOOK_AT_GUARD = 1.0
_BETWEEN_MEASUREMENTS = 10.0

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
        self.launches = {place.launch.name: place.launch for place in plan.places}
        self._plan = plan
        self._programs = dict(plan.programs)
        self._gpus = plan.gpus
        self._pool = pool
        self._employ = employ
        self._folder = folder
        self._ports = Ports()
        self._gpu_memory = GpuMemory()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changes: list[asyncio.Task[None]] = []
        self._in_turn = asyncio.Lock()
        self._scaling = asyncio.Lock()
        self._stopping = False

    async def start(self) -> None:
        """Take all servers into the router, and begin to start them.

        Raises:
            CannotLaunch: there is no port, or a log cannot be written.
        """
        self._guard = Guard(Ledger(self._folder).keep)
        self._background = [
            spawn(repeat(self._watch_guard), "watch of the guard"),
            spawn(repeat(self._measure), "memory of servers"),
            spawn(repeat(self._measure_gpus), "GPU memory of servers"),
        ]
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
        for task in self._changes:
            await cancel(task)
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
        for task in self._background:
            await cancel(task)
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

    async def prepare(self, wanted: Sequence[LaunchSpec]) -> Revision:
        """Work out how to change to these launches, for `follow`. Nothing is changed.

        Raises:
            CannotLaunch: an engine or a model is not there, or they do not fit.
        """
        found = await asyncio.to_thread(revise, dict(self.launches), wanted, self._gpus)
        going = {launch.name for launch in found.removed}
        stay = [one for one in self.keepers.values() if one.place.launch.name not in going]
        place(found.added, found.gpus, _gpus_of(stay))
        return found

    def follow(self, revision: Revision) -> None:
        """Change to what was prepared, after what came before; it is not waited for."""
        self._gpus = revision.gpus
        self._programs.update(revision.programs)
        before = dict(self.launches)
        for launch in revision.removed:
            del self.launches[launch.name]
        self.launches.update({one.name: one for one in (*revision.changed, *revision.added)})
        self._changes = [task for task in self._changes if not task.done()]
        self._changes.append(spawn(self._follow(revision, before), "change of launches"))

    async def _follow(self, revision: Revision, before: Mapping[str, LaunchSpec]) -> None:
        async with self._in_turn:
            for launch in revision.removed:
                await self._attempt(self.scale(launch, 0))
            for launch in revision.changed:
                self._revise(launch)
                if launch.replicas not in (None, before[launch.name].replicas):
                    await self._attempt(self.scale(launch, launch.replicas or 0))
            await self._attempt(self._begin([launch.name for launch in revision.added]))

    async def _attempt(self, work: Awaitable[None]) -> None:
        try:
            await work
        except CannotLaunch as error:
            self._pool.events.add("launch", "", error.whole, logging.ERROR)

    def _revise(self, launch: LaunchSpec) -> None:
        for keeper in self.of(launch.name):
            keeper.revise(launch, self._programs[launch.name])
            if keeper.life.phase is Phase.FAILED:
                keeper.restart()  # this may be what it needs

    async def _begin(self, names: Sequence[str]) -> None:
        """Start launches, if need be once those that leave have made room.

        Raises:
            CannotLaunch: they do not fit.
        """
        while True:
            going = [self._tasks[one.name] for one in self.keepers.values() if one.leaving]
            async with self._scaling:
                running = {
                    one.place.launch.name for one in self.keepers.values() if not one.leaving
                }
                names = [name for name in names if name in self.launches and name not in running]
                wanted = [self.launches[name] for name in names]
                try:
                    return await self._add(
                        place(wanted, self._gpus, _gpus_of(self.keepers.values()))
                    )
                except CannotLaunch:
                    if not going:
                        for launch in wanted:
                            del self.launches[launch.name]
                        raise
            await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)

    def of(self, launch: str) -> list[Keeper]:
        """Return the keepers of a launch, by their numbers."""
        own = [keeper for keeper in self.keepers.values() if keeper.place.launch.name == launch]
        return sorted(own, key=lambda keeper: keeper.place.number)

    def _more(self, launch: LaunchSpec, count: int) -> Sequence[Place]:
        used = {keeper.place.number for keeper in self.of(launch.name)}
        numbers = [n for n in range(len(used) + count) if n not in used][:count]
        return place_more(launch, numbers, self._gpus, _gpus_of(self.keepers.values()))

    async def _add(self, places: Sequence[Place]) -> None:
        added: dict[str, Keeper] = {}
        try:
            for one in places:
                if one.name in self.keepers:
                    raise CannotLaunch(f"there is a server {one.name}, which is being ended")
                added[one.name] = self._keeper(one)
        except CannotLaunch:
            for keeper in added.values():
                await keeper.stop()
            raise
        if not added:
            return
        self.keepers.update(added)
        await self._employ_all()
        for name in added:
            self._tasks[name] = spawn(self.keepers[name].run(), f"keeper {name}")

    def _keeper(self, place: Place) -> Keeper:
        path = self._folder / f"{place.name}.log"
        try:
            journal = Journal(path, place.launch.api_key or "")
        except OSError as error:
            raise CannotLaunch(
                f"the log {path} cannot be written: {error.strerror}",
                "XDG_STATE_HOME in the environment names another folder for it",
            ) from None
        program = self._programs[place.launch.name]
        return Keeper(place, program, journal, self._shared)

    async def _remove(self, keeper: Keeper) -> None:
        await keeper.drain()
        await keeper.stop()
        del self.keepers[keeper.name], self._tasks[keeper.name]
        await self._employ_all()

    async def _employ_all(self) -> None:
        await self._employ(tuple(keeper.spec for keeper in self.keepers.values()))

    async def _watch_guard(self) -> float:
        self._guard.look()
        return _LOOK_AT_GUARD

    async def _measure(self) -> float:
        pids = {keeper.pid: keeper for keeper in self.keepers.values() if keeper.pid is not None}
        found = await asyncio.to_thread(memory_of, set(pids)) if pids else {}
        for keeper in self.keepers.values():
            keeper.memory = found.get(keeper.pid) if keeper.pid is not None else None
        return _BETWEEN_MEASUREMENTS

    async def _measure_gpus(self) -> float:
        """Apart from the other one: the driver of a GPU that has failed lets wait."""
        servers: dict[int, list[str]] = {}
        for keeper in self.keepers.values():
            uuids = [gpu.uuid for gpu in keeper.place.gpus if gpu.vendor == "nvidia"]
            if keeper.pid is not None and uuids:
                servers[keeper.pid] = uuids
        found = await self._gpu_memory.of(servers)
        for keeper in self.keepers.values():
            keeper.gpu_memory = found.get(keeper.pid) if keeper.pid is not None else None
        return _BETWEEN_MEASUREMENTS

    def _wake(self) -> None:
        """One that starts may have been found to answer."""
        for keeper in self.keepers.values():
            if keeper.life.phase is Phase.STARTING:
                keeper.wake()


def _gpus_of(keepers: Iterable[Keeper]) -> list[Gpu]:
    return [gpu for keeper in keepers for gpu in keeper.place.gpus]


async def _hasten(keepers: Sequence[Keeper], at_once: asyncio.Event) -> None:
    await at_once.wait()
    await asyncio.gather(*(keeper.hasten() for keeper in keepers))
