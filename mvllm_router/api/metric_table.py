"""The table of the router's metrics: what each is called, what it means, where its values are.

The data path only adds to integers; the documentation is checked against this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mvllm_router import __version__
from mvllm_router.auth import Gate
from mvllm_router.histogram import Histogram
from mvllm_router.launch.keeper import PHASES, Keeper
from mvllm_router.pool import Backend, Pool

Value = float | Histogram
Row = tuple[tuple[str, ...], Value]  # label values and the value


@dataclass(frozen=True, slots=True)
class Sources:
    """What metrics are read from, when somebody asks for them.

    `waiting` counts the queue, `keepers` look after the servers that the router has started.
    """

    pool: Pool
    gate: Gate
    waiting: Callable[[], int]
    keepers: Callable[[], Iterable[Keeper]]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: its kind, name, help, label names, and where its values come from."""

    kind: str
    name: str
    help: str
    labels: tuple[str, ...]
    rows: Callable[[Sources], Iterable[Row]]


def _each(value: Callable[[Backend, Pool], Value | None]) -> Callable[[Sources], Iterator[Row]]:
    """Make rows with one value per backend, leaving out those that have none."""

    def rows(sources: Sources) -> Iterator[Row]:
        for backend in sources.pool.backends.values():
            found = value(backend, sources.pool)
            if found is not None:
                yield (backend.name,), found

    return rows


def _counts(pick: Callable[[Backend], dict[str, int]]) -> Callable[[Sources], Iterator[Row]]:
    """Make rows with one value per backend and key of one of its counters."""

    def rows(sources: Sources) -> Iterator[Row]:
        for backend in sources.pool.backends.values():
            for key, count in pick(backend).items():
                yield (backend.name, key), count

    return rows


def _tokens(sources: Sources) -> Iterator[Row]:
    for backend in sources.pool.backends.values():
        yield (backend.name, "prompt"), backend.stats.prompt_tokens
        yield (backend.name, "completion"), backend.stats.completion_tokens


def _kv_usage(backend: Backend, pool: Pool) -> float | None:
    return backend.scrape.sample.kv_usage if backend.scrape else None


def _scrape_age(backend: Backend, pool: Pool) -> float | None:
    return pool.monotonic() - backend.scrape.at if backend.scrape else None


def _by_route(sources: Sources) -> Iterator[Row]:
    for (route, status), count in sources.pool.stats.requests.items():
        yield (route, str(status)), count


def _build(sources: Sources) -> Iterator[Row]:
    yield (__version__,), 1.0


def _refusals(sources: Sources) -> Iterator[Row]:
    for holder in sources.gate.holders:
        for reason, count in holder.refused.items():
            yield (holder.name, reason), count


def _key_tokens(sources: Sources) -> Iterator[Row]:
    for holder in sources.gate.holders:
        yield (holder.name, "prompt"), holder.prompt_tokens
        yield (holder.name, "completion"), holder.completion_tokens


def _each_started(value: Callable[[Keeper], float | None]) -> Callable[[Sources], Iterator[Row]]:
    """Make rows with one value per server that the router starts, as `_each` does."""

    def rows(sources: Sources) -> Iterator[Row]:
        for keeper in sources.keepers():
            found = value(keeper)
            if found is not None:
                yield (keeper.name,), found

    return rows


def _phases(sources: Sources) -> Iterator[Row]:
    for keeper in sources.keepers():
        for phase in PHASES:
            yield (keeper.name, phase), float(keeper.phase == phase)


