"""GET /metrics: what Prometheus reads."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import cast

import pytest
from pool_kit import Clock, add_up, new_pool, refuse, scraped
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from mvllm_router import __version__
from mvllm_router.api.metric_table import METRICS
from mvllm_router.api.metric_values import MetricRow, Sources
from mvllm_router.api.metrics import CONTENT_TYPE, Metrics, family
from mvllm_router.auth import Gate
from mvllm_router.config import Config, KeySpec, ServerSpec, Settings
from mvllm_router.errors import ModelNotAllowed, RateLimited
from mvllm_router.histogram import Histogram
from mvllm_router.launch.keeper import Keeper
from mvllm_router.pool import Pool, Sample
from mvllm_router.proxy.queue import Waiting

Labels = dict[str, str]


def gate(*keys: KeySpec) -> Gate:
    return Gate(Config(servers=(), settings=Settings(), keys=keys))


def used_gate() -> Gate:
    """A gate with one key, of which everything that can be counted has been."""
    made = gate(KeySpec("alice", b"digest", max_concurrent_requests=1, models=("tiny",)))
    (alice,) = made.holders
    alice.admit("tiny")
    alice.used(5, 7)
    with pytest.raises(RateLimited):
        alice.admit("tiny")
    for _ in range(2):
        with pytest.raises(ModelNotAllowed):
            alice.admit("big")
    return made


WAITING = Waiting(3, {"alice": 2, "bob": 1}, {"high": 0, "normal": 2, "low": 1})


def keeper() -> Keeper:
    """A server that was started twice, and whose last start took 9 s."""
    facts = SimpleNamespace(name="a", phase="ready", life=SimpleNamespace(starts=2), took=9.0)
    facts.memory, facts.gpu_memory = 4096, 8192
    return cast(Keeper, facts)


def metrics(pool: Pool, keys: Gate, waiting: Waiting) -> Metrics:
    return Metrics(Sources(pool, keys, lambda: waiting, lambda: [keeper()]))


def text_of(made: Metrics) -> str:
    loop = asyncio.new_event_loop()  # not `asyncio.run`: that forgets the loop of other tests
    try:
        return loop.run_until_complete(made.text()).decode()
    finally:
        loop.close()


def families(pool: Pool) -> dict[str, Metric]:
    text = text_of(metrics(pool, used_gate(), WAITING))
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(pool: Pool, name: str, **labels: str) -> float | None:
    """Return one sample's value; None when it is not there."""
    for each in families(pool).values():
        for sample in each.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


@pytest.fixture
def busy() -> Pool:
    """A pool in which everything that can be counted has been."""
    pool = new_pool()
    backend = add_up(pool, "a", "tiny", capacity=4)
    stats = backend.stats
    stats.requests[200] += 3
    stats.failures["reset"] += 2
    stats.retries["reset"] += 1
    stats.prompt_tokens, stats.completion_tokens, stats.events = 5, 7, 11
    for histogram in (stats.ttft, stats.inter_token, stats.duration):
        histogram.observe(0.02)
    sample = Sample(running=2, waiting=1, kv_usage=0.25)
    pool.scraped(backend, sample, 0, 1.0)
    pool.is_leaving(backend, "it is shutting down")
    stats.last_resorts += 4
    pool.stats.queued.observe(0.5)
    pool.stats.finished("/v1/chat/completions", 200, 0.2)
    pool.stats.client_left["/v1/chat/completions"] += 1
    return pool


@pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
def test_every_metric_is_there_with_its_kind_help_and_labels(row: MetricRow, busy: Pool) -> None:
    family = families(busy)[row.name]
    assert (family.type, family.documentation) == (row.kind, row.help)
    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == set(row.labels)


def test_the_names_of_counters_end_in_total_and_all_are_the_routers(busy: Pool) -> None:
    for row in METRICS:
        assert row.name.startswith("router_")
        assert not row.name.endswith("_total")  # it is added where it belongs
        names = {sample.name for sample in families(busy)[row.name].samples}
        if row.kind == "counter":
            assert names == {f"{row.name}_total"}


