"""A simulated engine: a server that answers like vLLM, llama.cpp and others, without a model."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
from collections import deque
from collections.abc import Callable
from types import TracebackType

from aiohttp import web

from mvllm_router.sim.core import Core, Received
from mvllm_router.sim.dialects import make_dialect
from mvllm_router.sim.dialects.base import Asked, Page, dumps
from mvllm_router.sim.faults import Fault, Injection
from mvllm_router.sim.profile import Profile
from mvllm_router.sim.service import Service

KEEP_ALIVE_SECONDS = 5.0
_BACKLOG = 2048
# Below the range from which systems take the ports of outgoing connections, so that nobody
# takes the port of an engine that is stopped for a while.
_PORTS = range(20000, 32000)


class SimEngine:
    """One simulated server. Use it as an async context manager, or `start` and `stop` it.

    It lives in one event loop; nothing in it is thread-safe. Answers depend on the seed
    and the prompt alone.
    """

    def __init__(self, profile: Profile, *, seed: int = 0) -> None:
        self.profile = profile
        dialect = make_dialect(profile, seed)
        self._core = Core(profile, dialect)
        self._service = Service(self._core, dialect, self._control)
        self._refuses_while_loading = dialect.refuses_while_loading
        self._address: tuple[str, int] | None = None
        self._http: web.Server | None = None
        self._listener: asyncio.AbstractServer | None = None
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        load = f"running={self.running} waiting={self.waiting} started={self.started}"
        ends = f"served={self.served} aborted={self.aborted} failed={self.failed}"
        return f"<SimEngine {self.profile.dialect} {self._address} {load} {ends}>"

    # Life

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen. Port 0 takes a free one, after `stop` the same as before.

        Raises OSError when the port is taken, RuntimeError when it runs already.
        """
        if self._http is not None:
            raise RuntimeError(f"{self!r} runs already")
        wanted = port or (self._address[1] if self._address else 0)
        sock = _bind(host, wanted) if wanted else _bind_any(host)
        self._address = (host, sock.getsockname()[1])
        self._http = web.Server(
            self._service.handle,
            handler_cancellation=True,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            access_log=None,
        )
        loading = self.profile.loading_seconds > 0
        self._core.state.loading = loading
        if loading:
            self._load()
        if loading and self._refuses_while_loading:
            sock.close()
        else:
            await self._listen(sock)

    def _load(self) -> None:
        if self.profile.loading_seconds != float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.profile.loading_seconds, self.finish_loading)

    def finish_loading(self) -> None:
        """End the time that `loading_seconds` asks for."""
        if not self._core.state.loading:
            return
        self._core.state.loading = False
        self._reopen()
        self._core.changed()

    async def stop(self) -> None:
        """Vanish like a killed process: listener and connections are gone, jobs too."""
        if self._http is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            await self._opening
        self._core.stopping = True
        self._close_listener()
        for connection in self._http.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._core.cancel_tasks()
        await self._http.shutdown(timeout=KEEP_ALIVE_SECONDS)
        self._http = None
        self._core.plan.clear()
        self._core.stopping = self._core.held = self._core.refusing = False
        self._core.changed()

    async def __aenter__(self) -> SimEngine:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # Listening

    async def _listen(self, sock: socket.socket) -> None:
        assert self._http is not None
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._http, sock=sock, backlog=_BACKLOG)

    def _reopen(self) -> None:
        """Take connections again, from now on and not from some later loop step."""
        if self._listener is not None or self._http is None or self._address is None:
            return
        sock = _bind(*self._address)
        sock.listen(_BACKLOG)
        self._opening = self._core.spawn(self._listen(sock))

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _close_idle(self) -> None:
        assert self._http is not None
        for connection in self._http.connections:
            transport = connection.transport
            if transport is not None and transport not in self._service.busy:
                transport.close()

    # What tests look at

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end. Raises RuntimeError before `start`."""
        if self._address is None:
            raise RuntimeError("the engine has not been started")
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        return self._core.state.slots.running

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._core.state.slots.waiting

    @property
    def started(self) -> int:
        """Inference requests that have arrived, also those that a fault or an error ended."""
        return self._core.started

    @property
    def served(self) -> int:
        """Inference requests answered to their end."""
        return self._core.ends["served"]

    @property
    def aborted(self) -> int:
        """Inference requests whose client left."""
        return self._core.ends["aborted"]

    @property
    def failed(self) -> int:
        """Inference requests that a fault, an error answer or `stop` ended."""
        return self._core.ends["failed"]

    @property
    def generated(self) -> int:
        """Tokens made."""
        return self._core.state.generated_tokens.total()

    @property
    def requests(self) -> deque[Received]:
        """The latest requests of all paths but /sim, as they arrived."""
        return self._core.requests

    async def wait_for(self, predicate: Callable[[SimEngine], bool], timeout: float = 10) -> None:
        """Wait until the predicate holds; it is asked after each change, not polled.

        Raises TimeoutError after `timeout` seconds.
        """
        try:
            await asyncio.wait_for(self._core.until(lambda: predicate(self)), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"waited {timeout} s in vain: {self!r}") from None

    # What tests do to it

    def hold(self) -> None:
        """Let running requests make no more tokens, so that they stay under way."""
        self._core.hold()

    def release(self) -> None:
        """Let them go on."""
        self._core.release()

    def inject(
        self,
        fault: Fault,
        times: int | None = None,
        *,
        after_events: int = 3,
        everywhere: bool = False,
        seconds: float = 5.0,
    ) -> None:
        """Let the next `times` inference requests (None: all until `clear`) meet a fault.

        Args:
            fault: what happens to them. REFUSE takes no `times`.
            times: how many requests; several injections are used up one after the other.
            after_events: events that a stream sends before DROP, STALL, ENGINE_DEATH or ABORT.
            everywhere: hit requests of all paths, not only inference.
            seconds: how long SLOW takes.

        Raises ValueError for a number of times that cannot be counted.
        """
        self._core.plan.add(Injection(fault, after_events, everywhere, seconds), times)
        if fault is Fault.REFUSE and self._http is not None:
            self._core.refusing = True
            self._close_listener()
            self._close_idle()

    def clear(self) -> None:
        """Forget all faults; a closed listener opens again."""
        self._core.plan.clear()
        self._core.refusing = False
        if not self._core.state.loading:
            self._reopen()

    def change_speed(self, factor: float) -> None:
        """Go on `factor` times as fast as the profile says, also with what runs.

        Raises ValueError for a factor that is not above 0.
        """
        if not factor > 0:
            raise ValueError(f"an engine cannot be {factor} times as fast")
        self._core.state.speed = factor

    def _control(self, asked: Asked) -> Page:
        """The answer to /sim/..., which does from outside what tests do by methods."""
        try:
            if asked.path == "/sim/fault":
                self._fault(asked)
            elif asked.path == "/sim/speed":
                self.change_speed(float(json.loads(asked.body)["factor"]))
            else:
                return Page(404, b"{}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return Page(400, dumps({"error": str(error)}))
        return Page(200, b"{}")

    def _fault(self, asked: Asked) -> None:
        if asked.method == "DELETE":
            self.clear()
            return
        fields = json.loads(asked.body)
        fault = Fault(fields.pop("fault"))
        if fault is Fault.REFUSE:
            raise ValueError("refuse could not be cleared again from outside")
        self.inject(fault, **fields)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _bind_any(host: str) -> socket.socket:
    for port in random.SystemRandom().sample(_PORTS, 20):
        try:
            return _bind(host, port)
        except OSError:
            continue
    return _bind(host, 0)
