"""Follows what one engine publishes of its cache over ZMQ, message by message.

Messages are numbered from 0. Those that were missed are asked for again, where the engine offers
that; else all that was known of its cache is let go of, for it may not be so any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from mvllm_router.control.kv_sources import KvSource
from mvllm_router.policies.kv_index import KvIndex, Source
from mvllm_router.policies.kv_wire import read_events

log = logging.getLogger(__name__)

# Bytes. A message tells of one step of the engine; 16,000 tokens of prompts are less than 200 KB.
_LONGEST = 4 * 1024 * 1024
# Messages that wait to be read; what comes when there are more is missed.
_MOST_WAITING = 1000
# The same for those that were asked for again: vLLM keeps 10,000 and sends them all at once.
_MOST_REPLAYED = 20_000
# Seconds. For a connection, and for the next message of those that were asked for again.
_PATIENCE = 5.0
# Milliseconds between two signs of life, and without any until a connection counts as lost.
_HEARTBEAT, _LIFELESS = 5_000, 15_000
# Times that messages are asked for which were missed among those asked for.
_ROUNDS = 20
# The number behind the last of the messages that were asked for.
_END = (-1).to_bytes(8, "big", signed=True)


class Lost(Exception):
    """What an engine publishes cannot be followed any more; it says why."""


class Follower:
    """Keeps an index up to date with one engine's cache, for as long as `run` runs."""

    def __init__(
        self, context: zmq.asyncio.Context, index: KvIndex, source: Source, told: KvSource
    ) -> None:
        self._context = context
        self._index = index
        self._source = source
        self._told = told
        self._next = 0  # the number of the first message that is not known
        self._heard = -1  # that of the last one that came by itself

    async def run(self, ready: asyncio.Event) -> None:
        """Follow until it is lost; `ready` is set when all is known that can be.

        Raises:
            Lost: the connection broke, the engine began anew, or what it says makes no sense.
        """
        try:
            with self._socket(zmq.SUB, _MOST_WAITING) as events, _watched(events) as monitor:
                events.subscribe(self._told.topic)
                events.connect(self._told.events)
                await self._connected(monitor)
                await self._replay()
                ready.set()
                await self._listen(events, monitor)
        except zmq.ZMQError as error:
            raise Lost(f"{self._told.events}: {error}") from None

    async def _connected(self, monitor: zmq.asyncio.Socket) -> None:
        if not await monitor.poll(round(_PATIENCE * 1000)):
            raise Lost(f"nobody answers at {self._told.events}")
        self._check(parse_monitor_message(await monitor.recv_multipart()))

    def _check(self, happened: object) -> None:
        assert isinstance(happened, dict)
        if happened["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            raise Lost("the connection broke")

    async def _listen(self, events: zmq.asyncio.Socket, monitor: zmq.asyncio.Socket) -> None:
        poller = zmq.asyncio.Poller()
        poller.register(events, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        while True:
            ready = dict(await poller.poll())
            if events in ready:
                await self._hear(await events.recv_multipart())
                # What has come already is read without waiting, and others have work to do too.
                await asyncio.sleep(0)
            elif monitor in ready:
                self._check(parse_monitor_message(await monitor.recv_multipart()))

    async def _hear(self, frames: list[bytes]) -> None:
        """Take a message that came by itself."""
        number, payload = _message(frames)
        if number <= self._heard:
            raise Lost("the engine began anew")
        self._heard = number
        if number > self._next:
            missed = f"{self._next} to {number - 1}"
            log.info("%s: its KV events %s were missed", self._source.backend.name, missed)
            await self._replay()
        if number >= self._next:  # else it was among those asked for
            self._take(number, payload)

    def _take(self, number: int, payload: bytes) -> None:
        if number > self._next:
            self._index.clear(self._source)  # something was missed, and nobody knows what
        try:
            self._index.apply(self._source, read_events(payload))
        except ValueError as error:
            raise Lost(str(error)) from None
        self._next = number + 1

    # --- asking again

    async def _replay(self) -> None:
        """Take what the engine still has from the first message on that is not known."""
        if not self._told.replay:
            return
        for _ in range(_ROUNDS):
            if await self._replay_once():
                return
        raise Lost("it publishes faster than it can be followed")

    async def _replay_once(self) -> bool:
        """Ask once; return False if something is missing among what came."""
        is_first = True
        async with aclosing(self._replayed()) as messages:
            async for number, payload in messages:
                if number > self._next and not is_first:
                    return False
                if number >= self._next:
                    self._take(number, payload)
                is_first = False
                await asyncio.sleep(0)
        return True

    async def _replayed(self) -> AsyncGenerator[tuple[int, bytes], None]:
        with self._socket(zmq.DEALER, _MOST_REPLAYED) as replay:
            replay.connect(self._told.replay)
            await replay.send_multipart([b"", self._next.to_bytes(8, "big")])
            while True:
                if not await replay.poll(round(_PATIENCE * 1000)):
                    raise Lost(f"no answer at {self._told.replay}")
                frames = await replay.recv_multipart()
                if len(frames) > 2 and frames[-2] == _END:
                    return
                yield _message(frames)

    @contextmanager
    def _socket(self, kind: int, most: int) -> Iterator[zmq.asyncio.Socket]:
        socket = self._context.socket(kind)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IPV6, 1)
            socket.setsockopt(zmq.RCVHWM, most)
            socket.setsockopt(zmq.MAXMSGSIZE, _LONGEST)
            socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _LIFELESS)
            yield socket
        finally:
            socket.close()


@contextmanager
def _watched(socket: zmq.asyncio.Socket) -> Iterator[zmq.asyncio.Socket]:
    """Give a socket that tells what becomes of the connection of another one."""
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
    try:
        yield monitor
    finally:
        socket.disable_monitor()
        monitor.close()


def _message(frames: list[bytes]) -> tuple[int, bytes]:
    """Return the number and the content of a message; what stands before them is its topic."""
    number = int.from_bytes(frames[-2], "big", signed=True) if len(frames) > 1 else -1
    if number < 0 or len(frames[-2]) != 8:
        raise Lost("what it publishes are no KV events")
    return number, frames[-1]
