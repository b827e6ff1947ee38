"""GET /router/snapshot: everything that a dashboard shows, in one document."""

from __future__ import annotations

from dataclasses import dataclass

from mvllm_router import __version__
from mvllm_router.api.health import timestamp
from mvllm_router.api.load_stats import load_stats_document
from mvllm_router.histogram import Histogram
from mvllm_router.pool import Backend, Pool

_EVENTS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class About:
    """What the document says of the router itself; `started` is in wall-clock seconds."""

    address: str
    policy: str
    config_path: str | None
    started: float


def snapshot_document(pool: Pool, about: About, waiting: int, draining: bool) -> dict[str, object]:
    """Return the state of the router and of each server now.

    Args:
        waiting: requests that the router holds until a server has room.
        draining: the router is stopping.
    """
    load = load_stats_document(pool)
    servers = load["servers"]
    assert isinstance(servers, list)
    for server, backend in zip(servers, pool.backends.values(), strict=True):
        server.update(_more(backend))
    return {
        "version": __version__,
        "at": timestamp(pool.wall()),
        "uptime_seconds": round(pool.wall() - about.started, 3),
        "address": about.address,
        "policy": about.policy,
        "config": about.config_path,
        "state": "draining" if draining else "running",
        "in_flight": pool.stats.in_flight,
        "queued": waiting,
        "requests": _requests(pool),
        "servers": servers,
        "summary": load["summary"],
        "events": [event.document() for event in pool.events.last(_EVENTS_SHOWN)],
    }


def _requests(pool: Pool) -> dict[str, int]:
    counts = pool.stats.requests
    return {
        "total": sum(counts.values()),
        "errors": sum(n for (_, status), n in counts.items() if status >= 500),
        "client_left": sum(pool.stats.client_left.values()),
    }


def _more(backend: Backend) -> dict[str, object]:
    stats = backend.stats
    return {
        "state": backend.health.state.value,
        "reason": backend.health.reason,
        "weight": backend.spec.weight,
        "tags": list(backend.spec.tags),
        "requests": sum(stats.requests.values()),
        "errors": sum(stats.failures.values()),
        "retries": sum(stats.retries.values()),
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "ttft_seconds": _quantiles(stats.ttft),
        "inter_token_seconds": _quantiles(stats.inter_token),
        "duration_seconds": _quantiles(stats.duration),
    }


def _quantiles(histogram: Histogram) -> dict[str, float | None]:
    return {"p50": histogram.quantile(0.5), "p99": histogram.quantile(0.99)}
