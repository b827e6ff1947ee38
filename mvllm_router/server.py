"""The router as a process: starts everything, follows reloads, stops without losing requests."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mvllm_router.api.app import App
from mvllm_router.api.snapshot import About
from mvllm_router.auth import Gate
from mvllm_router.config import Config, ConfigError, Settings, changes
from mvllm_router.control.prober import Prober
from mvllm_router.control.reload import FileWatch
from mvllm_router.control.watches import Watches
from mvllm_router.policies import Policy
from mvllm_router.policies import make as make_policy
from mvllm_router.pool import HealthRules, Pool
from mvllm_router.proxy.dispatch import Dispatch
from mvllm_router.proxy.front import Front
from mvllm_router.proxy.relay import Limits, Relay
from mvllm_router.tasks import cancel, repeat, spawn

log = logging.getLogger(__name__)

# Connections that the kernel holds for us while we are busy.
_BACKLOG = 2048
# Seconds between looks for silent backends, at most.
_SILENCE_TICK = 1.0
# Seconds between looks at whether the last request has finished.
_DRAIN_TICK = 0.05
# So many of these are left for what is ended to tell its clients.
_LAST_TICKS = 10

T = TypeVar("T")


class CannotListen(Exception):
    """The address cannot be listened on; the text says why and what to do."""


class Router:
    """One router: `start`, then `serve_until_stopped` or `stop`."""

    def __init__(self, config: Config, reread: Callable[[], Config] | None = None) -> None:
        """Prepare to run `config`.

        Args:
            reread: loads the configuration again for a reload; None when there is no file.
        """
        self.config = config
        self._reread = reread
        settings = config.settings
        self.pool = Pool(_health_rules(settings))
        self.dispatch = Dispatch(
            self.pool,
            make_policy(settings.policy),
            max_waiting=settings.max_queue or 1024,
            queue_timeout=settings.queue_timeout,
        )
        self.relay = Relay(self.pool, self.dispatch, _limits(settings))
        self.app = App(
            self.pool,
            self.relay,
            Gate(settings.api_key),
            settings,
            About("", settings.policy, str(config.path) if config.path else None, time.time()),
        )
        self.port = settings.port
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: asyncio.Server | None = None
        self._reloading = asyncio.Lock()
        self._stop_asked = asyncio.Event()
        self._stop_now = asyncio.Event()

    @property
    def url(self) -> str:
        """The address to tell people: a wildcard address is not one to connect to."""
        host = self.config.settings.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"

    # --- starting

    async def start(self) -> None:
        """Listen and start all background work; returns at once, also with dead servers.

        Raises:
            CannotListen: the port is in use, or the address is not ours.
        """
        self.front = Front(self.app.handle)
        await self._listen()
        self.app.about = About(
            self.url, self.config.settings.policy, self.app.about.config_path, time.time()
        )
        for spec in self.config.servers:
            self.pool.add(spec)
        self.prober = Prober()
        self.watches = Watches(self.pool, self.prober, self.config.settings)
        await self.watches.follow(self.config.settings)
        self._tasks.append(spawn(repeat(self._watch_silence), "silence"))
        if self.config.path is not None and self._reread is not None:
            self.file_watch = FileWatch(self.config.path, self.reload)
            self._tasks.append(spawn(self.file_watch.run(), "reload"))
            await self.reload()  # the file may have changed since it was loaded

    async def _listen(self) -> None:
        settings = self.config.settings
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self.front, settings.host or None, settings.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise CannotListen(_why_not(settings, error)) from None
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _watch_silence(self) -> float:
        limit = self.relay.limits.request_timeout
        self.relay.check_silence()
        self.front.close_stuck(limit)
        return min(_SILENCE_TICK, limit / 4)

    # --- reloading

    async def reload(self) -> None:
        """Read the configuration again and use it; a bad one is refused and changes nothing."""
        assert self._reread is not None
        if self.app.draining:
            return
        try:
            await self.apply(self._reread())
        except (ConfigError, ValueError) as error:
            self.pool.events.add(
                "reload", "", f"the new configuration is refused:\n{error}", logging.ERROR
            )

    async def apply(self, config: Config) -> None:
        """Change to `config`: servers that stay keep their counts, health and connections.

        Raises:
            ValueError: its policy cannot be made; nothing has been changed.
        """
        async with self._reloading:
            await self._apply(config)

    async def _apply(self, config: Config) -> None:
        diff = changes(self.config, config)
        if not diff:
            return
        policy = make_policy(config.settings.policy) if "policy" in diff.live else None
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
        self._use(config.settings, policy)
        self.config = config
        await self.watches.follow(config.settings)
        self.pool.events.add("reload", "", _summary(diff.live, diff.needs_restart, len(specs)))

    def _use(self, settings: Settings, policy: Policy | None) -> None:
        self.pool.adopt(_health_rules(settings))
        self.dispatch.max_waiting = settings.max_queue or 1024
        self.dispatch.queue_timeout = settings.queue_timeout
        if policy is not None:
            self.dispatch.policy = policy
            about = self.app.about
            self.app.about = About(about.address, settings.policy, about.config_path, about.started)
        self.relay.limits = _limits(settings)
        self.relay.adopt(self.pool.backends)
        self.app.gate = Gate(settings.api_key)
        self.app.settings = settings
        logging.getLogger("mvllm_router").setLevel(settings.log_level.upper())

    # --- stopping

    async def serve_until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once."""
        loop = asyncio.get_running_loop()
        handled = (signal.SIGTERM, signal.SIGINT)
        for number in handled:
            _on_signal(loop, number, self.ask_to_stop)
        if hasattr(signal, "SIGHUP"):
            _on_signal(loop, signal.SIGHUP, self._on_hangup)
        await self._stop_asked.wait()
        await self.stop(self.config.settings.shutdown_timeout)

    def _on_hangup(self) -> None:
        """SIGHUP reloads the file; without one it means what it always did."""
        if self._reread is not None:
            spawn(self.reload(), "reload on SIGHUP")
        else:
            self.ask_to_stop()

    def ask_to_stop(self) -> None:
        """Stop gracefully; asked a second time, stop at once."""
        if self._stop_asked.is_set():
            self._stop_now.set()
        self._stop_asked.set()

    async def stop(self, drain_timeout: float) -> None:
        """Take no new connections, let requests finish for `drain_timeout` seconds, then end."""
        self.app.draining = True
        if self._listener is not None:
            self._listener.close()
        self.front.let_go()
        await self._drain(drain_timeout)
        self.relay.stop()  # what is left is told
        await self._settle()
        for task in self._tasks:
            await cancel(task)
        await self.watches.stop()
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


def _health_rules(settings: Settings) -> HealthRules:
    return HealthRules(
        consecutive_failures=settings.health_check_consecutive_failures,
        min_success_rate=settings.health_check_min_success_rate,
        window=settings.health_check_window_size,
        max_response_time=settings.health_check_max_response_time,
        request_failures=settings.failure_threshold,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        connect_timeout=settings.connect_timeout,
        request_timeout=settings.request_timeout,
        max_retries=settings.max_retries,
        max_body_size=settings.max_body_size,
    )


def _summary(live: tuple[str, ...], needs_restart: tuple[str, ...], servers: int) -> str:
    parts = [f"configuration reloaded, {servers} servers"]
    if live:
        parts.append(f"changed: {', '.join(live)}")
    if needs_restart:
        parts.append(f"needs a restart: {', '.join(needs_restart)}")
    return "; ".join(parts)
