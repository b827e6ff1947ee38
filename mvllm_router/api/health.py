"""GET /health (alive: always 200) and GET /server-models, in the predecessor's shapes."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache

from mvllm_router.config import Settings
from mvllm_router.pool import Backend, Pool


def health_document(pool: Pool, settings: Settings, *, detailed: bool = True) -> dict[str, object]:
    """Return the health of the pool; `health_score` is the share of servers that are up.

    Without details the list of servers stays empty: the route is open to everybody.
    """
    backends = list(pool.backends.values())
    up = sum(backend.is_up for backend in backends)
    score = up / len(backends) if backends else 0.0
    return {
        "status": _word(score) if backends else "no_servers",
        "health_score": score,
        "total_servers": len(backends),
        "healthy_servers": up,
        "unhealthy_servers": len(backends) - up,
        "servers": [_server(backend) for backend in backends] if detailed else [],
        "config": {
            "health_check_enabled": settings.enable_active_health_check,
            "health_check_interval": settings.health_check_interval,
            "min_success_rate": settings.health_check_min_success_rate,
            "max_response_time": settings.health_check_max_response_time,
        },
    }


def server_models_document(pool: Pool) -> dict[str, object]:
    """Return the models of each server, from memory."""
    return {
        "servers": {
            backend.spec.url: {
                "name": backend.name,
                "supported_models": sorted(backend.model_names() or ()),
                "models_last_updated": timestamp(backend.cards_at),
                "healthy": backend.is_up,
            }
            for backend in pool.backends.values()
        },
        "total_servers": len(pool.backends),
        "healthy_servers": sum(backend.is_up for backend in pool.backends.values()),
    }


def timestamp(seconds: float | None) -> str | None:
    """Return seconds since the epoch as ISO 8601 in UTC."""
    if seconds is None:
        return None
    whole, thousandths = divmod(int(seconds * 1000), 1000)
    return f"{_to_the_second(whole)}.{thousandths:03}+00:00"


@lru_cache(maxsize=64)  # one document has the times of hundreds of servers, within a few seconds
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")


def _word(score: float) -> str:
    if score >= 0.8:
        return "healthy"
    return "degraded" if score >= 0.5 else "unhealthy"


def _server(backend: Backend) -> dict[str, object]:
    health = backend.health
    return {
        "url": backend.spec.url,
        "name": backend.name,
        "healthy": backend.is_up,
        "health_status": health.state.value,
        "reason": health.reason,
        "last_check": timestamp(health.last_check),
        "consecutive_failures": health.bad_checks,
        "success_rate": health.success_rate,
        "avg_response_time": health.seconds_total / health.checks if health.checks else None,
        "last_response_time": health.last_seconds,
        "total_checks": health.checks,
        "supported_models": sorted(backend.model_names() or ()),
        "models_last_updated": timestamp(backend.cards_at),
    }
