"""A dashboard on a terminal that nobody looks at, for as long as the router is in trouble."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_SIZE = struct.pack("HHHH", 36, 120, 0, 0)  # rows, columns
_STILL = 5.0  # seconds without a change of the screen that no router in trouble explains
_PATIENCE = 15.0
_TAIL = 400  # bytes of the screen that are told when it fails


class Screen:
    """What a process has drawn."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.drawn = bytearray()
        self.last = time.monotonic()

    def read(self) -> None:
        try:
            self.drawn += os.read(self._file, 65536)
        except OSError:  # the process has ended
            asyncio.get_running_loop().remove_reader(self._file)
        self.last = time.monotonic()


@asynccontextmanager
async def dashboard(url: str, faults: list[str]) -> AsyncIterator[None]:
    """Show a router's dashboard; what is wrong with it at the end is added to `faults`."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, _SIZE)
    command = (sys.executable, "-m", "mvllm_router", "top", url, "--interval", "0.5")
    environ = {**os.environ, "TERM": "xterm-256color"}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=its, stdout=its, stderr=its, env=environ
    )
    os.close(its)
    screen = Screen(ours)
    asyncio.get_running_loop().add_reader(ours, screen.read)
    try:
        yield
        faults += await _faults(process, screen, ours)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)


async def _faults(process: asyncio.subprocess.Process, screen: Screen, terminal: int) -> list[str]:
    if process.returncode is not None:
        return [f"the dashboard ended with {process.returncode}: {bytes(screen.drawn[-_TAIL:])!r}"]
    faults = []
    if b"LIVE" not in screen.drawn:
        faults.append("the dashboard never showed the router")
    if (still := time.monotonic() - screen.last) > _STILL:
        faults.append(f"the dashboard has stood still for {still:.0f} s")
    os.write(terminal, b"q")
    try:
        code = await asyncio.wait_for(process.wait(), _PATIENCE)
    except asyncio.TimeoutError:
        return [*faults, "the dashboard did not leave"]
    return [*faults, *([f"the dashboard left with {code}"] if code else [])]
