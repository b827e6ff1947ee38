"""One process of a server, in a group of its own, and what it prints."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mvllm_router.launch.guard import Guard, is_there, signalled
from mvllm_router.launch.journal import Journal
from mvllm_router.tasks import happens, spawn

log = logging.getLogger(__name__)

_CHUNK = 65536
# Seconds until a second SIGTERM: llama-server waits for its clients after the first one, and ends
# at once after another.
_SECOND_ASKING = 3.0
# Seconds for the last words of a group that was killed.
_LAST_WORDS = 2.0
_TICK = 0.05


class Output(NamedTuple):
    """Our end of what a process prints."""

    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport


class Child:
    """A running server process. `ended` is set when it is over, and `code` is then how."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: Output,
        journal: Journal,
        guard: Guard,
        heard: Callable[[Sequence[str]], None],
        over: Callable[[], None],
    ) -> None:
        self.pid = process.pid
        self.ended = asyncio.Event()
        # Before anything is read: it may have printed all that it ever will by now.
        journal.say(f"started as process {self.pid}")
        self.last_word = time.monotonic()  # seconds; when it printed something
        self.first_line = journal.count  # lines of the journal that are not its own
        self._process = process
        self._output = output
        self._journal = journal
        self._guard = guard
        self._heard = heard
        self._over = over
        guard.watch(self.pid)
        self._reading = spawn(self._read(), f"output of process {self.pid}")
        self._waiting = spawn(self._wait(), f"end of process {self.pid}")

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        environ: Mapping[str, str],
        journal: Journal,
        guard: Guard,
        heard: Callable[[Sequence[str]], None],
        over: Callable[[], None],
    ) -> Child:
        """Start a process; `heard` is called with the lines that it prints, `over` at its end.

        Raises:
            OSError: it cannot be started.
        """
        # Not a pipe of asyncio: that would wait for all who hold its other end, and a process
        # that outlives the server, which is to be found and ended, holds it too.
        ours, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,  # its children end with it, and Ctrl-C is not for it
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(process, await _reading(ours), journal, guard, heard, over)

    @property
    def code(self) -> int | None:
        """Its exit code, below 0 for a signal; None while it runs."""
        return self._process.returncode

    async def stop(self, grace: float) -> None:
        """End it and all that it started: SIGTERM, again after a while, SIGKILL after `grace` s."""
        for patience in (min(_SECOND_ASKING, grace), max(0.0, grace - _SECOND_ASKING)):
            if not self.ended.is_set():
                signalled(self.pid, signal.SIGTERM)
                await happens(self.ended, patience)
        if not self.ended.is_set():
            self._journal.say(f"still there {grace:g} s after SIGTERM, so it is killed")
        await self.kill()

    async def kill(self) -> None:
        """End it and all that it started at once."""
        signalled(self.pid, signal.SIGKILL)
        await self.ended.wait()

    async def _read(self) -> None:
        while data := await self._output.reader.read(_CHUNK):
            self.last_word = time.monotonic()
            lines = self._journal.feed(data)
            if lines:
                self._heard(lines)

    async def _wait(self) -> None:
        """Wait for the end of the process, and see that nothing of its group outlives it."""
        await self._process.wait()
        signalled(self.pid, signal.SIGKILL)
        end = time.monotonic() + _LAST_WORDS
        while is_there(self.pid):
            if time.monotonic() >= end:
                log.warning("process group %d was killed, and is still there", self.pid)
                break
            await asyncio.sleep(_TICK)
        await asyncio.wait([self._reading], timeout=_LAST_WORDS)
        self._reading.cancel()  # a process that left the group may hold the pipe open for ever
        self._output.transport.close()
        self._guard.forget(self.pid)
        self.ended.set()
        self._over()


async def _reading(descriptor: int) -> Output:
    """Read what comes through a pipe, whose descriptor is closed at the end."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    return Output(reader, transport)
