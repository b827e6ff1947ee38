"""Requests and connections are gone when they end, without waiting for the garbage collector.

It looks rarely (see server.py), and each cycle would keep a body, a parser and buffers till then.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter

import pytest
from support import StartRouter, StartSim, chat, until
from wire import RawClient

from mvllm_router.sim.faults import Fault

ENDS = ("whole", "stream", "leaves", "refused", "moved on")


async def ask(client: RawClient, end: str) -> None:
    """Ask once, and read the answer or leave."""
    stream = end in ("stream", "leaves")
    client.post(
        json.dumps(chat(stream=stream, max_tokens=20)).encode() if end != "refused" else b""
    )
    await client.reader.readuntil(b"\r\n\r\n")
    if end == "leaves":
        client.writer.transport.abort()
    elif end == "stream":
        await client.reader.readuntil(b"[DONE]")
    else:
        await client.reader.readuntil(b"}")
    client.writer.close()


@pytest.mark.parametrize("end", ENDS)
async def test_nothing_is_left_for_the_garbage_collector(
    end: str, start_router: StartRouter, start_sim: StartSim
) -> None:
    bad, good = await start_sim(tokens_per_second=200.0), await start_sim(tokens_per_second=200.0)
    router = await start_router(bad, good)
    if end == "moved on":
        bad.inject(Fault.RESET)
    for count in (3, 10):  # the first ones warm caches
        gc.collect()
        gc.disable()
        try:
            for _ in range(count):
                await ask(await RawClient.connect(router.url), end)
            await until(lambda: not router.front.connections)
            await asyncio.sleep(0.05)  # what was aborted is closed in a later round
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            ours = ("mvllm_router.front", "mvllm_router.proxy", "mvllm_router.pool")
            left = Counter(
                type(each).__name__ for each in gc.garbage if type(each).__module__.startswith(ours)
            )
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not left
