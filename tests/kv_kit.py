"""What vLLM publishes of its cache, for tests: events, and a publisher that is really there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import zmq
import zmq.asyncio

SIZE = 16
_END = (-1).to_bytes(8, "big", signed=True)


def stored(
    hashes: Sequence[int | bytes],
    tokens: Sequence[int],
    parent: int | bytes | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return an event as vLLM 0.32 publishes it; `more` are members in place of these."""
    return {
        "type": "BlockStored",
        "block_hashes": list(hashes),
        "parent_block_hash": parent,
        "token_ids": list(tokens),
        "block_size": SIZE,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        **more,
    }


def removed(*hashes: int | bytes, **more: Any) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": "GPU", **more}


CLEARED: dict[str, Any] = {"type": "AllBlocksCleared"}


def payload(*events: Any) -> bytes:
    return msgspec.msgpack.encode([1.5, list(events), 0])


class Publisher:
    """Publishes as vLLM does: numbered messages, the last `kept` of which can be asked for again.

    `restart` is a new engine at the same addresses.
    """

    def __init__(self, *, kept: int = 100, replay: bool = True, topic: bytes = b"kv") -> None:
        self.kept = kept
        self.topic = topic
        self.asked: list[int] = []  # from which number on, each time that somebody did
        self._offers_replay = replay
        self._context = zmq.asyncio.Context()
        self.addresses = ["tcp://127.0.0.1:*", "tcp://127.0.0.1:*"]

    async def __aenter__(self) -> Publisher:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()
        self._context.destroy(linger=0)

    async def _open(self) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.count = 0
        self._events = await self._bind(zmq.XPUB, 0)
        self._replay = await self._bind(zmq.ROUTER, 1)
        self._task = asyncio.ensure_future(self._answer())

    async def _bind(self, kind: int, place: int) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        while True:
            try:
                socket.bind(self.addresses[place])
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise
                await asyncio.sleep(0.005)  # ZMQ closes a socket some time after it was told to
            else:
                break
        self.addresses[place] = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return socket

    async def _close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self._events.close(linger=0)
        self._replay.close(linger=0)

    async def restart(self) -> None:
        await self._close()
        await self._open()

    @property
    def sources(self) -> str:
        """The answer to GET /kv_event_sources."""
        return json.dumps({"0": self.told})

    @property
    def told(self) -> dict[str, Any]:
        events, replay = (one.replace("127.0.0.1", "*") for one in self.addresses)
        return {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": events,
            "replay_endpoint": replay if self._offers_replay else None,
            "topic": self.topic.decode(),
        }

    async def subscribed(self) -> None:
        """Wait until somebody listens."""
        assert (await self._events.recv()).startswith(b"\x01")

    async def publish(self, *events: Any, lost: bool = False) -> None:
        """Send a message; one that is `lost` can only be asked for."""
        await self.send(payload(*events), lost=lost)

    async def send(self, content: bytes, *, lost: bool = False) -> None:
        number = self.count
        self.count += 1
        self.messages = [*self.messages, (number, content)][-self.kept :]
        if not lost:
            await self._events.send_multipart([self.topic, number.to_bytes(8, "big"), content])

    async def send_frames(self, *frames: bytes) -> None:
        """Send what no engine does."""
        await self._events.send_multipart([self.topic, *frames])

    async def _answer(self) -> None:
        while True:
            who, _, wanted = await self._replay.recv_multipart()
            first = int.from_bytes(wanted, "big")
            self.asked.append(first)
            for number, content in self.messages:
                if number >= first:
                    frames = [who, b"", self.topic, number.to_bytes(8, "big"), content]
                    await self._replay.send_multipart(frames)
            await self._replay.send_multipart([who, b"", b"", _END, b""])
