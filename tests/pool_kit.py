"""Makes pools for tests of the floors that do no I/O: a clock to turn, servers that are up."""

from __future__ import annotations

import logging
from typing import Any

from mvllm_router.config import ServerSpec
from mvllm_router.pool import Backend, HealthRules, Pool, Sample
from mvllm_router.pool.events import Events


class Clock:
    """Monotonic seconds that pass only when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class QuietEvents(Events):
    """Keeps no event and logs none: for tests with very many of them."""

    def add(self, kind: str, backend: str, message: str, level: int = logging.INFO) -> None:
        assert kind
        assert message


def new_pool(clock: Clock | None = None, *, enforce: bool = False, **rules: Any) -> Pool:
    """Return an empty pool; `enforce` caps its servers, `rules` are fields of HealthRules."""
    return Pool(
        HealthRules(**rules),
        enforce_capacity=enforce,
        monotonic=clock or Clock(),
        wall=lambda: 1_700_000_000.0,
    )


def spec(name: str, capacity: int | None = None, **more: Any) -> ServerSpec:
    return ServerSpec(
        url=f"http://{name}:8000", name=name, max_concurrent_requests=capacity, **more
    )


def checked(pool: Pool, backend: Backend) -> Backend:
    """Let a backend pass a health check."""
    pool.health(backend, lambda health: health.check_passed(1.0, 0.01))
    return backend


def add_up(
    pool: Pool, name: str, *models: str, capacity: int | None = None, **more: Any
) -> Backend:
    """Add a server that is up and lists `models`; with none it does not say what it has."""
    backend = pool.add(spec(name, capacity, **more))
    pool.told_models(backend, {model: {"id": model} for model in models} if models else None)
    return checked(pool, backend)


def refuse(pool: Pool, backend: Backend) -> None:
    """Let a health check find nobody there."""
    pool.health(
        backend, lambda health: health.check_failed(2.0, "connection refused", hopeless=True)
    )


def fail_checks(pool: Pool, backend: Backend) -> None:
    """Let health checks take a backend out at whose address somebody still answers."""
    for _ in range(pool.rules.consecutive_failures):
        pool.health(backend, lambda health: health.check_failed(2.0, "status 500"))


def open_circuit(pool: Pool, backend: Backend) -> None:
    """Let requests show that a backend is of no use which health checks find well."""
    for _ in range(pool.circuit_rules.threshold):
        pool.request_failed(backend, "connection reset", pool.monotonic())


def scraped(pool: Pool, backend: Backend, running: float, waiting: float = 0.0) -> None:
    """Let a scrape of one second's interval come in now."""
    pool.scraped(backend, Sample(running=running, waiting=waiting), backend.in_flight, 1.0)
