"""The router as a process: starts everything, follows reloads, stops without losing requests."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from mvllm_router import assembly
from mvllm_router.api.app import App
from mvllm_router.api.snapshot import About
from mvllm_router.auth import Gate
from mvllm_router.config import Config, ConfigDiff, Settings
from mvllm_router.control.certificates import CertificateWatch
from mvllm_router.control.kv_watches import KvWatches
from mvllm_router.control.live import Live
from mvllm_router.control.prober import Prober
from mvllm_router.control.reload import FileWatch
from mvllm_router.control.watches import Watches
from mvllm_router.files import most_connections, raise_limit
from mvllm_router.front.front import Front
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.plan import Plan
from mvllm_router.launch.revision import Revision
from mvllm_router.launch.supervisor import Supervisor, journals_folder
from mvllm_router.policies import Policies
from mvllm_router.pool import Pool
from mvllm_router.pool.stats import NOTE_EVERY, NOTE_GROUPS
from mvllm_router.proxy.dispatch import Dispatch
from mvllm_router.proxy.relay import Relay
from mvllm_router.tasks import cancel, repeat, spawn
from mvllm_router.tls import Certificate, TlsError

log = logging.getLogger(__name__)

# Connections that the kernel holds for us while we are busy.
_BACKLOG = 2048
# Seconds that a client may take for the TLS handshake.
_HANDSHAKE = 10.0
# Seconds between looks for silent backends, at most.
_SILENCE_TICK = 1.0
# The same while requests wait: a backend that rested may have room for them by now.
_QUEUE_TICK = 0.1
# Seconds between looks at what traffic shows of the servers.
_LEARN_TICK = 1.0
# Seconds between looks at whether the last request has finished.
_DRAIN_TICK = 0.05
# So many of these are left for what is ended to tell its clients.
_LAST_TICKS = 10

# Objects that have come and not gone before the collector looks for cycles; the loop waits for it.
_GARBAGE = 2_500

T = TypeVar("T")


class CannotListen(Exception):
    """The address cannot be listened on; the text says why and what to do."""


class Router:
    """One router: `start`, then `serve_until_stopped` or `stop`."""

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config] | None = None,
        plan: Plan | None = None,
    ) -> None:
        """Prepare to run `config`.

        Args:
            reread: loads the configuration again for a reload; None when there is no file.
            plan: servers to start on this machine, beside those of `config`.
        """
        settings = config.settings
        queue_rules = assembly.queue_rules(settings)
        self.pool = Pool(
            assembly.health_rules(settings),
            assembly.circuit_rules(settings),
            enforce_capacity=queue_rules.caps,
            learns=settings.learn,
        )
        self.live = Live(config, self.pool.events, self._adopt, reread)
        self.dispatch = Dispatch(self.pool, assembly.policies(config), queue_rules)
        self.relay = Relay(self.pool, self.dispatch, assembly.limits(settings))
        self.app = App(
            self.pool,
            self.relay,
            Gate(config),
            settings,
            About("", settings.policy, str(config.path) if config.path else None, time.time()),
            self.live,
        )
        self.port = settings.port
        self.supervisor: Supervisor | None = None
        self._plan = plan
        self._noted = 0  # the group of servers that has looked back on its counts last
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: asyncio.Server | None = None
        self._certificate: Certificate | None = None
        self._stop_asked = asyncio.Event()
        self._stop_now = asyncio.Event()

    @property
    def config(self) -> Config:
        """What runs now."""
        return self.live.config

    @property
    def url(self) -> str:
        """The address to tell people: a wildcard address is not one to connect to."""
        host = self.config.settings.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
        scheme = "https" if self.config.settings.tls_cert else "http"
        return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{self.port}"

    # --- starting

    async def start(self) -> None:
        """Listen and start all background work; returns at once, also with dead servers.

        Raises:
            CannotListen: the port is in use, the address is not ours, or the certificate cannot
                be used.
        """
        clients = most_connections(raise_limit())
        self.front = Front(self.app, self.pool.stats, clients)
        self.front.adopt(self.config.settings)
        await self._listen()
        self.app.about = About(
            self.url, self.config.settings.policy, self.app.about.config_path, time.time()
        )
        for spec in self.config.servers:
            self.pool.add(spec)
        self.prober = Prober()
        self.watches = Watches(self.pool, self.prober, self.config.settings)
        await self.watches.follow(self.config.settings)
        self.kv_watches = KvWatches(self.pool, self.prober)
        await self._follow_caches()
        self._tasks.append(spawn(repeat(self._watch_silence), "silence"))
        self._tasks.append(spawn(repeat(self._note_counts), "counts of the last minute"))
        self._tasks.append(spawn(repeat(self._learn), "what traffic shows"))
        self.certificates = CertificateWatch(
            self._certificate, lambda: self.config.servers, self.live.reload, self.pool.events
        )
        self._tasks.append(spawn(repeat(self.certificates.look), "certificates"))
        if self._plan is not None:
            await self._launch(self._supervisor(self._plan))
        if self.config.path is not None and self.live.reread is not None:
            self.file_watch = FileWatch(self.config.path, self._follow_file)
            self._tasks.append(spawn(self.file_watch.run(), "watch of the file"))
            await self._follow_file()  # it may have changed since it was loaded

    def _supervisor(self, plan: Plan) -> Supervisor:
        # Two routers may have servers of the same names; they do not have the same port.
        folder = journals_folder() / str(self.port)
        return Supervisor(plan, self.pool, self.live.employ, folder)

    async def _launch(self, supervisor: Supervisor) -> None:
        self.supervisor = self.app.launched.supervisor = supervisor
        await supervisor.start()

    async def _listen(self) -> None:
        settings = self.config.settings
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        try:
            if settings.tls_cert:
                self._certificate = Certificate(settings.tls_cert, settings.tls_key)
                tls = {"ssl": self._certificate.context, "ssl_handshake_timeout": _HANDSHAKE}
            self._listener = await loop.create_server(
                self.front.protocol, settings.host or None, settings.port, backlog=_BACKLOG, **tls
            )
        except TlsError as error:
            raise CannotListen(f"cannot listen with TLS: {error}") from None
        except OSError as error:
            raise CannotListen(_why_not(settings, error)) from None
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _watch_silence(self) -> float:
        limits = self.relay.limits
        self.relay.check_silence()
        self.dispatch.look()
        header_timeout = self.config.settings.header_timeout
        self.front.look(limits.request_timeout, header_timeout)
        shortest = min(
            limits.request_timeout, limits.first_byte_timeout or _SILENCE_TICK, header_timeout
        )
        return min(_QUEUE_TICK if self.dispatch.waiting else _SILENCE_TICK, shortest / 4)

    async def _learn(self) -> float:
        self.pool.learning.look()
        return _LEARN_TICK

    async def _note_counts(self) -> float:
        """Let a group of the servers look back on this moment; each comes every `NOTE_EVERY`."""
        self._noted = (self._noted + 1) % NOTE_GROUPS
        for backend in self.pool.backends.values():
            if hash(backend.name) % NOTE_GROUPS == self._noted:
                backend.stats.lately.note()
        return NOTE_EVERY / NOTE_GROUPS

    # --- reloading

    async def _adopt(self, config: Config, diff: ConfigDiff) -> None:
        """Take `config`, which differs by `diff` from what runs, into use.

        Raises:
            ValueError: its policy cannot be made, or its servers cannot be launched; nothing has
                been changed.
        """
        policies = assembly.policies(config, before=self.dispatch.policies)
        launching = await self._prepared(config) if diff.launches else None
        # Nothing from here on can fail: half a configuration would be worse than an old one.
        specs = {spec.name: spec for spec in config.servers}
        moved = [name for name, fields in diff.changed.items() if "url" in fields]
        for name in (*diff.removed, *moved):
            self.pool.remove(name)
        for name in (*diff.added, *moved):
            self.pool.add(specs[name])
        for name in diff.changed:
            if name not in moved:
                self.pool.update(specs[name])
        self._use(config.settings, policies)
        self.app.gate.adopt(config)
        await self.watches.follow(config.settings)
        await self._follow_caches()
        if launching is not None:
            supervisor, revision = launching
            if self.supervisor is None:
                await self._launch(supervisor)
            supervisor.follow(revision)

    async def _prepared(self, config: Config) -> tuple[Supervisor, Revision]:
        """Return who is to launch what has changed, and how.

        Raises:
            ValueError: that cannot be done.
        """
        supervisor = self.supervisor or self._supervisor(Plan((), {}))
        try:
            return supervisor, await supervisor.prepare(config.launches)
        except CannotLaunch as error:
            raise ValueError(error.whole) from None

    async def _follow_caches(self) -> None:
        policies = self.dispatch.policies
        await self.kv_watches.follow(policies.made("kv_events"))
        self.relay.tokens = assembly.tokens(self.pool, policies, self.prober, self.relay.tokens)

    async def _follow_file(self) -> None:
        await self.live.reload()

    def _use(self, settings: Settings, policies: Policies) -> None:
        self.dispatch.rules = rules = assembly.queue_rules(settings)
        self.pool.adopt(
            assembly.health_rules(settings),
            assembly.circuit_rules(settings),
            enforce_capacity=rules.caps,
            learns=settings.learn,
        )
        self.dispatch.policies = policies
        self.app.about = replace(self.app.about, policy=settings.policy)
        self.relay.limits = assembly.limits(settings)
        self.front.adopt(settings)
        self.relay.adopt(self.pool.backends)
        self.app.settings = settings
        logging.getLogger("mvllm_router").setLevel(settings.log_level.upper())

    # --- stopping

    async def serve_until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once."""
        loop = asyncio.get_running_loop()
        _look_for_garbage_rarely()
        handled = (signal.SIGTERM, signal.SIGINT)
        for number in handled:
            _on_signal(loop, number, self.ask_to_stop)
        if hasattr(signal, "SIGHUP"):
            _on_signal(loop, signal.SIGHUP, self._on_hangup)
        await self._stop_asked.wait()
        await self.stop(self.config.settings.shutdown_timeout)

    def _on_hangup(self) -> None:
        """SIGHUP reads the files again; without any it means what it always did."""
        self.certificates.renew()
        if self.live.reread is not None:
            spawn(self._follow_file(), "reload on SIGHUP")
        elif self._certificate is None:
            self.ask_to_stop()

    def ask_to_stop(self) -> None:
        """Stop gracefully; asked a second time, stop at once."""
        if self._stop_asked.is_set():
            self._stop_now.set()
        self._stop_asked.set()

    async def stop(self, drain_timeout: float) -> None:
        """Take no new connections, let requests finish for `drain_timeout` seconds, then end."""
        self.app.draining = self.live.stopping = True
        self.app.events.end()
        if self._listener is not None:
            self._listener.close()
        self.front.let_go()
        await self._drain(drain_timeout)
        self.relay.stop()  # what is left is told
        await self._settle()
        if self.supervisor is not None:
            await self.supervisor.stop(self._stop_now)
        for task in self._tasks:
            await cancel(task)
        async with self.live.lock:  # one that has begun comes to its end
            await self.watches.stop()
            await self.kv_watches.stop()
        await self.front.shutdown(0.1)
        self.relay.close()
        await self.prober.close()

    async def _drain(self, timeout: float) -> None:
        running = self.pool.stats.in_flight
        if running:
            log.info(
                "waiting up to %g s for %d requests to finish (once more to end now)",
                timeout,
                running,
            )
        end = time.monotonic() + timeout
        while self.pool.stats.in_flight and not self._stop_now.is_set():
            if time.monotonic() >= end:
                log.warning("ending %d requests that run still", self.pool.stats.in_flight)
                return
            await asyncio.sleep(_DRAIN_TICK)

    async def _settle(self) -> None:
        """Let the handlers that were told to end write their last words."""
        for _ in range(_LAST_TICKS):
            if not self.pool.stats.in_flight:
                return
            await asyncio.sleep(_DRAIN_TICK)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, on uvloop where there is one."""
    loop = _new_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(work)
    finally:
        try:
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _look_for_garbage_rarely() -> None:
    """Spare the data path most of the collector's work: it leaves hardly any cycles behind.

    With many requests under way the usual threshold is crossed all the time, and each look at
    everything that was loaded stops the loop for 20 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE, 80, 50)


def _on_signal(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, action: Callable[[], object]
) -> None:
    try:
        loop.add_signal_handler(number, action)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(action))


def _why_not(settings: Settings, error: OSError) -> str:
    place = f"{settings.host or '*'}:{settings.port}"
    reason = error.strerror or str(error)
    if "in use" in reason or "in use" in str(error):
        return (
            f"cannot listen on {place}: the port is in use\n"
            f"hint: stop the other program, or choose another port with --port"
        )
    return f"cannot listen on {place}: {reason}"
