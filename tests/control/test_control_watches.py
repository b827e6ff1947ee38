"""The loops around checks and scrapes: they begin, follow a reload, and leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from control_kit import Bench, state, tasks_of
from support import StartSim, until

from mvllm_router.config import ServerSpec
from mvllm_router.control.watches import Watches
from mvllm_router.pool import Backend, State
from mvllm_router.sim import Fault, SimEngine

PASSIVE = {"enable_active_health_check": False, "auto_recovery_threshold": 0.1}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench(health_check_interval=3600) as made:
        yield made


@pytest.fixture
async def watches(bench: Bench) -> AsyncIterator[Watches]:
    made = Watches(bench.pool, bench.prober, bench.settings)
    yield made
    await made.stop()
    assert tasks_of("s0", "s1", "s2") == []


def add(bench: Bench, engine: SimEngine, name: str) -> Backend:
    return bench.pool.add(ServerSpec(url=engine.url, name=name))


def refuse(bench: Bench, backend: Backend) -> None:
    """A request found nobody listening."""
    bench.pool.request_refused(backend)


def checks(engine: SimEngine) -> int:
    return [request.path for request in engine.requests].count("/health")


async def test_each_backend_is_watched_and_checked_at_once(
    bench: Bench, watches: Watches, start_sim: StartSim
) -> None:
    backends = [add(bench, await start_sim(), name) for name in ("s0", "s1")]
    await watches.follow(bench.settings)
    assert tasks_of("s0", "s1") == ["health s0", "health s1", "scrape s0", "scrape s1"]
    await watches.checked()
    assert all(backend.is_up for backend in backends)


async def test_a_removed_backend_is_watched_no_more_and_a_new_one_is(
    bench: Bench, watches: Watches, start_sim: StartSim
) -> None:
    engine = await start_sim()
    add(bench, engine, "s0")
    await watches.follow(bench.settings)
    bench.pool.remove("s0")
    new = add(bench, await start_sim(), "s1")
    await watches.follow(bench.settings)
    assert tasks_of("s0", "s1") == ["health s1", "scrape s1"]
    await watches.checked()
    assert new.is_up


async def test_a_backend_that_moved_under_its_name_is_watched_at_its_new_address(
    bench: Bench, watches: Watches, start_sim: StartSim
) -> None:
    add(bench, await start_sim("vllm", "old"), "s0")
    await watches.follow(bench.settings)
    await watches.checked()
    bench.pool.remove("s0")
    moved = add(bench, await start_sim("vllm", "new"), "s0")
    await watches.follow(bench.settings)
    await watches.checked()
    assert tasks_of("s0") == ["health s0", "scrape s0"]
    assert set(moved.model_names() or ()) == {"new"}


async def test_new_settings_are_used_and_every_backend_is_checked_under_them(
    bench: Bench, watches: Watches, start_sim: StartSim
) -> None:
    engine = await start_sim()
    add(bench, engine, "s0")
    await watches.follow(bench.settings)
    await watches.checked()
    before = checks(engine)
    # Were the new interval not used, there would be one more check and no second one.
    await watches.follow(replace(bench.settings, health_check_interval=0.1))
    await until(lambda: checks(engine) >= before + 3)


async def test_a_dead_server_is_looked_for_more_often_than_a_live_one(
    bench: Bench, watches: Watches, start_sim: StartSim
) -> None:
    engine = await start_sim()
    await engine.stop()
    backend = add(bench, engine, "s0")
    await watches.follow(bench.settings)
    await watches.checked()
    assert backend.health.state is State.DOWN
    await engine.start()
    await until(lambda: backend.is_up)


async def test_a_server_that_refused_a_request_is_checked_at_once_and_comes_back(
    bench: Bench, watches: Watches, start_sim: StartSim
) -> None:
    engine = await start_sim()
    backend = add(bench, engine, "s0")
    await watches.follow(bench.settings)
    await watches.checked()
    refuse(bench, backend)
    assert not backend.is_up
    await until(lambda: backend.is_up)


async def test_trouble_is_acted_on_once_however_much_else_changes(
    bench: Bench, start_sim: StartSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = bench.watch(await start_sim())
    await watch.check()
    wakes: list[int] = []
    monkeypatch.setattr(watch, "wake", lambda: wakes.append(1))
    bench.pool.listeners.append(watch.notice)
    refuse(bench, watch.backend)
    assert len(wakes) == 1
    bench.pool.add(ServerSpec(url="http://other:1", name="other"))
    bench.pool.remove("other")
    assert len(wakes) == 1
    bench.pool.health(watch.backend, lambda health: health.trust_again("test"))
    refuse(bench, watch.backend)
    assert len(wakes) == 2


async def test_a_circuit_that_opens_is_trouble_as_well(
    bench: Bench, start_sim: StartSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = bench.watch(await start_sim())
    await watch.check()
    wakes: list[int] = []
    monkeypatch.setattr(watch, "wake", lambda: wakes.append(1))
    bench.pool.listeners.append(watch.notice)
    bench.pool.is_leaving(watch.backend, "it is shutting down")
    bench.pool.add(ServerSpec(url="http://other:1", name="other"))
    assert len(wakes) == 1


async def test_stop_ends_checks_that_are_under_way(
    bench: Bench, watches: Watches, start_sim: StartSim
) -> None:
    engine = await start_sim()
    engine.inject(Fault.HANG, everywhere=True)
    add(bench, engine, "s0")
    await watches.follow(bench.settings)
    await until(lambda: checks(engine) == 1)
    await watches.stop()
    assert tasks_of("s0") == []


# --- without active checks


async def test_passive_servers_are_checked_once_and_trusted_again_later(
    start_sim: StartSim,
) -> None:
    engine = await start_sim()
    async with Bench(**PASSIVE, health_check_interval=0.1) as bench:
        watch = bench.watch(engine)
        watch.start()
        await watch.checked()
        assert state(watch) == "up"
        engine.requests.clear()
        refuse(bench, watch.backend)
        assert state(watch) == "down"
        await until(lambda: watch.backend.is_up)
        assert watch.backend.health.reason.startswith("tried again after ")
        await watch.stop()
        assert checks(engine) == 0


async def test_passive_servers_are_not_trusted_before_their_time(start_sim: StartSim) -> None:
    engine = await start_sim()
    async with Bench(enable_active_health_check=False, auto_recovery_threshold=3600.0) as bench:
        watch = bench.watch(engine)
        watch.start()
        await watch.checked()
        refuse(bench, watch.backend)
        watch._trust_after_a_while()
        assert not watch.backend.is_up
        await watch.stop()


@pytest.mark.parametrize("dialect", ["llama.cpp", "vllm"])
async def test_a_passive_server_that_loads_at_the_start_is_not_lost(
    dialect: str, start_sim: StartSim
) -> None:
    """llama.cpp says that it is loading, vLLM does not listen yet."""
    engine = await start_sim(dialect, loading_seconds=float("inf"))
    async with Bench(**PASSIVE, health_check_interval=0.1) as bench:
        watch = bench.watch(engine)
        watch.start()
        await watch.checked()
        assert not watch.backend.is_up
        await until(lambda: watch.backend.is_up)
        await watch.stop()
