"""Keeps one server running: process after process, as its life has it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from mvllm_router.config import LaunchSpec, ServerSpec
from mvllm_router.launch.child import Child
from mvllm_router.launch.commands import command, server
from mvllm_router.launch.guard import Guard
from mvllm_router.launch.journal import Journal
from mvllm_router.launch.life import Facts, Life, Phase, Rules
from mvllm_router.launch.placement import Place
from mvllm_router.launch.ports import Ports
from mvllm_router.launch.programs import Program
from mvllm_router.launch.reasons import LOOKED_AT, Reason, last_error, reason_of, stage_of
from mvllm_router.pool import Backend, Pool, State
from mvllm_router.pool.backend import Absence
from mvllm_router.tasks import happens

log = logging.getLogger(__name__)

# Seconds between looks at a server; what happens to it wakes its keeper at once.
_TICK = 0.5
_DRAIN_TICK = 0.05
# Seconds that requests may take to finish on a server that is to be ended, and the server itself.
DRAIN = 300.0
GRACE = 10.0

_LEAVING = "leaving"
PHASES = (*(phase.value for phase in Phase), _LEAVING)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the keepers of a router have together. `moved` is called when a `spec` is another."""

    pool: Pool
    guard: Guard
    ports: Ports
    turns: asyncio.Semaphore
    moved: Callable[[], Awaitable[None]]


