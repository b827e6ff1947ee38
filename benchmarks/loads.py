"""The loads: each is put on one proxy for some seconds, and tells what was done and how long it
took. They speak HTTP by raw sockets, so that the client costs little.
"""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

PROMPT = "hello " * 20
_CHUNKS_END = b"\r\n0\r\n\r\n"
_ANSWER_END = b'"total_tokens":18}}'
_PATIENCE = 30.0  # seconds until an answer is there
_CREATED = re.compile(rb'"created":([\d.]+)')


@dataclass
class Done:
    """What was done: answers and events that came, and seconds that each of some took."""

    seconds: float
    answers: int = 0
    events: int = 0
    waits: list[float] = field(default_factory=list)


def chat(size: int = 0, **more: object) -> bytes:
    """Return the body of a request with a prompt of `size` bytes more than a short one."""
    words = "".join(f'"{key}":{value},' for key, value in more.items())
    prompt = PROMPT + "x" * size
    text = f'{{"model":"tiny",{words}"messages":[{{"role":"user","content":"{prompt}"}}]}}'
    return text.encode()


def post(body: bytes, key: str) -> bytes:
    secret = f"authorization: Bearer {key}\r\n" if key else ""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"user-agent: bench\r\naccept: */*\r\n{secret}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# --- as many requests as can be

_SCRIPT = """
wrk.method = "POST"
wrk.body = io.open("{body}", "rb"):read("*a")
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {key}"
"""


def hammer(url: str, key: str, body: bytes, connections: int, seconds: float) -> Done:
    """Send `body` over and over on each connection, by wrk."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "body").write_bytes(body)
        script = Path(folder, "post.lua")
        script.write_text(_SCRIPT.format(body=f"{folder}/body", key=key))
        length = f"-d{max(1, round(seconds))}s"
        line = ["wrk", "-t1", f"-c{connections}", length, "--timeout", "20s", "-s", str(script)]
        text = subprocess.run([*line, f"{url}/v1/chat/completions"], capture_output=True, text=True)
    if text.returncode or "Non-2xx" in text.stdout or "Socket errors" in text.stdout:
        raise RuntimeError(f"wrk at {url}:\n{text.stdout}{text.stderr}")
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", text.stdout)
    assert found is not None, text.stdout
    return Done(float(found[2]) / (1000 if found[3] == "ms" else 1), int(found[1]))


# --- streams


def stream(
    url: str,
    key: str,
    connections: int,
    seconds: float,
    *,
    events: int,
    pause: float,
    ramp: float = 0.0,
) -> Done:
    """Let each connection ask for stream after stream; note how late the events come.

    The first streams begin together, or evenly within the first `ramp` seconds.
    """
    request = post(chat(stream="true", max_completion_tokens=events, temperature=pause), key)
    return _run(_stream(url, request, connections, seconds, ramp))


class _Stream(asyncio.Protocol):
    """A client that asks for stream after stream until `until`, in monotonic seconds.

    It is no more than it has to be: what it takes itself comes on top of how late an event is.
    """

    def __init__(self, request: bytes, until: float, done: Done) -> None:
        self._request, self._until, self._done = request, until, done
        self._end = b""
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now, done = time.monotonic(), self._done
        written = _CREATED.findall(data)
        done.events += len(written)
        done.waits += [now - float(when) for when in written]
        self._end = (self._end + data)[-len(_CHUNKS_END) :]
        if self._end != _CHUNKS_END:
            return
        done.answers += 1
        if now < self._until:
            self._transport.write(self._request)
        else:
            self.over.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(RuntimeError(f"a stream broke off: {exc}"))


async def _stream(url: str, request: bytes, connections: int, seconds: float, ramp: float) -> Done:
    loop, parts = asyncio.get_running_loop(), urlsplit(url)
    begun = time.monotonic()
    done = Done(0)

    async def client(number: int) -> None:
        await asyncio.sleep(ramp * number / connections)
        _, stream = await loop.create_connection(
            lambda: _Stream(request, begun + seconds, done), parts.hostname or "", parts.port or 80
        )
        await stream.over

    await asyncio.gather(*(client(number) for number in range(connections)))
    done.seconds = time.monotonic() - begun
    return done


# --- requests at a fixed rate


def paced(url: str, key: str, rate: float, seconds: float, connections: int = 64) -> Done:
    """Send requests when they are due, whether or not the last ones were answered."""
    return _run(_paced(url, post(chat(), key), rate, seconds, connections))


class _Asker(asyncio.Protocol):
    """A connection that asks when it is told to, and tells how long the answer took."""

    def __init__(self, request: bytes, done: Done, idle: asyncio.Queue[_Asker]) -> None:
        self._request, self._done, self._idle = request, done, idle
        self._end = b""
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._idle.put_nowait(self)

    def ask(self, since: float) -> None:
        self._since, self._end = since, b""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._end = (self._end + data)[-len(_ANSWER_END) :]
        if self._end == _ANSWER_END:
            self._done.waits.append(time.monotonic() - self._since)
            self._done.answers += 1
            self._idle.put_nowait(self)

    def close(self) -> None:
        self._transport.close()


async def _paced(url: str, request: bytes, rate: float, seconds: float, connections: int) -> Done:
    loop, parts = asyncio.get_running_loop(), urlsplit(url)
    idle: asyncio.Queue[_Asker] = asyncio.Queue()
    done = Done(seconds)
    for _ in range(connections):
        await loop.create_connection(
            lambda: _Asker(request, done, idle), parts.hostname or "", parts.port or 80
        )
    begun = time.monotonic()
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        if (pause := due - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        sent = time.monotonic()  # timers are off by up to a millisecond
        asker = idle.get_nowait() if not idle.empty() else await _next(idle)
        asker.ask(sent)
    for _ in range(connections):
        (await _next(idle)).close()
    return done


async def _next(idle: asyncio.Queue[_Asker]) -> _Asker:
    """Return the next one whose answer comes; raises TimeoutError where none does."""
    return await asyncio.wait_for(idle.get(), _PATIENCE)


# --- many streams at once

Wires = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def held(url: str, key: str, count: int) -> tuple[asyncio.AbstractEventLoop, list[Wires]]:
    """Open so many streams, and return them with their loop when all have begun."""
    loop = uvloop.new_event_loop()
    request = post(chat(stream="true", max_completion_tokens=100, temperature=1.0), key)

    async def one() -> Wires:
        reader, writer = await _open(url)
        writer.write(request)
        await reader.readuntil(b'"created"')
        return reader, writer

    async def every() -> list[Wires]:
        those: list[Wires] = []
        while len(those) < count:
            those += await asyncio.gather(*(one() for _ in range(min(100, count - len(those)))))
        return those

    return loop, loop.run_until_complete(every())


async def _open(url: str) -> Wires:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname or "", parts.port or 80, limit=2**20)


def _run(work: Coroutine[Any, Any, Done]) -> Done:
    loop = uvloop.new_event_loop()
    gc.disable()  # a client that looks for garbage is late itself
    try:
        return loop.run_until_complete(work)
    finally:
        gc.enable()
        loop.close()
