"""Carries a schedule out, and notes when each trouble really began and ended."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
from chaos_engines import Engine
from chaos_judge import Trouble
from chaos_router import RouterProcess
from chaos_schedule import KINDS, Incident, Rewrite, Schedule

_FLAP_SECONDS = 0.25


class Troublemaker:
    """Does to engines and router what a schedule says."""

    def __init__(
        self,
        engines: list[Engine],
        router: RouterProcess,
        troubles: list[Trouble],
        say: Callable[[str], None],
    ) -> None:
        """`troubles` is where it notes what it does, `say` hears of it in words."""
        self._engines = engines
        self._router = router
        self._troubles = troubles
        self._say = say
        self._begun = 0.0

    async def carry_out(self, schedule: Schedule) -> None:
        """Run the whole schedule; at its end every engine is as it was in the beginning."""
        self._begun = time.monotonic()
        sequences: dict[tuple[int, str], list[Incident]] = {}
        for incident in schedule.incidents:
            # What is done to the router does not get in the way of what is done to an engine.
            group = incident.kind if incident.kind in ("reload", "drain") else "engine"
            sequences.setdefault((incident.engine, group), []).append(incident)
        await asyncio.gather(
            *(self._run(incidents) for incidents in sequences.values()),
            self._rewrite(schedule.rewrites),
            self._hang_up(schedule.hangups),
            self._until(schedule.seconds),
        )

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, self._begun + at - time.monotonic()))

    # --- incidents

    async def _run(self, incidents: Sequence[Incident]) -> None:
        for incident in incidents:
            await self._until(incident.begin)
            self._say(str(incident))
            engine = self._engines[incident.engine]
            trouble = Trouble(incident.kind, engine.name, time.monotonic())
            self._troubles.append(trouble)
            await self._have(engine, incident)
            trouble.end = time.monotonic()

    async def _have(self, engine: Engine, incident: Incident) -> None:
        if KINDS[incident.kind].fault:
            await engine.tell("inject", fault=KINDS[incident.kind].fault, **incident.details)
            await self._until(incident.end)
            await engine.tell("clear")
            return
        having: Mapping[str, Any] = {
            "kill": self._killed,
            "pause": self._paused,
            "flap": self._flapping,
            "drain": self._drained,
            "reload": self._reloaded,
        }
        await having[incident.kind](engine, incident.end)

    async def _killed(self, engine: Engine, end: float) -> None:
        await engine.kill()
        await self._until(end)
        await engine.start()

    async def _paused(self, engine: Engine, end: float) -> None:
        engine.signal(signal.SIGSTOP)
        await self._until(end)
        engine.signal(signal.SIGCONT)

    async def _flapping(self, engine: Engine, end: float) -> None:
        while time.monotonic() < self._begun + end:
            await engine.tell("inject", fault="refuse")
            await asyncio.sleep(_FLAP_SECONDS)
            await engine.tell("clear")
            await asyncio.sleep(_FLAP_SECONDS)

    async def _drained(self, engine: Engine, end: float) -> None:
        await self._ask_for(engine, "drain")
        await self._until(end)
        await self._ask_for(engine, "enabled")

    async def _ask_for(self, engine: Engine, state: str) -> None:
        url = f"{self._router.url}/router/backends/{engine.name}"
        async with (
            aiohttp.ClientSession() as session,
            session.patch(url, json={"state": state}) as response,
        ):
            # 404: a storm of reloads has just taken the server out of the file.
            if response.status not in (200, 404):
                raise AssertionError(f"{state}: {response.status} {await response.text()}")

    async def _reloaded(self, engine: Engine, end: float) -> None:
        """Wait: the rewrites of the file are done by `_rewrite`."""
        await self._until(end)

    # --- the router

    async def _rewrite(self, rewrites: Sequence[Rewrite]) -> None:
        for rewrite in rewrites:
            await self._until(rewrite.at)
            named = [e for n, e in enumerate(self._engines) if n in rewrite.weights]
            weights = {self._engines[n].name: weight for n, weight in rewrite.weights.items()}
            self._router.write(named, weights, broken=rewrite.broken, in_place=rewrite.in_place)

    async def _hang_up(self, hangups: Sequence[float]) -> None:
        for at in hangups:
            await self._until(at)
            self._router.signal(signal.SIGHUP)