@pytest.mark.parametrize(
    ("name", "labels", "wanted"),
    [
        ("router_build_info", {"version": __version__}, 1),
        ("router_requests_total", {"route": "/v1/chat/completions", "status": "200"}, 1),
        ("router_client_left_total", {"route": "/v1/chat/completions"}, 1),
        ("router_backend_requests_total", {"backend": "a", "status": "200"}, 3),
        ("router_backend_failures_total", {"backend": "a", "reason": "reset"}, 2),
        ("router_retries_total", {"backend": "a", "reason": "reset"}, 1),
        ("router_tokens_total", {"backend": "a", "kind": "prompt"}, 5),
        ("router_tokens_total", {"backend": "a", "kind": "completion"}, 7),
        ("router_stream_events_total", {"backend": "a"}, 11),
        ("router_backend_up", {"backend": "a"}, 1),
        ("router_backend_draining", {"backend": "a"}, 0),
        ("router_backend_circuit_open", {"backend": "a"}, 1),
        ("router_backend_circuit_openings_total", {"backend": "a"}, 1),
        ("router_last_resorts_total", {"backend": "a"}, 4),
        ("router_launch_phase", {"backend": "a", "phase": "ready"}, 1),
        ("router_launch_phase", {"backend": "a", "phase": "leaving"}, 0),
        ("router_launch_starts_total", {"backend": "a"}, 2),
        ("router_launch_start_seconds", {"backend": "a"}, 9),
        ("router_launch_memory_bytes", {"backend": "a"}, 4096),
        ("router_launch_gpu_memory_bytes", {"backend": "a"}, 8192),
        ("router_queued", {}, 3),
        ("router_queue_waiting", {"priority": "low"}, 1),
        ("router_key_queued", {"key": "alice"}, 2),
        ("router_queue_seconds_count", {}, 1),
        ("router_backend_in_flight", {"backend": "a"}, 0),
        ("router_backend_running", {"backend": "a"}, 2),
        ("router_backend_waiting", {"backend": "a"}, 1),
        ("router_backend_capacity", {"backend": "a"}, 4),
        ("router_backend_score", {"backend": "a"}, 0.625),
        ("router_backend_kv_usage", {"backend": "a"}, 0.25),
        ("router_ttft_seconds_count", {"backend": "a"}, 1),
        ("router_ttft_seconds_sum", {"backend": "a"}, 0.02),
        ("router_inter_token_seconds_bucket", {"backend": "a", "le": "0.01"}, 0),
        ("router_inter_token_seconds_bucket", {"backend": "a", "le": "0.02"}, 1),
        ("router_inter_token_seconds_bucket", {"backend": "a", "le": "+Inf"}, 1),
        ("router_key_requests_total", {"key": "alice"}, 1),
        ("router_key_refused_total", {"key": "alice", "reason": "concurrent"}, 1),
        ("router_key_refused_total", {"key": "alice", "reason": "model"}, 2),
        ("router_key_refused_total", {"key": "alice", "reason": "requests"}, 0),
        ("router_key_tokens_total", {"key": "alice", "kind": "prompt"}, 5),
        ("router_key_tokens_total", {"key": "alice", "kind": "completion"}, 7),
        ("router_key_in_flight", {"key": "alice"}, 1),
        ("router_request_duration_seconds_count", {"route": "/v1/chat/completions"}, 1),
    ],
)
def test_what_was_counted_is_what_is_shown(
    name: str, labels: Labels, wanted: float, busy: Pool
) -> None:
    assert value(busy, name, **labels) == wanted


def test_an_empty_pool_can_be_asked() -> None:
    found = families(new_pool())
    assert {row.name for row in METRICS} <= set(found)
    assert found["router_backend_up"].samples == []


def test_figures_are_those_of_the_moment_of_asking() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a")
    scraped(pool, backend, running=2)
    made = metrics(pool, gate(), WAITING)
    pool.lease(backend)
    refuse(pool, backend)
    clock.advance(1.5)
    text = text_of(made)
    assert 'router_backend_in_flight{backend="a"} 1.0' in text
    assert 'router_backend_up{backend="a"} 0.0' in text
    assert 'router_backend_scrape_age_seconds{backend="a"} 1.5' in text