class Keeper:
    """One server. `run` keeps it, until that is cancelled; then comes `stop`."""

    def __init__(self, place: Place, program: Program, journal: Journal, shared: Shared) -> None:
        self.place = place
        self.journal = journal
        self.port = shared.ports.take()
        rules = Rules(start_timeout=place.launch.start_timeout)
        self.life = Life(rules, time.monotonic())
        self.stage = ""  # how far one that starts has come, as its log tells
        self.begun = 0.0  # monotonic seconds; when it was started last
        self.took: float | None = None  # seconds from its last start until it was ready
        # Bytes that all its processes took a moment ago; None where that is not known.
        self.memory: int | None = None
        self.gpu_memory: int | None = None
        self._program = program
        self._shared = shared
        self._child: Child | None = None
        self._wake = asyncio.Event()
        self.leaving = False  # it is drained, and ended then
        self._asked = False  # to restart
        self._next: tuple[Place, Program] | None = None  # from its next start on
        self._port_taken = False

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def spec(self) -> ServerSpec:
        return server(self.place, self._program, self.port)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def _backend(self) -> Backend | None:
        return self._shared.pool.backends.get(self.name)

    def wake(self) -> None:
        """Look at it now: something may have happened."""
        self._wake.set()

    def restart(self) -> None:
        """End it once it has nothing in flight, and start it again."""
        self._asked = True
        self._wake.set()

    @property
    def phase(self) -> str:
        """Where it is in its life, in one word; one of PHASES."""
        return _LEAVING if self.leaving else self.life.phase.value

    @property
    def is_outdated(self) -> bool:
        """Whether a restart would start it otherwise than it was."""
        return self._next is not None

    def revise(self, launch: LaunchSpec, program: Program) -> None:
        """Start it as `launch` has it from the next time on, on the same GPUs."""
        is_same = launch == replace(self.place.launch, replicas=launch.replicas)
        self._next = None if is_same else (replace(self.place, launch=launch), program)

    async def run(self) -> None:
        """Keep the server running for ever."""
        self._absent("it waits for its turn to start")
        while True:
            await self._until_due()
            async with self._shared.turns:
                await self._begin()
                await self._follow(Phase.STARTING)
            await self._follow(Phase.READY)
            await self._part()

    async def hasten(self) -> None:
        """End the server at once, while `stop` waits for it."""
        if self._child is not None:
            await self._child.kill()

    async def stop(self) -> None:
        """End the server and close its journal. What it had in flight has been seen to before."""
        if self._child is not None:
            await self._child.stop(GRACE)
        self.journal.close()
        self._shared.ports.give_back(self.port)

    async def drain(self) -> None:
        """Give it no new requests, and wait until it has none, for `DRAIN` seconds at most."""
        backend = self._backend
        if backend is None:
            return
        self._shared.pool.drain(self.name)
        end = time.monotonic() + DRAIN
        while backend.in_flight and self._is_alive():
            if time.monotonic() >= end:
                log.warning("%s: %d requests run still", self.name, backend.in_flight)
                return
            await asyncio.sleep(_DRAIN_TICK)

    def _is_alive(self) -> bool:
        return self._child is not None and not self._child.ended.is_set()

    # --- from start to end

    async def _until_due(self) -> None:
        while not self.life.is_over(time.monotonic()):
            await happens(self._wake, _TICK)
            self._wake.clear()
            if self._asked:
                self._asked = False
                self.life.again(time.monotonic())

    async def _begin(self) -> None:
        await self._renew()
        now = self.begun = time.monotonic()
        self.stage = ""
        self.life.started(now)
        start = command(self.place, self._program, self.port)
        self.journal.say(f"is started on port {self.port}")
        shares = self._program.kind != "command"  # what is not known may not
        self._shared.ports.about_to_listen(self.port, shares=shares)
        starting = asyncio.ensure_future(
            Child.start(
                start.argv,
                start.environment(os.environ),
                self.journal,
                self._shared.guard,
                self._heard,
                self.wake,
            )
        )
        try:
            # Cancelled half-way, it would leave a process that nobody knows.
            self._child = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._child = await starting
            raise
        except OSError as error:
            self._child = None
            self.life.ended(Reason(f"it cannot be run: {error}", hopeless=True), now)
            return
        self._absent("it is starting")
        gpus = "".join(f", {gpu.describe()}" for gpu in self.place.gpus)
        self._tell(f"starts as process {self._child.pid}{gpus}")

    async def _renew(self) -> None:
        if self._next is None:
            return
        (self.place, self._program), self._next = self._next, None
        self.life.rules = Rules(start_timeout=self.place.launch.start_timeout)
        self.journal.secret = self.place.launch.api_key or ""
        await self._shared.moved()
        self._absent("it waits for its turn to start")

    def _heard(self, lines: Sequence[str]) -> None:
        before = self.stage
        for line in lines:
            self.stage = stage_of(line) or self.stage
        if self.stage != before and self.life.phase is Phase.STARTING:
            self._absent(f"it is starting: {self.stage}")

    async def _follow(self, phase: Phase) -> None:
        """Look at the server for as long as it is in a phase."""
        while self.life.phase is phase:
            self._look(time.monotonic())
            if self.life.phase is phase:
                await happens(self._wake, _TICK)
                self._wake.clear()

    def _look(self, now: float) -> None:
        child, backend = self._child, self._backend
        assert child is not None
        if child.ended.is_set():
            reason = self._reason(child)
            self._port_taken = reason.port_taken
            self.life.ended(reason, now)
        elif self._asked:
            self._asked = False
            self.life.drains(now)
        elif fault := self.life.fault(_facts(child, backend, now)):
            self.life.ended(Reason(fault + last_error(self._lines(child))), now)
        elif self.life.phase is Phase.STARTING and backend is not None and backend.is_up:
            backend.absence = None
            self.life.is_ready(now)
            self.took = now - self.begun
            self._tell(f"ready after {self.took:.0f} s")

    def _reason(self, child: Child) -> Reason:
        return reason_of(self._lines(child), child.code or 0)

    def _lines(self, child: Child) -> Sequence[str]:
        """Return the last lines that this process has printed."""
        return self.journal.after(child.first_line)[-LOOKED_AT:]

    async def _part(self) -> None:
        """See the process out, and say how it goes on."""
        life, pool, backend = self.life, self._shared.pool, self._backend
        was_asked = life.phase is Phase.DRAINING
        was_drained = backend is not None and backend.draining
        if was_asked:
            await self.drain()
        if self._child is not None:
            await self._child.stop(GRACE)
            self._child = None
        if was_asked:
            life.again(time.monotonic())
        self._tell_end()
        # By now it is absent, so that it gets nothing before it is back.
        if was_asked and not was_drained and self.name in pool.backends:
            pool.enable(self.name)
        if self._port_taken:
            await self._move()

    async def _move(self) -> None:
        """Take another port: somebody else has got this one."""
        self._port_taken = False
        self._shared.ports.give_back(self.port)
        self.port = self._shared.ports.take()
        await self._shared.moved()
        self._absent(self.life.reason)

    def _tell_end(self) -> None:
        life = self.life
        if life.phase is Phase.FAILED:
            times = f" {life.failures} times" if life.failures > 1 else ""
            self._absent(f"failed{times}: {life.reason}", returns=False)
            self._tell(f"failed{times}, and is not started again: {life.reason}", logging.ERROR)
        elif life.phase is Phase.PAUSING:
            pause = life.retry_at - life.since
            self._absent(f"it is started again: {life.reason}")
            self._tell(f"is started again in {pause:.0f} s: {life.reason}", logging.WARNING)
        else:
            self._absent("it is restarted")

    def _absent(self, reason: str, *, returns: bool = True) -> None:
        if (backend := self._backend) is not None:
            self._shared.pool.is_absent(backend, Absence(reason, returns))

    def _tell(self, text: str, level: int = logging.INFO) -> None:
        self._shared.pool.events.add("launch", self.name, text, level)


def _facts(child: Child, backend: Backend | None, now: float) -> Facts:
    silent = now - child.last_word
    if backend is None or backend.health.state is not State.DOWN:
        return Facts(silent)
    unwell = now - max(backend.health.since, backend.last_byte)
    return Facts(silent, unwell, backend.health.reason)
