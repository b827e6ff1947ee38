"""Finds the backend for a request, and lets it wait where a backend takes one at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from mvllm_router.errors import ModelNotFound, NoBackend, Overloaded, RouterError
from mvllm_router.policies import Policy
from mvllm_router.pool import Backend, Lease, Pool

# Seconds after which a client may try again when no server is up.
RETRY_AFTER = 2
# Model names listed in an error before it is cut short.
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Waiter:
    """A request that waits for room, in the order of arrival."""

    model: str | None
    tried: Collection[Backend]
    lease: asyncio.Future[Lease]


class Dispatch:
    """Chooses by the policy and hands places over in the order in which requests came."""

    def __init__(self, pool: Pool, policy: Policy, *, max_waiting: int, queue_timeout: float):
        """`max_waiting` requests may wait, each for at most `queue_timeout` seconds."""
        self.pool = pool
        self.policy = policy
        self.max_waiting = max_waiting
        self.queue_timeout = queue_timeout
        self._waiters: OrderedDict[int, Waiter] = OrderedDict()
        pool.on_release = lambda backend: self._hand_over()
        pool.listeners.append(self._hand_over)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    async def lease(self, model: str | None, tried: Collection[Backend]) -> Lease:
        """Return a lease on the best backend for `model` that has not been tried.

        Raises:
            ModelNotFound: no backend has the model.
            NoBackend: none that may have it is up.
            Overloaded: too many wait already, or no place came free in time.
        """
        backend = self._choose(model, tried)
        return self.pool.lease(backend) if backend else await self._wait(model, tried)

    def another(self, model: str | None, tried: Collection[Backend]) -> bool:
        """Tell whether some backend that has not been tried could be asked."""
        return any(backend not in tried for backend in self.pool.candidates(model))

    def _choose(self, model: str | None, tried: Collection[Backend]) -> Backend | None:
        """Return a backend, or None when all that could be asked are full."""
        candidates = self.pool.candidates(model)
        if tried:
            candidates = [backend for backend in candidates if backend not in tried]
        if not candidates:
            raise self._nobody(model)
        if self.pool.some_take_one:
            candidates = [backend for backend in candidates if backend.has_room]
        return self.policy.choose(candidates, self.pool.monotonic()) if candidates else None

    def _nobody(self, model: str | None) -> ModelNotFound | NoBackend:
        there = self.pool.model_names()
        if model is None or not there or self.pool.may_have(model):
            what = f"the model {_short(model)}" if model else "any model"
            return NoBackend(f"No server is up for {what}.", retry_after=RETRY_AFTER)
        names = ", ".join(there[:_NAMED]) + (", ..." if len(there) > _NAMED else "")
        return ModelNotFound(
            f"The model {_short(model)} does not exist. There are: {names}", param="model"
        )

    # --- waiting

    async def _wait(self, model: str | None, tried: Collection[Backend]) -> Lease:
        if len(self._waiters) >= self.max_waiting:
            raise Overloaded("Too many requests are waiting.", retry_after=RETRY_AFTER)
        waiter = Waiter(model, tried, asyncio.get_running_loop().create_future())
        self._waiters[id(waiter)] = waiter
        try:
            return await asyncio.wait_for(asyncio.shield(waiter.lease), self.queue_timeout)
        except asyncio.TimeoutError:
            _give_up(waiter)
            raise Overloaded(
                f"No server had room within {self.queue_timeout:g} s.", retry_after=RETRY_AFTER
            ) from None
        except asyncio.CancelledError:
            _give_up(waiter)
            raise
        finally:
            self._waiters.pop(id(waiter), None)

    def stop(self, error: RouterError) -> None:
        """End all waiting with `error`."""
        while self._waiters:
            _, waiter = self._waiters.popitem(last=False)
            if not waiter.lease.done():
                waiter.lease.set_exception(error)

    def _hand_over(self) -> None:
        """Give free places to those that wait, first come first served."""
        if not self._waiters:
            return
        for key, waiter in list(self._waiters.items()):
            try:
                backend = self._choose(waiter.model, waiter.tried)
            except (ModelNotFound, NoBackend) as error:
                del self._waiters[key]
                if not waiter.lease.done():
                    waiter.lease.set_exception(error)
                continue
            if backend is not None:
                del self._waiters[key]
                if not waiter.lease.done():
                    waiter.lease.set_result(self.pool.lease(backend))


def _give_up(waiter: Waiter) -> None:
    """Give back a place that was handed over to a request that no longer wants it."""
    if not waiter.lease.done():
        waiter.lease.cancel()
    elif not waiter.lease.cancelled() and waiter.lease.exception() is None:
        waiter.lease.result().release()


def _short(model: str | None) -> str:
    return f"`{model}`" if model is None or len(model) <= 200 else f"`{model[:200]}...`"
