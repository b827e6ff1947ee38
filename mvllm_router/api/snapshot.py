"""GET /router/snapshot: everything that a dashboard shows, in one document."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from mvllm_router import __version__
from mvllm_router.api.entries import Written
from mvllm_router.api.health import timestamp
from mvllm_router.auth import Holder
from mvllm_router.histogram import SECONDS, quantile
from mvllm_router.pool import Pool
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
    written: Written,
    waiting: Waiting,
    draining: bool,
    keys: Iterable[Holder] = (),
    live_changes: int = 0,
) -> dict[str, object]:
    """Return the state of the router, of each server and of each client's key now.

    Args:
        written: what is said of the servers.
        waiting: how many requests the router holds until a server has room.
        draining: the router is stopping.
        live_changes: how many changes of the admin API are not in the file.
    """
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
        "servers": written.servers,
        "summary": written.summary,
        "keys": [_key(holder, waiting.by_key.get(holder.name, 0)) for holder in keys],
        "requests_number": pool.requests.newest,
        "ttft_seconds": _ttft_of_all(pool),
        "tokens_out": pool.stats.tokens_of_removed
        + sum(backend.stats.tokens_out for backend in pool.backends.values()),
        "events_number": pool.events.newest,
        "events": [event.document() for event in pool.events.last(_EVENTS_SHOWN)],
    }


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


def _ttft_of_all(pool: Pool) -> dict[str, float | None]:
    """Return the time to first token of the last minute over all servers."""
    recent = [backend.stats.lately["ttft"].below() for backend in pool.backends.values()]
    below = [sum(column) for column in zip(*recent, strict=True)] or [0]
    return {"p50": quantile(SECONDS, below, 0.5), "p99": quantile(SECONDS, below, 0.99)}
