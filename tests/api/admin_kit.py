"""What tests of the admin API share: asking it, and a router with a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from mvllm_router.api.entries import Entries, Written
from mvllm_router.config import load
from mvllm_router.server import Router

Answer = tuple[int, dict[str, Any]]


class Api:
    """Asks a router as an operator does; `etag` is that of the last answer."""

    def __init__(self, http: aiohttp.ClientSession, router: Router) -> None:
        self.http = http
        self.router = router
        self.etag = ""

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        url = self.router.url + path
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, url, json=body, headers=names) as response:
            self.etag = response.headers.get("etag", "")
            return response.status, await response.json()

    async def get(self, path: str, **headers: str) -> dict[str, Any]:
        status, document = await self.ask("GET", path, **headers)
        assert status == 200, document
        return document

    async def add(self, body: object, **headers: str) -> Answer:
        return await self.ask("POST", "/router/backends", body, **headers)

    async def patch(self, name: str, body: object, **headers: str) -> Answer:
        return await self.ask("PATCH", f"/router/backends/{name}", body, **headers)

    async def remove(self, name: str, body: object = None, **headers: str) -> Answer:
        body = {} if body is None else body
        return await self.ask("DELETE", f"/router/backends/{name}", body, **headers)

    async def reload(self, **headers: str) -> Answer:
        return await self.ask("POST", "/router/reload", {}, **headers)

    async def changes(self) -> int:
        return int((await self.get("/router/snapshot"))["live_changes"])


def message(answer: Answer) -> str:
    return str(answer[1]["error"]["message"])


def admin_events(router: Router) -> list[tuple[str, str]]:
    return [(e.backend, e.message) for e in router.pool.events.last(500) if e.kind == "admin"]


def with_file(path: Path, text: str) -> Router:
    """Return a router, not started, with a file of this text."""
    path.write_text(text, encoding="utf-8")
    return Router(load(path, environ={}), lambda: load(path, environ={}))


def written(entries: Entries) -> Written:
    """Write the entries of a few servers, without an event loop."""
    try:
        entries.write({}).send(None)
    except StopIteration as done:
        shown: Written = done.value
        return shown
    raise AssertionError("it waited for others")
