"""The router as a whole: reloads under load, graceful stops, and nothing lost in chaos."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, config_of, reload_with, until
from wire import Client

from mvllm_router.config import Config, ServerSpec, load
from mvllm_router.server import CannotListen, Router
from mvllm_router.sim.faults import Fault

CHAT = "/v1/chat/completions"


async def status_of(http: aiohttp.ClientSession, router: Router, **body: object) -> int:
    async with http.post(router.url + CHAT, json=chat(max_tokens=3, **body)) as response:  # type: ignore[arg-type]
        await response.read()
        return response.status


def with_servers(config: Config, *servers: ServerSpec) -> Config:
    return replace(config, servers=servers)


# --- reload


async def test_a_reload_keeps_servers_that_stay_and_lets_removed_ones_finish(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    stays, goes, comes = [await start_sim() for _ in range(3)]
    router = await start_router(stays, goes)
    for engine in (stays, goes):
        engine.hold()
    tasks = [asyncio.create_task(status_of(http, router)) for _ in range(4)]
    await until(lambda: [b.in_flight for b in router.pool.backends.values()] == [2, 2])
    before = router.pool.backends["s0"]
    removed = router.pool.backends["s1"]
    await reload_with(
        router,
        with_servers(
            router.config,
            router.config.servers[0],
            ServerSpec(url=comes.url, name="s2"),
        ),
    )
    assert router.pool.backends["s0"] is before
    assert before.in_flight == 2
    assert before.is_up
    async with http.get(f"{router.url}/load-stats") as response:
        stats = await response.json()
    assert [server["name"] for server in stats["servers"]] == ["s0", "s2"]
    await until(lambda: router.pool.backends["s2"].is_up)
    assert await status_of(http, router) == 200
    assert comes.served == 1  # the other one that is left is busier
    for engine in (stays, goes):
        engine.release()
    assert await asyncio.gather(*tasks) == [200] * 4
    assert goes.served == 2
    await until(lambda: removed.in_flight == 0)


async def test_a_server_with_a_new_url_under_its_old_name_is_another_server(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    old, new = await start_sim(), await start_sim()
    router = await start_router(old)
    await reload_with(router, with_servers(router.config, ServerSpec(url=new.url, name="s0")))
    await until(lambda: router.pool.backends["s0"].is_up)
    assert await status_of(http, router) == 200
    assert (old.served, new.served) == (0, 1)


async def test_changed_settings_of_a_server_and_of_the_router_are_live(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    (spec,) = router.config.servers
    settings = replace(
        router.config.settings, api_key="new", policy="random", max_body_size=500, max_retries=7
    )
    await reload_with(
        router,
        replace(
            router.config,
            servers=(replace(spec, weight=2.0, max_concurrent_requests=3),),
            settings=settings,
        ),
    )
    assert router.pool.backends["s0"].capacity == 6
    assert await status_of(http, router) == 401
    headers = {"authorization": "Bearer new"}
    async with http.post(router.url + CHAT, data=b"x" * 501, headers=headers) as response:
        assert response.status == 413
    async with http.get(f"{router.url}/router/snapshot", headers=headers) as response:
        assert (await response.json())["policy"] == "random"
    assert router.relay.limits.max_retries == 7


async def test_a_changed_file_is_live_and_a_bad_one_changes_nothing(
    tmp_path: Path, start_sim: StartSim
) -> None:
    engines = [await start_sim() for _ in range(2)]
    path = tmp_path / "servers.toml"

    def write(*urls: str, more: str = "") -> None:
        servers = ", ".join(f'{{ url = "{url}" }}' for url in urls)
        path.write_text(f"[servers]\nservers = [{servers}]\n[config]\nport = 0\n{more}")

    write(engines[0].url)
    router = Router(load(path), lambda: load(path))
    await router.start()
    try:
        await router.file_watch.ready.wait()
        write(engines[0].url, engines[1].url)
        await until(lambda: len(router.pool.backends) == 2)
        write(more="max_retires = 1\n")
        await until(lambda: any("max_retries" in e.message for e in router.pool.events.last(9)))
        assert len(router.pool.backends) == 2
        path.unlink()
        write(engines[1].url)
        await until(lambda: [b.spec.url for b in router.pool.backends.values()] == [engines[1].url])
    finally:
        await router.stop(1)


# --- stopping


async def test_stop_lets_running_requests_finish_and_takes_no_new_ones(
    start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = Router(config_of([engine]))
    await router.start()
    await router.watches.checked()
    engine.hold()
    async with Client(router.url) as idle:
        idle.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await idle.answer()
        running = asyncio.create_task(status_of(http, router, stream=True))
        await engine.wait_for(lambda sim: sim.running == 1)
        stopping = asyncio.create_task(router.stop(drain_timeout=10))
        assert await idle.rest() == b""  # an idle client is let go
        with pytest.raises(aiohttp.ClientConnectorError):
            await status_of(http, router)
        assert not stopping.done()
        engine.release()
        assert await running == 200
        await stopping
    assert engine.served == 1


async def test_stop_ends_what_outlasts_the_limit_and_tells_the_server(
    start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = Router(config_of([engine]))
    await router.start()
    await router.watches.checked()
    engine.hold()
    running = asyncio.create_task(status_of(http, router))
    await engine.wait_for(lambda sim: sim.running == 1)
    await router.stop(drain_timeout=0.05)
    assert await running == 503
    await engine.wait_for(lambda sim: sim.aborted == 1)
    assert router.pool.stats.in_flight == 0


async def test_asked_twice_it_stops_at_once(
    start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = Router(config_of([engine], shutdown_timeout=600.0))
    await router.start()
    await router.watches.checked()
    engine.hold()
    serving = asyncio.create_task(router.serve_until_stopped())
    running = asyncio.create_task(status_of(http, router))
    await engine.wait_for(lambda sim: sim.running == 1)
    router.ask_to_stop()
    await until(lambda: router.app.draining)
    router.ask_to_stop()
    await asyncio.wait_for(serving, 10)
    assert await running == 503


async def test_a_port_in_use_is_said_plainly(start_router: StartRouter) -> None:
    router = await start_router()
    second = Router(config_of([], port=router.port))
    with pytest.raises(CannotListen, match=r"the port is in use\nhint: .*--port"):
        await second.start()


# --- chaos


async def test_after_a_thousand_requests_with_faults_aborts_and_reloads_every_count_is_zero(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    """The fixture checks the counts; here the traffic that could leak them."""
    chance = random.Random(7)
    engines = [await start_sim(slots=8, tokens_per_second=2000.0) for _ in range(3)]
    engines.append(await start_sim("llama-cpp-python", tokens_per_second=2000.0))
    router = await start_router(*engines, request_timeout=0.5, queue_timeout=1.0)
    everyone = router.config.servers
    left = 0
    faults = [fault for fault in Fault if fault not in (Fault.REFUSE, Fault.SLOW)]

    async def request(number: int) -> None:
        nonlocal left
        stream = bool(number % 2)
        try:
            async with Client(router.url) as client:
                client.post(json.dumps(chat(stream=stream, max_tokens=20)).encode())
                if chance.random() < 0.3:
                    left += 1
                    await asyncio.sleep(chance.random() * 0.02)
                    return  # leaves
                await client.answer()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # a lost answer that was not a stream

    async def trouble() -> None:
        while True:
            await asyncio.sleep(0.02)
            chance.choice(engines).inject(chance.choice(faults), 1, seconds=0.1)
            kept = chance.sample(everyone, chance.randint(1, 4))
            await reload_with(router, with_servers(router.config, *kept))

    troubling = asyncio.create_task(trouble())
    for batch in range(20):
        await asyncio.gather(*(request(batch * 50 + n) for n in range(50)))
    troubling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await troubling
    await reload_with(router, with_servers(router.config, *everyone))
    for engine in engines:
        engine.clear()
    await until(lambda: router.pool.stats.in_flight == 0)
    stats = router.pool.stats
    seen = sum(stats.requests.values()) + sum(stats.client_left.values())
    assert 1000 - left <= seen <= 1000  # some left before they had been heard


async def test_a_file_that_is_just_being_written_is_read_when_it_is(
    start_sim: StartSim, tmp_path: Path
) -> None:
    path = tmp_path / "servers.toml"
    text = f'servers = ["{(await start_sim()).url}"]\n[config]\nport = 0\nmax_retries = '
    path.write_text(f"{text}1\n")
    router = Router(load(path, environ={}), lambda: load(path, environ={}))
    await router.start()
    path.write_text("")  # as an editor does that writes into the file
    reloading = asyncio.create_task(router.live.reload())
    await asyncio.sleep(0.02)
    assert len(router.pool.backends) == 1
    path.write_text(f"{text}2\n")
    outcome = await reloading
    assert (outcome.changed.live, outcome.changed.removed) == (("max_retries",), ())
    path.write_text("\n")
    refused = (await router.live.reload()).refused
    assert "The file is empty" in refused
    assert len(router.pool.backends) == 1
    path.write_text("[servers]\nservers = []\n")
    assert len((await router.live.reload()).changed.removed) == 1
    await router.stop(1)


async def test_two_reloads_at_once_are_taken_in_one_after_the_other(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engines = [await start_sim() for _ in range(4)]
    router = await start_router(*engines)
    everyone = router.config.servers
    answers = [with_servers(router.config, *everyone[:n]) for n in (1, 4, 2, 3)]
    router.live.reread = lambda: answers.pop(0)
    await asyncio.gather(*(router.live.reload() for _ in range(4)))
    assert list(router.pool.backends) == ["s0", "s1", "s2"]
    await router.watches.checked()


async def test_a_reload_that_cannot_be_made_changes_nothing_and_the_next_one_works(
    start_sim: StartSim,
) -> None:
    engine = await start_sim()
    config = config_of([engine])
    answers = [
        replace(config, settings=replace(config.settings, policy="nope", api_key="new")),
        replace(config, settings=replace(config.settings, api_key="newer")),
    ]
    router = Router(config, lambda: answers.pop(0))
    await router.start()
    try:
        await router.live.reload()
        assert router.app.gate.check("/v1/models", {})
        assert "no policy is called 'nope'" in router.pool.events.last(1)[0].message
        await router.live.reload()
        assert router.app.gate.check("/v1/models", {"x-api-key": "newer"})
        assert router.config.settings.api_key == "newer"
    finally:
        await router.stop(1)


async def test_a_watch_that_was_just_woken_can_be_stopped(start_router: StartRouter) -> None:
    router = await start_router("http://127.0.0.1:9")
    (watch,) = router.watches._watches.values()
    await asyncio.sleep(0.1)
    watch.wake()
    await asyncio.sleep(0)
    await asyncio.wait_for(watch.stop(), 10)
