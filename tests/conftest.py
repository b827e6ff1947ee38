"""Fixtures for all tests: a router in this process, and servers that do exactly as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

import aiohttp
import pytest

from mvllm_router.config import Config, ServerSpec, Settings
from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine
from mvllm_router.sim.profile import Profile

Server = str | ServerSpec | SimEngine


def spec_of(server: Server, number: int) -> ServerSpec:
    """Return a server's settings; simulated ones and URLs are called s0, s1, ..."""
    if isinstance(server, ServerSpec):
        return server
    return ServerSpec(url=server if isinstance(server, str) else server.url, name=f"s{number}")


def config_of(servers: Sequence[Server], **settings: object) -> Config:
    """Return a configuration on a free port with fast checks."""
    quick = {"port": 0, "health_check_interval": 0.3, "scrape_interval": 0.1}
    return Config(
        servers=tuple(spec_of(server, number) for number, server in enumerate(servers)),
        settings=replace(Settings(), **{**quick, **settings}),  # type: ignore[arg-type]
    )


StartRouter = Callable[..., Awaitable[Router]]


@pytest.fixture
async def start_router() -> AsyncIterator[StartRouter]:
    """Give a function that starts a router; at the end nothing may be left in flight."""
    routers: list[Router] = []

    async def start(*servers: Server, **settings: object) -> Router:
        router = Router(config_of(servers, **settings))
        await router.start()
        routers.append(router)
        await router.watches.checked()
        return router

    yield start
    for router in routers:
        backends = list(router.pool.backends.values())
        await router.stop(drain_timeout=2)
        assert router.pool.stats.in_flight == 0, "a request was not given back"
        assert [b.in_flight for b in backends] == [0] * len(backends), "a lease was not released"
        assert not router.relay.active, "an exchange was left behind"
        assert router.dispatch.waiting == 0, "a request was left waiting"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Give an HTTP client that hands answers over as they are."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


StartSim = Callable[..., Awaitable[SimEngine]]


@pytest.fixture
async def start_sim() -> AsyncIterator[StartSim]:
    """Give a function that starts a simulated engine, by default a vLLM with the model `tiny`."""
    engines: list[SimEngine] = []

    async def start(dialect: str = "vllm", *models: str, **profile: object) -> SimEngine:
        engine = SimEngine(Profile(dialect, models or ("tiny",), **profile))  # type: ignore[arg-type]
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.stop()


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Wait until `condition` holds: for states that announce no event of their own."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while not condition():
        assert loop.time() < end, "waited in vain"
        await asyncio.sleep(0.005)


def chat(model: str | None = "tiny", *, stream: bool = False, **more: object) -> dict[str, object]:
    """Return the body of a small chat request."""
    body: dict[str, object] = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return {**body, **({"model": model} if model else {}), **more}
