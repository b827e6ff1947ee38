"""Runs a coroutine without a task, for as long as it waits for nothing but `Signal`s.

Most requests are answered so: one read of the client's connection starts the coroutine, which
sends the request on and waits; one read of the server's connection fires the signal, and the
coroutine goes on inside that call, to its end. No task is made and the event loop does not go
round in between. What waits for anything else goes on in a task, as usual.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Signal(Generic[T]):
    """Something that happens once. One coroutine can wait for it, in `Steps`."""

    __slots__ = ("_error", "_result", "happened", "wake")

    def __init__(self) -> None:
        self.happened = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self.wake: Callable[[], None] | None = None  # called when it happens

    def fire(self, result: T) -> None:
        """Let who waits go on, within this call. Only the first time counts."""
        if not self.happened:
            self.happened = True
            self._result = result
            if self.wake is not None:
                self.wake()

    def fail(self, error: BaseException) -> None:
        """Let who waits go on with an error. Only the first time counts."""
        if not self.happened:
            self.happened = True
            self._error = error
            if self.wake is not None:
                self.wake()

    def result(self) -> T:
        """Return or raise what it was fired or failed with; it has happened."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def __await__(self) -> Generator[Any, None, T]:
        if not self.happened:
            yield self
        return self.result()


class _InTask:
    """What is yielded to go on in a task."""


_IN_TASK = _InTask()


@coroutine
def in_task() -> Generator[Any, None, None]:
    """Go on in a task: some of asyncio asks which one is running. For coroutines in `Steps`."""
    yield _IN_TASK


class Steps:
    """Runs one coroutine; `start` returns when it has ended, or waits."""

    __slots__ = ("_cancelled", "_running", "_signal", "_task", "_task_runs", "_work")

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        """Take the coroutine. An exception that it ends with is logged, unless it was cancelled."""
        self._work = work
        self._signal: Signal[Any] | None = None  # it waits for
        self._task: asyncio.Task[None] | None = None  # it goes on in
        self._task_runs = False  # and that has begun
        self._cancelled = False
        self._running = False

    def start(self, error: BaseException | None = None) -> None:
        """Run until it waits or ends; `error` is thrown where it waits."""
        self._signal = None
        self._running = True
        try:
            waits_for = self._work.send(None) if error is None else self._work.throw(error)
        except (StopIteration, asyncio.CancelledError):
            return
        except Exception:
            log.exception("a request failed inside the router")
            return
        finally:
            self._running = False
            error = None  # its traceback knows this frame: a cycle
        if isinstance(waits_for, Signal):
            self._signal = waits_for
            waits_for.wake = self.start
        else:
            self._task = asyncio.get_running_loop().create_task(self._rest(waits_for))

    def cancel(self) -> None:
        """End it with a CancelledError where it waits, as a task."""
        if self._task is not None and self._task_runs:
            self._task.cancel()
        elif self._task is not None:
            self._cancelled = True  # a task that is cancelled before its begin would do nothing
        elif self._running:  # it has caused its own end
            asyncio.get_running_loop().call_soon(self.cancel)
        elif self._signal is not None:
            self._signal.wake = None
            self.start(asyncio.CancelledError())

    async def _rest(self, waits_for: object) -> None:
        """Run the rest in a task, which first waits for what the coroutine waits for."""
        self._task_runs = True
        try:
            await _wait_on(self._work, waits_for, cancelled=self._cancelled)
        finally:
            self._task = None  # it keeps how it ended, which knows this frame: a cycle


@coroutine
def _wait_on(
    work: Coroutine[Any, Any, None], waits_for: Any, *, cancelled: bool
) -> Generator[Any, None, None]:
    """Hand to the task what `work` waits for, and what comes of it to `work`."""
    error: BaseException | None = asyncio.CancelledError() if cancelled else None
    while True:
        if error is None:
            try:
                if isinstance(waits_for, Signal):
                    yield from _happened(waits_for)
                elif waits_for is not _IN_TASK:
                    yield waits_for
            except BaseException as thrown:
                error = thrown
        try:
            waits_for = work.send(None) if error is None else work.throw(error)
        except StopIteration:
            return
        finally:
            error = None  # its traceback knows this frame: a cycle


def _happened(signal: Signal[Any]) -> Generator[Any, None, None]:
    """Wait in a task."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    signal.wake = wake
    try:
        yield from future
    finally:
        signal.wake = None
