"""What tests share: configurations, request bodies, and waiting for a state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from mvllm_router.config import Config, ServerSpec, Settings
from mvllm_router.policies import Choice, Policy, Wish
from mvllm_router.pool import Backend
from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine

Server = str | ServerSpec | SimEngine


def spec_of(server: Server, number: int) -> ServerSpec:
    """Return a server's settings; simulated ones and URLs are called s0, s1, ..."""
    if isinstance(server, ServerSpec):
        return server
    return ServerSpec(url=server if isinstance(server, str) else server.url, name=f"s{number}")


def config_of(servers: Sequence[Server], **settings: Any) -> Config:
    """Return a configuration on a free port with fast checks."""
    quick = {"port": 0, "health_check_interval": 0.3, "scrape_interval": 0.1}
    return Config(
        servers=tuple(spec_of(server, number) for number, server in enumerate(servers)),
        settings=replace(Settings(), **{**quick, **settings}),
    )


StartRouter = Callable[..., Awaitable[Router]]


StartSim = Callable[..., Awaitable[SimEngine]]


class Prefer(Policy):
    """A policy that takes one backend whenever it can be had."""

    def __init__(self, name: str) -> None:
        self._name = name

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        return min(candidates, key=lambda backend: backend.name != self._name), "preferred"


def prefer(router: Router, name: str) -> None:
    """Let `name` be up, and be tried before the others."""
    router.pool.health(router.pool.backends[name], lambda health: health.trust_again("test"))
    router.dispatch.policies.use(router.config.settings.policy, Prefer(name))


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
