"""GET /router/config: what runs, where each value comes from, and nothing secret."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from admin_kit import Api

from mvllm_router.config import SETTINGS, Override, load
from mvllm_router.server import Router

FILE = """\
[servers]
servers = [
    { url = "http://127.0.0.1:1", name = "a", api_key = "k-secret", headers = { x = "h-secret" } },
    { url = "http://127.0.0.1:2", name = "b", models = { "alias" = "own" }, tags = ["x"] },
]
[config]
port = 0
max_retries = 5
admin_key = "a-secret"
trusted_proxies = ["10.0.0.0/8"]
"""

KEY = {"authorization": "Bearer a-secret"}


@pytest.fixture
async def api(tmp_path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Api]:
    path = tmp_path / "servers.toml"
    path.write_text(FILE)
    router = Router(
        load(
            path,
            urls=["http://127.0.0.1:3"],
            overrides={"policy": Override("random", "flag", "--policy")},
            environ={"ROUTER_MAX_QUEUE": "7"},
        )
    )
    await router.start()
    yield Api(http, router)
    await router.stop(1)


async def test_each_setting_says_where_its_value_comes_from(api: Api, tmp_path: Path) -> None:
    document = await api.get("/router/config", **KEY)
    path = str(tmp_path / "servers.toml")
    assert document["path"] == path
    settings = document["settings"]
    assert list(settings) == [setting.name for setting in SETTINGS]
    shown = {
        name: (settings[name]["value"], settings[name]["from"], settings[name]["place"])
        for name in ("max_retries", "policy", "max_queue", "queue_timeout", "trusted_proxies")
    }
    assert shown == {
        "max_retries": (5, "file", f"{path}:8"),
        "policy": ("random", "flag", "--policy"),
        "max_queue": (7, "environment", "ROUTER_MAX_QUEUE"),
        "queue_timeout": (60.0, "default", None),
        "trusted_proxies": (["10.0.0.0/8"], "file", f"{path}:10"),
    }
    assert (settings["port"]["live"], settings["policy"]["live"]) == (False, True)


async def test_each_server_says_where_it_comes_from(api: Api, tmp_path: Path) -> None:
    await api.add({"url": "http://127.0.0.1:4", "name": "new"}, **KEY)
    await api.patch("b", {"weight": 3}, **KEY)
    document = await api.get("/router/config", **KEY)
    servers = {server["name"]: server for server in document["servers"]}
    assert {name: (one["from"], one["changed"]) for name, one in servers.items()} == {
        "a": ("file", []),
        "b": ("file", ["weight"]),
        "127.0.0.1:3": ("flag", []),
        "new": ("admin API", []),
    }
    assert servers["b"]["place"] == f"{tmp_path / 'servers.toml'}:4"
    assert servers["b"]["weight"] == 3
    assert (servers["b"]["aliases"], servers["b"]["tags"]) == ({"alias": "own"}, ["x"])
    assert servers["new"]["place"] is None
    assert document["live_changes"] == 2


async def test_secrets_are_there_as_stars_only(api: Api) -> None:
    document = await api.get("/router/config", **KEY)
    assert document["settings"]["admin_key"]["value"] == "***"
    assert document["settings"]["api_key"]["value"] == ""
    server = document["servers"][0]
    assert (server["api_key"], server["headers"]) == ("***", {"x": "***"})
    assert not [one for one in ("k-secret", "h-secret", "a-secret") if one in json.dumps(document)]


async def test_its_etag_is_the_one_that_additions_match(api: Api) -> None:
    document = await api.get("/router/config", **KEY)
    assert api.etag == document["etag"]
    new = {"url": "http://127.0.0.1:4", "name": "new"}
    assert (await api.add(new, if_match=document["etag"], **KEY))[0] == 201
    assert (await api.get("/router/config", **KEY))["etag"] != document["etag"]
