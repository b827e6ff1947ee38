"""GET /load-stats: the predecessor's shape, every key of it, and more."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from mvllm_router.api.health import timestamp
from mvllm_router.pool import Backend, Pool, Sample, State
from mvllm_router.pool.load import Scrape

# The predecessor's words for the states that it had.
_HEALTH_STATUS = {state: state.value for state in State} | {
    State.UP: "healthy",
    State.DOWN: "unhealthy",
}


def load_stats_document(pool: Pool) -> dict[str, object]:
    """Return the load of each server and of the pool now."""
    backends = list(pool.backends.values())
    servers = [server_stats(pool, backend) for backend in backends]
    return {"servers": servers, "summary": summary(pool)}


def summary(pool: Pool) -> dict[str, object]:
    """Return the load of the pool now."""
    now = pool.monotonic()
    loads = [backend.load(now) for backend in pool.backends.values()]
    active = sum([load.running + load.waiting for load in loads])
    capacity = sum([load.capacity for load in loads])
    return {
        "total_servers": len(loads),
        "healthy_servers": sum([backend.is_up for backend in pool.backends.values()]),
        "total_active_load": tidy(active),
        "total_capacity": tidy(capacity),
        "overall_utilization_percent": _percent(active, capacity),
    }


def server_stats(pool: Pool, backend: Backend) -> dict[str, object]:
    """Return the entry of one server."""
    load = backend.load(pool.monotonic())
    current, tokens = load.running + load.waiting, backend.speed.tokens_per_second
    scrape, state = backend.scrape, backend.health.state
    if scrape is None:
        seen_at, detailed = timestamp(backend.health.last_check), _NOTHING
    else:
        seen_at, detailed = _seen(pool, scrape)
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
        "tokens_per_second": None if tokens is None else rounded(tokens, 10),
        "runs_at_once": round(backend.places.runs) if backend.places.is_known else None,
        "score": rounded(load.score, 10_000),
        "status": state is State.UP,
        "health_status": _HEALTH_STATUS[state],
        "last_updated": seen_at,
        "in_flight": backend.in_flight,
        "running": tidy(load.running),
        "waiting": tidy(load.waiting),
        "detailed_metrics": detailed,
    }


@lru_cache(maxsize=1024)  # hundreds of servers are asked less often than a dashboard looks
def _seen(pool: Pool, scrape: Scrape) -> tuple[str | None, Mapping[str, float | None]]:
    """Return when a server told its figures, and these."""
    return timestamp(pool.wall() - (pool.monotonic() - scrape.at)), _detailed(scrape.sample)


def _detailed(sample: Sample) -> Mapping[str, float | None]:
    """Return what a server itself said; null is "it did not say"."""
    running, waiting, kv_usage = sample.running, sample.waiting, sample.kv_usage
    prompts, generated = sample.prompt_tokens, sample.generation_tokens
    return {
        "num_requests_running": None if running is None else tidy(running),
        "num_requests_waiting": None if waiting is None else tidy(waiting),
        "gpu_cache_usage_perc": None if kv_usage is None else tidy(kv_usage, 1_000_000),
        "prompt_tokens_total": None if prompts is None else tidy(prompts),
        "generation_tokens_total": None if generated is None else tidy(generated),
        # The predecessor guessed a capacity from it; kept because its clients read the key.
        "process_max_fds": None,
    }


def tidy(value: float, parts: int = 1000) -> float | int:
    """Return a count, 0 or more, without the `.0` that arithmetic leaves on it."""
    whole = int(value)
    return whole if whole == value else rounded(value, parts)


def rounded(value: float, parts: int) -> float:
    """Return `value`, 0 or more, to the nearest 1/`parts`.

    It takes a fourth of the time of `round`, and a snapshot has thousands of them.
    """
    return int(value * parts + 0.5) / parts


def _percent(part: float, whole: float) -> float:
    return rounded(100 * part / whole, 100) if whole else 0.0


_NOTHING = _detailed(Sample())
