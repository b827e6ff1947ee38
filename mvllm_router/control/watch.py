"""Watches one backend: recognises its engine, checks its health, reads models and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from dataclasses import asdict

from mvllm_router.config import Settings
from mvllm_router.control.prober import NoAnswer, Prober
from mvllm_router.engines import Engine, get, read_models
from mvllm_router.engines.recognise import (
    FIRST,
    Answer,
    conclusion,
    next_question,
    read_json,
    version_of,
)
from mvllm_router.pool import Backend, Pool, Sample, State
from mvllm_router.tasks import cancel, happens, repeat, spawn

log = logging.getLogger(__name__)

# Seconds between checks of a backend that is not up, so that it is soon back.
RECHECK = 1.0
# Seconds without scrapes after a server said that it has no metrics.
_NO_METRICS_PAUSE = 30.0
# Metrics come from the same event loop as the tokens in most engines: be patient.
_SCRAPE_TIMEOUT = 5.0
# No count and no gauge of an engine comes near it; beyond, sums would stop being numbers.
_LARGEST = 1e15
_WRONG_KEY = (401, 403)


class Watch:
    """The background tasks of one backend, from `start` to `stop`."""

    def __init__(self, backend: Backend, pool: Pool, prober: Prober, settings: Settings) -> None:
        self.backend = backend
        self.settings = settings  # replaced by a reload
        self._pool = pool
        self._prober = prober
        self._wake = asyncio.Event()
        self._checked = asyncio.Event()  # the first check has been made
        self._tasks: list[asyncio.Task[None]] = []
        self._recognised = False  # the engine was found out, not given
        self._noticed = (0, 0.0)  # the trouble that `notice` has acted on

    def start(self) -> None:
        name = self.backend.name
        self._tasks = [
            spawn(self._health_loop(), f"health {name}"),
            spawn(self._scrape_loop(), f"scrape {name}"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            await cancel(task)

    async def checked(self) -> None:
        """Wait until the first health check has been made."""
        await self._checked.wait()

    def wake(self) -> None:
        """Check soon: something happened to the backend."""
        self._wake.set()

    def notice(self) -> None:
        """Check soon if requests have just shown the backend to be in trouble."""
        health = self.backend.health
        down_since = health.since if health.state is State.DOWN else self._noticed[1]
        trouble = (self.backend.circuit.openings, down_since)
        if trouble != self._noticed:
            self._noticed = trouble
            self.wake()

    # --- health

    async def _health_loop(self) -> None:
        while True:
            try:
                if self._has_to_check():
                    await self.check()
                else:
                    self._trust_after_a_while()
            except Exception:
                self._note_surprise()
            self._checked.set()
            self._wake.clear()
            await happens(self._wake, self._delay())

    def _has_to_check(self) -> bool:
        """One that starts is waited for in any case."""
        is_active = self.settings.enable_active_health_check
        return is_active or not self._checked.is_set() or self.backend.absence is not None

    def _note_surprise(self) -> None:
        """An answer that nobody thought of must not end the checks."""
        log.exception("%s: the health check failed", self.backend.name)
        now = self._pool.wall()
        self._pool.health(
            self.backend, lambda h: h.check_failed(now, "its answers cannot be understood")
        )

    def _delay(self) -> float:
        interval = self.settings.health_check_interval
        if not self.backend.is_up:
            interval = min(RECHECK, interval)
        # Jitter: many backends, or many routers, must not all ask at the same moment.
        return interval * random.uniform(0.9, 1.1)

    def _trust_after_a_while(self) -> None:
        """Without active checks, let a backend in again that was taken out some time ago."""
        out_for = time.monotonic() - self.backend.health.since
        if not self.backend.is_up and out_for >= self.settings.auto_recovery_threshold:
            self._pool.health(
                self.backend, lambda h: h.trust_again(f"tried again after {out_for:.0f} s")
            )

    async def check(self) -> None:
        """Check the backend once and note the result in the pool."""
        begun = time.monotonic()
        absence = self.backend.absence
        try:
            if self._must_recognise():
                await self._recognise()
            engine = get(self._engine_name())
            answer = await self._ask(engine.health_path)
            seconds = time.monotonic() - begun
            locked = await self._learn(engine, answer) if answer.status == 200 else None
            if self.backend.absence is not absence:
                return  # the process that has answered is gone
            if locked is not None:
                self._note_wrong_key(locked, seconds)
            else:
                self._note(answer, engine, seconds)
        except NoAnswer as problem:
            self._note_silence(problem, begun)

    def _note(self, answer: Answer, engine: Engine, seconds: float) -> None:
        now = self._pool.wall()
        if answer.status == 200:
            self._pool.health(self.backend, lambda h: h.check_passed(now, seconds))
        elif answer.status == 503 and b"oading" in answer.body:
            self._pool.health(self.backend, lambda h: h.is_loading(now, "it is loading its model"))
        elif answer.status in _WRONG_KEY:
            self._note_wrong_key(f"{engine.health_path} answered {answer.status}", seconds)
        else:
            reason = f"{engine.health_path} answered {answer.status}"
            self._pool.health(self.backend, lambda h: h.check_failed(now, reason, seconds=seconds))

    def _note_wrong_key(self, what: str, seconds: float) -> None:
        now = self._pool.wall()
        key = "another" if self.backend.spec.api_key else "an"
        reason = f"{what}: it wants {key} api_key"
        self._pool.health(
            self.backend, lambda h: h.check_failed(now, reason, hopeless=True, seconds=seconds)
        )

    def _note_silence(self, problem: NoAnswer, begun: float) -> None:
        if problem.not_asked:
            log.warning("%s: not asked for its health: %s", self.backend.name, problem.reason)
            return
        if problem.timed_out and self.backend.last_byte > begun:
            return  # busy is not dead: it sent bytes of an answer while we waited
        if self.backend.absence is not None:
            self._pool.is_absent(self.backend, self.backend.absence)
            return
        seconds, now = time.monotonic() - begun, self._pool.wall()
        self._pool.health(
            self.backend,
            lambda h: h.check_failed(
                now, problem.reason, hopeless=problem.refused, seconds=seconds
            ),
        )

    # --- learning what it is and has

    def _must_recognise(self) -> bool:
        """Ask again whenever it was away: another engine may have come back at its address."""
        if self.backend.spec.engine != "auto":
            self._recognised = False
            return False
        return not (self._recognised and self.backend.is_up)

    def _engine_name(self) -> str:
        return "openai" if self.backend.engine == "auto" else self.backend.engine

    async def _recognise(self) -> None:
        answers: dict[str, Answer] = {FIRST: await self._ask(FIRST)}
        if answers[FIRST].status == 503 and self.backend.engine != "auto":
            return  # it is loading; what it was before still stands
        while (question := next_question(answers)) is not None:
            answers[question] = await self._ask(question)
        self._adopt_engine(conclusion(answers))
        self._pool.told_version(self.backend, version_of(answers))
        self._recognised = True

    def _adopt_engine(self, name: str) -> None:
        engine = get(name)
        self._pool.recognised(
            self.backend,
            name,
            default_capacity=engine.default_capacity,
            one_at_a_time=engine.one_at_a_time,
        )

    async def _learn(self, engine: Engine, health: Answer) -> str | None:
        """Read capacity and models; a backend is let in only when they are known.

        Returns:
            What it refused to tell for want of the right key: most engines guard these
            answers and not their health.
        """
        if self.backend.spec.engine != "auto":
            self._adopt_engine(self.backend.spec.engine)
        if engine.capacity_path:
            answer = await self._ask(engine.capacity_path)
            if answer.status in _WRONG_KEY:
                return f"{engine.capacity_path} answered {answer.status}"
            document = _json(answer)
            self._pool.told_capacity(self.backend, engine.read_capacity(document))
            self._pool.told_version(self.backend, engine.read_version(document))
        answer = health
        if engine.models_path != engine.health_path:
            if engine.models_path is None or not self._may_ask_models(engine):
                return None
            answer = await self._ask(engine.models_path)
        if answer.status in _WRONG_KEY:
            return f"{engine.models_path} answered {answer.status}"
        self._hear_models(answer)
        return None

    def _hear_models(self, answer: Answer) -> None:
        """Note the models; an error changes nothing of what is known."""
        if answer.status == 200 or self.backend.cards is None:
            self._pool.told_models(self.backend, read_models(_json(answer)))

    def _may_ask_models(self, engine: Engine) -> bool:
        """Asking a server that takes one request at a time would cut a running stream.

        That may be a stream of somebody else, so it is asked only when it has to be.
        """
        if not engine.one_at_a_time:
            return True
        is_known = self.backend.is_up and self.backend.cards is not None
        return not is_known and not self.backend.in_flight

    # --- scraping

    async def _scrape_loop(self) -> None:
        await self._checked.wait()
        await repeat(self._scrape_in_turn)

    async def _scrape_in_turn(self) -> float:
        engine = get(self._engine_name())
        interval = max(self.settings.scrape_interval, engine.min_scrape_interval)
        begun = time.monotonic()
        pause = 0.0
        if engine.metrics_path and self.backend.is_up:
            wait = self._prober.pace.take()
            await asyncio.sleep(wait)
            pause = await self.scrape(engine, max(interval, wait))
        return max(pause, interval - (time.monotonic() - begun))

    async def scrape(self, engine: Engine, interval: float) -> float:
        """Read the metrics once; return how long to leave it in peace beyond the interval.

        The own count is the higher of those before and after: a request that came or went
        meanwhile must not look like somebody else's.
        """
        assert engine.metrics_path is not None
        before = self.backend.in_flight
        try:
            answer = await self._ask(engine.metrics_path, _SCRAPE_TIMEOUT)
        except NoAnswer as problem:
            log.debug("%s: no metrics: %s", self.backend.name, problem.reason)
            return 0.0
        if answer.status != 200:
            log.debug("%s: no metrics: status %d", self.backend.name, answer.status)
            return _NO_METRICS_PAUSE
        sample = engine.read_metrics(answer.body.decode("utf-8", "replace"))
        own = max(before, self.backend.in_flight)
        self._pool.scraped(self.backend, _plausible(sample), own, interval)
        return 0.0

    async def _ask(self, path: str, timeout: float | None = None) -> Answer:
        seconds = timeout or self.settings.health_check_timeout
        return await self._prober.get(self.backend.spec, path, seconds)


def _json(answer: Answer) -> object:
    """Read a JSON answer; None for what is none, or could not be passed on as JSON."""
    if answer.status != 200:
        return None
    try:
        document = read_json(answer.body)
        # NaN, half of a surrogate pair: Python reads them, but clients would not.
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return document


def _plausible(sample: Sample) -> Sample:
    """Leave out what no engine means: a score or a JSON document could not hold it."""
    found = asdict(sample).items()
    return Sample(**{name: v for name, v in found if v is not None and 0 <= v <= _LARGEST})
