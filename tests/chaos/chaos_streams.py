"""Thousands of streams that are open at once and mostly say nothing: all of them end well."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
from chaos_answers import Reading, Seen, read_stream, wrong
from chaos_engines import Plan, running_engines
from chaos_report import Report
from chaos_rest import Rest, tracebacks
from chaos_router import RouterProcess, running_router
from chaos_wishes import Wish

from mvllm_router.sim import answer_text

_OPENED_A_SECOND = 400  # so many are surely begun in a second, also on a slow machine
_EVENTS = 2
_AT_ONCE = 100  # requests that are being sent


def descriptors_wanted(count: int) -> int:
    """Return how many descriptors the router needs: two for each stream, and some."""
    return 2 * count + 200


def allow_descriptors(wanted: int) -> bool:
    """Raise this process's limit, which its children get as well; tell whether that worked."""
    if sys.platform == "win32":
        return False
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return True


class Streams:
    """Clients that each read one stream to its end."""

    def __init__(self, url: str, count: int, seed: int, all_open: Callable[[], None]) -> None:
        """`seed` is the engine's; `all_open` is called once all `count` have begun."""
        self._url = url
        self._seed = seed
        self._sending = asyncio.Semaphore(_AT_ONCE)
        self._count = count
        self.open = 0
        self.most = 0  # that were open at once, with something of their answer there
        self._all_open = all_open

    async def read(self, session: aiohttp.ClientSession, number: int) -> Reading:
        wish = Wish(number, "common", stream=True, tokens=_EVENTS, prompt_size=1)
        body, cut = b"", False
        await self._sending.acquire()
        try:
            response = await session.post(self._url + wish.path, json=wish.body())
        finally:
            self._sending.release()
        async with response:
            if response.status != 200:
                return wrong(f"{response.status}: {await response.text()}")
            try:
                body = await response.content.readuntil(b"\n\n")
                self._begun()
                body += await response.content.read()
            except aiohttp.ClientPayloadError:
                cut = True
            finally:
                self.open -= bool(body)
        return read_stream(body, answer_text(self._seed, wish.body()), cut=cut)

    def _begun(self) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        if self.open == self._count:
            self._all_open()


async def streams(count: int, folder: Path) -> Report:
    """Open streams, and close none of them before all are open."""
    report = Report()
    # So slow that the last one begins before the first one ends.
    pause = 1.5 + count / _OPENED_A_SECOND
    plan = Plan("s0", "vllm", count, ("common",), seed=7, pace=f"tps={1 / pause}")
    async with (
        running_engines([plan], folder) as engines,
        running_router(engines, folder, {"request_timeout": 10 * pause}) as router,
        aiohttp.ClientSession() as session,
    ):
        rest = Rest(engines, router, session, report)
        await rest.all_up()
        readings = await _read_all(count, plan.seed, router, report)
        await rest.check()
    for number, reading in enumerate(readings):
        report.requests += 1
        report.totals[reading.seen.value] += 1
        if reading.seen is not Seen.COMPLETE:
            report.violations.append({"what": reading.detail, "request": number})
    report.left_over += tracebacks(folder)
    return report


async def _read_all(count: int, seed: int, router: RouterProcess, report: Report) -> list[Reading]:
    before = router.memory()

    def note_memory() -> None:
        if before is not None:
            grown = (router.memory() or 0) - before
            report.figures["KiB for each open stream"] = round(grown / count / 1024, 1)

    clients = Streams(router.url, count, seed, note_memory)
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        readings = await asyncio.gather(*(clients.read(session, number) for number in range(count)))
    report.figures["open at once"] = clients.most
    if clients.most < count:
        report.left_over.append(f"only {clients.most} of {count} were open at once")
    return readings
