"""Finds the backend for a request, and lets it wait where backends take only so many."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mvllm_router.errors import ModelNotFound, NoBackend, Overloaded, RouterError
from mvllm_router.policies import Policies, Wish
from mvllm_router.pool import Backend, Lease, Pool
from mvllm_router.proxy.queue import ORDINARY, Claim, Queue, Ticket, Waiting

# Seconds after which a client may try again when no server is up, or none has room.
RETRY_AFTER = 2
# Model names listed in an error before it is cut short.
_NAMED = 20
# Requests that may wait where the file says nothing: for backends that take one at a time, and
# where a backend would only let them wait itself.
_QUEUE = 1024
# Seconds for which a request is held back that a backend would take, but not begin.
_LONGEST_HOLD = 5.0

Waiter = Ticket["asyncio.Future[Lease]"]


@dataclass(frozen=True, slots=True)
class QueueRules:
    """Whether backends are capped, how many requests may wait, and how long, in seconds.

    `ageing` is how many seconds of waiting make up for one step of priority.
    """

    enforce_capacity: bool = False
    max_queue: int = 0
    timeout: float = 60.0
    ageing: float = 5.0

    @property
    def caps(self) -> bool:
        """Whether no backend gets more than it can run at once."""
        return self.enforce_capacity or self.max_queue > 0

    @property
    def limit(self) -> int:
        """How many may wait; where nothing is capped there is always a queue."""
        return self.max_queue if self.caps else _QUEUE


class Dispatch:
    """Chooses by the policy and hands places over to those that wait, in the queue's order.

    Invariant: while somebody waits, no backend that could serve them has room. So who comes
    later never overtakes, and nobody waits while there is a free place.
    """

    def __init__(self, pool: Pool, policies: Policies, rules: QueueRules):
        self.pool = pool
        self.policies = policies
        self.rules = rules
        self._queue: Queue[asyncio.Future[Lease]] = Queue()
        self._by_arrival: dict[Waiter, None] = {}
        pool.on_release = self._on_release
        pool.on_remove = self._on_remove
        pool.listeners.append(self.hand_over)

    @property
    def waiting(self) -> int:
        return self._queue.count

    def who_waits(self) -> Waiting:
        """Return how many wait, by key and by rank too."""
        return self._queue.waiting()

    def lease_now(
        self,
        wish: Wish,
        tried: Collection[Backend] = (),
        *,
        again: Backend | None = None,
    ) -> Lease | None:
        """Return a lease on the best backend for `wish`; None where one has to `wait` for room.

        Args:
            tried: backends that this request has been at, and must not go to once more.
            again: the one to ask when there is no other, however it looks.

        Raises:
            ModelNotFound: no backend has the model.
            NoBackend: none that may have it is up.
            BadRequest: it asks for a policy that there is not.
        """
        policy = self.policies.of(wish)
        if self._queue.count:  # time alone may have made a place, and others came before
            self.hand_over()
        candidates = self._candidates(wish.model, tried)
        if not candidates and again is not None and not (again.removed or again.draining):
            candidates = [again]
        if not candidates:
            raise self._nobody(wish.model)
        if self.pool.some_are_capped:
            candidates = self._open(candidates)
            if not candidates:
                return None
        return self.pool.lease(*policy.choose(candidates, wish, self.pool.monotonic()))

    def another(self, model: str | None, tried: Collection[Backend], *, well: bool) -> bool:
        """Tell whether some backend that has not been tried could be asked.

        `well`: only one that is well counts, not a last resort.
        """
        if well:
            return any(backend not in tried for backend in self.pool.candidates(model))
        return bool(self._candidates(model, tried))

    def choices(self, model: str | None) -> list[Backend]:
        """Return those among which the policy would choose now. It takes nothing."""
        return list(self._open(self._candidates(model, ())))

    def refusal(self, model: str | None) -> RouterError:
        """Return what a request for `model` is told that finds no `choices` now, or has to wait."""
        if not self._candidates(model, ()):
            return self._nobody(model)
        if self._queue.count >= self.rules.limit:
            return Overloaded("Too many requests are waiting.", retry_after=RETRY_AFTER)
        return Overloaded("No server has room: it would wait.", retry_after=RETRY_AFTER)

    def _candidates(self, model: str | None, tried: Collection[Backend]) -> Sequence[Backend]:
        """Return those to choose from: of the best sort that there is, less those tried."""
        well = self.pool.candidates(model)
        if tried:
            well = [backend for backend in well if backend not in tried]
        return well or self._least_bad(model, tried)

    def _least_bad(self, model: str | None, tried: Collection[Backend]) -> Sequence[Backend]:
        for backends in self.pool.last_resorts(model):
            left = [backend for backend in backends if backend not in tried]
            if left:
                return left
        return ()

    def _open(self, candidates: Sequence[Backend]) -> Sequence[Backend]:
        """Return those that would begin a request at once; without a queue, those with room."""
        if self.rules.limit:
            return [backend for backend in candidates if backend.in_flight < backend.open_for]
        return [backend for backend in candidates if backend.has_room]

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

    async def wait(
        self, wish: Wish, tried: Collection[Backend] = (), claim: Claim = ORDINARY
    ) -> Lease:
        """Return a lease as soon as a backend for `wish` has room that was not `tried`.

        Where all of those that it could go to were, it may go to them once more.

        Args:
            claim: for whom, and how early it wants its turn among those that wait.

        Raises:
            ModelNotFound, NoBackend: there is none any more, when its time is over.
            Overloaded: too many wait already, or no place came free in time.
        """
        if not self._candidates(wish.model, tried):
            tried = ()
        begun = self.pool.monotonic()
        if self._queue.count >= self.rules.limit and not self._let_one_go(begun):
            beyond = self._with_room(wish.model, tried)
            if beyond:  # it does not have to wait here
                return self.pool.lease(*self.policies.of(wish).choose(beyond, wish, begun))
            self._make_room(claim, begun)
        loop = asyncio.get_running_loop()
        waiter = Waiter(wish, tried, loop.create_future(), claim)
        # Not `asyncio.wait_for`: before Python 3.12 it forgets that it was cancelled when a place
        # comes in the same moment, and a client that has left would keep it.
        deadline = loop.call_later(
            self.rules.timeout, self._tell_too_late, waiter, self.rules.timeout
        )
        self._queue.join(waiter, begun, self.rules.ageing)
        self._by_arrival[waiter] = None
        try:
            return await waiter.tell
        except asyncio.CancelledError:
            _give_back(waiter.tell)
            raise
        finally:
            deadline.cancel()
            self._queue.leave(waiter)
            del self._by_arrival[waiter]
            self.pool.stats.queued.observe(self.pool.monotonic() - begun)

    def _make_room(self, claim: Claim, now: float) -> None:
        """Let the one that would be served last leave the full queue, unless that is who comes.

        Raises:
            Overloaded: it is.
        """
        error = Overloaded("Too many requests are waiting.", retry_after=RETRY_AFTER)
        last = self._queue.gives_way_to(claim, now, self.rules.ageing)
        if last is None or self._queue.count > self.rules.limit:
            raise error
        self._queue.leave(last)
        if not last.tell.done():
            last.tell.set_exception(error)

    def _tell_too_late(self, waiter: Waiter, seconds: float) -> None:
        if waiter.tell.done() or self._let_go(waiter):
            return
        if self._left(waiter.model, waiter.tried):
            text = f"No server had room within {seconds:g} s."
            waiter.tell.set_exception(Overloaded(text, retry_after=RETRY_AFTER))
        else:
            waiter.tell.set_exception(self._nobody(waiter.model))

    def stop(self, error: RouterError) -> None:
        """End all waiting with `error`."""
        for waiter in self._queue.drain():
            if not waiter.tell.done():
                waiter.tell.set_exception(error)

    def _on_remove(self, backend: Backend) -> None:
        self.policies.forget(backend)

    def _on_release(self, backend: Backend) -> None:
        if self._queue.count:
            self.hand_over()

    def look(self) -> None:
        """See to those that wait; called from time to time.

        Rests and circuits end by themselves, a server may run more by now than it was seen to, and
        nobody is held back for ever.
        """
        if not self._queue.count:
            return
        self.pool.learning.try_more(self._queue.count)
        self.hand_over()
        self._let_go_of_old(self.pool.monotonic() - _LONGEST_HOLD)

    def _let_go_of_old(self, came: float) -> None:
        """Hold nobody back any longer who has `come` by then, whoever has turns before."""
        full = set()
        for waiter in list(self._by_arrival):
            if waiter.joined > came:
                return
            if waiter.tell.done() or waiter.kind in full:
                continue
            if not self._let_go(waiter):
                full.add(waiter.kind)

    def hand_over(self) -> None:
        """Give free places to those that wait; called when one comes free or the pool changes."""
        now = self.pool.monotonic()
        while any(self._serve(waiter) for waiter in self._queue.first_of_each_kind(now)):
            pass

    def _let_one_go(self, now: float) -> bool:
        """Let the first that can go on to a backend where it has to wait; tell whether one did."""
        return any(self._let_go(waiter) for waiter in self._queue.first_of_each_kind(now))

    def _let_go(self, waiter: Waiter) -> bool:
        """Hold `waiter` back no longer: a backend with room may let it wait as well."""
        return self._place(waiter, self._with_room(waiter.model, waiter.tried))

    def _with_room(self, model: str | None, tried: Collection[Backend]) -> list[Backend]:
        return [one for one in self._left(model, tried) if one.has_room]

    def _left(self, model: str | None, tried: Collection[Backend]) -> Sequence[Backend]:
        """Return those that one who waits may go to: where all were tried, to these once more.

        The others may have been removed since it began to wait; one that is down may come back.
        """
        left = self._candidates(model, tried)
        if left or not tried or self.pool.may_have(model, besides=tried):
            return left
        return self._candidates(model, ())

    def _serve(self, waiter: Waiter) -> bool:
        """Give `waiter` a place; return False if there is none for it."""
        candidates = self._left(waiter.model, waiter.tried)
        return self._place(waiter, self._open(candidates))

    def _place(self, waiter: Waiter, candidates: Sequence[Backend]) -> bool:
        """Give `waiter` a place at one of `candidates`, if there are any; tell whether it left."""
        if waiter.tell.done():  # it gave up in this very moment
            return self._queue.leave(waiter)
        if not candidates:
            return False
        self._queue.serve(waiter)
        try:
            choice = self.policies.of(waiter.wish).choose(
                candidates, waiter.wish, self.pool.monotonic()
            )
        except Exception as error:  # somebody else's policy: it fails this request, and no other
            waiter.tell.set_exception(error)
        else:
            waiter.tell.set_result(self.pool.lease(*choice))
        return True


def _give_back(place: asyncio.Future[Lease]) -> None:
    """Give back a place that was handed over to a request that no longer wants it."""
    if not place.cancelled() and place.exception() is None:
        place.result().release()


def _short(model: str | None) -> str:
    return f"`{model}`" if model is None or len(model) <= 200 else f"`{model[:200]}...`"
