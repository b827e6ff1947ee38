"""One watch for each server whose cache is followed, as servers and policies come and go."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mvllm_router.control.kv_sources import PATH, KvSource, read_sources
from mvllm_router.control.prober import NoAnswer, Prober
from mvllm_router.policies import Policy
from mvllm_router.policies.kv_events import KvEvents
from mvllm_router.policies.kv_index import KvIndex
from mvllm_router.pool import Backend, Pool
from mvllm_router.tasks import cancel, repeat, spawn

if TYPE_CHECKING:
    import zmq.asyncio

# Seconds. Between looks at a server that is not up or no vLLM, until one whose events were lost is
# asked again, and one that publishes none; and for its answer.
_LOOK, _AGAIN, _SILENT = 1.0, 1.0, 10.0
_TIMEOUT = 5.0

_NONE = "it publishes no KV events (--kv-events-config): it gets requests by its load"

_PARTLY = "; what it has cached before is not known: it has no replay_endpoint"


class KvWatches:
    """Follows the caches of all servers while the policy `kv_events` is in use."""

    def __init__(self, pool: Pool, prober: Prober) -> None:
        self._pool = pool
        self._prober = prober
        self._index: KvIndex | None = None
        self._context: zmq.asyncio.Context | None = None
        self._tasks: dict[Backend, asyncio.Task[None]] = {}

    async def follow(self, policy: Policy | None) -> None:
        """Follow for this policy the servers that there are now; for None, none."""
        index = policy.index if isinstance(policy, KvEvents) else None
        if index is not self._index:
            await self.stop()
        if index is None:
            return
        self._index = index
        there = set(self._pool.backends.values())
        for backend in [one for one in self._tasks if one not in there]:
            await cancel(self._tasks.pop(backend))
        for backend in there - set(self._tasks):
            watch = KvWatch(backend, self._pool, self._prober, index, self._zmq())
            self._tasks[backend] = spawn(repeat(watch.look), f"KV events {backend.name}")

    async def stop(self) -> None:
        """Follow none any more."""
        tasks, self._tasks, self._index = self._tasks, {}, None
        for task in tasks.values():
            await cancel(task)
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def _zmq(self) -> zmq.asyncio.Context:
        import zmq.asyncio  # it need not be installed for other policies

        if self._context is None:
            self._context = zmq.asyncio.Context()
        return self._context


class KvWatch:
    """Follows the caches of one server, of which each data-parallel rank has its own."""

    def __init__(
        self,
        backend: Backend,
        pool: Pool,
        prober: Prober,
        index: KvIndex,
        context: zmq.asyncio.Context,
    ) -> None:
        self._backend = backend
        self._pool = pool
        self._prober = prober
        self._index = index
        self._context = context
        self._said = ""

    async def look(self) -> float:
        """Follow the server until that ends; return after how many seconds to try again."""
        if not self._backend.is_up or self._backend.engine != "vllm":
            return _LOOK
        try:
            sources = await self._sources()
        except (NoAnswer, ValueError) as error:
            self._say(f"its KV events cannot be followed: {error}", logging.WARNING)
            return _AGAIN
        if not sources:
            self._say(_NONE)
            return _SILENT
        await self._follow(sources)
        return _AGAIN

    async def _sources(self) -> list[KvSource]:
        spec = self._backend.spec
        answer = await self._prober.get(spec, PATH, _TIMEOUT)
        if answer.status == 404:  # it is older
            return []
        if answer.status != 200:
            raise ValueError(f"{PATH} answered {answer.status}")
        return read_sources(answer.body, spec.url)

    async def _follow(self, sources: list[KvSource]) -> None:
        """Follow all of them until one is lost: then the server may be another one."""
        from mvllm_router.control.kv_follower import Follower, Lost

        async def follow(told: KvSource, ready: asyncio.Event) -> None:
            source = self._index.join(self._backend)
            try:
                await Follower(self._context, self._index, source, told).run(ready)
            finally:
                self._index.drop(source)

        events = [asyncio.Event() for _ in sources]
        tasks = [
            asyncio.ensure_future(follow(told, ready))
            for told, ready in zip(sources, events, strict=True)
        ]
        tasks.append(asyncio.ensure_future(self._tell(sources, events)))
        try:
            await asyncio.gather(*tasks)
        except Lost as lost:
            self._say(f"its KV events are lost: {lost}", logging.WARNING)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _tell(self, sources: list[KvSource], events: list[asyncio.Event]) -> None:
        for event in events:
            await event.wait()
        partly = "" if all(told.replay for told in sources) else _PARTLY
        self._say(f"its KV events are followed{partly}")

    def _say(self, what: str, level: int = logging.INFO) -> None:
        """Tell what is new; the same is not said twice in a row."""
        if what != self._said:
            self._said = what
            self._pool.events.add("cache", self._backend.name, what, level)
