"""GET /load-stats: the predecessor's shape, every key of it, and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import asdict

from mvllm_router.api.health import timestamp
from mvllm_router.pool import Backend, Pool, Sample, State
from mvllm_router.pool.load import Load

# The predecessor's words for the states that it had.
_HEALTH_STATUS = {state: state.value for state in State} | {
    State.UP: "healthy",
    State.DOWN: "unhealthy",
}


def load_stats_document(pool: Pool) -> dict[str, object]:
    """Return the load of each server and of the pool now."""
    backends, now = list(pool.backends.values()), pool.monotonic()
    loads = [backend.load(now) for backend in backends]
    servers = [
        identity(backend) | asdict(Figures(*figures(backend, load))) | told(pool, backend)
        for backend, load in zip(backends, loads, strict=True)
    ]
    return {"servers": servers, "summary": summary(loads, up=sum([b.is_up for b in backends]))}


def summary(loads: Sequence[Load], up: int) -> dict[str, object]:
    """Return the load of a pool, from those of its servers; `up` of them are."""
    active = sum([load.running + load.waiting for load in loads])
    capacity = sum([load.capacity for load in loads])
    return {
        "total_servers": len(loads),
        "healthy_servers": up,
        "total_active_load": tidy(active),
        "total_capacity": tidy(capacity),
        "overall_utilization_percent": _percent(active, capacity),
    }


def identity(backend: Backend) -> dict[str, object]:
    """Return what seldom changes of a server."""
    state = backend.health.state
    return {
        "url": backend.spec.url,
        "name": backend.name,
        "engine": backend.engine,
        "models": sorted(backend.model_names() or ()),
        "max_capacity": tidy(backend.capacity),
        "status": state is State.UP,
        "health_status": _HEALTH_STATUS[state],
    }


class Figures(msgspec.Struct, gc=False):
    """What changes with each request that a server gets.

    A struct is made and written in half of the time of a dict.
    """

    current_load: float
    available_capacity: float
    utilization_percent: float
    speed: float
    tokens_per_second: float | None
    runs_at_once: int | None
    score: float
    in_flight: int
    running: float
    waiting: float


def figures(
    backend: Backend, load: Load
) -> tuple[float, float, float, float, float | None, int | None, float, int, float, float]:
    """Return the fields of `Figures`, in their order."""
    running, waiting, capacity = load.running, load.waiting, load.capacity
    current, tokens = running + waiting, backend.speed.tokens_per_second
    return (
        tidy(current),
        tidy(capacity - current) if capacity > current else 0,
        _percent(current, capacity),
        backend.share,
        None if tokens is None else rounded(tokens, 10),
        round(backend.places.runs) if backend.places.is_known else None,
        rounded(load.score, 10_000),
        backend.in_flight,
        tidy(running),
        tidy(waiting) if waiting else 0,
    )


def told(pool: Pool, backend: Backend) -> dict[str, object]:
    """Return what a server itself said last, and when it was heard of."""
    scrape = backend.scrape
    if scrape is None:
        return {"last_updated": timestamp(backend.health.last_check), "detailed_metrics": _NOTHING}
    at = pool.wall() - (pool.monotonic() - scrape.at)
    return {"last_updated": timestamp(at), "detailed_metrics": _detailed(scrape.sample)}


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
