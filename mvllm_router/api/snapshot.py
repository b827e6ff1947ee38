"""GET /router/snapshot: everything that a dashboard shows, in one document."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mvllm_router import __version__
from mvllm_router.api.health import timestamp
from mvllm_router.api.load_stats import load_stats_document, rounded, server_stats
from mvllm_router.auth import Holder
from mvllm_router.histogram import SECONDS, quantile
from mvllm_router.pool import Backend, Pool
from mvllm_router.proxy.queue import Waiting

_EVENTS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class About:
    """What the document says of the router itself; `started` is in wall-clock seconds."""

    address: str
    policy: str
    config_path: str | None
    started: float


def snapshot_document(
    pool: Pool,
    about: About,
    waiting: Waiting,
    draining: bool,
    keys: Iterable[Holder] = (),
    live_changes: int = 0,
    memory: Mapping[str, Mapping[str, object]] | None = None,
) -> dict[str, object]:
    """Return the state of the router, of each server and of each client's key now.

    Args:
        waiting: how many requests the router holds until a server has room.
        draining: the router is stopping.
        live_changes: how many changes of the admin API are not in the file.
        memory: what launched servers take, by name; nothing is looked up where there are none.
    """
    now = pool.monotonic()
    load = load_stats_document(pool)
    servers = load["servers"]
    assert isinstance(servers, list)
    for server, backend in zip(servers, pool.backends.values(), strict=True):
        server.update(_more(backend, now))
        if memory:
            server.update(memory.get(backend.name, {}))
    return {
        "version": __version__,
        "pid": os.getpid(),
        "at": timestamp(pool.wall()),
        "uptime_seconds": round(pool.wall() - about.started, 3),
        "address": about.address,
        "policy": about.policy,
        "config": about.config_path,
        "live_changes": live_changes,
        "state": "draining" if draining else "running",
        "in_flight": pool.stats.in_flight,
        "queued": waiting.all,
        "queued_by_priority": waiting.by_rank,
        "requests": _requests(pool),
        "servers": servers,
        "summary": load["summary"],
        "keys": [_key(holder, waiting.by_key.get(holder.name, 0)) for holder in keys],
        "requests_number": pool.requests.newest,
        "ttft_seconds": _ttft_of_all(pool),
        "tokens_out": pool.stats.tokens_of_removed
        + sum(server["tokens_out"] for server in servers),
        "events_number": pool.events.newest,
        "events": [event.document() for event in pool.events.last(_EVENTS_SHOWN)],
    }


def backend_document(pool: Pool, backend: Backend) -> dict[str, object]:
    """Return what the snapshot says of one server."""
    now = pool.monotonic()
    return server_stats(pool, backend, backend.load(now), now) | _more(backend, now)


def _key(holder: Holder, queued: int) -> dict[str, object]:
    return {
        "name": holder.name,
        "requests": holder.requests,
        "in_flight": holder.in_flight,
        "queued": queued,
        "refused": sum(holder.refused.values()),
        "prompt_tokens": holder.prompt_tokens,
        "completion_tokens": holder.completion_tokens,
    }


def _requests(pool: Pool) -> dict[str, int]:
    counts = pool.stats.requests
    return {
        "total": sum(counts.values()),
        "errors": sum(n for (_, status), n in counts.items() if status >= 500),
        "client_left": sum(pool.stats.client_left.values()),
    }


def _more(backend: Backend, now: float) -> dict[str, object]:
    stats, lately = backend.stats, backend.stats.lately
    state = backend.condition(now)
    return {
        "etag": backend.etag,
        "engine_version": backend.engine_version,
        "max_concurrent_requests": backend.spec.max_concurrent_requests,
        "state": state,
        "state_seconds": _seconds(now - backend.since(state)),
        "sample_age_seconds": _seconds(now - backend.scrape.at) if backend.scrape else None,
        "reason": _reason(backend, state),
        "progress": backend.health.progress,
        "circuit": _circuit(backend, now),
        "resting_seconds": _seconds(backend.rest.until - now),
        "draining": backend.draining,
        "weight": backend.spec.weight,
        "tags": list(backend.spec.tags),
        "requests": sum(stats.requests.values()),
        "errors": sum(stats.failures.values()),
        "retries": sum(stats.retries.values()),
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "tokens_out": stats.tokens_out,
        "ttft_seconds": lately["ttft"].quantiles(),
        "inter_token_seconds": lately["inter_token"].quantiles(),
        "duration_seconds": lately["duration"].quantiles(),
    }


def _reason(backend: Backend, state: str) -> str:
    if state == "drain":
        return _draining(backend)
    if state == "resting":
        return "it said that it is busy"
    return backend.circuit.reason if state in ("open", "half-open") else backend.health.reason


def _circuit(backend: Backend, now: float) -> dict[str, object]:
    circuit = backend.circuit
    return {
        "state": circuit.state(now).value,
        "failures": circuit.failures(now),
        "opens_at": circuit.rules.threshold,
        "trial_in_seconds": _seconds(circuit.retry_at - now),
        "openings": circuit.openings,
    }


def _seconds(seconds: float) -> float:
    return rounded(seconds, 1000) if seconds > 0 else 0.0


def _draining(backend: Backend) -> str:
    return f"draining, {backend.in_flight} in flight" if backend.in_flight else "drained"


def _ttft_of_all(pool: Pool) -> dict[str, float | None]:
    """Return the time to first token of the last minute over all servers."""
    recent = [backend.stats.lately["ttft"].below() for backend in pool.backends.values()]
    below = [sum(column) for column in zip(*recent, strict=True)] or [0]
    return {"p50": quantile(SECONDS, below, 0.5), "p99": quantile(SECONDS, below, 0.99)}
