"""Coroutines that run without a task for as long as they wait for signals alone."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from support import until

from mvllm_router.front.steps import Signal, Steps, in_task


class Log(list[str]):
    """What a coroutine has done."""


async def wait(signal: Signal[str], log: Log) -> None:
    log.append("begun")
    try:
        log.append(await signal)
    except (ValueError, asyncio.CancelledError) as error:
        log.append(type(error).__name__)
        raise
    finally:
        log.append("ended")


async def test_it_begins_at_once_and_goes_on_inside_the_call_that_fires() -> None:
    signal, log = Signal[str](), Log()
    Steps(wait(signal, log)).start()
    assert log == ["begun"]
    signal.fire("fired")
    assert log == ["begun", "fired", "ended"]


async def test_what_has_happened_already_is_not_waited_for() -> None:
    signal, log = Signal[str](), Log()
    signal.fire("fired")
    Steps(wait(signal, log)).start()
    assert log == ["begun", "fired", "ended"]


async def test_only_the_first_thing_that_happens_counts() -> None:
    signal, log = Signal[str](), Log()
    Steps(wait(signal, log)).start()
    signal.fire("first")
    signal.fire("second")
    signal.fail(ValueError())
    assert log == ["begun", "first", "ended"]
    assert signal.result() == "first"


async def test_a_failure_is_raised_where_it_is_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    signal, log = Signal[str](), Log()
    Steps(wait(signal, log)).start()
    signal.fail(ValueError("on purpose"))
    assert log == ["begun", "ValueError", "ended"]
    assert "on purpose" in caplog.text  # nobody else would learn of it


async def test_cancelled_it_ends_where_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    signal, log = Signal[str](), Log()
    steps = Steps(wait(signal, log))
    steps.start()
    steps.cancel()
    assert log == ["begun", "CancelledError", "ended"]
    signal.fire("too late")
    steps.cancel()
    assert log == ["begun", "CancelledError", "ended"]
    assert caplog.text == ""


async def test_cancelled_by_itself_it_ends_where_it_waits_next() -> None:
    signal, log = Signal[str](), Log()

    async def leave() -> None:
        steps.cancel()
        await wait(signal, log)

    steps = Steps(leave())
    steps.start()
    assert log == ["begun"]
    await asyncio.sleep(0)
    assert log == ["begun", "CancelledError", "ended"]


async def test_what_waits_for_the_loop_goes_on_in_a_task_and_back_to_signals() -> None:
    signal, log, done = Signal[str](), Log(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        await in_task()
        log.append("slept")
        await asyncio.wait_for(asyncio.sleep(0), 1)
        await wait(signal, log)
        done.set()

    Steps(work()).start()
    await until(lambda: "begun" in log)
    signal.fire("fired")
    await done.wait()
    assert log == ["slept", "begun", "fired", "ended"]


async def test_it_can_ask_for_a_task_before_it_waits_for_anything() -> None:
    tasks: list[asyncio.Task[object] | None] = []
    done = asyncio.Event()

    async def work() -> None:
        await in_task()
        tasks.append(asyncio.current_task())
        done.set()

    Steps(work()).start()
    assert tasks == []
    await done.wait()
    assert tasks[0] is not None
    assert tasks[0] is not asyncio.current_task()


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
async def test_cancelled_in_a_task_it_ends_whether_or_not_that_has_begun(rounds: int) -> None:
    log, never = Log(), asyncio.Event()

    async def work() -> None:
        try:
            await never.wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        finally:
            log.append("ended")

    steps = Steps(work())
    steps.start()
    for _ in range(rounds):
        await asyncio.sleep(0)
    steps.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert log == ["cancelled", "ended"]


async def test_a_signal_that_is_waited_for_in_a_task_can_be_cancelled() -> None:
    signal, log = Signal[str](), Log()

    async def work() -> None:
        await in_task()
        await wait(signal, log)

    steps = Steps(work())
    steps.start()
    await until(lambda: bool(log))
    steps.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    signal.fire("too late")
    assert log == ["begun", "CancelledError", "ended"]


async def test_one_may_end_another_that_it_has_started() -> None:
    first, second, log = Signal[str](), Signal[str](), Log()

    async def one() -> None:
        await first
        Steps(wait(second, log)).start()
        second.fire("inner")
        log.append("outer")

    Steps(one()).start()
    first.fire("")
    assert log == ["begun", "inner", "ended", "outer"]


@pytest.mark.parametrize("in_a_task", [False, True])
async def test_what_is_cancelled_leaves_nothing_for_the_garbage_collector(in_a_task: bool) -> None:
    """Each client that leaves would else keep all of its request until the next collection."""

    class Held:
        pass

    async def work(held: Held) -> None:
        if in_a_task:
            await in_task()
        await Signal[None]()

    held = Held()
    left = weakref.ref(held)
    steps = Steps(work(held))
    steps.start()
    await asyncio.sleep(0)
    gc.disable()
    try:
        steps.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del held, steps
        assert left() is None
    finally:
        gc.enable()
