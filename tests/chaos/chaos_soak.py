"""Very many short requests: the router's memory stays as it was after the first of them."""

from __future__ import annotations

import asyncio
import json
import time
from asyncio import StreamReader
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from chaos_answers import Reading, Seen, read_stream, read_whole
from chaos_engines import Plan, running_engines
from chaos_report import Report
from chaos_rest import Rest, tracebacks
from chaos_router import PATIENT, RouterProcess, running_router
from chaos_wishes import Wish

from mvllm_router.sim import answer_text

_CONNECTIONS = 8
_ONE_STREAM_IN = 12  # so many requests
_PLAN = Plan("s0", "vllm", 64, ("common",), seed=3, pace="tps=0")
_GROWTH = 0.05  # share by which the memory may grow after the first tenth
_HEAD = (
    "POST {} HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
)


@dataclass(frozen=True)
class Asked:
    """A request as bytes, made beforehand, and the text that answers it."""

    data: bytes
    stream: bool
    text: str


def ask(number: int) -> Asked:
    wish = Wish(number, "common", not number % _ONE_STREAM_IN, tokens=4, prompt_size=1)
    body = json.dumps(wish.body()).encode()
    head = _HEAD.format(wish.path, len(body)).encode()
    return Asked(head + body, wish.stream, answer_text(_PLAN.seed, wish.body()))


class Soak:
    """Clients that each send one request after the other on a connection of their own.

    They are no library's: a client that costs little leaves the machine to the router.
    """

    def __init__(self, requests: int) -> None:
        self._left = requests
        self._asked = cycle([ask(number) for number in range(5 * _ONE_STREAM_IN)])
        self._milestones: list[tuple[int, Callable[[], None]]] = []
        self.wrong: list[Reading] = []

    def when_left(self, left: int, call: Callable[[], None]) -> None:
        """Call something when so many requests are left."""
        self._milestones.append((left, call))

    async def client(self, url: str) -> None:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            while self._take() and not self.wrong:
                asked = next(self._asked)
                writer.write(asked.data)
                reading = await _read(reader, asked)
                if reading.seen is not Seen.COMPLETE:
                    self.wrong.append(reading)
        finally:
            writer.close()

    def _take(self) -> bool:
        if not self._left:
            return False
        self._left -= 1
        for left, call in self._milestones:
            if left == self._left:
                call()
        return True


async def _read(reader: StreamReader, asked: Asked) -> Reading:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if asked.stream and b"chunked" in head:
        return read_stream(await _chunks(reader), asked.text, cut=False)
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return read_whole(await reader.readexactly(length), asked.text, cut=False)


async def _chunks(reader: StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


async def soak(requests: int, folder: Path) -> Report:
    """Send requests on a few connections; compare the memory at a tenth with that at the end."""
    report = Report(requests=requests)
    async with (
        running_engines([_PLAN], folder) as engines,
        running_router(engines, folder, PATIENT) as router,
        aiohttp.ClientSession() as session,
    ):
        rest = Rest(engines, router, session, report)
        await rest.all_up()
        await _send(requests, router, rest, report)
        await rest.check()
    report.left_over += tracebacks(folder)
    return report


async def _send(requests: int, router: RouterProcess, rest: Rest, report: Report) -> None:
    soaking = Soak(requests)
    memory: list[int | None] = []
    soaking.when_left(requests - requests // 10, lambda: memory.append(router.memory()))
    begun = time.monotonic()
    await asyncio.gather(*(soaking.client(router.url) for _ in range(_CONNECTIONS)))
    report.figures["requests a second"] = round(requests / (time.monotonic() - begun))
    report.violations += [{"what": f"{one.seen.value}: {one.detail}"} for one in soaking.wrong]
    rest.check_memory(memory[0], share=_GROWTH, size=0)
