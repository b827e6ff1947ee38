"""Reading a server's metrics: what is noted, how often it is asked, and what does no harm."""

from __future__ import annotations

import asyncio
import types

import pytest
from control_kit import Bench, Page, Pages
from support import StartSim, until

from mvllm_router import tasks as tasks_module
from mvllm_router.control import watch as watch_module
from mvllm_router.control.watch import Watch
from mvllm_router.engines import get
from mvllm_router.sim import Fault

LLAMA = {"Server": "llama.cpp"}


def vllm_metrics(running: str, waiting: str = "0") -> Page:
    return Page(
        f'vllm:num_requests_running{{engine="0"}} {running}\n'
        f'vllm:num_requests_waiting{{engine="0"}} {waiting}\n'
    )


async def scrape(watch: Watch) -> float:
    return await watch.scrape(get(watch.backend.engine), interval=1.0)


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp"])
async def test_the_load_that_others_put_there_is_noted(dialect: str, start_sim: StartSim) -> None:
    engine = await start_sim(dialect)
    async with Bench() as bench:
        watch = bench.watch(engine)
        await watch.check()
        assert await scrape(watch) == 0
        assert watch.backend.scrape is not None
        assert watch.backend.load(bench.pool.monotonic()).running == 0


async def test_own_requests_are_not_taken_for_those_of_others() -> None:
    """Also one that came, or went, while the metrics were asked for."""
    async with Pages({"/metrics": vllm_metrics("2")}) as pages, Bench() as bench:
        watch = bench.watch(pages, engine="vllm")
        leases = [bench.pool.lease(watch.backend)]
        pages.meanwhile = lambda: leases.append(bench.pool.lease(watch.backend))
        await scrape(watch)
        assert watch.backend.scrape is not None
        assert watch.backend.scrape.others == 0
        pages.meanwhile = leases[0].release
        await scrape(watch)
        assert watch.backend.scrape.others == 0


@pytest.mark.parametrize("said", ["1e308", "-1", "NaN", "+Inf", "many"])
async def test_figures_that_nothing_can_mean_are_left_out(said: str) -> None:
    async with Pages({"/metrics": vllm_metrics(said, waiting="3")}) as pages, Bench() as bench:
        watch = bench.watch(pages, engine="vllm")
        await scrape(watch)
        assert watch.backend.scrape is not None
        assert watch.backend.scrape.sample.running is None
        assert watch.backend.scrape.sample.waiting == 3


@pytest.mark.parametrize("status", [404, 500, 501])
async def test_a_server_without_metrics_is_left_in_peace_and_stays_up(status: int) -> None:
    pages = {"/health": Page(), "/metrics": Page(status=status)}
    async with Pages(pages) as server, Bench() as bench:
        watch = bench.watch(server, engine="vllm")
        await watch.check()
        assert await scrape(watch) == 30.0
        assert watch.backend.is_up
        assert watch.backend.scrape is None


async def test_a_scrape_that_hangs_does_no_harm(
    start_sim: StartSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_SCRAPE_TIMEOUT", 0.05)
    engine = await start_sim()
    async with Bench() as bench:
        watch = bench.watch(engine)
        await watch.check()
        engine.inject(Fault.HANG, everywhere=True)
        assert await scrape(watch) == 0
        assert watch.backend.is_up
        assert watch.backend.scrape is None


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the scrape loop stop at its first sleep, on a clock that stands still."""
    asked_for: list[float] = []

    async def sleep(seconds: float) -> None:
        asked_for.append(seconds)
        await asyncio.Event().wait()

    shim = types.SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    monkeypatch.setattr(tasks_module, "asyncio", shim)
    monkeypatch.setattr(watch_module, "time", types.SimpleNamespace(monotonic=lambda: 1000.0))
    return asked_for


@pytest.mark.parametrize(
    ("headers", "metrics", "interval", "pause"),
    [
        ({}, 200, 0.5, 0.5),
        (LLAMA, 200, 0.5, 2.0),
        (LLAMA, 200, 5.0, 5.0),
        (LLAMA, 501, 0.5, 30.0),
    ],
    ids=["vllm as set", "llama.cpp at most every 2 s", "llama.cpp as set", "no metrics"],
)
async def test_how_often_metrics_are_asked_for(
    headers: dict[str, str], metrics: int, interval: float, pause: float, sleeps: list[float]
) -> None:
    pages = {
        "/health": Page(headers=headers),
        "/version": Page('{"version":"1"}'),
        "/metrics": Page(status=metrics),
        "/props": Page('{"total_slots":2}'),
    }
    async with Pages(pages) as server, Bench(scrape_interval=interval) as bench:
        watch = bench.watch(server)
        watch.start()
        await until(lambda: bool(sleeps))
        await watch.stop()
        assert sleeps == [pause]
        assert server.asked.count("/metrics") == 1


@pytest.mark.parametrize("dialect", ["openai", "mlx", "llama-cpp-python"])
async def test_engines_without_metrics_are_never_asked_for_them(
    dialect: str, start_sim: StartSim, sleeps: list[float]
) -> None:
    engine = await start_sim(dialect)
    async with Bench() as bench:
        watch = bench.watch(engine)
        watch.start()
        await until(lambda: bool(sleeps))
        await watch.stop()
        assert "/metrics" not in [request.path for request in engine.requests]
