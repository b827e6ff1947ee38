"""A server that the router itself is starting is loading, not down, until it answers."""

from __future__ import annotations

import asyncio

from control_kit import Bench, Page, Pages
from support import until

from mvllm_router.pool import State
from mvllm_router.pool.backend import Absence

COMING = Absence("it is starting", returns=True)
WELL = {
    "/health": Page(""),
    "/version": Page('{"version": "0.32.0"}'),
    "/v1/models": Page('{"data": [{"id": "tiny"}]}'),
}


async def gone() -> Pages:
    """Return a server that has stopped listening."""
    async with Pages({}) as pages:
        return pages


async def test_as_long_as_nobody_listens_it_is_what_its_starter_says() -> None:
    pages = await gone()
    async with Bench() as bench:
        watch = bench.watch(pages, engine="vllm")
        health = watch.backend.health
        bench.pool.is_absent(watch.backend, COMING)
        await watch.check()
        assert (health.state, health.reason) == (State.LOADING, "it is starting")
        assert bench.pool.may_have("any model")
        bench.pool.is_absent(watch.backend, Absence("failed: boom", returns=False))
        await watch.check()
        assert (health.state, health.reason) == (State.DOWN, "failed: boom")
        watch.backend.absence = None
        await watch.check()
        assert "refused" in health.reason


async def test_the_first_good_check_lets_it_in() -> None:
    async with Pages(WELL) as pages, Bench() as bench:
        watch = bench.watch(pages, engine="vllm")
        bench.pool.is_absent(watch.backend, COMING)
        await watch.check()
        assert watch.backend.is_up


async def test_an_answer_of_the_process_before_does_not_let_it_in() -> None:
    async with Pages(WELL) as pages, Bench() as bench:
        watch = bench.watch(pages, engine="vllm")
        await watch.check()
        assert watch.backend.is_up
        pages.meanwhile = lambda: bench.pool.is_absent(watch.backend, Absence("restart", True))
        await watch.check()
        assert watch.backend.health.state is State.LOADING


async def test_one_that_starts_is_checked_also_where_health_checks_are_off() -> None:
    async with Pages({}) as pages, Bench(enable_active_health_check=False) as bench:
        watch = bench.watch(pages, engine="vllm")
        bench.pool.is_absent(watch.backend, COMING)
        watch.start()
        await watch.checked()
        assert not watch.backend.is_up
        pages.pages.update(WELL)
        await until(lambda: watch.backend.is_up)
        await asyncio.wait_for(watch.stop(), 10)
