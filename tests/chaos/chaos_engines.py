"""Simulated engines, each in a process of its own that can be killed, stopped and told faults."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mvllm_router

PATIENCE = 30.0  # seconds; a process starts in 0.3 alone, in more beside others
BOTH = ("common", "rare")
_ROOT = Path(mvllm_router.__file__).parents[1]
_FROM_OUTSIDE = ("ROUTER_", "PYTEST_")
_SHAPES: tuple[tuple[str, int, Sequence[str]], ...] = (
    ("vllm", 24, BOTH[:1]),
    ("llama.cpp", 12, BOTH[:1]),
    ("vllm", 16, BOTH),
    ("llama.cpp", 20, BOTH),
    ("vllm", 32, BOTH[:1]),
)


def environment() -> dict[str, str]:
    """Return an environment in which nothing configures a router."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FROM_OUTSIDE)}
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path}


@dataclass(frozen=True)
class Plan:
    """What an engine is. Its seed makes its answers differ from those of all others."""

    name: str
    dialect: str
    slots: int
    models: Sequence[str]
    seed: int
    # Fast enough that a slow reader is the slow one, with a pause that aborts can hit.
    pace: str = "tps=800:prefill=0.15"

    def words(self) -> list[str]:
        """Return the options with which its process is started."""
        size = f"slots={self.slots}:context=10000000"
        spec = f"{self.dialect}:{','.join(self.models)}:{size}:{self.pace}"
        return ["--engine", spec, "--seed", str(self.seed), "--parent-pipe"]


def plans(count: int) -> list[Plan]:
    """Return uneven engines: one model is on all of them, a second one on some."""
    shapes = [_SHAPES[number % len(_SHAPES)] for number in range(count)]
    return [
        Plan(f"s{number}", dialect, slots, models, seed=number)
        for number, (dialect, slots, models) in enumerate(shapes)
    ]


class Engine:
    """One engine. `start` it; after `kill` it starts again at the same address."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.url = ""
        self.log = folder / f"{plan.name}.log"
        self.log.write_bytes(b"")
        self._process: Process | None = None

    @property
    def name(self) -> str:
        return self.plan.name

    async def start(self) -> None:
        """Run it and wait until it listens."""
        port = self.url.rpartition(":")[2] or "0"
        words = (sys.executable, "-m", "mvllm_router.sim", *self.plan.words(), "--port", port)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *words, env=environment(), stdin=PIPE, stdout=PIPE, stderr=log
            )
        self.url = (await self._line())["url"]

    async def kill(self) -> None:
        """End it without a word, as the system does when memory is short."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def tell(self, word: str, **fields: Any) -> dict[str, Any]:
        """Give it a command of mvllm_router/sim/commands.py and return its answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        line = json.dumps({word: {"engine": 0, **fields}})
        self._process.stdin.write(line.encode() + b"\n")
        answer = await self._line()
        assert "error" not in answer, (line, answer)
        return answer

    async def at_work(self) -> str:
        """Say what it still works on, "" for nothing."""
        counts = await self.tell("counts")
        ended = counts["served"] + counts["aborted"] + counts["failed"]
        busy = {"running": counts["running"], "waiting": counts["waiting"]}
        busy["without an end"] = counts["started"] - ended
        return ", ".join(f"{count} {name}" for name, count in busy.items() if count)

    async def _line(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line, f"{self.name} ended: {self.log.read_text()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def running_engines(wanted: Sequence[Plan], folder: Path) -> AsyncIterator[list[Engine]]:
    """Run engines for as long as the context lasts; none of them outlives it."""
    engines = [Engine(plan, folder) for plan in wanted]
    try:
        await asyncio.gather(*(engine.start() for engine in engines))
        yield engines
    finally:
        for engine in engines:
            await engine.kill()
