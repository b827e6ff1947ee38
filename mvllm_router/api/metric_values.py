"""Where the values of metrics come from: they are read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mvllm_router import __version__
from mvllm_router.auth import Gate
from mvllm_router.histogram import Histogram
from mvllm_router.launch.keeper import PHASES, Keeper
from mvllm_router.pool import Backend, Pool
from mvllm_router.proxy.queue import Waiting

Value = float | Histogram
Row = tuple[tuple[str, ...], Value]  # label values and the value


@dataclass(frozen=True, slots=True)
class Sources:
    """What metrics are read from, when somebody asks for them.

    `waiting` looks at the queue, `keepers` look after the servers that the router has started.
    """

    pool: Pool
    gate: Gate
    waiting: Callable[[], Waiting]
    keepers: Callable[[], Iterable[Keeper]]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: its kind, name, help, label names, and where its values come from."""

    kind: str
    name: str
    help: str
    labels: tuple[str, ...]
    rows: Callable[[Sources], Iterable[Row]]


def each(value: Callable[[Backend, Pool], Value | None]) -> Callable[[Sources], Iterator[Row]]:
    """Make rows with one value per backend, leaving out those that have none."""

    def rows(sources: Sources) -> Iterator[Row]:
        for backend in sources.pool.backends.values():
            found = value(backend, sources.pool)
            if found is not None:
                yield (backend.name,), found

    return rows


def counts(pick: Callable[[Backend], dict[str, int]]) -> Callable[[Sources], Iterator[Row]]:
    """Make rows with one value per backend and key of one of its counters."""

    def rows(sources: Sources) -> Iterator[Row]:
        for backend in sources.pool.backends.values():
            for key, count in pick(backend).items():
                yield (backend.name, key), count

    return rows


def tokens(sources: Sources) -> Iterator[Row]:
    for backend in sources.pool.backends.values():
        yield (backend.name, "prompt"), backend.stats.prompt_tokens
        yield (backend.name, "completion"), backend.stats.completion_tokens


def runs_at_once(backend: Backend, pool: Pool) -> float | None:
    return round(backend.places.runs) if backend.places.is_known else None


def kv_usage(backend: Backend, pool: Pool) -> float | None:
    return backend.scrape.sample.kv_usage if backend.scrape else None


def scrape_age(backend: Backend, pool: Pool) -> float | None:
    return pool.monotonic() - backend.scrape.at if backend.scrape else None


def by_route(sources: Sources) -> Iterator[Row]:
    for (route, status), count in sources.pool.stats.requests.items():
        yield (route, str(status)), count


def build(sources: Sources) -> Iterator[Row]:
    yield (__version__,), 1.0


def refusals(sources: Sources) -> Iterator[Row]:
    for holder in sources.gate.holders:
        for reason, count in holder.refused.items():
            yield (holder.name, reason), count


def key_tokens(sources: Sources) -> Iterator[Row]:
    for holder in sources.gate.holders:
        yield (holder.name, "prompt"), holder.prompt_tokens
        yield (holder.name, "completion"), holder.completion_tokens


def key_queued(sources: Sources) -> Iterator[Row]:
    waiting = sources.waiting().by_key
    for holder in sources.gate.holders:
        yield (holder.name,), waiting.get(holder.name, 0)


def each_started(value: Callable[[Keeper], float | None]) -> Callable[[Sources], Iterator[Row]]:
    """Make rows with one value per server that the router starts, as `each` does."""

    def rows(sources: Sources) -> Iterator[Row]:
        for keeper in sources.keepers():
            found = value(keeper)
            if found is not None:
                yield (keeper.name,), found

    return rows


def phases(sources: Sources) -> Iterator[Row]:
    for keeper in sources.keepers():
        for phase in PHASES:
            yield (keeper.name, phase), float(keeper.phase == phase)
