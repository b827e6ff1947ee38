"""Thousands of clients that leave at any moment: nothing of them may stay behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import aiohttp
from chaos_engines import BOTH, plans, running_engines
from chaos_judge import Story, World
from chaos_load import Load
from chaos_report import Report
from chaos_rest import Rest, tracebacks
from chaos_router import PATIENT, running_router
from chaos_wishes import Wish, wishes

_CLIENTS = 60
_STAYING = 0.25  # share of the clients that wait for the end
# An engine that is not told that its client left works on this for longer than we wait.
_LONG = 16_000


async def aborts(requests: int, seed: int, folder: Path) -> Report:
    """Send requests most of which are aborted, at random points, and count what is left."""
    report = Report()
    wanted = plans(3)
    world = World({plan.name: plan.models for plan in wanted})
    async with (
        running_engines(wanted, folder) as engines,
        running_router(engines, folder, PATIENT) as router,
        aiohttp.ClientSession() as session,
    ):
        rest = Rest(engines, router, session, report)
        await rest.all_up()
        stories: list[Story] = []
        some = _restless(requests, seed)
        seeds = {plan.name: plan.seed for plan in wanted}
        load = Load(router.url, some, seeds, stories.append, thinking=0)
        await load.run(_CLIENTS, asyncio.Event())
        await rest.check()
        world.failed = router.failed_attempts()
    for story in stories:
        report.add(story, world)
    report.left_over += tracebacks(folder)
    return report


def _restless(requests: int, seed: int) -> Iterator[Wish]:
    """Yield requests; those whose clients leave ask for more than they will wait for."""
    for wish in islice(wishes(seed, BOTH, leaving=1 - _STAYING), requests):
        leaves = wish.leave_after is not None or wish.leave_at_event is not None
        # llama-server makes an answer that is no stream to its end in any case.
        yield replace(wish, tokens=_LONG) if leaves and wish.stream else wish
