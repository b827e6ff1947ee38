"""GET /metrics: Prometheus text, made from the plain counts when it is asked for.

prometheus-client prints the rows of `METRICS` here, in a registry of the router's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mvllm_router.api.metric_table import METRICS, MetricRow, Sources
from mvllm_router.auth import Gate
from mvllm_router.histogram import Histogram
from mvllm_router.pool import Pool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class LiveCollector(Collector):
    """Reads the pool and the gate when Prometheus asks."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        return []  # so that registering reads nothing

    def collect(self) -> Iterator[Metric]:
        for row in METRICS:
            yield _family(row, self._sources)


def registry(pool: Pool, gate: Gate, waiting: Callable[[], int]) -> CollectorRegistry:
    """Return a registry with the router's metrics and those of its process.

    Args:
        waiting: tells how many requests wait in the queue.
    """
    made = CollectorRegistry(auto_describe=False)
    made.register(LiveCollector(Sources(pool, gate, waiting)))
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    return made


def metrics_text(made: CollectorRegistry) -> bytes:
    return generate_latest(made)


def _family(row: MetricRow, sources: Sources) -> Metric:
    if row.kind == "histogram":
        histograms = HistogramMetricFamily(row.name, row.help, labels=row.labels)
        for labels, value in row.rows(sources):
            assert isinstance(value, Histogram)
            histograms.add_metric(labels, buckets=value.cumulative(), sum_value=value.total)
        return histograms
    make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = make(row.name, row.help, labels=row.labels)
    for labels, value in row.rows(sources):
        assert not isinstance(value, Histogram)
        family.add_metric(labels, value)
    return family
