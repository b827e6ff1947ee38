"""What a server would only let wait is held back in the router, for a while, and never refused."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest
from pool_kit import add_up, new_pool, scraped
from test_proxy_dispatch import Bench, error_of, served, settled

from mvllm_router.errors import BadRequest, Overloaded
from mvllm_router.policies import Choice, Policies, Supposed, Wish
from mvllm_router.policies.book import HEADER
from mvllm_router.policies.least_load import LeastLoad
from mvllm_router.pool import Backend
from mvllm_router.proxy import dispatch
from mvllm_router.proxy.queue import Claim


def seen_full(bench: Bench, name: str, places: int) -> Backend:
    """Add a server of which two scrapes have shown that it runs `places` requests and no more."""
    backend = add_up(bench.pool, name, "m")
    for _ in range(2):
        scraped(bench.pool, backend, running=places, waiting=1)
    scraped(bench.pool, backend, running=0)
    assert backend.open_for == places
    return backend


async def test_who_would_wait_at_a_server_waits_for_the_first_that_has_a_place() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        for name, places in (("a", 2), ("b", 1)):
            seen_full(bench, name, places)
        placed = [bench.ask() for _ in range(3)]
        (held,) = await bench.waiting(1)
        assert bench.in_flight == {"a": 2, "b": 1}
        next(task for task in placed if task.result().backend.name == "b").result().release()
        assert (await held).backend.name == "b"


async def test_while_it_is_not_known_what_a_server_runs_nobody_is_held_back() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        backend = add_up(bench.pool, "a", "m")
        scraped(bench.pool, backend, running=3, waiting=4)
        for _ in range(50):
            bench.ask()
        await bench.wait_for(0)
        assert bench.in_flight == {"a": 50}


async def test_figures_that_are_too_old_hold_nobody_back() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        seen_full(bench, "a", 1)
        bench.ask()
        (held,) = await bench.waiting(1)
        bench.clock.advance(3.1)
        bench.dispatch.look()
        assert await served(held) == [True]


async def test_nobody_is_held_back_for_longer_than_five_seconds() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        backend = seen_full(bench, "a", 1)
        first = bench.ask()
        held = await bench.waiting(2)
        for _ in range(5):
            bench.clock.advance(0.99)
            scraped(bench.pool, backend, running=1)
            bench.dispatch.look()
            await settled()
        tried = [task for task in held if task.done()]
        assert len(tried) == 1, "one was tried beyond the limit"
        bench.clock.advance(0.1)
        scraped(bench.pool, backend, running=1)
        bench.dispatch.look()
        assert await served(*held) == [True, True]
        assert first.result().backend.in_flight == 3


async def test_in_a_full_queue_the_first_goes_on_to_a_server_and_nobody_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "_QUEUE", 2)
    async with Bench(caps=False, max_queue=0) as bench:
        seen_full(bench, "a", 1)
        bench.ask()
        held = await bench.waiting(2)
        last = bench.ask()
        assert await served(*held, last) == [True, False, False]
        assert bench.in_flight == {"a": 2}


async def test_without_a_queue_nobody_is_held_back_who_could_be_served() -> None:
    async with Bench(max_queue=0) as bench:
        backend = add_up(bench.pool, "a", "m", capacity=4)
        for _ in range(12):
            scraped(bench.pool, backend, running=2, waiting=1)
        scraped(bench.pool, backend, running=0)
        assert backend.open_for < backend.most
        for _ in range(4):
            bench.ask()
        await bench.wait_for(0)
        assert bench.in_flight == {"a": 4}
        assert isinstance(await error_of(bench.ask()), Overloaded)


async def test_who_waits_finds_out_that_a_server_runs_more_by_now() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        backend = seen_full(bench, "a", 2)
        running = [bench.ask() for _ in range(2)]
        held = await bench.waiting(4)
        bench.dispatch.look()
        assert await served(*held) == [True, False, False, False]
        for task in (*running, held[0]):
            (await task).begins()
        assert backend.places.runs == 3
        bench.dispatch.look()
        assert await served(*held) == [True, True, True, False]


async def test_a_place_that_turns_out_to_be_there_is_given_at_once() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        backend = seen_full(bench, "a", 1)
        one = await bench.ask()
        (held,) = await bench.waiting(1)
        one.begins()
        pushed = bench.pool.lease(backend)  # somebody who was let go before
        pushed.begins()
        assert backend.places.runs == 2
        assert await served(held) == [False]
        third = bench.pool.lease(backend)
        third.begins()
        fourth = bench.pool.lease(backend)
        assert backend.in_flight == 4
        for lease in (pushed, third, fourth):
            lease.release()
        assert await served(held) == [True]


async def test_turning_learning_off_lets_all_go_that_were_held_back() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        seen_full(bench, "a", 1)
        bench.ask()
        held = await bench.waiting(3)
        pool = bench.pool
        pool.adopt(pool.rules, pool.circuit_rules, enforce_capacity=False, learns=False)
        assert await served(*held) == [True, True, True]


async def test_a_server_that_comes_back_is_another_one() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        backend = seen_full(bench, "a", 1)
        bench.pool.health(
            backend, lambda health: health.check_failed(2.0, "connection refused", hopeless=True)
        )
        bench.pool.health(backend, lambda health: health.trust_again("started"))
        assert backend.open_for == inf
        for _ in range(5):
            bench.ask()
        await settled()
        assert bench.in_flight == {"a": 5}


async def test_a_request_that_asks_for_a_policy_that_there_is_not_harms_nobody_else() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        bench.dispatch.policies = Policies(trials=True)
        seen_full(bench, "a", 1)
        placed = bench.ask()
        await settled()
        wrong = Supposed("m", headers={HEADER: "nonsense"})
        with pytest.raises(BadRequest):
            bench.dispatch.lease_now(wrong)
        (held,) = await bench.waiting(1)
        placed.result().release()
        assert await served(held) == [True]


class Failing(LeastLoad):
    """Somebody's policy that fails for one model."""

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        if wish.model is None:
            raise RuntimeError("a mistake")
        return super().choose(candidates, wish, now)


