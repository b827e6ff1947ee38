"""What real engines would only let wait is held back, and given to the first that has room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from load_kit import PATIENCE, Clients
from support import StartRouter, until

from mvllm_router.config import ServerSpec

if TYPE_CHECKING:
    from conftest import EngineServer, StartLlamaServer, StartVllm

SLOTS = 2


async def test_a_llama_server_gets_no_more_than_its_slots_while_another_one_has_room(
    start_llama_server: StartLlamaServer, llama_server: EngineServer, start_router: StartRouter
) -> None:
    small = await asyncio.to_thread(start_llama_server, SLOTS)
    router = await start_router(
        ServerSpec(url=small.url, name="small"), ServerSpec(url=llama_server.url, name="big")
    )
    backends = router.pool.backends
    await until(
        lambda: all(b.is_up and b.scrape is not None for b in backends.values()), timeout=PATIENCE
    )
    assert backends["small"].open_for == SLOTS
    most = 0
    async with Clients(router.url, small.model) as clients:
        calls = [clients.ask(stream=True, tokens=100) for _ in range(10)]
        answered = asyncio.ensure_future(clients.answered(*calls))
        while not answered.done():
            most = max(most, backends["small"].in_flight)
            await asyncio.sleep(0.01)
        await answered
        assert all(call.is_whole for call in calls), calls
    assert SLOTS <= most <= SLOTS + 1, "one more may be tried"


async def test_how_many_requests_a_vllm_runs_at_once_is_learned(
    start_vllm: StartVllm, start_router: StartRouter
) -> None:
    vllm = await asyncio.to_thread(start_vllm, max_num_seqs=3)
    router = await start_router(ServerSpec(url=vllm.url, name="vllm"))
    backend = router.pool.backends["vllm"]
    await until(lambda: backend.is_up, timeout=PATIENCE)
    async with Clients(router.url, vllm.model) as clients:
        calls = [clients.ask(stream=True, tokens=900) for _ in range(12)]
        await until(lambda: backend.places.was_seen, timeout=PATIENCE)
        assert backend.places.runs == 3
        await clients.answered(*calls)
        assert all(call.is_whole for call in calls), calls
        router.pool.learning.look()
        assert (backend.slots, backend.capacity) == (3, 3.0)
        assert backend.speed.tokens_per_second
