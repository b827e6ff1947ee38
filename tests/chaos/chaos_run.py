"""One run: engines, a router, clients and a schedule of troubles; then everything is counted."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from chaos_dashboard import dashboard
from chaos_engines import BOTH, Engine, plans, running_engines
from chaos_judge import Story, World
from chaos_load import Load
from chaos_report import Report
from chaos_rest import PATIENCE, Rest, tracebacks
from chaos_router import RouterProcess, running_router
from chaos_schedule import WARM_UP, draw
from chaos_troubles import Troublemaker
from chaos_wishes import wishes

_QUEUE_TIMEOUT = 1.5  # seconds
_STALL = 0.5  # seconds without a turn that count as one
_ROOM = 0.25  # of the engines' slots, where the router keeps to capacities
_GROWTH = 0.10  # share by which the memory may grow,
_SLACK = 8 * 1024 * 1024  # or by so many bytes


@dataclass(frozen=True)
class Options:
    """What a run is.

    Attributes:
        max_queue: requests that may wait in the router, which then keeps to capacities. They are
            made small, so that it has to. None: it takes what comes.
        stop_under_load: end with a SIGTERM while clients ask.
        watched: a dashboard shows the router meanwhile, and has to bear it.
    """

    seed: int
    seconds: float
    engines: int = 5
    clients: int = 20
    max_queue: int | None = None
    stop_under_load: bool = False
    watched: bool = False


class Run:
    """One run and what it has found so far."""

    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        """`folder` is for logs, `say` hears what goes on."""
        self.options = options
        self.report = Report()
        self._folder = folder
        self._say = say
        self._plans = plans(options.engines)
        models = {plan.name: plan.models for plan in self._plans}
        self._world = World(models, options.max_queue, _QUEUE_TIMEOUT)
        self._stories: list[Story] = []
        self._wishes = wishes(options.seed, BOTH)

    async def run(self) -> Report:
        """Return what has been found; `report.good` tells whether all was well."""
        async with AsyncExitStack() as stack:
            watch = asyncio.ensure_future(self._watch_the_machine())
            stack.callback(watch.cancel)
            engines = await stack.enter_async_context(running_engines(self._plans, self._folder))
            router = await stack.enter_async_context(
                running_router(engines, self._folder, *self._limits())
            )
            session = await stack.enter_async_context(aiohttp.ClientSession())
            rest = Rest(engines, router, session, self.report)
            await rest.all_up()
            async with AsyncExitStack() as screen:
                if self.options.watched:
                    shown = dashboard(router.url, self.report.left_over)
                    await screen.enter_async_context(shown)
                memory = await self._load_with_troubles(engines, router)
            await rest.all_up()
            await rest.check()
            rest.check_memory(memory, share=_GROWTH, size=_SLACK)
            if self.options.stop_under_load:
                await self._stop_under_load(router)
            self._world.failed = router.failed_attempts()
        self.report.figures["seconds the machine stood still"] = round(
            sum(end - begin for begin, end in self._world.stalls), 1
        )
        for story in self._stories:  # only now is it known when each trouble ended
            self.report.add(story, self._world)
        self.report.left_over += tracebacks(self._folder)
        return self.report

    async def _watch_the_machine(self) -> None:
        """Note when this process did not run for long: the others may not have run either."""
        while True:
            begin = time.monotonic()
            await asyncio.sleep(_STALL / 5)
            if time.monotonic() - begin > _STALL:
                self._world.stalls.append((begin, time.monotonic()))

    def _limits(self) -> tuple[Mapping[str, Any], float]:
        """Return settings for the router, and the share of the slots that it may use."""
        most = self.options.max_queue
        if most is None:
            return {}, 1.0
        return {"max_queue": most, "queue_timeout": _QUEUE_TIMEOUT}, _ROOM

    async def _load_with_troubles(self, engines: list[Engine], router: RouterProcess) -> int | None:
        """Return the router's memory after the warm-up."""
        models = [plan.models for plan in self._plans]
        schedule = draw(self.options.seed, self.options.seconds, models)
        for line in schedule.lines():
            self._say(line)
        maker = Troublemaker(engines, router, self._world.troubles, self._say)
        stop = asyncio.Event()
        load = asyncio.ensure_future(self._load(router).run(self.options.clients, stop))
        try:
            troubles = asyncio.ensure_future(maker.carry_out(schedule))
            await asyncio.sleep(WARM_UP)
            memory = router.memory()
            await troubles
        finally:
            stop.set()
            await load
        return memory

    def _load(self, router: RouterProcess) -> Load:
        seeds = {plan.name: plan.seed for plan in self._plans}
        return Load(router.url, self._wishes, seeds, self._stories.append)

    async def _stop_under_load(self, router: RouterProcess) -> None:
        stop = asyncio.Event()
        load = asyncio.ensure_future(self._load(router).run(self.options.clients, stop))
        await asyncio.sleep(1.0)
        self._world.stopping_from = time.monotonic()
        router.signal(signal.SIGTERM)
        stop.set()
        await load
        code = await router.ended(PATIENCE)
        if code != 0:
            self.report.left_over.append(f"after SIGTERM the router ended with {code}")
