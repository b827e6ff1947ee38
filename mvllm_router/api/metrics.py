"""GET /metrics: Prometheus text, made from the plain counts when it is asked for.

The rows of `METRICS` are written here, a family at a time, since with hundreds of servers they
are tens of thousands of lines, and the event loop has other work in between. What is told of
the process comes from prometheus-client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from mvllm_router.api.metric_table import METRICS
from mvllm_router.api.metric_values import MetricRow, Sources, Value
from mvllm_router.histogram import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# What has to be escaped in the value of a label.
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
# Sets of labels that are remembered as text: there are a few for each server.
_REMEMBERED = 4096
# Pieces, each a line or a histogram, after which others get their turn.
_AT_ONCE = 250


class Metrics:
    """Writes the router's metrics and those of its process."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    async def text(self) -> bytes:
        """Return all of them in Prometheus' text format 0.0.4."""
        pieces: list[str] = []
        for row in METRICS:
            for piece in family(row, self._sources):
                pieces.append(piece)
                if not len(pieces) % _AT_ONCE:
                    await asyncio.sleep(0)
        # It counts open files one by one: with a thousand streams, the loop would stop for 10 ms.
        process = await asyncio.to_thread(generate_latest, self._process)
        return "".join(pieces).encode() + process


def family(row: MetricRow, sources: Sources) -> Iterator[str]:
    """Yield what Prometheus gets of one metric; some have several lines in one piece."""
    name = f"{row.name}_total" if row.kind == "counter" else row.name
    yield f"# HELP {name} {row.help}\n# TYPE {name} {row.kind}\n"
    for values, value in list(row.rows(sources)):
        labels = _labels(row.labels, values)
        if isinstance(value, Histogram):
            yield _histogram_lines(name, labels, value)
        else:
            yield (
                f"{name}{{{labels}}} {_number(value)}\n" if labels else f"{name} {_number(value)}\n"
            )


@lru_cache(_REMEMBERED)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = zip(names, values, strict=True)
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs])


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> str:
    """Return all lines of one histogram; formatted at once, since there are thousands of them."""
    counts = tuple(accumulate(histogram.counts))
    braces = f"{{{labels}}}" if labels else ""
    return (
        _buckets(name, labels, histogram.bounds) % counts
        + f"{name}_count{braces} {counts[-1]}.0\n{name}_sum{braces} {_number(histogram.total)}\n"
    )


@lru_cache(_REMEMBERED)
def _buckets(name: str, labels: str, bounds: tuple[float, ...]) -> str:
    """Return a format for the counts in the buckets of a histogram."""
    begin = f"{name}_bucket{{{labels}{',' if labels else ''}".replace("%", "%%")
    return "".join([f'{begin}le="{bound}"}} %d.0\n' for bound in (*bounds, "+Inf")])


def _number(value: Value) -> str:
    return repr(float(value)).replace("inf", "+Inf")  # type: ignore[arg-type]
