"""The tables [[launch]] of a file that changes while the router runs."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from launch_kit import SIM, script
from support import chat, until

from mvllm_router.config import Config, load
from mvllm_router.launch.guard import is_there
from mvllm_router.launch.keeper import Keeper
from mvllm_router.launch.life import Phase
from mvllm_router.launch.plan import make_plan
from mvllm_router.server import Router

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")


class Started:
    """A router of a file with launches."""

    def __init__(self, path: Path, http: aiohttp.ClientSession) -> None:
        self.path = path
        self._http = http
        self.router: Router

    def write(self, *tables: dict[str, Any]) -> None:
        lines = ["[servers]", "servers = []", "[config]", "port = 0"]
        for table in tables:
            lines += ["[[launch]]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
        self.path.write_text("\n".join(lines))

    def read(self) -> Config:
        return load(self.path, environ={})

    async def start(self) -> None:
        config = self.read()
        plan = make_plan(config.launches) if config.launches else None
        self.router = Router(config, self.read, plan)
        # No watch of the file: a test says when it is read.
        await self.router.start()

    async def reload(self, *tables: dict[str, Any]) -> dict[str, Any]:
        """Write and reload; return what the answer says, an error's message under `error`."""
        self.write(*tables)
        async with self._http.post(self.router.url + "/router/reload", json={}) as response:
            document = await response.json()
            if response.status != 200:
                return {"error": document["error"]["message"]}
            changed = document["changed"]
            return {key: changed[key] for key in ("launches", "needs_restart") if changed[key]}

    @property
    def keepers(self) -> dict[str, Keeper]:
        assert self.router.supervisor is not None
        return self.router.supervisor.keepers

    async def until_ready(self, *names: str) -> None:
        """Wait until just these servers are there, and ready."""
        await until(
            lambda: (
                set(self.keepers) == set(names)
                and all(one.life.phase is Phase.READY for one in self.keepers.values())
            ),
            timeout=45,
        )

    async def stream(self) -> aiohttp.ClientResponse:
        """Begin a stream; its first piece is read."""
        url = self.router.url + "/v1/chat/completions"
        response = await self._http.post(url, json=chat(stream=True, max_tokens=20))
        await response.content.readany()
        return response


@pytest.fixture
async def started(
    tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Started]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # The watch of the file would be quicker than the reload whose answer is looked at.
    monkeypatch.setattr("mvllm_router.control.reload.FileWatch.run", _never)
    made = Started(tmp_path / "servers.toml", http)
    yield made
    pids = [keeper.pid for keeper in made.keepers.values()]
    await made.router.stop(drain_timeout=2)
    assert [pid for pid in pids if pid is not None and is_there(pid)] == []


async def _never(self: object) -> None:
    """The file is not watched."""


def table(name: str = "sim", **more: Any) -> dict[str, Any]:
    return {"name": name, "engine": "command", "args": [*SIM, "--tps", "20"], "replicas": 1, **more}


async def test_another_number_of_replicas_scales_up_and_down(started: Started) -> None:
    started.write(table())
    await started.start()
    await started.until_ready("sim-0")
    assert await started.reload(table(replicas=2)) == {"launches": {"sim": "scaled"}}
    await started.until_ready("sim-0", "sim-1")
    assert started.keepers["sim-0"].life.starts == 1
    assert await started.reload(table(replicas=1)) == {"launches": {"sim": "scaled"}}
    await started.until_ready("sim-0")
    assert list(started.router.pool.backends) == ["sim-0"]


async def test_a_file_that_says_the_same_leaves_what_was_scaled_by_hand(started: Started) -> None:
    started.write(table())
    await started.start()
    supervisor = started.router.supervisor
    assert supervisor is not None
    await supervisor.scale(supervisor.launches["sim"], 2)
    assert await started.reload(table(weight=2.0)) == {"launches": {"sim": "changed"}}
    await started.until_ready("sim-0", "sim-1")


async def test_the_first_table_is_launched_by_a_router_that_had_none(started: Started) -> None:
    started.write()
    await started.start()
    assert started.router.supervisor is None
    assert await started.reload(table()) == {"launches": {"sim": "added"}}
    await started.until_ready("sim-0")
    async with await started.stream() as response:
        assert response.headers["x-router-backend"] == "sim-0"


