"""Fixtures for all tests: a router in this process, simulated engines, an HTTP client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest
from support import Server, StartRouter, StartSim, config_of, until

from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine
from mvllm_router.sim.profile import Profile

try:
    import uvloop
except ImportError:  # Windows
    uvloop = None

# Property tests draw the same examples each time, so that no change fails for another's fault.
# `MVLLM_HYPOTHESIS=thorough pytest --timeout 0 -k properties` draws many more, others each time.
hypothesis.settings.register_profile(
    "quick",
    derandomize=True,
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    database=None,
)
hypothesis.settings.register_profile(
    "thorough", max_examples=3000, stateful_step_count=100, deadline=None, database=None
)
hypothesis.settings.load_profile(os.environ.get("MVLLM_HYPOTHESIS", "quick"))

HERE = Path(__file__).parent
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.hookimpl(optionalhook=True)  # older releases of pytest-asyncio do not have it
def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """Run the data plane on both event loops, real engines on the one that the router uses."""
    loops: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if uvloop is None:
        return loops
    place = item.path.relative_to(HERE).parts[0]
    if place in ("proxy", "test_server.py"):
        loops["uvloop"] = uvloop.new_event_loop
    elif place == "engines":
        loops = {"uvloop": uvloop.new_event_loop}
    return loops


@pytest.fixture
async def start_router() -> AsyncIterator[StartRouter]:
    """Give a function that starts a router; at the end nothing may be left in flight."""
    routers: list[Router] = []

    async def start(*servers: Server, **settings: Any) -> Router:
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
        assert router.front.bodies.bytes == 0, "a body was not given back"
        stats = router.pool.stats
        # Else one was not counted down.
        await until(lambda stats=stats: stats.connections == 0)  # type: ignore[misc]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Give an HTTP client that hands answers over as they are."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


@pytest.fixture
async def start_sim() -> AsyncIterator[StartSim]:
    """Give a function that starts a simulated engine, by default a vLLM with the model `tiny`."""
    engines: list[SimEngine] = []

    async def start(dialect: str = "vllm", *models: str, **profile: Any) -> SimEngine:
        engine = SimEngine(Profile(dialect, models or ("tiny",), **profile))
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.stop()
