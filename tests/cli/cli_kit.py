"""Runs `router` as a user does: in a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mvllm_router

PATIENCE = 40.0  # seconds; a process starts in 0.3 alone, in more beside others
_ROOT = Path(mvllm_router.__file__).parents[1]
_FROM_OUTSIDE = ("ROUTER_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "_TYPER", "PYTEST_")


@dataclass
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        assert "Traceback" not in self.out + self.err, self.err


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which nothing configures the router but `more`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FROM_OUTSIDE)}
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "COLUMNS": "80", **more}


async def start(*words: str, cwd: Path, **env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mvllm_router",
        *words,
        cwd=cwd,
        env=environment(**env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> Done:
    """Wait for the end of a process; kill it where it does not come."""
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def router(*words: str, cwd: Path, **env: str) -> Done:
    """Run a command to its end."""
    return await finish(await start(*words, cwd=cwd, **env))


@dataclass
class Running:
    """A `router run` that listens. Its log so far is in `lines`."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        found: list[str] = re.findall(r" on (https?://\S+),", "\n".join(self.lines))
        return found[0]

    @property
    def server_urls(self) -> list[str]:
        return re.findall(r"added \((\S+)\)", "\n".join(self.lines))

    async def log_line(self, part: str) -> str:
        """Return the next line of the log that contains `part`."""
        assert self.process.stderr is not None
        while line := (await asyncio.wait_for(self.process.stderr.readline(), PATIENCE)).decode():
            self.lines.append(line.rstrip())
            if part in line:
                return line
        raise AssertionError(f"it ended before it said {part!r}: {self.lines}")

    async def stop(self, number: int = signal.SIGTERM) -> Done:
        if self.process.returncode is None:
            self.process.send_signal(number)
        done = await finish(self.process)
        return Done(done.code, done.out, "\n".join(self.lines) + "\n" + done.err)


@asynccontextmanager
async def running(*words: str, cwd: Path, **env: str) -> AsyncIterator[Running]:
    """Run `router run ...` on a free port; stop it at the end, if that has not been done."""
    process = await start("run", "--port", "0", *words, cwd=cwd, **env)
    router = Running(process)
    try:
        await router.log_line("(Ctrl-C to stop)")
        yield router
    finally:
        if process.returncode is None:
            await router.stop(signal.SIGKILL)


async def nobody_listens(url: str) -> bool:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return True
    writer.close()
    return False


async def until_nobody_listens(url: str) -> None:
    """Wait until connections to `url` are refused."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while not await nobody_listens(url):
        assert asyncio.get_running_loop().time() < end, f"{url} still listens"
        await asyncio.sleep(0.02)