async def test_a_policy_that_fails_for_one_that_waits_fails_that_one_alone() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        bench.dispatch.policies.use("least_load", Failing())
        seen_full(bench, "a", 1)
        placed = bench.ask()
        (failing,) = await bench.waiting(1, None)
        (held,) = await bench.waiting(1)
        (await placed).release()
        assert await served(failing, held) == [True, True]
        assert isinstance(failing.exception(), RuntimeError)
        assert held.result().backend.name == "a"


async def test_a_queue_that_is_full_of_others_refuses_nobody_who_could_be_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "_QUEUE", 3)
    async with Bench(caps=False, max_queue=0) as bench:
        one = add_up(bench.pool, "one", "x")
        bench.pool.recognised(one, "llama-cpp-python", default_capacity=1, one_at_a_time=True)
        seen_full(bench, "many", 1)
        bench.ask("x")
        bench.ask("m")
        await bench.waiting(3, "x")
        last = bench.ask("m")
        assert await served(last) == [True]
        assert last.result().backend.name == "many"
        for task in bench.tasks:
            task.cancel()
        await settled()


async def test_who_is_passed_over_is_held_back_no_longer_than_others() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        backend = seen_full(bench, "a", 1)
        bench.ask()
        (patient,) = await bench.waiting(1)
        for _ in range(6):
            bench.ask("m", (), Claim("", -1000, 0))
            await settled()
            bench.clock.advance(0.99)
            scraped(bench.pool, backend, running=1)
            bench.dispatch.look()
        assert await served(patient) == [True]
        for task in bench.tasks:
            task.cancel()
        await settled()


async def test_a_scrape_that_shows_room_lets_in_who_waits() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        backend = seen_full(bench, "a", 4)
        scraped(bench.pool, backend, running=4)  # somebody else's
        bench.ask()
        (held,) = await bench.waiting(1)
        scraped(bench.pool, backend, running=1)
        assert await served(held) == [True]


def test_what_others_have_put_on_a_server_takes_its_places() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m", capacity=8)
    scraped(pool, backend, running=5)
    assert backend.open_for == 3
    scraped(pool, backend, running=20)
    assert backend.open_for == 1, "one at least goes on"
