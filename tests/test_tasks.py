"""Background tasks live as long as their work, and their failures are seen."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from mvllm_router import tasks
from mvllm_router.tasks import cancel, happens, spawn


async def test_a_task_has_its_name_and_does_its_work() -> None:
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    task = spawn(work(), "scrape s0")
    assert task.get_name() == "scrape s0"
    await task
    assert done.is_set()


async def test_a_task_that_nobody_holds_is_not_collected() -> None:
    begun, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            # Only the task refers to this future: as a pair they are garbage to the loop.
            await asyncio.get_running_loop().create_future()
        finally:
            done.set()

    spawn(work(), "kept")
    await begun.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert not done.is_set(), "the task was collected while it worked"
    (kept,) = [task for task in asyncio.all_tasks() if task.get_name() == "kept"]
    await cancel(kept)
    assert done.is_set()


async def test_a_failure_is_logged_with_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ValueError("no such thing")

    task = spawn(work(), "health s1")
    with caplog.at_level(logging.ERROR, "mvllm_router.tasks"):
        await asyncio.wait([task])
        await asyncio.sleep(0)  # the callback that logs comes after those that wait
    assert "task health s1 failed" in caplog.text
    assert "no such thing" in caplog.text


async def test_a_task_that_is_cancelled_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    task = spawn(asyncio.sleep(3600), "idle")
    await cancel(task)
    await asyncio.sleep(0)
    assert task.cancelled()
    assert caplog.text == ""


async def test_cancel_waits_for_the_end_also_of_work_that_cleans_up_or_fails() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.set()
            raise RuntimeError("on the way out")

    task = spawn(work(), "stubborn")
    await asyncio.sleep(0)
    await cancel(task)
    assert ended.is_set()
    assert task.done()


async def test_cancel_of_a_task_that_has_ended_returns() -> None:
    task = spawn(asyncio.sleep(0), "short")
    await task
    await cancel(task)
    assert task.done()


async def test_a_task_that_has_ended_is_let_go() -> None:
    task = spawn(asyncio.sleep(0), "short")
    assert task in tasks._running
    await cancel(task)
    await asyncio.sleep(0)  # the callback that lets go comes after those that wait
    assert task not in tasks._running


async def test_a_wait_that_is_cancelled_as_its_event_happens_is_cancelled() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(happens(event, 60))
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_wait_tells_whether_its_event_happened() -> None:
    event = asyncio.Event()
    assert not await happens(event, 0.001)
    event.set()
    assert await happens(event, 60)
