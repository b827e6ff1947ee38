"""Caps and the queue: who gets a place, in which order, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pool_kit import (
    Clock,
    add_up,
    checked,
    fail_checks,
    new_pool,
    open_circuit,
    refuse,
    spec,
)
from support import until

from mvllm_router.errors import ModelNotFound, NoBackend, Overloaded, RouterError
from mvllm_router.policies import Policies, Supposed
from mvllm_router.pool import Backend, Lease, Pool
from mvllm_router.proxy.dispatch import RETRY_AFTER, Dispatch, QueueRules
from mvllm_router.proxy.queue import ORDINARY, Claim


class Bench:
    """A dispatch over a pool that is capped, with a clock; at its end nothing may be left."""

    def __init__(self, *, max_queue: int = 100, timeout: float = 60.0, caps: bool = True) -> None:
        self.clock = Clock()
        self.pool: Pool = new_pool(self.clock, enforce=caps)
        rules = QueueRules(enforce_capacity=caps, max_queue=max_queue, timeout=timeout)
        self.dispatch = Dispatch(self.pool, Policies(), rules)
        self.tasks: list[asyncio.Task[Lease]] = []
        self.mishaps: list[dict[str, Any]] = []  # errors that nobody would see but the log

    async def __aenter__(self) -> Bench:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.mishaps.append(context))
        return self

    async def __aexit__(self, failed: object, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        ended = await asyncio.gather(*self.tasks, return_exceptions=True)
        for lease in ended:
            if isinstance(lease, Lease):
                lease.release()
        if failed is None:
            assert self.mishaps == []
            assert self.dispatch.waiting == 0, "somebody was left in the queue"
            assert self.in_flight == dict.fromkeys(self.in_flight, 0), "a place was lost"

    @property
    def in_flight(self) -> dict[str, int]:
        return {backend.name: backend.in_flight for backend in self.pool.backends.values()}

    def ask(
        self,
        model: str | None = "m",
        tried: Sequence[Backend] = (),
        claim: Claim = ORDINARY,
        **more: Any,
    ) -> asyncio.Task[Lease]:
        """Let somebody ask for a place, as a task of its own."""
        task = asyncio.create_task(self._lease(model, tried, claim, **more))
        self.tasks.append(task)
        return task

    async def _lease(
        self, model: str | None, tried: Sequence[Backend], claim: Claim, **more: Any
    ) -> Lease:
        wish = Supposed(model)
        lease = self.dispatch.lease_now(wish, tried, **more)
        return lease or await self.dispatch.wait(wish, tried, claim)

    async def wait_for(self, count: int) -> None:
        """Wait until `count` are in the queue and all others have what they came for."""
        await settled()
        assert self.dispatch.waiting == count

    async def waiting(self, count: int, *args: Any, **more: Any) -> list[asyncio.Task[Lease]]:
        """Put `count` more into the queue, one after the other."""
        before = self.dispatch.waiting
        tasks = []
        for number in range(count):
            tasks.append(self.ask(*args, **more))
            await self.wait_for(before + number + 1)
        return tasks


async def settled() -> None:
    """Let all run that can run now."""
    for _ in range(10):
        await asyncio.sleep(0)


async def served(*tasks: asyncio.Task[Lease]) -> list[bool]:
    await settled()
    return [task.done() for task in tasks]


async def error_of(task: asyncio.Task[Lease]) -> RouterError:
    with pytest.raises(RouterError) as caught:
        await task
    return caught.value


# --- caps


async def test_a_place_is_had_at_once_while_there_is_room() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=3)
        for _ in range(3):
            bench.ask()
        await bench.wait_for(0)
        assert bench.in_flight == {"a": 3}
        assert bench.pool.stats.queued.count == 0, "nobody has waited"


async def test_no_server_ever_gets_more_than_its_cap() -> None:
    async with Bench() as bench:
        for name, capacity in (("a", 1), ("b", 2), ("c", 5)):
            add_up(bench.pool, name, "m", capacity=capacity)
        tasks = [bench.ask() for _ in range(60)]
        done = 0
        while done < len(tasks):
            await settled()
            assert bench.in_flight == {"a": 1, "b": 2, "c": 5} or len(tasks) - done < 8
            for task in tasks:
                if task.done() and not task.result().released:
                    task.result().release()
                    done += 1
        assert bench.pool.stats.queued.count == 52


async def test_a_cap_of_one_holds_also_where_nothing_else_is_capped() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        one = add_up(bench.pool, "one", "m")
        bench.pool.recognised(one, "llama-cpp-python", default_capacity=1, one_at_a_time=True)
        first = bench.ask()
        await bench.wait_for(0)
        second, third = await bench.waiting(2)
        (await first).release()
        assert await served(second, third) == [True, False]
        assert bench.in_flight == {"one": 1}


async def test_without_caps_nobody_waits() -> None:
    async with Bench(caps=False, max_queue=0) as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        for _ in range(50):
            bench.ask()
        await bench.wait_for(0)
        assert bench.in_flight == {"a": 50}


async def test_a_last_resort_is_capped_as_well() -> None:
    async with Bench() as bench:
        backend = add_up(bench.pool, "a", "m", capacity=2)
        open_circuit(bench.pool, backend)
        for _ in range(5):
            bench.ask()
        await bench.wait_for(3)
        assert bench.in_flight == {"a": 2}


# --- the order


async def test_of_a_kind_the_first_to_come_is_the_first_to_be_served() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        tasks = [bench.ask(), *await bench.waiting(5)]
        for number, task in enumerate(tasks):
            assert await served(*tasks) == [n <= number for n in range(6)]
            (await task).release()


async def test_a_newcomer_never_overtakes() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = bench.ask()
        (waits,) = await bench.waiting(1)
        (await first).release()
        newcomer = bench.ask()
        assert await served(waits, newcomer) == [True, False]


async def test_nor_when_time_alone_has_made_the_place() -> None:
    async with Bench() as bench:
        full = add_up(bench.pool, "full", "m", capacity=1)
        rests = add_up(bench.pool, "rests", "m", capacity=1)
        bench.pool.is_busy(rests, 5.0)
        bench.ask()
        (waits,) = await bench.waiting(1)
        bench.clock.advance(5)
        newcomer = bench.ask()
        assert await served(waits, newcomer) == [True, False]
        assert (await waits).backend is rests
        assert full.in_flight == 1


async def test_other_kinds_are_not_held_up() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        add_up(bench.pool, "b", "n", capacity=1)
        bench.ask("m")
        await bench.waiting(3, "m")
        other = bench.ask("n")
        assert await served(other) == [True]
        assert (await other).backend.name == "b"


async def test_who_has_been_at_one_server_does_not_hold_up_those_who_have_not() -> None:
    async with Bench() as bench:
        a, b = add_up(bench.pool, "a", "m", capacity=1), add_up(bench.pool, "b", "m", capacity=1)
        at_a, at_b = bench.ask("m", [b]), bench.ask("m", [a])
        (once,) = await bench.waiting(1, "m", [a])
        (fresh,) = await bench.waiting(1, "m")
        (await at_a).release()
        assert await served(once, fresh) == [False, True]
        assert (await fresh).backend is a
        (await at_b).release()
        assert await served(once) == [True]
        assert (await once).backend is b, "it must not go back to where it was"


async def test_between_kinds_the_one_that_came_first_is_served_first() -> None:
    async with Bench() as bench:
        both = add_up(bench.pool, "a", "m", "n", capacity=1)
        first = bench.ask("m")
        (n,) = await bench.waiting(1, "n")
        (m,) = await bench.waiting(1, "m")
        (anything,) = await bench.waiting(1, None)
        for task, others in ((first, 3), (n, 2), (m, 1)):
            (await task).release()
            await bench.wait_for(others - 1)
        assert (await anything).backend is both


async def test_the_first_server_with_room_gets_the_first_that_waits() -> None:
    async with Bench() as bench:
        slow, quick = (add_up(bench.pool, name, "m", capacity=1) for name in ("slow", "quick"))
        held = {task.backend: task for task in [await bench.ask(), await bench.ask()]}
        waiting = await bench.waiting(4)
        lease = held[quick]
        for task in waiting:
            lease.release()
            lease = await task
            assert lease.backend is quick
        assert slow.in_flight == 1


async def test_one_place_is_given_to_one_and_two_to_two() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=2)
        first, second = bench.ask(), bench.ask()
        waiting = await bench.waiting(3)
        (await first).release()
        assert bench.dispatch.waiting == 2, "its place in the queue is not free at once"
        assert await served(*waiting) == [True, False, False]
        (await second).release()
        assert await served(*waiting) == [True, True, False]


# --- places that come otherwise than by a release


@pytest.mark.parametrize("how", ["joins", "comes up", "is enabled", "may have more", "no caps"])
async def test_a_place_that_a_change_makes_is_given_to_who_waits(how: str) -> None:
    async with Bench() as bench:
        pool = bench.pool
        full = add_up(pool, "full", "m", capacity=1)
        if how == "comes up":
            pool.add(spec("other", 1, models=("m",)))
        elif how == "is enabled":
            add_up(pool, "other", "m", capacity=1)
            pool.drain("other")
        bench.ask()
        (waits,) = await bench.waiting(1)
        if how == "joins":
            add_up(pool, "other", "m", capacity=1)
        elif how == "comes up":
            checked(pool, pool.backends["other"])
        elif how == "is enabled":
            pool.enable("other")
        elif how == "may have more":
            pool.update(replace(full.spec, max_concurrent_requests=2))
        else:
            pool.adopt(pool.rules, pool.circuit_rules, enforce_capacity=False)
        assert await served(waits) == [True]


async def test_a_place_that_time_makes_is_given_at_the_next_look() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "full", "m", capacity=1)
        rests = add_up(bench.pool, "rests", "m", capacity=1)
        bench.pool.is_busy(rests, 5.0)
        bench.ask()
        (waits,) = await bench.waiting(1)
        bench.clock.advance(4.9)
        bench.dispatch.hand_over()
        assert await served(waits) == [False]
        bench.clock.advance(0.1)
        bench.dispatch.hand_over()
        assert await served(waits) == [True]


async def test_the_end_of_a_trial_lets_the_next_one_try() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "full", "m", capacity=1)
        broken = add_up(bench.pool, "broken", "m", capacity=5)
        open_circuit(bench.pool, broken)
        bench.ask()
        await settled()
        bench.clock.advance(1)
        trial = await bench.ask()
        assert trial.is_trial
        (waits,) = await bench.waiting(1)
        trial.release()
        assert await served(waits) == [True]
        assert (await waits).is_trial


# --- leaving


async def test_who_leaves_the_queue_leaves_it_at_once_and_the_others_in_order() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = bench.ask()
        second, third, fourth = await bench.waiting(3)
        third.cancel()
        await bench.wait_for(2)
        (await first).release()
        assert await served(second, fourth) == [True, False]


@pytest.mark.parametrize("steps", range(6))
async def test_who_leaves_while_the_place_is_handed_over_gives_it_to_the_next(steps: int) -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = bench.ask()
        leaves, stays = await bench.waiting(2)
        (await first).release()
        for _ in range(steps):
            await asyncio.sleep(0)
        if leaves.done():
            return  # it has its place: to give it back is up to who asked
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert await served(stays) == [True]
        assert bench.in_flight == {"a": 1}


async def test_who_leaves_just_before_the_place_is_handed_over_does_not_get_it() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = await bench.ask()
        leaves, stays = await bench.waiting(2)
        leaves.cancel()
        first.release()
        assert await served(stays) == [True]
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert bench.in_flight == {"a": 1}


async def test_when_all_leave_at_once_the_place_stays_free() -> None:
    async with Bench() as bench:
        backend = add_up(bench.pool, "a", "m", capacity=1)
        first = await bench.ask()
        waiting = await bench.waiting(20)
        first.release()
        for task in waiting:
            task.cancel()
        await bench.wait_for(0)
        assert backend.has_room
        assert await served(bench.ask()) == [True]


# --- the limits


async def test_beyond_its_limit_the_queue_takes_nobody() -> None:
    async with Bench(max_queue=2) as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = bench.ask()
        waiting = await bench.waiting(2)
        error = await error_of(bench.ask())
        assert isinstance(error, Overloaded)
        assert error.retry_after == RETRY_AFTER
        waiting[0].cancel()
        await bench.wait_for(1)
        await bench.waiting(1)
        (await first).release()


async def test_a_full_queue_takes_who_would_not_be_its_last_and_tells_the_last() -> None:
    async with Bench(max_queue=3) as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = bench.ask()
        many = await bench.waiting(3, claim=Claim("many"))
        other = bench.ask(claim=Claim("other"))
        assert isinstance(await error_of(many[2]), Overloaded)
        await bench.wait_for(3)
        assert isinstance(await error_of(bench.ask(claim=Claim("many"))), Overloaded)
        (await first).release()
        (await many[0]).release()
        assert (await other).backend.in_flight == 1


async def test_a_queue_that_a_reload_made_shorter_takes_nobody_instead_of_another() -> None:
    async with Bench(max_queue=3) as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        bench.ask()
        await bench.waiting(3, claim=Claim("many"))
        bench.dispatch.rules = QueueRules(enforce_capacity=True, max_queue=2)
        assert isinstance(await error_of(bench.ask(claim=Claim("other"))), Overloaded)
        assert bench.dispatch.waiting == 3


async def test_priorities_count_for_as_long_as_the_rules_say() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = bench.ask()
        (late,) = await bench.waiting(1, claim=Claim("", 2, 2))
        bench.clock.advance(bench.dispatch.rules.ageing * 2 - 1)
        (soon,) = await bench.waiting(1)
        bench.clock.advance(2)
        (later,) = await bench.waiting(1)
        (await first).release()
        (await soon).release()
        (await late).release()
        assert await served(later) == [True]


async def test_where_capacity_is_enforced_without_a_queue_nobody_waits() -> None:
    async with Bench(max_queue=0) as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        bench.ask()
        await settled()
        assert isinstance(await error_of(bench.ask()), Overloaded)


async def test_who_waits_for_too_long_is_told_so_and_gone() -> None:
    async with Bench(timeout=0.01) as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = bench.ask()
        (waits,) = await bench.waiting(1)
        error = await error_of(waits)
        assert isinstance(error, Overloaded)
        assert str(error) == "No server had room within 0.01 s."
        assert error.retry_after == RETRY_AFTER
        assert bench.dispatch.waiting == 0
        (await first).release()
        assert bench.in_flight == {"a": 0}


@pytest.mark.parametrize("seconds", [0.01, 0.03])
async def test_a_place_that_comes_as_the_deadline_passes_is_had_or_stays_free(
    seconds: float,
) -> None:
    async with Bench(timeout=0.02) as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = await bench.ask()
        (waits,) = await bench.waiting(1)
        asyncio.get_running_loop().call_later(seconds, first.release)
        time.sleep(0.05)  # noqa: ASYNC251 - the event loop finds both times passed at one look
        if seconds < 0.02:
            (await waits).release()
        else:
            assert isinstance(await error_of(waits), Overloaded)
            await until(lambda: first.released)
        assert bench.in_flight == {"a": 0}


async def test_a_model_that_loses_its_servers_while_somebody_waits_may_get_them_back() -> None:
    async with Bench() as bench:
        backend = add_up(bench.pool, "a", "m", capacity=1)
        first = await bench.ask()
        (waits,) = await bench.waiting(1)
        refuse(bench.pool, backend)
        first.release()
        assert await served(waits) == [False]
        assert isinstance(await error_of(bench.ask()), NoBackend), "who comes now is told at once"
        checked(bench.pool, backend)
        checked(bench.pool, backend)
        assert await served(waits) == [True]


@pytest.mark.parametrize("how", ["down", "drained", "removed"])
async def test_a_model_that_does_not_get_them_back_is_a_503_or_a_404_at_the_end(how: str) -> None:
    async with Bench(timeout=0.05) as bench:
        backend = add_up(bench.pool, "a", "m", capacity=1)
        add_up(bench.pool, "other", "n", capacity=1)
        first = await bench.ask()
        (waits,) = await bench.waiting(1)
        if how == "down":
            refuse(bench.pool, backend)
        elif how == "drained":
            bench.pool.drain("a")
        else:
            bench.pool.remove("a")
        first.release()
        error = await error_of(waits)
        assert isinstance(error, ModelNotFound if how == "removed" else NoBackend)
        assert bench.dispatch.waiting == backend.in_flight == 0


async def test_a_server_where_a_request_has_been_is_no_server_that_had_no_room() -> None:
    async with Bench(timeout=0.05) as bench:
        a, b = add_up(bench.pool, "a", "m", capacity=1), add_up(bench.pool, "b", "m", capacity=1)
        at_b = await bench.ask("m", [a])
        (waits,) = await bench.waiting(1, "m", [a])
        refuse(bench.pool, b)
        at_b.release()
        assert isinstance(await error_of(waits), NoBackend)


async def test_who_has_been_at_all_servers_but_one_that_is_removed_goes_once_more() -> None:
    async with Bench() as bench:
        a, b = add_up(bench.pool, "a", "m", capacity=1), add_up(bench.pool, "b", "m", capacity=1)
        at_b = await bench.ask("m", [a])
        (waits,) = await bench.waiting(1, "m", [a])
        bench.pool.remove("b")
        assert await served(waits) == [True]
        assert (await waits).backend is a
        at_b.release()
        assert b.in_flight == 0


async def test_who_asks_the_only_one_again_waits_for_it_though_another_one_is_down() -> None:
    async with Bench() as bench:
        a, b = add_up(bench.pool, "a", "m", capacity=1), add_up(bench.pool, "b", "m", capacity=1)
        refuse(bench.pool, b)
        full = await bench.ask()
        (waits,) = await bench.waiting(1, "m", [a], again=a)
        full.release()
        assert await served(waits) == [True]
        assert (await waits).backend is a


async def test_a_server_that_is_taken_out_is_still_a_last_resort_for_who_waits() -> None:
    async with Bench() as bench:
        backend = add_up(bench.pool, "a", "m", capacity=1)
        first = await bench.ask()
        (waits,) = await bench.waiting(1)
        fail_checks(bench.pool, backend)
        assert await served(waits) == [False], "it has no room either"
        first.release()
        assert await served(waits) == [True]


async def test_stopping_tells_all_that_wait() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", "n", capacity=1)
        first = bench.ask()
        waiting = [*await bench.waiting(3, "m"), *await bench.waiting(2, "n")]
        stopping = NoBackend("The router is stopping.")
        bench.dispatch.stop(stopping)
        assert [await error_of(task) for task in waiting] == [stopping] * 5
        assert bench.dispatch.waiting == 0
        (await first).release()
        assert bench.in_flight == {"a": 0}


async def test_stopping_as_a_place_is_handed_over_or_somebody_leaves_loses_nothing() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = await bench.ask()
        served_one, leaves, told = await bench.waiting(3)
        first.release()
        leaves.cancel()
        bench.dispatch.stop(NoBackend("The router is stopping."))
        (await served_one).release()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert isinstance(await error_of(told), NoBackend)
        assert bench.in_flight == {"a": 0}


async def test_how_long_somebody_waited_is_counted_once_also_when_it_was_in_vain() -> None:
    async with Bench(timeout=0.02) as bench:
        add_up(bench.pool, "a", "m", capacity=1)
        first = await bench.ask()
        waits, leaves, late = await bench.waiting(3)
        bench.clock.advance(3)
        first.release()
        leaves.cancel()
        (await waits).release()
        await asyncio.gather(late, leaves, return_exceptions=True)
        assert bench.pool.stats.queued.count == 3
        assert bench.pool.stats.queued.total == pytest.approx(9.0)


# --- without waiting


async def test_a_model_that_nobody_has_is_told_at_once() -> None:
    async with Bench() as bench:
        add_up(bench.pool, "a", "m1", "m2")
        error = await error_of(bench.ask("m3"))
        assert isinstance(error, ModelNotFound)
        assert str(error) == "The model `m3` does not exist. There are: m1, m2"


async def test_a_model_whose_servers_are_away_is_a_503() -> None:
    async with Bench() as bench:
        refuse(bench.pool, add_up(bench.pool, "a", "m"))
        add_up(bench.pool, "b", "n")
        error = await error_of(bench.ask("m"))
        assert isinstance(error, NoBackend)
        assert error.retry_after == RETRY_AFTER


async def test_none_is_asked_twice_unless_it_is_to_be() -> None:
    async with Bench() as bench:
        a = add_up(bench.pool, "a", "m", capacity=1)
        assert isinstance(await error_of(bench.ask("m", [a])), NoBackend)
        lease = await bench.ask("m", [a], again=a)
        assert lease.backend is a
        lease.release()


@pytest.mark.parametrize("how", ["down", "open", "full", "drained", "removed", "company"])
async def test_the_only_one_is_asked_again_however_it_looks_but_not_against_an_operator(
    how: str,
) -> None:
    async with Bench() as bench:
        a = add_up(bench.pool, "a", "m", capacity=1)
        if how == "down":
            refuse(bench.pool, a)
        elif how == "open":
            open_circuit(bench.pool, a)
        elif how == "full":
            bench.ask()
            await settled()
        elif how == "drained":
            bench.pool.drain("a")
        elif how == "removed":
            bench.pool.remove("a")
        else:
            add_up(bench.pool, "b", "m")
        task = bench.ask("m", [a], again=a)
        if how in ("drained", "removed"):
            assert isinstance(await error_of(task), NoBackend | ModelNotFound)
        elif how == "full":
            await bench.wait_for(1)
        else:
            assert (await task).backend.name == ("b" if how == "company" else "a")


async def test_the_best_sort_that_there_is_is_asked() -> None:
    async with Bench() as bench:
        pool = bench.pool
        well, rests, broken, out = (
            add_up(pool, name, "m", capacity=1) for name in ("well", "rests", "broken", "out")
        )
        pool.is_busy(rests, 9.0)
        open_circuit(pool, broken)
        fail_checks(pool, out)
        tried: list[Backend] = []
        for best in (well, rests, broken, out):
            lease = await bench.ask("m", tuple(tried))
            assert lease.backend is best
            lease.release()
            tried.append(best)
        assert isinstance(await error_of(bench.ask("m", tried)), NoBackend)


async def test_another_one_is_known_by_whether_it_is_well() -> None:
    async with Bench() as bench:
        pool, another = bench.pool, bench.dispatch.another
        a, b = add_up(pool, "a", "m"), add_up(pool, "b", "m")
        seen = [(another("m", [a], well=True), another("m", [a], well=False))]
        open_circuit(pool, b)
        seen.append((another("m", [a], well=True), another("m", [a], well=False)))
        refuse(pool, b)
        seen.append((another("m", [a], well=True), another("m", [a], well=False)))
        assert seen == [(True, True), (False, True), (False, False)]
