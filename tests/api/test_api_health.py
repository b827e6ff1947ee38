"""GET /health and /server-models: every key that the predecessor's clients read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pool_kit import Clock, add_up, new_pool, refuse, spec

from mvllm_router.api.health import health_document, server_models_document, timestamp
from mvllm_router.config import Settings

KEYS = {"status", "health_score", "total_servers", "healthy_servers", "unhealthy_servers"}
SERVER_KEYS = {
    "url",
    "healthy",
    "health_status",
    "last_check",
    "consecutive_failures",
    "success_rate",
    "avg_response_time",
    "last_response_time",
    "total_checks",
    "supported_models",
    "models_last_updated",
}


def test_every_key_of_the_predecessor_is_there() -> None:
    pool = new_pool()
    add_up(pool, "a", "tiny")
    document = health_document(pool, Settings())
    assert set(document) >= KEYS
    (server,) = json.loads(json.dumps(document, allow_nan=False))["servers"]
    assert set(server) >= SERVER_KEYS
    assert document["config"] == {
        "health_check_enabled": True,
        "health_check_interval": 10.0,
        "min_success_rate": 0.8,
        "max_response_time": 10.0,
    }


def test_the_config_shown_is_that_of_the_settings() -> None:
    settings = replace(
        Settings(), enable_active_health_check=False, health_check_min_success_rate=0.5
    )
    config = health_document(new_pool(), settings)["config"]
    assert isinstance(config, dict)
    assert (config["health_check_enabled"], config["min_success_rate"]) == (False, 0.5)


@pytest.mark.parametrize(
    ("up", "down", "status", "score"),
    [
        (0, 0, "no_servers", 0.0),
        (5, 0, "healthy", 1.0),
        (4, 1, "healthy", 0.8),
        (3, 1, "degraded", 0.75),
        (1, 1, "degraded", 0.5),
        (1, 2, "unhealthy", 1 / 3),
        (0, 1, "unhealthy", 0.0),
    ],
)
def test_the_share_of_servers_that_are_up_gives_the_status(
    up: int, down: int, status: str, score: float
) -> None:
    pool = new_pool()
    for number in range(up + down):
        backend = add_up(pool, f"s{number}")
        if number >= up:
            refuse(pool, backend)
    document = health_document(pool, Settings())
    assert (document["status"], document["health_score"]) == (status, score)
    counts = (document["total_servers"], document["healthy_servers"])
    assert (*counts, document["unhealthy_servers"]) == (up + down, up, down)


def test_checks_are_counted_for_each_server() -> None:
    pool = new_pool(consecutive_failures=5)
    backend = add_up(pool, "a")
    pool.health(backend, lambda health: health.check_passed(1_700_000_000.0, 0.03))
    pool.health(
        backend, lambda health: health.check_failed(1_700_000_001.5, "it said 500", seconds=0.02)
    )
    servers = health_document(pool, Settings())["servers"]
    assert isinstance(servers, list)
    (server,) = servers
    assert server["healthy"] is True
    assert server["consecutive_failures"] == 1
    assert server["total_checks"] == 3
    assert server["last_response_time"] == 0.02
    assert server["avg_response_time"] == pytest.approx(0.02)
    assert server["last_check"] == "2023-11-14T22:13:21.500+00:00"


def test_a_server_that_was_never_checked_has_nulls_and_no_division_by_zero() -> None:
    pool = new_pool()
    pool.add(spec("a"))
    servers = health_document(pool, Settings())["servers"]
    assert isinstance(servers, list)
    (server,) = servers
    assert (server["healthy"], server["health_status"]) == (False, "checking")
    nulls = ("last_check", "avg_response_time", "last_response_time", "models_last_updated")
    assert [server[key] for key in nulls] == [None] * 4


def test_a_server_that_is_down_says_why() -> None:
    pool = new_pool()
    refuse(pool, add_up(pool, "a"))
    servers = health_document(pool, Settings())["servers"]
    assert isinstance(servers, list)
    assert servers[0]["reason"] == "connection refused"


def test_server_models_has_the_predecessors_shape() -> None:
    pool = new_pool(Clock())
    add_up(pool, "a", "tiny", "big", aliases={"gpt": "big"})
    refuse(pool, pool.add(spec("b")))
    document = server_models_document(pool)
    assert document == {
        "servers": {
            "http://a:8000": {
                "name": "a",
                "supported_models": ["big", "gpt", "tiny"],
                "models_last_updated": "2023-11-14T22:13:20.000+00:00",
                "healthy": True,
            },
            "http://b:8000": {
                "name": "b",
                "supported_models": [],
                "models_last_updated": None,
                "healthy": False,
            },
        },
        "total_servers": 2,
        "healthy_servers": 1,
    }


def test_removed_servers_vanish_from_both() -> None:
    pool = new_pool()
    add_up(pool, "a")
    pool.lease(pool.backends["a"])
    pool.remove("a")
    assert health_document(pool, Settings())["servers"] == []
    assert server_models_document(pool)["servers"] == {}


def test_times_are_iso_8601_in_utc() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000+00:00"
    assert timestamp(None) is None
