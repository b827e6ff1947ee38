"""What the snapshot says of each server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from mvllm_router.api.load_stats import rounded, server_stats
from mvllm_router.pool import Backend, Pool
from mvllm_router.pool.circuit import Circuit

# Servers after which others get their turn: a dashboard asks once a second.
_AT_ONCE = 50


async def entries(pool: Pool, memory: Mapping[str, Mapping[str, object]]) -> list[msgspec.Raw]:
    """Return the entry of each server as JSON, in the order of the pool.

    Args:
        memory: what launched servers take, by name.
    """
    found: list[msgspec.Raw] = []
    for backend in list(pool.backends.values()):
        entry = server_entry(pool, backend)
        if memory:
            entry.update(memory.get(backend.name, {}))
        found.append(msgspec.Raw(msgspec.json.encode(entry)))
        if not len(found) % _AT_ONCE:
            await asyncio.sleep(0)
    return found


def server_entry(pool: Pool, backend: Backend) -> dict[str, object]:
    """Return all that is known of one server now."""
    now = pool.monotonic()
    stats, scrape = backend.stats, backend.scrape
    state, lately = backend.condition(now), stats.lately
    entry = server_stats(pool, backend)
    entry |= {
        "etag": backend.etag,
        "engine_version": backend.engine_version,
        "max_concurrent_requests": backend.spec.max_concurrent_requests,
        "state": state,
        "state_seconds": _seconds(now - backend.since(state)),
        "sample_age_seconds": _seconds(now - scrape.at) if scrape else None,
        "reason": _reason(backend, state),
        "progress": backend.health.progress,
        "circuit": _circuit(backend.circuit, now),
        "resting_seconds": _seconds(backend.rest.until - now),
        "draining": backend.draining,
        "weight": backend.spec.weight,
        "tags": backend.spec.tags,
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
    return entry


def _circuit(circuit: Circuit, now: float) -> dict[str, object]:
    return {
        "state": circuit.state(now).value,
        "failures": circuit.failures(now),
        "opens_at": circuit.rules.threshold,
        "trial_in_seconds": _seconds(circuit.retry_at - now),
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
    return rounded(seconds, 1000) if seconds > 0 else 0.0
