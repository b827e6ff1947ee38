"""`router run --announce`: what the dashboard before a router may do, as long as that runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from cli_kit import PATIENCE, environment

SERVERS = '[servers]\nservers = [{ url = "http://127.0.0.1:9", name = "a" }]\n'
ADMIN_KEY = '[config]\nadmin_key = "admin-secret"\n'
API_KEY = '[config]\napi_key = "client-secret"\n'
CLIENT_KEYS = '[auth]\nkeys = [{ name = "dashboard", key = "client-secret" }]\n'


@dataclass
class Attended:
    """A router with the key that it has told who started it."""

    process: asyncio.subprocess.Process
    url: str
    key: str
    http: aiohttp.ClientSession

    async def status(self, method: str, path: str, key: str, body: object = None) -> int:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def until_refused(self, path: str, key: str) -> None:
        """Wait until a reload has shut out who comes with this key."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while await self.status("GET", path, key) not in (401, 403):
            assert asyncio.get_running_loop().time() < end, "the file was not read again"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def attended(path: Path, http: aiohttp.ClientSession, *words: str) -> AsyncIterator[Attended]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mvllm_router", "run", "--announce", "--port", "0"),
        *("--config", str(path), *words),
        cwd=path.parent,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        told = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
        yield Attended(process, told["url"], told["key"], http)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def write(path: Path, keys: str) -> None:
    path.write_text(SERVERS + keys)


def command_line(process: asyncio.subprocess.Process) -> str:
    """Return what `ps` shows of it, where it can be had."""
    shown = Path(f"/proc/{process.pid}/cmdline")
    return shown.read_text() if shown.exists() else ""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "servers.toml"
    write(path, "")
    return path


async def may_do_all(router: Attended) -> None:
    for asked in (
        "/router/snapshot",
        "/router/config",
        "/router/requests",
        "/router/events?stream=0",
    ):
        assert await router.status("GET", asked, router.key) == 200
    body = {"weight": 2.0}
    assert await router.status("PATCH", "/router/backends/a", router.key, body) == 200


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ADMIN_KEY),
        ("", API_KEY),
        ("", CLIENT_KEYS),
        (ADMIN_KEY, ADMIN_KEY.replace("admin-secret", "another")),
        (API_KEY, CLIENT_KEYS + ADMIN_KEY),
    ],
)
async def test_it_works_on_whatever_keys_a_reload_brings(
    before: str, after: str, path: Path, http: aiohttp.ClientSession
) -> None:
    write(path, before)
    async with attended(path, http) as router:
        await may_do_all(router)
        write(path, after)
        old = "admin-secret" if before == ADMIN_KEY else "client-secret" if before else ""
        await router.until_refused("/router/config", old)
        await may_do_all(router)


async def test_who_has_started_a_router_may_change_it_where_others_may_not(
    path: Path, http: aiohttp.ClientSession
) -> None:
    async with attended(path, http, "--host", "0.0.0.0") as router:
        assert await router.status("GET", "/router/config", "") == 403
        await may_do_all(router)


async def test_its_key_is_for_operators_alone_and_nowhere_to_be_seen(
    path: Path, http: aiohttp.ClientSession
) -> None:
    write(path, CLIENT_KEYS)
    async with attended(path, http, "--log-level", "debug") as router:
        await may_do_all(router)
        assert await router.status("GET", "/v1/models", router.key) == 401
        assert await router.status("GET", "/router/snapshot", router.key + "x") == 401
        bearer = {"authorization": f"Bearer {router.key}"}
        seen = ""
        for asked in ("/router/snapshot", "/router/config", "/router/requests"):
            async with http.get(router.url + asked, headers=bearer) as answer:
                seen += await answer.text()
        seen += command_line(router.process)
        assert router.process.stdin is not None
        router.process.stdin.close()
        out, err = await asyncio.wait_for(router.process.communicate(), PATIENCE)
        assert router.key not in seen + out.decode() + err.decode()
        assert '"name": "dashboard"' in seen or '"name":"dashboard"' in seen  # the file's own
