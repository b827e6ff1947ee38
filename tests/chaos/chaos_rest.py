"""What may not be left when all is over: requests, connections, memory, tracebacks."""

from __future__ import annotations

import asyncio
import re
import textwrap
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import aiohttp
from chaos_engines import Engine
from chaos_report import Report
from chaos_router import RouterProcess

PATIENCE = 15.0  # seconds until everything must be as before
Check = Callable[[], Awaitable[str]]  # says what is not as it should be; "" when all is well


class Rest:
    """Looks at a router that nobody uses any more, and reports what is not as before."""

    def __init__(
        self,
        engines: Sequence[Engine],
        router: RouterProcess,
        session: aiohttp.ClientSession,
        report: Report,
    ) -> None:
        self._engines = engines
        self._router = router
        self._session = session
        self._report = report
        self._descriptors = router.descriptors()

    async def all_up(self) -> None:
        """Wait until every engine is up; what is open then may be open at the end."""
        begun = time.monotonic()
        await self._until(self._troubled, "not all are up")
        self._report.figures["seconds until all were up"] = round(time.monotonic() - begun, 1)

    async def check(self) -> None:
        """Report every request and descriptor that does not end soon."""
        await self._until(self._unfinished, "in the router")
        for engine in self._engines:
            await self._until(engine.at_work, engine.name)
        if self._descriptors is not None:
            await self._until(self._too_many, "descriptors")
            self._report.figures["descriptors"] = (self._descriptors, self._router.descriptors())

    def check_memory(self, before: int | None, *, share: float, size: int) -> None:
        """Report a router that has grown by more than a share and more than `size` bytes."""
        after = self._router.memory()
        if before is None or after is None:
            return
        self._report.figures["MiB"] = (round(before / 2**20, 1), round(after / 2**20, 1))
        if after > before + max(share * before, size):
            self._report.left_over.append(f"memory grew from {before} to {after} bytes")

    async def _until(self, check: Check, what: str) -> None:
        """Wait until `check` finds nothing to complain of any more."""
        end = time.monotonic() + PATIENCE
        while problem := await _problem(check):
            if time.monotonic() > end:
                self._report.left_over.append(f"{what}: {problem}")
                return
            await asyncio.sleep(0.1)

    async def _troubled(self) -> str:
        servers = (await self._router.document(self._session, "/load-stats"))["servers"]
        return ", ".join(f"{s['name']} is {s['health_status']}" for s in servers if not s["status"])

    async def _unfinished(self) -> str:
        found = await self._router.document(self._session, "/router/snapshot")
        counts = {name: found[name] for name in ("in_flight", "queued")}
        counts |= {server["name"]: server["in_flight"] for server in found["servers"]}
        return ", ".join(f"{count} at {name}" for name, count in counts.items() if count)

    async def _too_many(self) -> str:
        assert self._descriptors is not None
        most = self._descriptors + 2 * len(self._engines)  # the health checks' own connections
        count = self._router.descriptors() or 0
        return f"{count} are open, {most} would be well" if count > most else ""


async def _problem(check: Check) -> str:
    try:
        return await check()
    except aiohttp.ClientError as error:
        return f"the router does not answer: {error!r}"


def tracebacks(folder: Path) -> Iterator[str]:
    """Yield each different traceback in the logs of a folder, with how often it is there."""
    for log in sorted(folder.glob("*.log")):
        for trace, count in Counter(_tracebacks(log.read_text())).items():
            yield f"{log.name}, {count} times: {trace}"


def _tracebacks(text: str) -> Iterator[str]:
    # The last line begins where the first one does; those between are further in.
    for found in re.finditer(r"^( *)Traceback.*\n((\1 +.*\n)*)\1\S.*", text, re.MULTILINE):
        yield textwrap.dedent(found[0])
