"""GET /load-stats: every key of the predecessor's, with the load that decides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pool_kit import Clock, add_up, fail_checks, new_pool, refuse, scraped, spec

from mvllm_router.api.load_stats import load_stats_document
from mvllm_router.pool import Pool, Sample

KEYS = {
    "url",
    "current_load",
    "max_capacity",
    "available_capacity",
    "utilization_percent",
    "status",
    "health_status",
    "last_updated",
    "detailed_metrics",
}
NEW_KEYS = {"name", "engine", "models", "score", "in_flight"}
DETAILED = {
    "num_requests_running",
    "num_requests_waiting",
    "gpu_cache_usage_perc",
    "process_max_fds",
}


def document(pool: Pool) -> dict[str, Any]:
    """Return what a client reads: it must be JSON, without NaN or infinity."""
    read: dict[str, Any] = json.loads(json.dumps(load_stats_document(pool), allow_nan=False))
    return read


def test_every_key_is_there_before_and_after_the_first_scrape() -> None:
    pool = new_pool()
    pool.add(spec("a"))
    for _ in range(2):
        read = document(pool)
        assert set(read["servers"][0]) >= KEYS | NEW_KEYS
        assert set(read["servers"][0]["detailed_metrics"]) >= DETAILED
        assert set(read["summary"]) == {
            "total_servers",
            "healthy_servers",
            "total_active_load",
            "total_capacity",
            "overall_utilization_percent",
        }
        scraped(pool, pool.backends["a"], 1.0)


def test_the_figures_are_those_of_the_choice() -> None:
    """Own count and what others put there, as the contract's formula has it."""
    pool = new_pool()
    backend = add_up(pool, "a", "tiny", capacity=10)
    pool.lease(backend)
    scraped(pool, backend, running=3, waiting=2)  # of these five, one is the router's own
    pool.lease(backend)
    server = document(pool)["servers"][0]
    assert (server["in_flight"], server["current_load"]) == (2, 6)
    assert (server["running"], server["waiting"]) == (4, 2)
    assert (server["max_capacity"], server["available_capacity"]) == (10, 4)
    assert server["utilization_percent"] == 60.0
    assert server["score"] == 0.5
    assert server["models"] == ["tiny"]
    assert (server["status"], server["health_status"]) == (True, "healthy")


def test_the_server_s_own_figures_are_shown_as_they_came() -> None:
    pool = new_pool()
    backend = add_up(pool, "a")
    sample = Sample(
        running=3.0, waiting=0.0, kv_usage=0.12345678, prompt_tokens=5e6, generation_tokens=7.0
    )
    pool.scraped(backend, sample, 0, 1.0)
    text = json.dumps(load_stats_document(pool)["servers"])
    detailed = json.loads(text)[0]["detailed_metrics"]
    assert detailed == {
        "num_requests_running": 3,
        "num_requests_waiting": 0,
        "gpu_cache_usage_perc": 0.123457,
        "prompt_tokens_total": 5_000_000,
        "generation_tokens_total": 7,
        "process_max_fds": None,
    }
    assert '"num_requests_running": 3,' in text  # and not 3.0


def test_an_overloaded_server_has_nothing_available() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", capacity=2)
    for _ in range(5):
        pool.lease(backend)
    server = document(pool)["servers"][0]
    assert (server["available_capacity"], server["utilization_percent"]) == (0, 250.0)


def test_a_stale_scrape_says_nothing_of_the_load() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a")
    scraped(pool, backend, running=7)
    clock.advance(2.9)
    assert document(pool)["servers"][0]["current_load"] == 7
    clock.advance(0.2)
    assert document(pool)["servers"][0]["current_load"] == 0


def test_last_updated_is_the_scrape_or_else_the_check() -> None:
    clock = Clock()
    pool = new_pool(clock)
    pool.add(spec("new"))
    backend = add_up(pool, "a")
    new, checked = document(pool)["servers"]
    assert new["last_updated"] is None
    assert checked["last_updated"] == "1970-01-01T00:00:01.000+00:00"
    scraped(pool, backend, running=0)
    clock.advance(20)
    assert document(pool)["servers"][1]["last_updated"] == "2023-11-14T22:13:00.000+00:00"


@pytest.mark.parametrize("out", [refuse, fail_checks])
def test_a_server_that_is_out_has_the_predecessors_word_for_it(out: Any) -> None:
    pool = new_pool()
    out(pool, add_up(pool, "a"))
    server = document(pool)["servers"][0]
    assert (server["status"], server["health_status"]) == (False, "unhealthy")


def test_the_summary_adds_up_and_leaves_removed_servers_out() -> None:
    pool = new_pool()
    for name, capacity in (("a", 10), ("b", 30), ("gone", 1000)):
        pool.lease(add_up(pool, name, capacity=capacity))
    pool.remove("gone")
    refuse(pool, pool.backends["b"])
    assert document(pool)["summary"] == {
        "total_servers": 2,
        "healthy_servers": 1,
        "total_active_load": 2,
        "total_capacity": 40,
        "overall_utilization_percent": 5.0,
    }


def test_no_servers_is_no_division_by_zero() -> None:
    read = document(new_pool())
    assert read["servers"] == []
    assert read["summary"]["overall_utilization_percent"] == 0


def test_the_smallest_server_under_the_largest_figures_stays_json() -> None:
    """The largest that the scraper lets through, on the smallest capacity of the file."""
    pool = new_pool()
    backend = add_up(pool, "a", capacity=1, weight=0.001)
    scraped(pool, backend, running=1e15, waiting=1e15)
    document(pool)
