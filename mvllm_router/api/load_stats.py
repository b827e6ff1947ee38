"""GET /load-stats: the predecessor's shape, every key of it, and more."""

from __future__ import annotations

from mvllm_router.api.health import timestamp
from mvllm_router.pool import Backend, Load, Pool, Sample, State

# The predecessor's words for the states that it had.
_HEALTH_STATUS = {state: state.value for state in State} | {
    State.UP: "healthy",
    State.DOWN: "unhealthy",
}


def load_stats_document(pool: Pool) -> dict[str, object]:
    """Return the load of each server and of the pool now."""
    now = pool.monotonic()
    backends = list(pool.backends.values())
    loads = [backend.load(now) for backend in backends]
    active = sum(load.running + load.waiting for load in loads)
    capacity = sum(load.capacity for load in loads)
    return {
        "servers": [
            server_stats(pool, backend, load, now)
            for backend, load in zip(backends, loads, strict=True)
        ],
        "summary": {
            "total_servers": len(backends),
            "healthy_servers": sum(backend.is_up for backend in backends),
            "total_active_load": tidy(active),
            "total_capacity": tidy(capacity),
            "overall_utilization_percent": _percent(active, capacity),
        },
    }


def server_stats(pool: Pool, backend: Backend, load: Load, now: float) -> dict[str, object]:
    """Return the entry of one server, with its `load` at `now` (monotonic seconds)."""
    current = load.running + load.waiting
    scrape, state = backend.scrape, backend.health.state
    seen_at = pool.wall() - (now - scrape.at) if scrape else backend.health.last_check
    return {
        "url": backend.spec.url,
        "name": backend.name,
        "engine": backend.engine,
        "models": sorted(backend.model_names() or ()),
        "current_load": tidy(current),
        "max_capacity": tidy(load.capacity),
        "available_capacity": tidy(max(0.0, load.capacity - current)),
        "utilization_percent": _percent(current, load.capacity),
        "speed": backend.share,
        "tokens_per_second": _said(backend.speed.tokens_per_second, digits=1),
        "runs_at_once": round(backend.places.runs) if backend.places.is_known else None,
        "score": round(load.score, 4),
        "status": state is State.UP,
        "health_status": _HEALTH_STATUS[state],
        "last_updated": timestamp(seen_at),
        "in_flight": backend.in_flight,
        "running": tidy(load.running),
        "waiting": tidy(load.waiting),
        "detailed_metrics": _detailed(backend),
    }


def _detailed(backend: Backend) -> dict[str, float | None]:
    """Return what the server itself said last; null is "it did not say"."""
    sample = backend.scrape.sample if backend.scrape else Sample()
    return {
        "num_requests_running": _said(sample.running),
        "num_requests_waiting": _said(sample.waiting),
        "gpu_cache_usage_perc": _said(sample.kv_usage, digits=6),
        "prompt_tokens_total": _said(sample.prompt_tokens),
        "generation_tokens_total": _said(sample.generation_tokens),
        # The predecessor guessed a capacity from it; kept because its clients read the key.
        "process_max_fds": None,
    }


def _said(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else tidy(value, digits)


def tidy(value: float, digits: int = 3) -> float | int:
    """Return a count without the `.0` that arithmetic leaves on it."""
    whole = int(value)
    return whole if whole == value else round(value, digits)


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