def test_keys_that_come_and_go_with_a_reload_do_so_here() -> None:
    live = used_gate()
    made = metrics(new_pool(), live, WAITING)
    live.adopt(Config(servers=(), settings=Settings(), keys=(KeySpec("bob", b"other"),)))
    text = text_of(made)
    assert "alice" not in text
    assert 'router_key_requests_total{key="bob"} 0.0' in text
    assert 'router_key_refused_total{key="bob",reason="tokens"} 0.0' in text


def test_without_keys_nothing_is_said_of_them() -> None:
    text = text_of(metrics(new_pool(), gate(), WAITING))
    assert not re.search(r"^router_key_", text, re.MULTILINE)


def test_what_a_server_does_not_say_is_left_out() -> None:
    pool = new_pool()
    add_up(pool, "a")
    found = families(pool)
    assert found["router_backend_kv_usage"].samples == []
    assert found["router_backend_scrape_age_seconds"].samples == []


def test_removed_servers_vanish(busy: Pool) -> None:
    busy.lease(busy.backends["a"])
    busy.remove("a")
    for each in families(busy).values():
        if not each.name.startswith("router_launch_"):  # these go with their keepers
            assert all("backend" not in sample.labels for sample in each.samples)


def test_odd_labels_are_escaped() -> None:
    name = 'back\\slash "quoted"\nline ü'
    pool = new_pool()
    pool.add(ServerSpec(url="http://a:1", name=name))
    assert value(pool, "router_backend_up", backend=name) == 0


def test_the_process_itself_is_shown_and_the_format_named() -> None:
    assert "python_info" in families(new_pool())
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


ODD = 'a "quoted" \\ back\nslash, 100 %d, {le="1"}'


@pytest.mark.parametrize("labels", [{}, {"who": "alice"}, {"who": ODD, "other": ""}])
def test_prometheus_reads_what_is_written_whatever_labels_say(labels: dict[str, str]) -> None:
    histogram = Histogram((0.5, 1.0))
    for seconds in (0.1, 0.5, 0.7, 3.0):
        histogram.observe(seconds)
    names, values = tuple(labels), tuple(labels.values())
    rows = [
        MetricRow("gauge", "g", "A gauge.", names, lambda _: [(values, float("inf"))]),
        MetricRow("counter", "c", "A counter.", names, lambda _: [(values, 3)]),
        MetricRow("histogram", "h", "A histogram.", names, lambda _: [(values, histogram)]),
    ]
    sources = Sources(new_pool(), gate(), lambda: WAITING, list)
    text = "".join(piece for row in rows for piece in family(row, sources))
    found = {each.name: each for each in text_string_to_metric_families(text)}
    assert [(each.type, each.documentation) for each in found.values()] == [
        ("gauge", "A gauge."),
        ("counter", "A counter."),
        ("histogram", "A histogram."),
    ]
    assert [(s.labels, s.value) for s in found["g"].samples] == [(labels, float("inf"))]
    assert [(s.name, s.labels, s.value) for s in found["c"].samples] == [("c_total", labels, 3)]
    assert [(s.name, s.labels, s.value) for s in found["h"].samples] == [
        ("h_bucket", {**labels, "le": "0.5"}, 2),
        ("h_bucket", {**labels, "le": "1.0"}, 3),
        ("h_bucket", {**labels, "le": "+Inf"}, 4),
        ("h_count", labels, 4),
        ("h_sum", labels, pytest.approx(4.3)),
    ]


async def test_others_get_their_turn_while_metrics_of_many_servers_are_written() -> None:
    pool = new_pool()
    for number in range(300):
        add_up(pool, f"s{number}")
    made, turns = metrics(pool, gate(), WAITING), 0
    writing = asyncio.ensure_future(made.text())
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
        if turns == 5:
            pool.remove("s7")  # what happens meanwhile is no harm
    assert turns > 10
    assert b'router_backend_up{backend="s8"}' in await writing
