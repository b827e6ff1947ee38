"""/router/launch and /router/logs: what is shown of servers that the router has started."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from admin_kit import Api, admin_events, message
from support import config_of, until

from mvllm_router.config import LaunchSpec
from mvllm_router.launch.placement import place
from mvllm_router.launch.plan import Plan
from mvllm_router.launch.programs import Program
from mvllm_router.server import Router

SIM = (sys.executable, "-m", "mvllm_router.sim", "--model", "tiny", "--port", "{port}")
LAUNCH = LaunchSpec("sim", "command", args=SIM, replicas=1, api_key=None)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")


@pytest.fixture
async def api(
    http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    """A router with one launch, whose one server is up."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    plan = Plan(tuple(place([LAUNCH], ())), {"sim": Program("command", SIM)})
    router = Router(config_of([], admin_key="boss", api_key="client"), plan=plan)
    await router.start()
    await until(lambda: any(b.is_up for b in router.pool.backends.values()), timeout=30)
    yield Api(http, router)
    await router.stop(drain_timeout=1)


BOSS = {"authorization": "Bearer boss"}
CLIENT = {"authorization": "Bearer client"}


async def server(api: Api, name: str = "sim-0") -> dict[str, Any]:
    return await api.get(f"/router/launch/{name}", **BOSS)


async def test_all_launches_are_shown_with_their_servers(api: Api) -> None:
    (launch,) = (await api.get("/router/launch", **CLIENT))["launches"]
    assert (launch["name"], launch["engine"], launch["replicas"]) == ("sim", "command", 1)
    (one,) = launch["servers"]
    assert one == {**await server(api), "since_seconds": one["since_seconds"]}
    assert (one["name"], one["starts"], one["failures"], one["gpus"]) == ("sim-0", 1, 0, [])
    assert (one["phase"], one["stage"]) == ("ready", "")  # how far it has come is over
    assert one["url"] == api.router.pool.backends["sim-0"].spec.url
    assert one["process"] > 0


async def test_the_configuration_says_where_such_a_server_comes_from(api: Api) -> None:
    (one,) = (await api.get("/router/config", **BOSS))["servers"]
    assert (one["name"], one["from"], one["place"]) == ("sim-0", "launch", None)


async def test_a_server_is_restarted(api: Api) -> None:
    status, one = await api.ask("PATCH", "/router/launch/sim-0", {"restart": True}, **BOSS)
    assert (status, one["starts"]) == (200, 1)
    keeper = api.router.supervisor.keepers["sim-0"]  # type: ignore[union-attr]
    await until(lambda: keeper.life.starts == 2, timeout=30)
    assert admin_events(api.router) == [("sim-0", "restart, asked for from 127.0.0.1")]


async def test_a_launch_gets_more_servers(api: Api) -> None:
    status, launch = await api.ask("PATCH", "/router/launch/sim", {"replicas": 2}, **BOSS)
    assert (status, launch["replicas"]) == (200, 2)
    assert [one["name"] for one in launch["servers"]] == ["sim-0", "sim-1"]
    assert set(api.router.pool.backends) == {"sim-0", "sim-1"}


@pytest.mark.parametrize(
    ("name", "body", "status", "said"),
    [
        ("sim", {"replicas": 0}, 400, "`replicas` must be a whole number from 1 to 50"),
        ("sim", {"replicas": "2"}, 400, "`replicas` must be a whole number"),
        ("sim", {"restart": True}, 400, "does not say what is to be done"),
        ("sim-0", {"replicas": 2}, 400, "does not say what is to be done"),
        ("sim-0", {"restart": False}, 400, "does not say what is to be done"),
        ("sim-0", {"restrat": True}, 400, "Did you mean `restart`?"),
        ("sim-1", {"restart": True}, 404, "Did you mean `sim-0`?"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    api: Api, name: str, body: object, status: int, said: str
) -> None:
    answer = await api.ask("PATCH", f"/router/launch/{name}", body, **BOSS)
    assert answer[0] == status
    assert said in message(answer)


async def test_the_metrics_tell_of_servers_that_were_started(
    api: Api, http: aiohttp.ClientSession
) -> None:
    assert api.router.supervisor is not None
    keeper = api.router.supervisor.keepers["sim-0"]
    await until(lambda: keeper.memory is not None and keeper.took is not None, timeout=30)
    async with http.get(api.router.url + "/metrics", headers=CLIENT) as response:
        text = await response.text()
    assert 'router_launch_phase{backend="sim-0",phase="ready"} 1' in text
    assert 'router_launch_starts_total{backend="sim-0"} 1' in text
    assert f'router_launch_memory_bytes{{backend="sim-0"}} {keeper.memory}' in text
    assert (await server(api))["memory_bytes"] == keeper.memory


async def test_the_snapshot_says_what_memory_it_takes_and_nothing_of_others(api: Api) -> None:
    assert api.router.supervisor is not None
    keeper = api.router.supervisor.keepers["sim-0"]
    body = {"url": "http://127.0.0.1:9", "name": "other"}
    assert (await api.ask("POST", "/router/backends", body, **BOSS))[0] == 201
    keeper.memory, keeper.gpu_memory = 4096, None
    snapshot = await api.get("/router/snapshot", **CLIENT)
    entries = {one["name"]: one for one in snapshot["servers"]}
    assert (entries["sim-0"]["memory_bytes"], entries["sim-0"]["gpu_memory_bytes"]) == (4096, None)
    assert not {"memory_bytes", "gpu_memory_bytes"} & set(entries["other"])
    keeper.gpu_memory = 8192
    assert (await server(api))["gpu_memory_bytes"] == 8192
    one = await api.get("/router/backends/sim-0", **CLIENT)
    assert (one["memory_bytes"], one["gpu_memory_bytes"]) == (4096, 8192)


async def test_the_last_lines_of_a_log_are_shown_and_those_behind_a_number(api: Api) -> None:
    document = await api.get("/router/logs/sim-0", **BOSS)
    port = api.router.pool.backends["sim-0"].spec.url.rpartition(":")[2]
    assert document["lines"][0] == f"--- is started on port {port}"
    assert document["lines"][1].startswith("--- started as process ")
    assert '"url": ' in document["lines"][2]
    newest = document["newest"]
    assert (await api.get(f"/router/logs/sim-0?after={newest}", **BOSS))["lines"] == []
    last = await api.get("/router/logs/sim-0?limit=1", **BOSS)
    assert last["lines"] == document["lines"][-1:]
    assert document["file"].endswith("/sim-0.log")


async def test_logs_are_for_operators_alone_since_prompts_may_be_in_them(api: Api) -> None:
    assert (await api.ask("GET", "/router/logs/sim-0", **CLIENT))[0] == 403
    assert (await api.ask("GET", "/router/logs/sim-0"))[0] == 401
    assert (await api.ask("PATCH", "/router/launch/sim-0", {"restart": True}, **CLIENT))[0] == 403


async def test_a_router_that_has_started_nothing_says_so(http: aiohttp.ClientSession) -> None:
    router = Router(replace(config_of([])))
    await router.start()
    api = Api(http, router)
    assert await api.get("/router/launch") == {"launches": []}
    answer = await api.ask("GET", "/router/logs/x")
    assert answer[0] == 404
    assert "has started no servers" in message(answer)
    await router.stop(drain_timeout=0)
