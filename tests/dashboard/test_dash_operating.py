"""A router with a file is operated from the dashboard: what it does then, and what is shown."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from dash_kit import Clock, screen_of
from support import StartSim, chat, until
from textual.pilot import Pilot

from mvllm_router.config import LaunchSpec, ServerSpec, load
from mvllm_router.dashboard.app import Dashboard
from mvllm_router.dashboard.source import HttpSource
from mvllm_router.launch.placement import place
from mvllm_router.launch.plan import Plan
from mvllm_router.launch.programs import Program
from mvllm_router.server import Router

SIM = (sys.executable, "-m", "mvllm_router.sim", "--model", "tiny", "--port", "{port}")
FILE = """\
# Ours.
[servers]
servers = [
    {{ url = "{url}", name = "first", max_concurrent_requests = 8 }},  # the old one
]
[config]
port = 0
health_check_interval = 0.3
admin_key = "boss-secret"
"""


class Operating:
    """A dashboard in front of a router that has a file."""

    def __init__(self, pilot: Pilot[None], app: Dashboard, router: Router, file: Path) -> None:
        self.pilot = pilot
        self.app = app
        self.router = router
        self.file = file

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until_shown(self, text: str) -> None:
        try:
            await until(lambda: text in "\n".join(screen_of(self.app)))
        except AssertionError:
            raise AssertionError("\n".join(screen_of(self.app))) from None

    def spec(self, name: str) -> ServerSpec:
        return self.router.pool.backends[name].spec

    async def until_there(self, condition: Callable[[], bool]) -> None:
        await until(condition)
        await self.pilot.pause()


def written(folder: Path, url: str) -> Path:
    """Write the file for a server at `url`; return where."""
    path = folder / "servers.toml"
    path.write_text(FILE.format(url=url))
    return path


@pytest.fixture
async def router(tmp_path: Path, start_sim: StartSim) -> AsyncIterator[Router]:
    path = written(tmp_path, (await start_sim()).url)
    router = Router(load(path, environ={}), lambda: load(path, environ={}))
    await router.start()
    await until(lambda: router.pool.backends["first"].is_up)
    yield router
    await router.stop(1)


@asynccontextmanager
async def operating(router: Router, key: str = "boss-secret") -> AsyncIterator[Operating]:
    assert router.config.path is not None
    app = Dashboard(HttpSource(router.url, key), interval=0.05, clock=Clock())
    async with app.run_test(size=(140, 40)) as pilot:
        await until(lambda: app.link.last is not None)
        yield Operating(pilot, app, router, router.config.path)


async def test_the_weight_changes_live_and_is_told_of(router: Router) -> None:
    async with operating(router) as desk:
        await desk.press("plus")
        await desk.until_there(lambda: desk.spec("first").weight == 1.1)
        await desk.press("2")
        await desk.until_shown("weight")
        assert "weight" not in desk.file.read_text()


async def test_the_capacity_is_written_beside_all_else_in_the_file(router: Router) -> None:
    async with operating(router) as desk:
        await desk.press("C", "backspace", *"64")
        await desk.pilot.click("#write")
        await desk.pilot.click("#yes")
        await desk.until_there(lambda: desk.spec("first").max_concurrent_requests == 64)
        text = desk.file.read_text()
        assert "max_concurrent_requests = 64" in text
        assert "# Ours." in text
        assert "# the old one" in text


async def test_what_somebody_else_has_changed_meanwhile_is_not_changed(router: Router) -> None:
    async with operating(router) as desk:
        await desk.press("C", "backspace", *"64")
        admin = HttpSource(router.url, "boss-secret")
        await admin.send("PATCH", "/router/backends/first", {"weight": 3.0})
        await admin.close()
        await desk.press("enter", "2")
        await desk.until_shown("first: not done: somebody else has changed it meanwhile")
        assert desk.spec("first").max_concurrent_requests == 8


async def test_an_emptied_capacity_is_the_engines_again(router: Router) -> None:
    async with operating(router) as desk:
        await desk.press("C", "backspace", "enter")
        await desk.until_there(lambda: desk.spec("first").max_concurrent_requests is None)


async def test_a_server_comes_serves_and_goes(
    router: Router, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    other = await start_sim("vllm", "other-model")
    async with operating(router) as desk:
        await desk.press("a", *other.url, "tab", *"second", "enter")
        await desk.until_there(lambda: "second" in router.pool.backends)
        await until(lambda: router.pool.backends["second"].is_up)
        url = f"{router.url}/v1/chat/completions"
        async with http.post(url, json=chat(model="other-model")) as answer:
            assert answer.status == 200
        await desk.until_shown("other-model")
        await desk.press("1")
        await desk.until_shown("200 chat")
        await desk.until_shown("second")
        await desk.press("j", "D", "y")
        await desk.until_there(lambda: "second" not in router.pool.backends)


async def test_what_is_wrong_with_an_addition_is_said_in_the_routers_words(router: Router) -> None:
    async with operating(router) as desk:
        await desk.press("a", *"http://127.0.0.1:1", "tab", *"first", "enter", "2")
        await desk.until_shown("not done: There is a server `first` already.")
        assert list(router.pool.backends) == ["first"]


async def test_a_reload_is_asked_for_and_told_of(router: Router, start_sim: StartSim) -> None:
    async with operating(router) as desk:
        await desk.press("R", "y")
        await desk.press("2")
        await desk.until_shown("nothing has changed")


async def test_a_reload_of_a_file_with_a_mistake_says_where_that_is(router: Router) -> None:
    async with operating(router) as desk:
        desk.file.write_text(desk.file.read_text() + 'x = [A="x", 2]\n')
        await desk.press("R", "y", "2")
        await desk.until_shown("not done: servers.toml:10:6: this is not valid TOML")


async def test_the_config_tab_says_where_each_value_comes_from(router: Router) -> None:
    async with operating(router) as desk:
        await desk.press("4")
        await desk.until_shown(" servers.toml:4  max_concurrent_requests=8")
        assert "boss-secret" not in "\n".join(screen_of(desk.app))


async def test_the_details_explain_why_a_server_is_chosen(router: Router) -> None:
    async with operating(router) as desk:
        await desk.press("enter")
        await desk.until_shown("(0 + 0.5·0)/8 = 0.00")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
async def test_the_log_of_a_server_that_the_router_has_started_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = written(tmp_path, "http://127.0.0.1:9")
    launch = LaunchSpec("sim", "command", args=SIM, replicas=1, api_key=None)
    plan = Plan(tuple(place([launch], ())), {"sim": Program("command", SIM)})
    router = Router(load(path, environ={}), lambda: load(path, environ={}), plan)
    await router.start()
    try:
        async with operating(router) as desk:
            await desk.press("l")
            await desk.until_shown("No server `first` was started here. There are: sim-0")
            await desk.press("j", "l")
            await desk.until_shown("--- started as process ")
            assert router.supervisor is not None
            router.supervisor.keepers["sim-0"].journal.say("a new line")
            await desk.until_shown("--- a new line")
    finally:
        await router.stop(1)


async def test_without_the_admin_key_it_looks_and_is_refused_to_change(
    router: Router, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{router.url}/v1/chat/completions", json=chat()) as answer:
        assert answer.status == 200
    async with operating(router, key="") as desk:
        await desk.until_shown("LIVE")
        await desk.until_shown("needs the router's admin key (--admin-key): An API key is needed")
        await desk.press("plus", "2")
        await desk.until_shown("API key")
        assert desk.spec("first").weight == 1.0
        await desk.until_shown("LIVE")


async def test_an_admin_key_that_is_wrong_is_not_said_to_be_missing(router: Router) -> None:
    async with operating(router, key="guessed") as desk:
        await desk.press("4")
        await desk.until_shown("needs the router's admin key (--admin-key): The API key is wrong.")