METRICS: tuple[MetricRow, ...] = (
    MetricRow(
        "gauge", "router_build_info", "1, with the version as a label.", ("version",), _build
    ),
    MetricRow(
        "counter",
        "router_requests",
        "Requests answered, by route and HTTP status.",
        ("route", "status"),
        _by_route,
    ),
    MetricRow(
        "histogram",
        "router_request_duration_seconds",
        "Seconds from a request's arrival to the last byte of its answer.",
        ("route",),
        lambda sources: [((route,), h) for route, h in sources.pool.stats.duration.items()],
    ),
    MetricRow(
        "counter",
        "router_client_left",
        "Requests whose client left before the end of the answer.",
        ("route",),
        lambda sources: [((route,), n) for route, n in sources.pool.stats.client_left.items()],
    ),
    MetricRow(
        "gauge",
        "router_in_flight",
        "Requests being relayed or waiting for a server.",
        (),
        lambda sources: [((), sources.pool.stats.in_flight)],
    ),
    MetricRow(
        "gauge",
        "router_connections",
        "Clients that are connected.",
        (),
        lambda sources: [((), sources.pool.stats.connections)],
    ),
    MetricRow(
        "counter",
        "router_connections_refused",
        "Connections of clients that were refused because there were too many.",
        (),
        lambda sources: [((), sources.pool.stats.refused)],
    ),
    MetricRow(
        "gauge",
        "router_queued",
        "Requests that wait until a server has room.",
        (),
        lambda sources: [((), sources.waiting())],
    ),
    MetricRow(
        "histogram",
        "router_queue_seconds",
        "Seconds that requests waited until a server had room, or they gave up.",
        (),
        lambda sources: [((), sources.pool.stats.queued)],
    ),
    MetricRow(
        "counter",
        "router_backend_requests",
        "Answers that a server gave to clients, by HTTP status.",
        ("backend", "status"),
        _counts(lambda backend: {str(k): n for k, n in backend.stats.requests.items()}),
    ),
    MetricRow(
        "counter",
        "router_backend_failures",
        "Attempts that a server failed, by reason.",
        ("backend", "reason"),
        _counts(lambda backend: backend.stats.failures),
    ),
    MetricRow(
        "counter",
        "router_retries",
        "Attempts that were moved from a server to another, by reason.",
        ("backend", "reason"),
        _counts(lambda backend: backend.stats.retries),
    ),
    MetricRow(
        "histogram",
        "router_ttft_seconds",
        "Seconds from a request's arrival to the first event of its stream.",
        ("backend",),
        _each(lambda backend, pool: backend.stats.ttft),
    ),
    MetricRow(
        "histogram",
        "router_inter_token_seconds",
        "Seconds between the events of a stream; an event may hold several tokens.",
        ("backend",),
        _each(lambda backend, pool: backend.stats.inter_token),
    ),
    MetricRow(
        "histogram",
        "router_backend_duration_seconds",
        "Seconds from a request's arrival to the last byte, by the server that answered.",
        ("backend",),
        _each(lambda backend, pool: backend.stats.duration),
    ),
    MetricRow(
        "counter",
        "router_tokens",
        "Tokens by kind, as the usage figures in the answers say; answers without any count 0.",
        ("backend", "kind"),
        _tokens,
    ),
    MetricRow(
        "counter",
        "router_stream_events",
        "Pieces of streams passed on.",
        ("backend",),
        _each(lambda backend, pool: backend.stats.events),
    ),
    MetricRow(
        "gauge",
        "router_backend_up",
        "1 when health checks find the server well, whether it gets requests or not.",
        ("backend",),
        _each(lambda backend, pool: float(backend.is_up)),
    ),
    MetricRow(
        "gauge",
        "router_backend_draining",
        "1 while an operator drains the server.",
        ("backend",),
        _each(lambda backend, pool: float(backend.draining)),
    ),
    MetricRow(
        "gauge",
        "router_backend_circuit_open",
        "1 when the circuit of the server is open or half-open.",
        ("backend",),
        _each(lambda backend, pool: float(not backend.circuit.is_closed)),
    ),
    MetricRow(
        "counter",
        "router_backend_circuit_openings",
        "How often the circuit of the server opened.",
        ("backend",),
        _each(lambda backend, pool: backend.circuit.openings),
    ),
    MetricRow(
        "counter",
        "router_last_resorts",
        "Requests sent to a server that was not well, because none was better.",
        ("backend",),
        _each(lambda backend, pool: backend.stats.last_resorts),
    ),
    MetricRow(
        "gauge",
        "router_backend_in_flight",
        "Requests that this router has on the server.",
        ("backend",),
        _each(lambda backend, pool: backend.in_flight),
    ),
    MetricRow(
        "gauge",
        "router_backend_running",
        "Requests that run on the server, whoever sent them.",
        ("backend",),
        _each(lambda backend, pool: backend.load(pool.monotonic()).running),
    ),
    MetricRow(
        "gauge",
        "router_backend_waiting",
        "Requests that wait in the server.",
        ("backend",),
        _each(lambda backend, pool: backend.load(pool.monotonic()).waiting),
    ),
    MetricRow(
        "gauge",
        "router_backend_capacity",
        "Requests that the server runs at once, times its weight.",
        ("backend",),
        _each(lambda backend, pool: backend.capacity),
    ),
    MetricRow(
        "gauge",
        "router_backend_score",
        "(running + 0.5 * waiting) / capacity; the lowest is chosen.",
        ("backend",),
        _each(lambda backend, pool: backend.load(pool.monotonic()).score),
    ),
    MetricRow(
        "gauge",
        "router_backend_kv_usage",
        "Share of the KV cache in use, 0 to 1, where the server says it.",
        ("backend",),
        _each(_kv_usage),
    ),
    MetricRow(
        "gauge",
        "router_backend_scrape_age_seconds",
        "Seconds since the server's metrics were read.",
        ("backend",),
        _each(_scrape_age),
    ),
    MetricRow(
        "gauge",
        "router_launch_phase",
        "1 for the phase that a server which the router starts itself is in, 0 for the others.",
        ("backend", "phase"),
        _phases,
    ),
    MetricRow(
        "counter",
        "router_launch_starts",
        "How often such a server was started; every start but the first is a restart.",
        ("backend",),
        _each_started(lambda keeper: keeper.life.starts),
    ),
    MetricRow(
        "gauge",
        "router_launch_start_seconds",
        "Seconds that its last start took until it was ready.",
        ("backend",),
        _each_started(lambda keeper: keeper.took),
    ),
    MetricRow(
        "gauge",
        "router_launch_memory_bytes",
        "Resident memory of its processes, at most 10 s old; what they share counts for each.",
        ("backend",),
        _each_started(lambda keeper: keeper.memory),
    ),
    MetricRow(
        "counter",
        "router_key_requests",
        "Requests that were let in with a client's key.",
        ("key",),
        lambda sources: [((one.name,), one.requests) for one in sources.gate.holders],
    ),
    MetricRow(
        "counter",
        "router_key_refused",
        "Requests that a limit of the key forbade, by reason.",
        ("key", "reason"),
        _refusals,
    ),
    MetricRow(
        "counter",
        "router_key_tokens",
        "Tokens by kind that a key's requests cost, as the usage figures in the answers say.",
        ("key", "kind"),
        _key_tokens,
    ),
    MetricRow(
        "gauge",
        "router_key_in_flight",
        "Requests of the key that were let in and are not finished.",
        ("key",),
        lambda sources: [((one.name,), one.in_flight) for one in sources.gate.holders],
    ),
)
