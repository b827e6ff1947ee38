"""Clients: each sends one request after the other and tells what became of it."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import aiohttp
from chaos_answers import Reading, Seen, read_error, read_stream, read_whole, wrong
from chaos_judge import Story
from chaos_wishes import Wish

from mvllm_router.sim import answer_text

# More than all that a request can meet: a silence, pauses before the only engine is asked again.
LONGEST = 25.0
_SLOW_BYTES = 4096
# A slow reader's pause: all buffers on the way are full after about a second of it. The router
# gives a client up that reads nothing for request_timeout, so it must be shorter than that.
_SLOW_SECONDS = 1.6
_WIDE = 1 << 20
# Small segments make the buffers on the way small as well.
_NARROW = (
    (socket.SOL_SOCKET, socket.SO_RCVBUF, 1152),
    (socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536),
)


def _narrow_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make a socket that takes little in advance, so that its reader's pace is felt."""
    sock = socket.socket(*address[:3])
    for level, name, value in _NARROW:
        sock.setsockopt(level, name, value)
    return sock


def narrow_connector() -> aiohttp.TCPConnector:
    try:
        return aiohttp.TCPConnector(limit=0, socket_factory=_narrow_socket)
    except TypeError:  # aiohttp before 3.12: the system's buffers hide much of the slowness
        return aiohttp.TCPConnector(limit=0)


def _widen(response: aiohttp.ClientResponse) -> None:
    """Let the rest of an answer come as fast as the machine can."""
    transport = response.connection.transport if response.connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WIDE)


class Received:
    """What has come of one answer so far; it survives the cancellation of its request."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.body = b""
        self.left = False


class Load:
    """Clients of one router. Counts those that are under way."""

    def __init__(
        self,
        url: str,
        wishes: Iterator[Wish],
        seeds: Mapping[str, int],
        tell: Callable[[Story], None],
        *,
        thinking: float = 0.05,
    ) -> None:
        """Prepare.

        Args:
            wishes: shared by all clients; where they end, the clients do.
            seeds: of the engines, by name.
            tell: hears every story at its end.
            thinking: mean seconds between two requests of one client.
        """
        self._thinking = thinking
        self._url = url
        self._wishes = wishes
        self._seeds = seeds
        self._tell = tell
        self._open = 0

    async def run(self, clients: int, stop: asyncio.Event) -> None:
        """Send requests until `stop` is set or none is wished; wait for those under way."""
        timeout = aiohttp.ClientTimeout(total=None)
        async with (
            aiohttp.ClientSession(
                timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
            ) as session,
            aiohttp.ClientSession(
                timeout=timeout, connector=narrow_connector(), read_bufsize=_SLOW_BYTES
            ) as narrow,
        ):
            await asyncio.gather(*(self._client(session, narrow, stop) for _ in range(clients)))

    async def _client(
        self, session: aiohttp.ClientSession, narrow: aiohttp.ClientSession, stop: asyncio.Event
    ) -> None:
        while not stop.is_set() and (wish := next(self._wishes, None)):
            await self._request(narrow if wish.slow else session, wish)
            await asyncio.sleep(random.uniform(0, 2 * self._thinking))

    async def _request(self, session: aiohttp.ClientSession, wish: Wish) -> None:
        begin = time.monotonic()
        received = Received()
        self._open += 1
        try:
            reading = await self._read(session, wish, received)
        finally:
            self._open -= 1
        self._tell(
            Story(
                wish,
                begin,
                time.monotonic(),
                reading,
                status=received.status,
                backend=received.headers.get("x-router-backend", ""),
                attempts=int(received.headers.get("x-router-attempts", 0)),
                others=self._open,
            )
        )

    async def _read(self, session: aiohttp.ClientSession, wish: Wish, got: Received) -> Reading:
        """Send a request and read its answer, in whatever way it ends."""
        cut = False
        limit = LONGEST if wish.leave_after is None else wish.leave_after
        try:
            await asyncio.wait_for(self._exchange(session, wish, got), limit)
        except asyncio.TimeoutError:
            if wish.leave_after is None:
                return wrong(f"no end after {limit:g} s, {len(got.body)} bytes had come")
            got.left = True
        except aiohttp.ClientPayloadError:
            cut = True
        except (aiohttp.ClientError, OSError) as error:
            if got.status == 0:
                return wrong(f"no answer: {type(error).__name__}: {error}")
            cut = True
        return self._reading(wish, got, cut)

    async def _exchange(self, session: aiohttp.ClientSession, wish: Wish, got: Received) -> None:
        headers = {"x-request-id": f"chaos-{wish.number}"}
        paused = False
        async with session.post(
            self._url + wish.path, json=wish.body(), headers=headers
        ) as response:
            got.status, got.headers = response.status, response.headers
            while part := await response.content.read(_SLOW_BYTES if wish.slow else 65536):
                got.body += part
                if wish.leave_at_event and got.body.count(b"\n\n") >= wish.leave_at_event:
                    got.left = True
                    response.close()
                    return
                if wish.slow and not paused:
                    paused = True
                    await asyncio.sleep(_SLOW_SECONDS)
                    _widen(response)

    def _reading(self, wish: Wish, got: Received, cut: bool) -> Reading:
        if got.status == 0:
            return Reading(Seen.LEFT)
        if got.headers.get("x-request-id") != f"chaos-{wish.number}":
            return wrong(f"the answer of request {got.headers.get('x-request-id')}")
        if got.status != 200:
            return Reading(Seen.LEFT) if got.left else read_error(got.status, got.body)
        expected = self._expected(wish, got.headers.get("x-router-backend", ""))
        if wish.stream:
            return read_stream(got.body, expected, cut=cut, left=got.left)
        if got.left:
            return Reading(Seen.LEFT)
        return read_whole(got.body, expected, cut=cut)

    def _expected(self, wish: Wish, backend: str) -> str:
        return answer_text(self._seeds[backend], wish.body()) if backend in self._seeds else ""
