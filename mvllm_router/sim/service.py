"""What a simulated engine does with a request: pages, jobs, faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

from aiohttp import web

from mvllm_router.sim.core import Core, Outcome, Received
from mvllm_router.sim.dialects.base import Asked, Dialect, Page, Refused
from mvllm_router.sim.faults import Fault, Injection
from mvllm_router.sim.job import Job, Kind
from mvllm_router.sim.wire import Sent, Wire, never

_STATUS_FAULTS = (Fault.ERROR_500, Fault.DRAINING_500, Fault.BUSY_503, Fault.RATE_429)
_STREAM_FAULTS = (Fault.DROP, Fault.STALL, Fault.ENGINE_DEATH, Fault.ABORT)
_NO_FAULT = Injection(Fault.SLOW, seconds=0)


class Service:
    """The request handler of one engine."""

    def __init__(self, core: Core, dialect: Dialect, control: Callable[[Asked], Page]) -> None:
        self._core = core
        self._dialect = dialect
        self._control = control
        # Keyed by the task that aiohttp runs for each connection.
        self._answers: WeakKeyDictionary[asyncio.Task[None], int] = WeakKeyDictionary()
        self.busy: set[asyncio.BaseTransport | None] = set()  # connections with a request

    async def handle(self, request: web.BaseRequest) -> Sent:
        """Answer one request, or break off as a fault says."""
        transport = request.transport
        self.busy.add(transport)
        try:
            wire = await self._handle(request)
        except ConnectionError:  # the client has gone, and has been counted as such
            return Sent(keep_alive=False)
        finally:
            self.busy.discard(transport)
        return Sent(keep_alive=wire.keep and not self._core.refusing)

    async def _handle(self, request: web.BaseRequest) -> Wire:
        wire = Wire(request, self._dialect, last=self._is_last(request))
        if request.headers.get("Expect", "").lower() == "100-continue":
            wire.go_on()
        asked = await _read(request)
        if asked.path.startswith("/sim/"):
            wire.send(self._control(asked))
            return wire
        self._core.requests.append(_received(request, asked.body))
        await self._dispatch(asked, wire)
        return wire

    def _is_last(self, request: web.BaseRequest) -> bool:
        most = self._dialect.answers_per_connection
        count = self._answers.get(request.task, 0) + 1
        self._answers[request.task] = count
        return most is not None and count >= most

    async def _dispatch(self, asked: Asked, wire: Wire) -> None:
        kind = None if self._core.state.loading else self._dialect.kind_of(asked)
        injection = self._core.plan.take(inference=kind is not None) or _NO_FAULT
        if kind is not None:
            await self._counted(kind, asked, wire, injection)
        else:
            await self._page(asked, wire, injection)

    # Pages

    async def _page(self, asked: Asked, wire: Wire, injection: Injection) -> None:
        if await self._failed_at_once(wire, injection):
            return
        if not self._dialect.takes_lock(asked):
            page = self._make_page(asked)
        else:
            async with self._core.lock():
                page = self._make_page(asked)
        await self._send(page, wire, injection.fault)

    def _make_page(self, asked: Asked) -> Page:
        try:
            self._dialect.guard(asked)
            return self._dialect.page(asked, self._core.state)
        except Refused as refused:
            return refused.page

    # Inference

    async def _counted(self, kind: Kind, asked: Asked, wire: Wire, injection: Injection) -> None:
        """Count what becomes of the request: served, aborted by its client, or failed."""
        core = self._core
        core.begin()
        outcome: Outcome = "failed"
        try:
            if not await self._failed_at_once(wire, injection):
                served = await self._infer(kind, asked, wire, injection)
                outcome = "served" if served else "failed"
        except (asyncio.CancelledError, ConnectionError):
            outcome = "failed" if wire.broken or core.stopping else "aborted"
            raise
        finally:
            core.settle(outcome)

    async def _infer(self, kind: Kind, asked: Asked, wire: Wire, injection: Injection) -> bool:
        try:
            self._dialect.guard(asked)
            job = self._dialect.read(kind, asked)
            if not self._core.admit(job):
                raise Refused(self._dialect.fault_page(Fault.BUSY_503))
            if job.stream:
                return await self._stream(job, wire, injection)
            return await self._whole(job, wire, injection)
        except Refused as refused:
            wire.send(refused.page)
            return False

    async def _whole(self, job: Job, wire: Wire, injection: Injection) -> bool:
        fault = injection.fault
        if fault in (Fault.BUSY_IN_STREAM, Fault.ENGINE_DEATH):
            raise Refused(self._dialect.fault_page(fault))
        if fault is Fault.ABORT:
            job.abort()
        elif self._dialect.keeps_work:
            await self._watched(job)
        else:
            await self._work(job)
        await self._send(self._dialect.answer(job), wire, fault)
        return fault is not Fault.ABORT

    async def _work(self, job: Job) -> None:
        async with self._core.slot(job):
            while job.left:
                await self._core.step(job)

    async def _watched(self, job: Job) -> None:
        """Work that goes on when the client leaves, where the real server does not notice."""
        task = self._core.spawn(self._work(job))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not job.running and not self._dialect.keeps_queued:
                task.cancel()
            raise

    async def _stream(self, job: Job, wire: Wire, injection: Injection) -> bool:
        if injection.fault is Fault.BUSY_IN_STREAM:
            wire.begin(self._dialect.stream_page(job))
            await wire.event(self._dialect.fault_event(injection.fault))
            await wire.end()
            return False
        if self._dialect.head_first:
            wire.begin(self._dialect.stream_page(job))
        async with self._core.slot(job):
            if self._dialect.announces_prefill:
                await wire.event(f": keepalive {job.prompt_tokens}/{job.prompt_tokens}\n\n")
            whole = await self._events(job, wire, injection)
        if whole:
            # Outside of the slot, which is free before the client has read the end.
            await wire.event(self._dialect.closing(job))
            await wire.end(clean=not job.interrupted)
        return whole

    async def _events(self, job: Job, wire: Wire, injection: Injection) -> bool:
        """The events of the tokens; True when the stream may come to its end."""
        breaks = injection.fault in _STREAM_FAULTS
        left = injection.after_events if breaks else -1  # events that may still be sent
        while job.left and left and not job.interrupted:
            before = job.made
            await self._core.step(job)
            for event in self._new_events(job, before):
                if not left:
                    break
                self._begin(job, wire)
                await wire.event(event)
                left -= 1
        self._begin(job, wire)
        if breaks:
            await self._break_off(job, wire, injection.fault)
        return not breaks

    def _begin(self, job: Job, wire: Wire) -> None:
        if not wire.begun:
            wire.begin(self._dialect.stream_page(job))

    def _new_events(self, job: Job, before: int) -> Iterator[str]:
        """What a stream sends after a step that began with `before` tokens."""
        if job.made > before == 0:
            yield from filter(None, (self._dialect.opening(job),))
        if job.made > before:
            text = job.answer.escaped(before, job.made - before)
            yield self._dialect.token(job, text, last=not job.left)

    async def _break_off(self, job: Job, wire: Wire, fault: Fault) -> None:
        if fault is Fault.DROP:
            await wire.cut()
        if fault is Fault.STALL:
            await never()
        if fault is Fault.ABORT:
            await self._abort(job, wire)
        else:
            await wire.event(self._dialect.fault_event(fault))
        await wire.end()

    async def _abort(self, job: Job, wire: Wire) -> None:
        """What has said nothing yet does not even say that it was aborted."""
        if job.made:
            job.abort()
            await wire.event(self._dialect.token(job, "", last=True))
        else:
            await wire.event(self._dialect.opening(job))
        await wire.event(self._dialect.closing(job))

    # Faults

    async def _failed_at_once(self, wire: Wire, injection: Injection) -> bool:
        """Act on a fault that needs no job; True when it was the answer."""
        fault = injection.fault
        if fault is Fault.HANG:
            await never()
        if fault is Fault.RESET:
            await wire.reset()
        if fault is Fault.GARBAGE:
            await wire.garbage()
        if fault in _STATUS_FAULTS:
            wire.send(self._dialect.fault_page(fault))
            return True
        if fault is Fault.SLOW and injection.seconds:
            await asyncio.sleep(injection.seconds)
        return False

    async def _send(self, page: Page, wire: Wire, fault: Fault) -> None:
        if fault in (Fault.DROP, Fault.STALL):
            wire.send_half(page)
            await (wire.cut() if fault is Fault.DROP else never())
        wire.send(page)


async def _read(request: web.BaseRequest) -> Asked:
    path, _, query = request.raw_path.partition("?")
    body = await request.content.read()
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Asked(request.method, path, query, headers, body)


def _received(request: web.BaseRequest, body: bytes) -> Received:
    headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.raw_headers]
    return Received(request.method, request.raw_path, headers, body)
