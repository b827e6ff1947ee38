"""What the snapshot says of each server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import asdict

from mvllm_router.api.load_stats import Figures, figures, identity, summary, told
from mvllm_router.pool import Backend, Pool
from mvllm_router.pool.circuit import Circuit
from mvllm_router.pool.lately import Quantiles
from mvllm_router.pool.load import Load

# Servers after which others get their turn: a dashboard asks once a second.
_AT_ONCE = 50

_write = msgspec.json.encode


class Written(NamedTuple):
    """The entry of each server as JSON, and the load of all together."""

    servers: list[msgspec.Raw]
    summary: dict[str, object]


class Entries:
    """Writes the entries of hundreds of servers, once a second for each dashboard.

    The parts that seldom change are kept as they were written, for as long as what they were
    written from is the same: to make them is half of the work.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._kept: dict[Backend, _Kept] = {}

    async def write(self, memory: Mapping[str, Mapping[str, object]]) -> Written:
        """Return the entries, in the order of the pool.

        Args:
            memory: what launched servers take, by name.
        """
        servers, loads, up = [], [], 0
        for backend in list(self._pool.backends.values()):
            now = self._pool.monotonic()
            load = backend.load(now)
            loads.append(load)
            up += backend.is_up
            entry = self._entry(backend, load, now)
            if memory and (takes := memory.get(backend.name)):
                entry = b"%b,%b" % (entry[:-1], _write(takes)[1:])
            servers.append(msgspec.Raw(entry))
            if not len(servers) % _AT_ONCE:
                await asyncio.sleep(0)
        if len(self._kept) > len(servers):
            self._kept = {one: kept for one, kept in self._kept.items() if not one.removed}
        return Written(servers, summary(loads, up))

    def _entry(self, backend: Backend, load: Load, now: float) -> bytes:
        kept = self._kept.get(backend)
        if kept is None:
            kept = self._kept[backend] = _Kept()
        state = backend.condition(now)
        made_from = _standing_made_from(backend, state, now)
        if made_from != kept.standing_made_from:
            kept.standing_made_from = made_from
            kept.standing = _write(_standing(backend, state, now))[:-1]
        heard = backend.scrape or backend.health.last_check
        if heard is not kept.told_made_from:
            kept.told_made_from = heard
            kept.told = _write(told(self._pool, backend))[1:-1]
        quantiles = backend.stats.lately.quantiles()
        if quantiles is not kept.times_made_from:
            kept.times_made_from = quantiles
            kept.times = _write(_times(quantiles))[1:-1]
        changing = _changing(backend, load, state, now)
        return b",".join((kept.standing, kept.told, kept.times, _write(changing)[1:]))


class _Kept:
    """Parts of an entry as JSON, and what each was written from."""

    __slots__ = (
        "standing",
        "standing_made_from",
        "times",
        "times_made_from",
        "told",
        "told_made_from",
    )

    def __init__(self) -> None:
        self.standing = self.told = self.times = b""
        self.standing_made_from: tuple[object, ...] = ()
        self.told_made_from: object = self  # not even None yet
        self.times_made_from: object = None


def server_entry(pool: Pool, backend: Backend) -> dict[str, object]:
    """Return all that is known of one server now."""
    now = pool.monotonic()
    state = backend.condition(now)
    changing = asdict(_changing(backend, backend.load(now), state, now))
    times = _times(backend.stats.lately.quantiles())
    return _standing(backend, state, now) | told(pool, backend) | times | changing


def _standing_made_from(backend: Backend, state: str, now: float) -> tuple[object, ...]:
    """Return all that `_standing` depends on: while it is the same, so is what that returns."""
    circuit = backend.circuit
    return (
        backend.etag,
        backend.engine,
        backend.engine_version,
        backend.cards,
        backend.capacity,
        state,
        _reason(backend, state),
        backend.health.progress,
        circuit.rules,
        circuit.openings,
        circuit.failures(now),
        circuit.is_closed or now,  # the time until its trial
    )


def _standing(backend: Backend, state: str, now: float) -> dict[str, object]:
    """Return what seldom changes of a server: what it is, how it is set, and how it stands."""
    return identity(backend) | {
        "etag": backend.etag,
        "engine_version": backend.engine_version,
        "max_concurrent_requests": backend.spec.max_concurrent_requests,
        "draining": backend.draining,
        "weight": backend.spec.weight,
        "tags": backend.spec.tags,
        "state": state,
        "reason": _reason(backend, state),
        "progress": backend.health.progress,
        "circuit": _circuit(backend.circuit, now),
    }


class _Changing(Figures, gc=False):
    """What time and each request change."""

    state_seconds: float
    sample_age_seconds: float | None
    resting_seconds: float
    requests: int
    errors: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    tokens_out: int


def _changing(backend: Backend, load: Load, state: str, now: float) -> _Changing:
    stats, scrape = backend.stats, backend.scrape
    return _Changing(
        *figures(backend, load),
        _seconds(now - backend.since(state)),
        _seconds(now - scrape.at) if scrape else None,
        _seconds(backend.rest.until - now),
        sum(stats.requests.values()),
        sum(stats.failures.values()) if stats.failures else 0,
        sum(stats.retries.values()) if stats.retries else 0,
        stats.prompt_tokens,
        stats.completion_tokens,
        stats.tokens_out,
    )


def _times(quantiles: Mapping[str, Quantiles]) -> dict[str, object]:
    """Return how long requests took lately."""
    return {f"{name}_seconds": found for name, found in quantiles.items()}


def _circuit(circuit: Circuit, now: float) -> dict[str, object]:
    return {
        "state": circuit.state(now).value,
        "failures": circuit.failures(now),
        "opens_at": circuit.rules.threshold,
        "trial_in_seconds": 0.0 if circuit.is_closed else _seconds(circuit.retry_at - now),
        "openings": circuit.openings,
    }


def _reason(backend: Backend, state: str) -> str:
    if state == "drain":
        in_flight = backend.in_flight
        return f"draining, {in_flight} in flight" if in_flight else "drained"
    if state == "resting":
        return "it said that it is busy"
    return backend.circuit.reason if state in ("open", "half-open") else backend.health.reason


def _seconds(seconds: float) -> float:
    return int(seconds * 1000 + 0.5) / 1000 if seconds > 0 else 0.0