async def test_the_servers_of_a_table_that_is_gone_finish_what_they_have(started: Started) -> None:
    started.write(table())
    await started.start()
    await started.until_ready("sim-0")
    pid = started.keepers["sim-0"].pid
    assert pid is not None
    async with await started.stream() as response:
        assert await started.reload() == {"launches": {"sim": "removed"}}
        await until(lambda: started.keepers["sim-0"].leaving)
        text = (await response.read()).decode()
    assert text.rstrip().endswith("data: [DONE]")
    await until(lambda: not started.keepers, timeout=30)
    assert not is_there(pid)
    assert list(started.router.pool.backends) == []


async def test_a_table_that_comes_back_waits_for_its_old_servers_to_end(started: Started) -> None:
    started.write(table())
    await started.start()
    await started.until_ready("sim-0")
    before = started.keepers["sim-0"]
    async with await started.stream() as response:
        await started.reload()
        await until(lambda: before.leaving)
        assert await started.reload(table()) == {"launches": {"sim": "added"}}
        await response.read()
    await until(lambda: started.keepers.get("sim-0") not in (None, before), timeout=30)
    await started.until_ready("sim-0")


async def test_other_changes_are_taken_with_the_next_start(started: Started) -> None:
    started.write(table())
    await started.start()
    await started.until_ready("sim-0")
    keeper = started.keepers["sim-0"]
    changed = table(args=[*SIM, "--tps", "500"], weight=0.5)
    assert await started.reload(changed) == {"launches": {"sim": "changed"}}
    await until(lambda: keeper.is_outdated)
    assert (keeper.life.starts, started.router.pool.backends["sim-0"].spec.weight) == (1, 1.0)
    said = [event.message for event in started.router.pool.events.last(500)]
    assert any("`router restart --rolling sim`" in message for message in said)
    keeper.restart()
    await until(lambda: keeper.life.starts == 2, timeout=30)
    await started.until_ready("sim-0")
    assert not keeper.is_outdated
    assert "500" in keeper.place.launch.args
    assert started.router.pool.backends["sim-0"].spec.weight == 0.5


async def test_a_change_that_is_taken_back_needs_no_restart(started: Started) -> None:
    started.write(table())
    await started.start()
    await started.until_ready("sim-0")
    keeper = started.keepers["sim-0"]
    await started.reload(table(weight=0.5))
    await until(lambda: keeper.is_outdated)
    await started.reload(table())
    await until(lambda: not keeper.is_outdated)


async def test_servers_that_had_failed_try_what_was_changed(started: Started) -> None:
    usage = script("print('error: unrecognized arguments: --x'); raise SystemExit(2)")
    started.write(table(args=list(usage)))
    await started.start()
    await until(lambda: started.keepers["sim-0"].life.phase is Phase.FAILED, timeout=30)
    await started.reload(table())
    await started.until_ready("sim-0")


async def test_other_places_need_a_restart_and_nothing_of_the_table_is_taken(
    started: Started,
) -> None:
    started.write(table())
    await started.start()
    moved = table(tp=2, replicas=2)
    assert await started.reload(moved) == {"needs_restart": ["launch sim"]}
    await started.until_ready("sim-0")
    assert not started.keepers["sim-0"].is_outdated


async def test_a_file_whose_servers_cannot_be_launched_is_refused(started: Started) -> None:
    started.write(table())
    await started.start()
    answer = await started.reload(table(replicas=2), table("bad", args=["/no/such/program"]))
    assert "bad: there is no program /no/such/program" in answer["error"]
    answer = await started.reload(table(), table("big", tp=2))
    assert "big: a server of 2 GPUs, and no GPU is there to be used" in answer["error"]
    await started.until_ready("sim-0")
    assert [one.name for one in started.router.config.launches] == ["sim"]


async def test_a_new_key_is_hidden_in_the_log_from_its_first_use_on(
    started: Started, tmp_path: Path
) -> None:
    program = tmp_path / "vllm"
    program.write_text('#!/bin/sh\necho "the key is $VLLM_API_KEY"\nexec sleep 600\n')
    program.chmod(0o755)
    vllm = {"name": "sim", "engine": "vllm", "model": "m", "gpus": [], "replicas": 1}
    vllm["engine_path"] = str(program)
    started.write({**vllm, "api_key": "sk-first"})
    await started.start()
    keeper = started.keepers["sim-0"]
    await until(lambda: keeper.journal.last == "the key is ***", timeout=45)
    await started.reload({**vllm, "api_key": "sk-second"})
    await until(lambda: keeper.is_outdated)
    keeper.restart()
    await until(lambda: keeper.journal.after(0).count("the key is ***") == 2, timeout=45)
    assert started.router.pool.backends["sim-0"].spec.api_key == "sk-second"
