"""Background tasks that are kept alive, have a name, and do not fail in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

# Seconds.
_AFTER_FAILURE = 1.0

_running: set[asyncio.Task[Any]] = set()  # the loop itself keeps only weak references


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start `work` as a task called `name`; an exception that ends it is logged."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task %s failed", task.get_name(), exc_info=error)


async def repeat(step: Callable[[], Awaitable[float]]) -> None:
    """Run `step` for ever, each time sleeping the seconds that it returns.

    A step that fails is logged, and the next one is tried a little later: one surprise must
    not end what has to go on for as long as the process does.
    """
    while True:
        try:
            pause = await step()
        except Exception:
            log.exception("a background step failed; it is tried again")
            pause = _AFTER_FAILURE
        await asyncio.sleep(pause)


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event`, but no longer than `seconds`; return whether it was set.

    Before Python 3.12 `asyncio.wait_for` forgets that its task was cancelled when the event is
    set in the same tick; this does not.
    """
    waiter = asyncio.ensure_future(event.wait())
    try:
        done, _ = await asyncio.wait([waiter], timeout=seconds)
        return bool(done)
    finally:
        waiter.cancel()


async def cancel(task: asyncio.Task[None]) -> None:
    """Cancel `task` and wait until it has ended; how it ended was logged already."""
    task.cancel()
    await asyncio.wait([task])
