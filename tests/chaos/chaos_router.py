"""A real router in a process of its own, with a file that can be rewritten."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from chaos_engines import PATIENCE, Engine, environment

_FAILED = re.compile(r"chaos-(\d+): attempt \d+ at (\S+) failed: (.*)")
_BROKEN = "[config\npolicy = "

# Fast checks, so that a run of some seconds sees many of them; short silence, so that hung
# requests end; enough attempts to reach every engine.
SETTINGS: Mapping[str, Any] = {
    "request_timeout": 2.0,
    "connect_timeout": 1.0,
    "max_retries": 10,
    "health_check_interval": 0.3,
    "health_check_timeout": 1.0,
    "scrape_interval": 0.3,
    "auto_recovery_threshold": 1.0,
    "shutdown_timeout": 10.0,
}

# Where nothing goes wrong on purpose: a machine that stands still for a moment is no fault.
PATIENT: Mapping[str, Any] = {"request_timeout": 60.0, "health_check_timeout": 30.0}


class RouterProcess:
    """A `router run` that listens at `url`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], room: float) -> None:
        """`room` is the share of the engines' slots that the file tells."""
        self.url = ""
        self._room = room
        self.log = folder / "router.log"
        self._file = folder / "conf" / "servers.toml"  # its folder is watched: no logs there
        self._file.parent.mkdir(exist_ok=True)
        self._settings = {**SETTINGS, **settings}
        self._process: Process | None = None

    # --- its file

    def write(self, engines: list[Engine], weights: Mapping[str, float], **how: bool) -> None:
        """Write the file. `broken`: as no TOML; `in_place`: over what is there."""
        text = self._text(engines, weights) + (_BROKEN if how.get("broken") else "")
        if how.get("in_place"):
            self._file.write_text(text)
            return
        beside = self._file.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._file)

    def _text(self, engines: list[Engine], weights: Mapping[str, float]) -> str:
        servers = [self._table(engine, weights.get(engine.name, 1.0)) for engine in engines]
        settings = [f"{name} = {_toml(value)}" for name, value in self._settings.items()]
        return "\n".join([*servers, "[config]", *settings, ""])

    def _table(self, engine: Engine, weight: float) -> str:
        plan = engine.plan
        lines = ["[[servers]]", f'url = "{engine.url}"', f'name = "{plan.name}"']
        lines.append(f"weight = {weight}")
        if plan.dialect != "llama.cpp" or self._room < 1:  # else it is left to tell them itself
            lines.append(f"max_concurrent_requests = {max(1, int(plan.slots * self._room))}")
        return "\n".join([*lines, ""])

    # --- its life

    async def start(self) -> None:
        """Run it and wait until it listens."""
        words = ("run", "-c", str(self._file), "--console", "--port", "0")
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mvllm_router", *words),
                env=environment(),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
            )
        await asyncio.wait_for(self._listening(), PATIENCE)

    async def _listening(self) -> None:
        while not (found := re.search(r" on (http://\S+),", self.log.read_text())):
            assert self._live.returncode is None, self.log.read_text()
            await asyncio.sleep(0.02)
        self.url = found[1]

    def signal(self, number: signal.Signals) -> None:
        self._live.send_signal(number)

    async def ended(self, patience: float) -> int:
        """Wait for its end and return its exit code."""
        return await asyncio.wait_for(self._live.wait(), patience)

    async def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def _live(self) -> Process:
        assert self._process is not None
        return self._process

    # --- what it says and holds

    async def document(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
        async with session.get(self.url + path) as response:
            found: dict[str, Any] = await response.json()
            return found

    def failed_attempts(self) -> dict[int, list[tuple[str, str]]]:
        """Return, by number of the request, the engines that failed it and why."""
        found: dict[int, list[tuple[str, str]]] = {}
        for number, name, reason in _FAILED.findall(self.log.read_text()):
            found.setdefault(int(number), []).append((name, reason))
        return found

    def descriptors(self) -> int | None:
        """Return how many file descriptors are open; None where the system does not tell."""
        folder = Path(f"/proc/{self._live.pid}/fd")
        return len(os.listdir(folder)) if folder.exists() else None

    def memory(self) -> int | None:
        """Return the bytes that it has in memory; None where the system does not tell."""
        file = Path(f"/proc/{self._live.pid}/statm")
        return (
            int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else None
        )


@asynccontextmanager
async def running_router(
    engines: list[Engine], folder: Path, settings: Mapping[str, Any], room: float = 1.0
) -> AsyncIterator[RouterProcess]:
    """Run a router in front of engines for as long as the context lasts."""
    router = RouterProcess(folder, settings, room)
    router.write(engines, {})
    try:
        await router.start()
        yield router
    finally:
        await router.kill()


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
