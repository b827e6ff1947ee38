"""The inside of a simulated engine: its jobs, its pace, its counts, and who waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from mvllm_router.sim.dialects.base import Dialect
from mvllm_router.sim.faults import FaultPlan
from mvllm_router.sim.job import Job
from mvllm_router.sim.profile import Profile
from mvllm_router.sim.state import State

REMEMBERED_REQUESTS = 512
Outcome = Literal["served", "aborted", "failed"]


@dataclass(frozen=True)
class Received:
    """A request as it arrived: header names in their own case, path with its query."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, in any case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


class Core:
    """State and clock of one engine. All of it runs in one event loop, without threads.

    Of all inference requests: started = served + aborted + failed + those still under way.
    """

    def __init__(self, profile: Profile, dialect: Dialect) -> None:
        self.profile = profile
        self.dialect = dialect
        self.state = State(profile)
        self.plan = FaultPlan()
        self.requests: deque[Received] = deque(maxlen=REMEMBERED_REQUESTS)
        self.started = 0
        self.ends: dict[Outcome, int] = {"served": 0, "aborted": 0, "failed": 0}
        self.stopping = False
        self.held = False
        self.refusing = False  # no connection is to be used again
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # Waiting for things to happen

    def changed(self) -> None:
        """Something was counted: wake those whose condition is now true."""
        for watcher in self._watchers[:]:
            check, done = watcher
            if done.done() or check():
                self._watchers.remove(watcher)
                if not done.done():
                    done.set_result(None)

    async def until(self, check: Callable[[], bool]) -> None:
        """Wait until `check()` is true; it is asked again after each change."""
        if check():
            return
        done = asyncio.get_running_loop().create_future()
        self._watchers.append((check, done))
        await done

    def begin(self) -> None:
        """Count an inference request."""
        self.started += 1
        self.changed()

    def settle(self, outcome: Outcome) -> None:
        """Count what became of an inference request."""
        self.ends[outcome] += 1
        self.changed()

    # Jobs

    def admit(self, job: Job) -> bool:
        """Whether the queue takes this job; if so it has its rank."""
        slots, most = self.state.slots, self.profile.max_queue
        if most is not None and slots.running + slots.waiting >= most:
            self.state.rejected += 1
            return False
        job.rank = self.started % self.profile.engines
        return True

    @asynccontextmanager
    async def slot(self, job: Job) -> AsyncIterator[None]:
        """Queue for a slot, read the prompt, and hold the slot meanwhile."""
        self._interrupt()
        turn = self.state.slots.line_up()
        self.state.jobs.append(job)
        self.changed()
        try:
            await self.state.slots.wait(turn)
            try:
                self.state.entered(job)
                self.changed()
                prefill = self.state.prefill(job)
                await asyncio.sleep(prefill)
                begun = asyncio.get_running_loop().time()
                yield
                if not job.left:
                    seconds = asyncio.get_running_loop().time() - begun
                    self.state.ended(job, prefill=prefill, seconds=seconds)
            finally:
                self.state.left(job)
                self.state.slots.leave()
        finally:
            self.state.jobs.remove(job)
            self.changed()

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Hold a slot for something that is no job."""
        self._interrupt()
        turn = self.state.slots.line_up()
        self.changed()
        await self.state.slots.wait(turn)
        try:
            yield
        finally:
            self.state.slots.leave()
            self.changed()

    def _interrupt(self) -> None:
        if not self.dialect.interrupts:
            return
        for job in self.state.jobs:
            if job.running and job.stream:
                job.interrupted = True
                _nudge(job)

    # Pace

    async def step(self, job: Job) -> None:
        """Wait until the next tokens are due and make them; none when interrupted."""
        interval = self.state.interval()
        await _sleep_until_due(job, interval)
        while self.held and not job.interrupted:
            job.nudge = asyncio.get_running_loop().create_future()
            await job.nudge
            job.due = asyncio.get_running_loop().time()
        if job.interrupted:
            return
        self.state.made(job, min(job.left, self._batch(job, interval)))
        self.changed()

    def _batch(self, job: Job, interval: float) -> int:
        """Tokens that come together: a late or very fast vLLM merges some into one event."""
        if not job.stream and interval == 0:
            return job.left
        if not self.dialect.merges:
            return 1
        if interval == 0:
            return 2 if job.answer.merges(job.made) else 1
        more = int((asyncio.get_running_loop().time() - job.due) / interval)
        job.due += more * interval
        return 1 + more

    def hold(self) -> None:
        """Let running jobs make no more tokens."""
        self.held = True

    def release(self) -> None:
        """Let them go on."""
        self.held = False
        for job in self.state.jobs:
            _nudge(job)

    # Tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that outlives its request."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def cancel_tasks(self) -> None:
        """End all work that outlives its request."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sleep_until_due(job: Job, interval: float) -> None:
    if interval == 0:
        await asyncio.sleep(0)  # others get their turn, and a cancellation is noticed
        return
    now = asyncio.get_running_loop().time()
    # What was lost is not caught up with, but for one token.
    job.due = max(job.due, now - interval) + interval
    await asyncio.sleep(max(0.0, job.due - now))


def _nudge(job: Job) -> None:
    if job.nudge is not None and not job.nudge.done():
        job.nudge.set_result(None)
