"""Hard caps and the queue: who waits, who is refused, and that every place comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import aiohttp
from support import StartRouter, StartSim, chat, until

from mvllm_router.config import ServerSpec
from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine


def spec(engine: SimEngine, name: str, most: int) -> ServerSpec:
    return ServerSpec(url=engine.url, name=name, max_concurrent_requests=most)


async def ask(http: aiohttp.ClientSession, router: Router, **body: object) -> tuple[int, str]:
    request = chat(**{"max_tokens": 2, **body})  # type: ignore[arg-type]
    async with http.post(f"{router.url}/v1/chat/completions", json=request) as response:
        await response.read()
        return response.status, response.headers.get("x-router-backend", "")


async def test_a_capped_server_never_gets_more_than_it_can_run(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim(slots=100, tokens_per_second=200.0) for _ in range(2)]
    specs = [spec(engines[0], "s0", 2), spec(engines[1], "s1", 3)]
    router = await start_router(*specs, max_queue=100)
    most = {"s0": 0, "s1": 0}
    lease = router.pool.lease

    def counting(backend, why):  # type: ignore[no-untyped-def]
        taken = lease(backend, why)
        most[backend.name] = max(most[backend.name], backend.in_flight)
        return taken

    router.pool.lease = counting  # type: ignore[method-assign]
    answers = await asyncio.gather(*(ask(http, router) for _ in range(40)))
    assert {status for status, _ in answers} == {200}
    assert most == {"s0": 2, "s1": 3}


async def test_without_a_queue_what_is_beyond_the_cap_is_a_429_with_retry_after(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(slots=100, tokens_per_second=20.0)
    router = await start_router(spec(engine, "s0", 2), enforce_capacity=True)
    running = [asyncio.create_task(ask(http, router, max_tokens=10)) for _ in range(2)]
    await until(lambda: router.pool.backends["s0"].in_flight == 2)
    async with http.post(f"{router.url}/v1/chat/completions", json=chat()) as response:
        assert response.status == 429
        assert int(response.headers["retry-after"]) >= 1
        assert (await response.json())["error"]["code"] == "overloaded"
    assert await asyncio.gather(*running) == [(200, "s0")] * 2


async def test_without_learning_nothing_is_capped_by_default_and_nobody_waits(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(slots=100, tokens_per_second=50.0)
    router = await start_router(spec(engine, "s0", 1), learn=False)
    running = [asyncio.create_task(ask(http, router, max_tokens=10)) for _ in range(5)]
    await until(lambda: router.pool.backends["s0"].in_flight == 5)
    assert router.dispatch.waiting == 0
    await asyncio.gather(*running)


async def test_who_waits_goes_to_the_first_server_that_has_room(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    slow, quick = await start_sim(tokens_per_second=2.0), await start_sim(tokens_per_second=50.0)
    router = await start_router(spec(slow, "slow", 1), spec(quick, "quick", 1), max_queue=10)
    running = [asyncio.create_task(ask(http, router, max_tokens=10)) for _ in range(2)]
    await until(lambda: all(b.in_flight == 1 for b in router.pool.backends.values()))
    waiting = [asyncio.create_task(ask(http, router)) for _ in range(4)]
    await until(lambda: router.dispatch.waiting == 4)
    assert await asyncio.gather(*waiting) == [(200, "quick")] * 4
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_client_that_leaves_the_queue_leaves_it_at_once(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(tokens_per_second=10.0)
    router = await start_router(spec(engine, "s0", 1), max_queue=10)
    first = asyncio.create_task(ask(http, router, max_tokens=5))
    await until(lambda: router.pool.backends["s0"].in_flight == 1)
    second = asyncio.create_task(ask(http, router))
    third = asyncio.create_task(ask(http, router))
    await until(lambda: router.dispatch.waiting == 2)
    second.cancel()
    await until(lambda: router.dispatch.waiting == 1)
    assert await first == await third == (200, "s0")
    assert engine.started == 2


async def test_a_server_that_joins_takes_those_that_wait(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    full, free = await start_sim(tokens_per_second=1.0), await start_sim()
    router = await start_router(spec(full, "full", 1), max_queue=10)
    running = asyncio.create_task(ask(http, router, max_tokens=100))
    await until(lambda: router.pool.backends["full"].in_flight == 1)
    waiting = [asyncio.create_task(ask(http, router)) for _ in range(3)]
    await until(lambda: router.dispatch.waiting == 3)
    servers = (*router.config.servers, spec(free, "free", 1))
    await router.live.apply(replace(router.config, servers=servers))
    assert await asyncio.gather(*waiting) == [(200, "free")] * 3
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_higher_cap_of_a_reload_lets_waiting_requests_in(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(slots=8, tokens_per_second=2.0)
    router = await start_router(spec(engine, "s0", 1), max_queue=10)
    tasks = [asyncio.create_task(ask(http, router, max_tokens=100)) for _ in range(3)]
    await until(lambda: router.dispatch.waiting == 2)
    await router.live.apply(replace(router.config, servers=(spec(engine, "s0", 3),)))
    await until(lambda: router.dispatch.waiting == 0)
    assert router.pool.backends["s0"].in_flight == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_request_that_waits_while_its_only_server_drains_ends_with_a_503(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(tokens_per_second=50.0)
    router = await start_router(spec(engine, "s0", 1), max_queue=10, queue_timeout=0.5)
    first = asyncio.create_task(ask(http, router, max_tokens=10))
    await until(lambda: router.pool.backends["s0"].in_flight == 1)
    second = asyncio.create_task(ask(http, router))
    await until(lambda: router.dispatch.waiting == 1)
    router.pool.drain("s0")
    assert await first == (200, "s0")
    assert (await second)[0] == 503
    assert router.dispatch.waiting == 0


async def test_stopping_tells_those_that_wait(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(tokens_per_second=1.0)
    router = await start_router(spec(engine, "s0", 1), max_queue=10)
    tasks = [asyncio.create_task(ask(http, router, max_tokens=100)) for _ in range(3)]
    await until(lambda: router.dispatch.waiting == 2)
    await router.stop(drain_timeout=0)
    statuses = sorted(status for status, _ in await asyncio.gather(*tasks))
    assert statuses == [503, 503, 503]
