"""A pool and a prober without a router around them, and a server that answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from mvllm_router.config import ServerSpec, Settings
from mvllm_router.control.prober import Prober
from mvllm_router.control.watch import Watch
from mvllm_router.pool import Pool
from mvllm_router.sim import SimEngine


class Bench:
    """Use it as an async context manager. Checks and scrapes happen only when asked for."""

    def __init__(self, **settings: Any) -> None:
        self.settings = replace(Settings(), **settings)
        self.pool = Pool()

    async def __aenter__(self) -> Bench:
        self.prober = Prober()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.prober.close()

    def watch(self, server: SimEngine | Pages, **spec: Any) -> Watch:
        """Add a server to the pool; the watch is not started."""
        name = f"s{len(self.pool.backends)}"
        backend = self.pool.add(ServerSpec(url=server.url, name=name, **spec))
        return Watch(backend, self.pool, self.prober, self.settings)


@dataclass
class Page:
    body: bytes | str = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Pages:
    """A server with fixed answers by path, 404 for others; `asked` holds what has come."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self.pages = pages
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.meanwhile: Callable[[], object] = lambda: None  # called before each answer

    async def __aenter__(self) -> Pages:
        self._server = web.Server(self._answer, access_log=None)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._server.shutdown(0.1)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(request.path)
        self.headers.append(dict(request.headers))
        self.meanwhile()
        page = self.pages.get(request.path, Page(status=404))
        body = page.body.encode() if isinstance(page.body, str) else page.body
        return web.Response(body=body, status=page.status, headers=page.headers)


def names(watch: Watch) -> set[str] | None:
    """Return the models under which clients find the backend; None while unknown."""
    known = watch.backend.model_names()
    return None if known is None else set(known)


def state(watch: Watch) -> str:
    return watch.backend.health.state.value


def tasks_of(*names: str) -> list[str]:
    """Return the names of the running background tasks of these backends."""
    return sorted(
        task.get_name() for task in asyncio.all_tasks() if task.get_name().endswith(names)
    )
